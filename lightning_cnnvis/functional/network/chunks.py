"""Work in chunks that fit the memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from lightning_cnnvis.accelerators import empty_cache

T = TypeVar("T")


def in_chunks(work: Callable[[slice], T], total: int, chunk_size: int) -> Iterator[T]:
    """Calls ``work`` on consecutive slices of ``range(total)``.

    When the device runs out of memory, the chunk is halved and tried again, and later chunks keep the smaller
    size. A chunk of one that does not fit raises the error.

    Args:
        work: A function of a slice. It must be repeatable: a failed chunk is run again.
        total: Number of items.
        chunk_size: Number of items in the first chunk.

    Yields:
        The result of each chunk, in order.

    Raises:
        ValueError: If ``chunk_size`` is not positive.
        RuntimeError: If a single item does not fit into the memory, or the work fails for another reason.

    Examples:
        >>> list(in_chunks(lambda part: (part.start, part.stop), total=5, chunk_size=2))
        [(0, 2), (2, 4), (4, 5)]
    """
    if chunk_size < 1:
        raise ValueError(f"chunk={chunk_size} is not positive. Give at least 1 image.")
    start = 0
    while start < total:
        part = slice(start, min(start + chunk_size, total))
        try:
            result = work(part)
        except RuntimeError as error:
            if not is_out_of_memory(error) or part.stop - part.start == 1:
                raise
        else:
            yield result
            start = part.stop
            continue
        # outside of the except block, where the failed attempt's tensors have been freed
        chunk_size = (part.stop - part.start) // 2
        empty_cache()


_ALLOCATION_FAILED = re.compile(r"can't allocate memory|not enough memory|out of memory|STATUS_ALLOC_FAILED")


def is_out_of_memory(error: Exception) -> bool:
    """Tells whether an error means that memory ran out; the CPU, MPS, cuDNN and cuBLAS have messages of their own.

    Args:
        error: Any error.

    Returns:
        Whether the device, or the host, ran out of memory.

    Examples:
        >>> try:
        ...     torch.empty(2**55)
        ... except RuntimeError as error:
        ...     print(is_out_of_memory(error))
        True
    """
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and bool(_ALLOCATION_FAILED.search(str(error)))
    )


PIXELS_IN_A_CHUNK = {"cpu": 32 * 96 * 96, "cuda": 512 * 96 * 96}
"""Number of pixels in a first chunk, by device type: on a CPU what its caches hold, elsewhere what keeps it busy."""


def chunk_size(images: Tensor) -> int:
    """Returns the number of images in the first chunk.

    Args:
        images: ``(N, C, H, W)``; their size and their device count.

    Returns:
        The number of images, at least 1.

    Examples:
        >>> chunk_size(torch.empty(1, 3, 96, 96)), chunk_size(torch.empty(1, 3, 2000, 2000))
        (32, 1)
    """
    pixels = PIXELS_IN_A_CHUNK.get(images.device.type, PIXELS_IN_A_CHUNK["cuda"])
    return max(1, pixels // (images.shape[2] * images.shape[3]))
