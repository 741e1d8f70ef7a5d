"""What ``--help`` looks like."""

from __future__ import annotations

import re
from argparse import SUPPRESS, Action

from jsonargparse import DefaultHelpFormatter, Namespace


class PlainHelp(DefaultHelpFormatter):
    """Help in words: without the types of Python, and with a default where there is something to say.

    The texts of many options are those of docstrings, whose marks are taken off. Descriptions and epilogs keep their
    lines.
    """

    def _get_help_string(self, action: Action) -> str:
        if "--print_config" in action.option_strings:
            return "Print the options as YAML, to keep for --config, and exit."
        text = plain(action.help or "")
        default = action.default
        nothing = (
            default is None or default is False or default == SUPPRESS or isinstance(default, dict | list | Namespace)
        )
        if nothing or "efault" in text or not action.option_strings:
            return text
        return f"{text} (default: %(default)s)"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return str(super()._fill_text(text, width, indent))
        return "".join(indent + line for line in text.splitlines(keepends=True))


def plain(text: str) -> str:
    """A docstring's sentence as one for the terminal.

    Example:
        >>> plain('``"paper"`` or ``"modern"``; see `ImageClassifier`. None takes what `PhotoCrops` has.')
        'paper or modern. null takes what PhotoCrops has.'
    """
    text = re.sub(r"[;,]? see `[^`]+`(?=[.;,])", "", text)
    text = re.sub(r'``"?(.*?)"?``', r"\1", text)
    text = re.sub(r"`(\w[\w.]*)`", r"\1", text)
    # what one types
    return re.sub(r"\bNone\b", "null", text)
