"""Text from files and networks of others, made fit to be printed."""

from __future__ import annotations

import unicodedata


def printable(text: object) -> str:
    r"""Replaces what a terminal would take for a command, or what would make a text read as another, by its escape.

    Args:
        text: The text, or whatever ``str()`` makes one of.

    Returns:
        The text. Line breaks and tabs stay; other control characters, marks that turn the direction of writing or are
        invisible, and broken Unicode become ``\x1b``, ``\u202e`` and so on.

    Examples:
        >>> print(printable("conv\x1b[2J1"))
        conv\x1b[2J1
        >>> printable("größer\n\t日本")
        'größer\n\t日本'
    """
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNSAFE else _escaped(c) for c in str(text))


_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
