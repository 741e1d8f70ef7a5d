"""Files, on the disk or in a remote store, that appear when they are complete."""

from __future__ import annotations

import os
import posixpath
from contextlib import suppress
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import strip_protocol, url_to_fs


def located(location: str | Path) -> Path | str:
    """Tells local files and folders from remote ones. Nothing is accessed.

    Args:
        location: A path, or a URL such as ``"s3://bucket/run"`` or ``"file:///run"``.

    Returns:
        A path if it is local, else the URL.

    Example:
        >>> located("memory://run"), located("file:///run").as_posix()
        ('memory://run', '/run')
    """
    protocol, is_url, _ = str(location).partition("://")
    if not is_url:
        return Path(location)
    return Path(strip_protocol(str(location))) if protocol == "file" else str(location)


def join(location: Path | str, *parts: str | os.PathLike[str]) -> Path | str:
    """Joins a location and the parts of a relative path.

    Args:
        location: A local path, or the URL of a remote folder.
        *parts: The parts, separated by ``/`` in a URL.

    Returns:
        A path if the location is one, else a URL.

    Example:
        >>> join("s3://bucket/run", "cnnvis", "a.png")
        's3://bucket/run/cnnvis/a.png'
    """
    if isinstance(location, Path):
        return location.joinpath(*parts)
    return posixpath.join(location, *(os.fspath(part) for part in parts))


def write(location: str | Path, data: bytes) -> None:
    """Writes a file such that nobody reads half of it; missing folders are made.

    On the disk, and in remote stores that can rename, it is written under a temporary name and then renamed. Object
    stores (S3, Google Cloud Storage, Azure) cannot rename, but publish an object only when it is complete.

    Args:
        location: A path, or a URL that fsspec knows.
        data: The content.

    Raises:
        ImportError: If fsspec needs a package for the URL that is missing.
        OSError: If the file cannot be written; an error of the store's own kind for some remote ones.
    """
    location = located(location)
    if isinstance(location, str):
        _write_remote(location, data)
        return
    location.parent.mkdir(parents=True, exist_ok=True)
    temporary = location.with_name(_temporary(location.name))
    try:
        temporary.write_bytes(data)
        os.replace(temporary, location)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sweep(folder: Path | str) -> None:
    """Removes the half-written files that a killed process left; what cannot be removed does no harm.

    Args:
        folder: A local folder, or the URL of a remote one.
    """
    if isinstance(folder, Path):
        with suppress(OSError):
            for part in folder.rglob(".*.part"):
                part.unlink(missing_ok=True)
        return
    with suppress(Exception):  # each store has errors of its own
        store, path = url_to_fs(folder)
        if _renames(store):
            for name in store.find(path):
                if _is_temporary(posixpath.basename(name)):
                    store.rm_file(name)


def _write_remote(url: str, data: bytes) -> None:
    store, path = url_to_fs(url)
    folder, name = posixpath.split(path)
    store.makedirs(folder, exist_ok=True)
    if not _renames(store):
        store.pipe_file(path, data)
        return
    temporary = posixpath.join(folder, _temporary(name))
    try:
        store.pipe_file(temporary, data)
        store.mv(temporary, path)
    except BaseException:
        with suppress(Exception):  # which would hide the first
            store.rm_file(temporary)
        raise


def _renames(store: Any) -> bool:
    """Whether a store moves a file in one step. What fsspec does for those that cannot is to copy and delete."""
    protocols = {store.protocol} if isinstance(store.protocol, str) else set(store.protocol)
    # gcsfs has a `mv` of its own, but in ordinary buckets that copies and deletes, too
    return type(store).mv is not AbstractFileSystem.mv and not protocols & {"gs", "gcs"}


def _temporary(name: str) -> str:
    return f".{name}.{os.getpid()}.part"


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".part")
