"""Work divided among the processes of a run, and its results gathered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed

T = TypeVar("T")


def gather(value: T) -> list[T]:
    """Gathers a value from every process. Every process must call this.

    Args:
        value: This process's value; any tensors in it must be on the CPU.

    Returns:
        The values of all processes, by rank.

    Examples:
        >>> gather("mine")
        ['mine']
    """
    if not _several():
        return [value]
    values: list[T | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def gather_results(work: Callable[[], T]) -> list[T]:
    """Runs work on every process and gathers the results. Every process must call this.

    A failure on one process is a failure on all, so that none waits for another forever.

    Args:
        work: Function that takes no arguments and returns this process's result, with its tensors on the CPU.

    Returns:
        The results of all processes, by rank.

    Raises:
        RuntimeError: If the work failed on another process. The process on which it failed raises its own error.

    Examples:
        >>> gather_results(lambda: 2 * 3)
        [6]
    """
    result: T | None = None
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:
        failure = error
    outcomes = gather((result, None if failure is None else f"{type(failure).__name__}: {failure}"))
    if failure is not None:
        raise failure
    failed = [f"process {rank}: {message}" for rank, (_, message) in enumerate(outcomes) if message is not None]
    if failed:
        raise RuntimeError(f"The work failed on {'; '.join(failed)}")
    return [value for value, _ in outcomes]  # type: ignore[misc]


def own_share(total: int) -> slice:
    """Divides work among the processes, as evenly as possible.

    Args:
        total: Number of items.

    Returns:
        This process's part of ``range(total)``.

    Examples:
        >>> own_share(10)
        slice(0, 10, None)
    """
    if not _several():
        return slice(0, total)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return slice(total * rank // world, total * (rank + 1) // world)


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
