"""What a tag is called where it is written: names that lead nowhere else, and that files and loggers take."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath


def tag_path(tag: str) -> PurePosixPath:
    """The relative folder for the pictures of a tag; safe on every file system.

    The parts between slashes become folders. What could leave the folder or is not allowed in a file name is
    replaced, and a short hash is appended then, so that distinct tags keep distinct folders.

    Args:
        tag: Any text, such as ``"deconvnet/features.3"``.

    Returns:
        A relative path without ``..``.

    Example:
        >>> print(tag_path("deconvnet/features.3"))
        deconvnet/features.3
        >>> print(tag_path("class/../<b>cat</b>"))
        class/_-5ec1f7e7/_b_cat_-9543b436/b_-08a37669
    """
    # no deeper than four folders, however many slashes a class name has
    return PurePosixPath(*(_safe_part(part) for part in tag.split("/", 3)))


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
    """What a part was changed to; with a hash if it was, so that distinct parts stay distinct."""
    if safe == part and safe:
        return safe
    return f"{safe or '_'}-{hashlib.sha256(part.encode(errors='surrogatepass')).hexdigest()[:8]}"


_UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\\]+")


def logged_name(tag: str) -> str:
    """The name of a tag in a logger, which may make a path of it.

    Without control characters and broken unicode, which a log file cannot hold; and every part between slashes is a
    name that is not too long, and leads nowhere else. An ordinary tag stays as it is.

    Example:
        >>> logged_name("class_probability/tench, Tinca tinca")
        'class_probability/tench, Tinca tinca'
        >>> logged_name("class_probability/../cat")
        'class_probability/_-5ec1f7e7/cat'
    """
    return "/".join(_logged_part(part) for part in tag.split("/"))


_NOT_MLFLOWS = re.compile(r"[^\w. -]+", re.ASCII)


def mlflow_name(tag: str) -> str:
    """The name of a tag in MLflow, which takes letters and digits of ASCII only, and makes a path of it.

    Example:
        >>> mlflow_name("class_probability/tench, Tinca tinca")
        'class_probability/tench_ Tinca tinca-62639ff2'
    """
    return "/".join(_told_apart(_NOT_MLFLOWS.sub("_", _logged_part(part)), part) for part in tag.split("/"))


def _logged_part(part: str) -> str:
    safe = _shortened(_UNREADABLE.sub(" ", part.encode(errors="replace").decode()))
    return _told_apart(safe if safe.strip(" .") else "", part)
