"""Errors on the command line: a sentence on standard error, and exit status 2."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from lightning_cnnvis.text import printable

USER_ERROR = 2
"""Exit status of an error that the user can fix."""


def fail(message: object) -> NoReturn:
    """Ends the program with a message on standard error.

    Args:
        message: What is wrong and what to do; line breaks and repeated spaces are collapsed.

    Raises:
        SystemExit: Always, with status 2.
    """
    say(f"error: {message}")
    raise SystemExit(USER_ERROR)


def say(message: object) -> None:
    """Prints a sentence on standard error. Names in it may be anybody's: none of them commands the terminal.

    Args:
        message: The sentence; line breaks and repeated spaces are collapsed.
    """
    print(printable(f"lightning-cnnvis: {' '.join(str(message).split())}"), file=sys.stderr)


def put(result: object) -> None:
    """Prints a result on standard output, as fit for a terminal as `say` does.

    Args:
        result: The result; line breaks stay.
    """
    print(printable(result))


def readable(message: str) -> str:
    r"""Extracts from an error message of jsonargparse the part that helps the user.

    Args:
        message: The message.

    Returns:
        The option, its value and the values that it takes; the whole message if its form is unknown.

    Examples:
        >>> readable('Parser key "k": Expected a <class \'int\'>. Got value: many')
        '--k many: it must be an int.'
        >>> readable('Parser key "rule": Expected a typing.Literal[\'guided\', \'gradient\']. Got value: x')
        '--rule x: it must be one of guided, gradient.'
    """
    errors = re.search(r"Errors:\n(.*)\n\s*Given value type", message, re.DOTALL)
    reasons = re.split(r"^\s*- ", errors[1], flags=re.MULTILINE) if errors else []
    telling = [reason.strip() for reason in reasons if reason.strip() and not reason.startswith("Expected a <class")]
    if telling:
        return "\n".join(telling)
    key = re.match(r'Parser key "([\w.]+)"', message)
    given = re.search(r"(?:Given|Got) value: (.*)$", message.strip())
    kinds = [kind for kind in re.findall(r"Expected an? <class '(\w+)'>", message) if kind != "NoneType"]
    choices = re.search(r"Expected a typing\.Literal\[(.*?)\]", message)
    if not (key and given and (kinds or choices)):
        return message
    wanted = " or ".join(map(_with_article, kinds)) if kinds else f"one of {choices[1]}".replace("'", "")  # type: ignore[index]
    return f"--{key[1]} {given[1]}: it must be {wanted}."


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def check_writable(folder: Path, option: str = "--output") -> None:
    """Checks that files can be written to a folder, without leaving one.

    Args:
        folder: The folder, which need not exist yet.
        option: The option that sets the folder, for the error.

    Raises:
        OSError: If the folder, or the nearest one above it that exists, is not writable.
    """
    nearest = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OSError(
            f"The output folder {folder} cannot be written ({error.strerror}: {nearest}). Choose another with {option}."
        ) from error
