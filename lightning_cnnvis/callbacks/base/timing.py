"""Time that visualisations take from a training run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class CostAccount:
    """Counts the seconds that a callback takes, and the training time that they are a share of.

    Examples:
        >>> account = CostAccount()
        >>> account.start()
        >>> with account.counted():
        ...     pass
        >>> 0 < account.seconds < account.elapsed
        True
    """

    def __init__(self) -> None:
        self._closed = 0.0  # seconds in blocks that are closed
        self._reported = 0.0
        self._elapsed_before = 0.0  # training time before the run was resumed
        self._started: float | None = None
        self._depth = 0  # number of open blocks, one inside the other
        self._opened = 0.0

    def start(self) -> None:
        """Starts the clock of the training."""
        self._started = time.perf_counter()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts the time that the body takes; nested blocks are counted once.

        Yields:
            None, while the clock runs.
        """
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
        """Seconds spent so far, including those in open blocks."""
        return self._closed + (time.perf_counter() - self._opened if self._depth else 0.0)

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, including those before the run was resumed; never 0."""
        now = 0.0 if self._started is None else time.perf_counter() - self._started
        return max(self._elapsed_before + now, 1e-9)

    def report(self) -> float:
        """Seconds spent since the last report, which this call becomes."""
        seconds = self.seconds
        since, self._reported = seconds - self._reported, seconds
        return since

    def summary(self, shown: int) -> str:
        """Summarises the cost in one line.

        Args:
            shown: Number of epochs that were shown.

        Returns:
            The number of epochs, the seconds spent, and their share of the training time.
        """
        epochs = f"{shown} epoch{'' if shown == 1 else 's'}"
        return f"{epochs} shown in {self.seconds:.1f} s, {self.seconds / self.elapsed:.1%} of the training time"

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"seconds": self.seconds, "elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of a checkpoint."""
        self._closed = self._reported = state_dict["seconds"]
        self._elapsed_before = state_dict["elapsed"]
