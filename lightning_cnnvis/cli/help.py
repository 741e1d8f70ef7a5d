"""Format of the pages that ``--help`` prints."""

from __future__ import annotations

import re
from argparse import SUPPRESS, Action

from jsonargparse import DefaultHelpFormatter, Namespace


class PlainHelp(DefaultHelpFormatter):
    """Formats help in plain words: without Python types, and with a default only where it is informative.

    Many options take their texts from docstrings, whose markup is removed. Descriptions and epilogs keep their line
    breaks.
    """

    def _get_help_string(self, action: Action) -> str:
        if "--print_config" in action.option_strings:
            return "Print the options as YAML, for use with --config, and exit."
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
    """Turns a docstring's sentence into one for the terminal.

    Args:
        text: The sentence, with its markup.

    Returns:
        The sentence without markup and references, with ``null``, as typed on the command line, in place of None.

    Examples:
        >>> plain('``"paper"`` or ``"modern"``; see `ImageClassifier`. None takes the default of `PhotoCrops`.')
        'paper or modern. null takes the default of PhotoCrops.'
    """
    text = re.sub(r"[;,]? see `[^`]+`(?=[.;,])", "", text)
    text = re.sub(r'``"?(.*?)"?``', r"\1", text)
    text = re.sub(r"`(\w[\w.]*)`", r"\1", text)
    # as typed on the command line
    return re.sub(r"\bNone\b", "null", text)
