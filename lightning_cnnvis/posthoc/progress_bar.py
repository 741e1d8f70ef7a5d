"""Progress on the terminal: a bar, or a plain line now and then where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor
from tqdm import tqdm

from lightning_cnnvis.functional.optimization.progress import listening
from lightning_cnnvis.text import printable

T = TypeVar("T")

SECONDS_UNTIL_SHOWN = 1.0
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows how far something has come. Nothing is shown of what takes less than a second.

    Args:
        title: What is being done.
        unit: What is counted.
        shown: Whether to show anything.
        before: Number that an earlier run has done.
    """

    def __init__(self, title: str, unit: str = "step", *, shown: bool = True, before: int = 0) -> None:
        self.title = printable(title)
        self.unit = unit
        self.shown = shown
        self.before = before
        self._start = self._said = time.monotonic()
        self._bar: Any = None

    def update(self, done: int, total: int) -> None:
        """Shows that ``done`` of ``total`` are done; a total of 0 is an unknown one."""
        if not self.shown:
            return
        if sys.stderr.isatty():
            if self._bar is None or (total and self._bar.total != total) or done < self._bar.n:
                self.close()
                # counted from the beginning: a bar that follows another is shown at once
                delay = max(0.0, self._start + SECONDS_UNTIL_SHOWN - time.monotonic())
                self._bar = tqdm(
                    total=total or None, desc=self.title, unit=self.unit, leave=False, delay=delay, initial=self.before
                )
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            of = f" of {total}" if total else ""
            print(f"{self.title}: {self.unit} {done}{of}{self._pace(done, total)}", file=sys.stderr, flush=True)

    def _pace(self, done: int, total: int) -> str:
        """How many a second, where there are many, and how long the rest takes at that."""
        rate = (done - self.before) / (time.monotonic() - self._start)
        many = f", {rate:.0f} {self.unit}s a second" if rate >= 1 else ""
        return f"{many}, {_duration((total - done) / rate)} left" if many and total else many

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def watched(items: Iterable[T], total: int, title: str, unit: str, *, shown: bool = True) -> Iterator[T]:
    """The items, with their progress shown."""
    progress = Progress(title, unit, shown=shown)
    try:
        for done, item in enumerate(items):
            progress.update(done, total)
            yield item
    finally:
        progress.close()


def watched_images(
    batches: Iterable[tuple[int, Tensor]], total: int, *, shown: bool = True, before: int = 0
) -> Iterator[tuple[int, Tensor]]:
    """Numbered batches of images, with how many images are done, how many a second, and how long the rest takes."""
    progress = Progress("Images", "image", shown=shown, before=before)
    done = before
    try:
        for batch in batches:
            yield batch
            done += len(batch[1])
            progress.update(done, total)
    finally:
        progress.close()


def _duration(seconds: float) -> str:
    """A time in the two largest of its units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def optimizing(title: str, *, shown: bool = True) -> Iterator[None]:
    """Shows the progress of the optimisations in the body."""
    progress = Progress(title, shown=shown)
    try:
        with listening(progress.update):
            yield
    finally:
        progress.close()
