"""Work shared out over the processes of a run, and put together again."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed

T = TypeVar("T")


def gather(value: T) -> list[T]:
    """The values of all processes, by rank; just this one's where there is only one.

    Every process must call this. Tensors in the values must be on the CPU.

    Example:
        >>> gather("mine")
        ['mine']
    """
    if not _several():
        return [value]
    values: list[T | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def own_share(total: int) -> slice:
    """The part of ``range(total)`` that is this process's to work on.

    Example:
        >>> own_share(10)
        slice(0, 10, None)
    """
    if not _several():
        return slice(0, total)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return slice(total * rank // world, total * (rank + 1) // world)


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
