"""Random numbers that are the same on every device, whatever torch's default device and dtype are."""

from __future__ import annotations

import math
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

    Examples:
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

    Examples:
        >>> uniform((2,), seed=0)
        tensor([0.4963, 0.7682])
    """
    return torch.rand(tuple(shape), generator=_generator(seed), dtype=torch.float32, device="cpu")


_FACTORS = (0x2C1B3C6D, 0x297A2D39, 0x45D9F3B5)  # large odd numbers, which overflow 32 bits as in any hash


def hashed_gaussian(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """Computes noise of the standard normal distribution from keys, where they are: nothing is drawn or copied.

    A hash of the key and the place gives the same numbers on every device, up to rounding.

    Args:
        keys: ``(N,)`` in [0, 1), such as uniform random numbers; a row with an equal key has equal noise.
        shape: Shape of a row.

    Returns:
        ``(N, *shape)``, of the keys' dtype and on their device.

    Examples:
        >>> noise = hashed_gaussian(torch.tensor([0.25, 0.5]), (3, 64, 64))
        >>> noise.shape, abs(noise.mean().item()) < 0.02, abs(noise.std().item() - 1) < 0.02
        (torch.Size([2, 3, 64, 64]), True, True)
    """
    count = (math.prod(shape) + 1) // 2
    places = torch.arange(2 * count, dtype=torch.int32, device=keys.device)
    mixed = (keys * 2**24).to(torch.int32)[:, None] * 0x1E3779B1 + places
    for factor in _FACTORS:
        mixed = mixed * factor
        mixed = mixed ^ (mixed >> 15)
    parts = ((mixed & (2**31 - 1)).to(torch.float32) + 0.5) / 2**31
    radius = (-2 * parts[:, :count].log()).sqrt()
    angle = 2 * math.pi * parts[:, count:]
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
    return both[:, : math.prod(shape)].reshape(len(keys), *shape).to(keys.dtype)


def _generator(seed: int | torch.Generator) -> torch.Generator:
    return seed if isinstance(seed, torch.Generator) else torch.Generator("cpu").manual_seed(seed)
