"""Sanitise tags: valid names of files and in loggers, without path traversal."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath


def tag_path(tag: str) -> PurePosixPath:
    """Makes the relative folder for the pictures of a tag; safe on every file system.

    The parts between slashes become folders. What could leave the folder or is not allowed in a file name is
    replaced, and a short hash is appended then, so that distinct tags keep distinct folders.

    Args:
        tag: Any text, such as ``"deconvnet/features.3"``.

    Returns:
        A relative path without ``..``.

    Examples:
        >>> print(tag_path("deconvnet/features.3"))
        deconvnet/features.3
        >>> print(tag_path("class/../<b>cat</b>"))
        class/_-5ec1f7e7/_b_cat_-9543b436/b_-08a37669
    """
    # no deeper than four folders, however many slashes a class name has
    return PurePosixPath(*(_safe_part(part) for part in tag.split("/", 3)))


def epoch_file(tag: str, step: int, suffix: str) -> PurePosixPath:
    """Names the file of a picture or an animation.

    Args:
        tag: Any text.
        step: The epoch, counted from 1.
        suffix: ``".png"`` or ``".gif"``.

    Returns:
        A relative path without ``..``.

    Examples:
        >>> print(epoch_file("deconvnet/relu1", 5, ".png"))
        deconvnet/relu1/epoch_0005.png
    """
    return tag_path(tag) / f"epoch_{step:04d}{suffix}"


def table_file(tag: str) -> PurePosixPath:
    """Names the file of a table.

    Args:
        tag: Any text.

    Returns:
        A relative path without ``..``.

    Examples:
        >>> print(table_file("inversion/accuracy"))
        inversion/accuracy.csv
    """
    path = tag_path(tag)
    return path.with_name(f"{path.name}.csv")


def document_file(name: str) -> PurePosixPath:
    """Names a file of text.

    Args:
        name: Any text, with the suffix.

    Returns:
        A relative path without ``..``.

    Examples:
        >>> print(document_file("diagnosis/findings.json"))
        diagnosis/findings.json
    """
    return tag_path(name)


def as_markdown(lines: Sequence[str]) -> str:
    r"""Writes sentences as Markdown, in which names stay as they are.

    Args:
        lines: The sentences; the first sums the others up.

    Returns:
        The first as a paragraph, the others as a list.

    Examples:
        >>> print(as_markdown(["There are two.", "Layer 'a_b' is <dead>."]))
        There are two.
        <BLANKLINE>
        - Layer 'a\_b' is \<dead>.
        <BLANKLINE>
    """
    escaped = [_MARKDOWN.sub(r"\\\g<0>", line) for line in lines]
    return "\n\n".join([*escaped[:1], "\n".join(f"- {line}" for line in escaped[1:])]).rstrip() + "\n"


_MARKDOWN = re.compile(r"[\\`*_{}\[\]<#|!~]")
_UNSAFE = re.compile(r"[^\w .,+=@()-]+")
_RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
_MAX_BYTES = 120


def _safe_part(part: str) -> str:
    safe = _UNSAFE.sub("_", unicodedata.normalize("NFC", part))
    safe = _shortened(safe).strip(" .")
    if _RESERVED_ON_WINDOWS.fullmatch(safe):
        safe = f"_{safe}"
    return _told_apart(safe, part)


def _shortened(part: str) -> str:
    return part.encode()[:_MAX_BYTES].decode(errors="ignore")


def _told_apart(safe: str, part: str) -> str:
    """The safe name of a part, with a hash if it differs from the part: distinct parts stay distinct."""
    if safe == part and safe:
        return safe
    return f"{safe or '_'}-{hashlib.sha256(part.encode(errors='surrogatepass')).hexdigest()[:8]}"


_UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\\]+")


GROUP = "cnnvis"
"""The first part of every name in a logger, which groups by it."""


def _grouped(tag: str) -> str:
    return tag if tag.startswith(f"{GROUP}/") else f"{GROUP}/{tag}"


def logged_name(tag: str) -> str:
    """Makes the name of a tag in a logger, which may take it for a path. All are in one group, ``cnnvis``.

    The name holds no control characters and no broken Unicode, which log files cannot store. Every part between slashes
    is shortened to a valid file name, and leads nowhere else. Otherwise, a tag stays as it is.

    Args:
        tag: Any text.

    Returns:
        The name. Distinct tags have distinct names, if none begins with the group.

    Examples:
        >>> logged_name("class_probability/tench, Tinca tinca")
        'cnnvis/class_probability/tench, Tinca tinca'
        >>> logged_name("class_probability/../cat")
        'cnnvis/class_probability/_-5ec1f7e7/cat'
    """
    return "/".join(_logged_part(part) for part in _grouped(tag).split("/"))


_NOT_MLFLOWS = re.compile(r"[^\w. -]+", re.ASCII)


def mlflow_name(tag: str) -> str:
    """Makes the name of a tag in MLflow, which accepts only ASCII letters and digits, and makes a path of it.

    Args:
        tag: Any text.

    Returns:
        The name. Distinct tags have distinct names, if none begins with the group.

    Examples:
        >>> mlflow_name("class_probability/tench, Tinca tinca")
        'cnnvis/class_probability/tench_ Tinca tinca-62639ff2'
    """
    parts = _grouped(tag).split("/")
    return "/".join(_told_apart(_NOT_MLFLOWS.sub("_", _logged_part(part)), part) for part in parts)


def _logged_part(part: str) -> str:
    safe = _shortened(_UNREADABLE.sub(" ", part.encode(errors="replace").decode()))
    return _told_apart(safe if safe.strip(" .") else "", part)
