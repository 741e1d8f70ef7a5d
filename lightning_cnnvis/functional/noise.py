"""Random numbers that are the same on every device, whatever torch's default device and dtype are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gaussian(shape: Sequence[int], seed: int | torch.Generator = 0) -> Tensor:
    """Draws from the standard normal distribution.

    Args:
        shape: Shape of the result.
        seed: Seed, or a generator on the CPU to draw from.

    Returns:
        ``(*shape)``, float32 on the CPU: to be moved, since other devices draw other numbers.

    Example:
        >>> gaussian((2,), seed=0)
        tensor([ 1.5410, -0.2934])
    """
    return torch.randn(tuple(shape), generator=_generator(seed), dtype=torch.float32, device="cpu")


def uniform(shape: Sequence[int], seed: int | torch.Generator = 0) -> Tensor:
    """Draws from the uniform distribution over [0, 1).

    Args:
        shape: Shape of the result.
        seed: Seed, or a generator on the CPU to draw from.

    Returns:
        ``(*shape)``, float32 on the CPU: to be moved, since other devices draw other numbers.

    Example:
        >>> uniform((2,), seed=0)
        tensor([0.4963, 0.7682])
    """
    return torch.rand(tuple(shape), generator=_generator(seed), dtype=torch.float32, device="cpu")


def _generator(seed: int | torch.Generator) -> torch.Generator:
    return seed if isinstance(seed, torch.Generator) else torch.Generator("cpu").manual_seed(seed)
