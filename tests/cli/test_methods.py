"""Flags from the options of a method, whatever their types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from jsonargparse import ArgumentParser

from lightning_cnnvis.cli.methods import add_options, options_of
from lightning_cnnvis.methods.method import dataclass_in


@dataclass(frozen=True)
class Inner:
    """What an option holds.

    Args:
        strength: How strong.
        sharp: Whether it is sharp.
    """

    strength: float = 0.5
    sharp: bool = False


@dataclass(frozen=True)
class Options:
    """Options of every kind.

    Args:
        classes: Names or numbers.
        target: A name or a number.
        window: Height and width.
        scales: Any number of them.
        widths: A list.
        threshold: A number.
        inner: What it holds.
    """

    classes: Sequence[int | str] | None = None
    target: int | str | None = None
    window: tuple[int, int] = (3, 4)
    scales: tuple[float, ...] | None = None
    widths: list[int] = field(default_factory=lambda: [1, 2])
    threshold: int | float = 1
    inner: Inner | None = None


@dataclass(frozen=True)
class Stronger:
    """An option that holds others than the usual ones.

    Args:
        count: How many.
        inner: What it holds.
    """

    count: int
    inner: Inner = Inner(strength=2.0)


def typed(text: str, options=Options, **others):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    add_options(parser, options)
    return options_of(options, parser.parse_args(text.split()), **others)


def test_nothing_typed_is_the_defaults():
    assert typed("") == Options()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("--classes 0 ship", "classes", [0, "ship"]),
        ("--classes ²", "classes", ["²"]),
        ("--target 3", "target", 3),
        ("--target cat", "target", "cat"),
        ("--window 5 6", "window", (5, 6)),
        ("--scales 0.5 1 2", "scales", (0.5, 1.0, 2.0)),
        ("--widths 7", "widths", [7]),
        ("--threshold 0.25", "threshold", 0.25),
        ("--threshold 2", "threshold", 2),
        ("--strength 0.1", "inner", Inner(strength=0.1)),
        ("--sharp true", "inner", Inner(sharp=True)),
    ],
)
def test_what_is_typed_has_the_type_of_the_option(text, name, value):
    options = typed(text)
    assert getattr(options, name) == value
    assert type(getattr(options, name)) is type(value)


def test_a_number_that_is_a_class_name_is_a_name():
    assert typed("--classes 0 7", class_names=["7"]).classes == [0, "7"]


def test_a_file_of_options(tmp_path):
    (tmp_path / "options.yaml").write_text("classes: [0, ship]\nwindow: [1, 2]\n")
    options = typed(f"--config {tmp_path / 'options.yaml'}")
    assert (options.classes, options.window) == ([0, "ship"], (1, 2))


def test_the_flags_of_an_option_begin_where_the_option_does():
    assert typed("--count 1", Stronger) == Stronger(1)
    assert typed("--count 1 --sharp true", Stronger).inner == Inner(strength=2.0, sharp=True)


@pytest.mark.parametrize("text", ["--window 5", "--threshold much", "--widths a"])
def test_what_cannot_be(text):
    with pytest.raises(Exception, match=r"window|threshold|widths|expected 2"):
        typed(text)


def test_an_option_without_a_default_is_needed():
    with pytest.raises(Exception, match="count"):
        typed("", Stronger)


@pytest.mark.parametrize(("hint", "found"), [(Inner, Inner), (Inner | None, Inner), (list[Inner], None), (int, None)])
def test_a_list_of_dataclasses_is_none_itself(hint, found):
    assert dataclass_in(hint) is found
