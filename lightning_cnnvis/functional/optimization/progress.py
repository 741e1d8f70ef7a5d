"""How far an optimisation has come, for whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[int, int], None]
"""Is told how many steps are done, and of how many."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tells a listener of the steps of every optimisation in the body.

    Args:
        listener: Called after each step. It must not wait for the device.

    Yields:
        Nothing.

    Example:
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
    """Says that ``done`` of ``total`` steps are done."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total)
