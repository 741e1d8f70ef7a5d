"""Text of others on a terminal."""

from __future__ import annotations

import pytest

from lightning_cnnvis.text import printable


@pytest.mark.parametrize(
    "command", ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "a\rb", "a\bb", "\u202egnp.exe", "\u200b", "\u2028", "\ud800"]
)
def test_what_commands_a_terminal_is_escaped(command):
    shown = printable(f"conv{command}1")
    assert shown.isprintable()
    assert shown.startswith("conv")


@pytest.mark.parametrize("text", ["layer1.0.conv1", "größer · 3×3", "日本語", "two\nlines\t", "🦩"])
def test_other_text_stays(text):
    assert printable(text) == text
