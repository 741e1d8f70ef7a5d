"""When the report of a run is to be written anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_SUFFIXES = {".ckpt", ".pt", ".pth", ".safetensors"}

State = dict[Path, tuple[int, int]]


def changes(
    folder: Path, *, every: float = 5.0, sleep: Callable[[float], None] = time.sleep
) -> Iterator[dict[Path, tuple[int, int]]]:
    """Waits for checkpoints of a run, time and again, without an end.

    Args:
        folder: The folder of the run, which need not be there yet.
        every: How often to look, in seconds.
        sleep: What waits.

    Yields:
        The checkpoints, each with the time of its last change and its size, whenever one has appeared, changed or gone,
        and nothing has changed from one look to the next: files that are being written are waited for.

    Raises:
        ValueError: If the time is not positive.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "last.ckpt").write_bytes(b"weights")
        >>> [file.name for file in next(changes(folder, every=0.01))]
        ['last.ckpt']
    """
    if not every > 0:
        raise ValueError(f"every={every} must be a time in seconds above 0.")
    shown: State = {}
    before = _state(folder)
    while True:
        sleep(every)
        now = _state(folder)
        if now == before and now != shown:
            shown = now
            yield now
        before = now


def _state(folder: Path) -> State:
    found: State = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in _SUFFIXES and not path.name.startswith("."):
            with suppress(OSError):  # it has just been removed
                about = path.stat()
                found[path] = (about.st_mtime_ns, about.st_size)
    return found
