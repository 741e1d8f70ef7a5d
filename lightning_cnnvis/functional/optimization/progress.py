"""Progress of optimisations, reported to a listener."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[int, int], None]
"""A function that is called with the number of steps done and the number of all steps."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Reports the steps of every optimisation in the body to a listener.

    Args:
        listener: A function that is called after each step. It must not wait for the device.

    Yields:
        Nothing.

    Examples:
        >>> with listening(lambda done, total: print(done, "of", total)):
        ...     report(1, 3)
        1 of 3
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report(done: int, total: int) -> None:
    """Reports progress to the listener, if there is one.

    Args:
        done: Number of steps done, over all images.
        total: Number of steps to do.
    """
    listener = _listener.get()
    if listener is not None:
        listener(done, total)
