"""What visualisations cost a training run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class CostAccount:
    """The seconds that a callback took, and the training time that they are a share of.

    Example:
        >>> account = CostAccount()
        >>> account.start()
        >>> with account.counted():
        ...     pass
        >>> 0 < account.seconds < account.elapsed
        True
    """

    def __init__(self) -> None:
        self._closed = 0.0  # seconds in blocks that have ended
        self._reported = 0.0
        self._elapsed_before = 0.0  # training time before the run was resumed
        self._started: float | None = None
        self._depth = 0  # of open blocks, one inside the other
        self._opened = 0.0

    def start(self) -> None:
        """Starts the clock of the training."""
        self._started = time.perf_counter()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts the time that the body takes, once where blocks are nested."""
        if not self._depth:
            self._opened = time.perf_counter()
        self._depth += 1
        try:
            yield
        finally:
            seconds = self.seconds
            self._depth -= 1
            if not self._depth:
                self._closed = seconds

    @property
    def seconds(self) -> float:
        """Seconds spent so far, in open blocks too."""
        return self._closed + (time.perf_counter() - self._opened if self._depth else 0.0)

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, in the runs before this was resumed too; never 0."""
        now = 0.0 if self._started is None else time.perf_counter() - self._started
        return max(self._elapsed_before + now, 1e-9)

    def report(self) -> float:
        """Seconds spent since the last report."""
        seconds = self.seconds
        since, self._reported = seconds - self._reported, seconds
        return since

    def summary(self, shown: int) -> str:
        """What was spent, in words.

        Args:
            shown: How many epochs were shown for it.
        """
        epochs = f"{shown} epoch{'' if shown == 1 else 's'}"
        return f"{epochs} shown in {self.seconds:.1f} s, {self.seconds / self.elapsed:.1%} of the training time"

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds, "elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where a checkpoint left off."""
        self._closed = self._reported = state_dict["seconds"]
        self._elapsed_before = state_dict["elapsed"]
