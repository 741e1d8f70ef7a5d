"""What a visualisation is doing, in the Trainer's own progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl

INTERVAL = 0.5
"""Seconds between two steps that are announced: drawing a bar takes time."""


class Announcer:
    """Says in the progress bar, tqdm's or Rich's, what is being worked on; where there is no bar, nothing.

    Args:
        trainer: The trainer.
        who: Name of the callback.
    """

    def __init__(self, trainer: pl.Trainer, who: str) -> None:
        self._who = who
        self._part = ""
        self._next = 0.0
        self._write, self._before = _description(trainer)

    def part(self, name: str) -> None:
        """Says what is begun.

        Args:
            name: Name of the part, such as a layer; empty for the whole.
        """
        self._part = f" {name}" if name else ""
        self._write(f"{self._who}{self._part}")

    def step(self, done: int, total: int) -> None:
        """Says how far an optimisation is, twice a second.

        Args:
            done: Number of steps done.
            total: Number of steps to do.
        """
        now = time.monotonic()
        if now >= self._next:
            self._next = now + INTERVAL
            self._write(f"{self._who}{self._part}: step {done} of {total}")

    def end(self) -> None:
        """Gives the bar back its text."""
        self._write(self._before)


@contextmanager
def announcing(trainer: pl.Trainer, who: str) -> Iterator[Announcer]:
    """Announces a visualisation, and gives the bar back its text at the end.

    Args:
        trainer: The trainer.
        who: Name of the callback.

    Yields:
        What says more.
    """
    announcer = Announcer(trainer, who)
    announcer.part("")
    try:
        yield announcer
    finally:
        announcer.end()


def _description(trainer: Any) -> tuple[Callable[[str], None], str]:
    """How to write the text of the bar of the epoch, and what it is now."""
    bar: Any = getattr(trainer, "progress_bar_callback", None)
    if not getattr(bar, "is_enabled", False):
        return _nothing, ""
    task, rich = getattr(bar, "train_progress_bar_id", None), getattr(bar, "progress", None)
    if task is not None and rich is not None:

        def write(text: str) -> None:
            rich.update(task, description=text)
            bar.refresh()

        return write, next((known.description for known in rich.tasks if known.id == task), "")
    tqdm: Any = getattr(bar, "_train_progress_bar", None)  # the property raises if there is none yet
    return (tqdm.set_description_str, tqdm.desc) if hasattr(tqdm, "set_description_str") else (_nothing, "")


def _nothing(text: str) -> None:
    return None
