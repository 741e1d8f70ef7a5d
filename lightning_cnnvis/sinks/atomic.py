"""Files, on the disk or in a remote store, that appear when they are complete."""

from __future__ import annotations

import os
import platform
import posixpath
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

    Examples:
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

    Examples:
        >>> join("s3://bucket/run", "cnnvis", "a.png")
        's3://bucket/run/cnnvis/a.png'
    """
    if isinstance(location, Path):
        return location.joinpath(*parts)
    return posixpath.join(location, *(os.fspath(part) for part in parts))


def write(location: str | Path, data: bytes) -> None:
    """Writes a file such that nobody reads half of it; missing folders are made.

    On the disk, and in remote stores that can rename, it is written under a temporary name and then renamed. Object
    stores (S3, Google Cloud Storage, Azure) cannot rename, but publish an object only when it is complete. On the disk,
    the file survives a power cut once this function has returned.

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
    with appearing(location) as temporary:
        temporary.write_bytes(data)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Lets a file on the disk appear under its name when the body has written it; missing folders are made.

    Args:
        path: The file.

    Yields:
        A temporary path in the same folder, for the body to write to.

    Raises:
        OSError: If the folder cannot be made, or the file cannot be renamed or brought to the disk. What the body
            raises passes. In either case, nothing has changed under the file's name.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with appearing(folder / "a.txt") as temporary:
        ...     _ = temporary.write_text("complete")
        >>> [path.name for path in folder.iterdir()]
        ['a.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary(path.name))
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # which would hide the first
            temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # not every system can sync a folder
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk: else a power cut may leave a file empty."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path | str) -> None:
    """Removes the half-written files that a killed process left; what cannot be removed does no harm.

    The files of a process that still runs stay, such as those of another run in the same folder. So do those of another
    machine, which cannot be asked, until they are an hour old.

    Args:
        folder: A local folder, or the URL of a remote one.
    """
    if isinstance(folder, Path):
        with suppress(OSError):
            for part in folder.rglob(".*.part"):
                if _is_abandoned(part.name, time.time() - part.stat().st_mtime):
                    part.unlink(missing_ok=True)
        return
    with suppress(Exception):  # each store has errors of its own
        store, path = url_to_fs(folder)
        if _renames(store):
            for name in store.find(path):
                if _is_abandoned(posixpath.basename(name)):
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
    return f".{name}.{_machine()}.{os.getpid()}.part"


def _is_abandoned(name: str, age: float = 0.0) -> bool:
    """Whether a file is a half-written one whose process is gone, given its age in seconds."""
    found = re.fullmatch(r"\..+\.([\w-]+)\.(\d+)\.part", name)
    if found is None:
        return False
    machine, process = found[1], int(found[2])
    # a process of our own number wrote it before we began: in a container, every run may have the same one
    return not _runs(process) if machine == _machine() else age > _ABANDONED_AFTER


_ABANDONED_AFTER = 3600.0  # seconds


def _machine() -> str:
    return re.sub(r"[^\w-]", "-", platform.node()) or "local"


def _runs(process: int) -> bool:
    """Whether another process of this number runs."""
    if process == os.getpid() or os.name == "nt":  # Windows does not remove a file that a process has open
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True
