"""Amplitude spectra of images in a table small enough to keep: a power law, and what differs from it by direction.

A table has a row for each scale, half an octave apart, and a column for each direction. It holds the logarithm of the
amplitude less the power law, which is smooth, so that it fits images of any size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCALES = 14
DIRECTIONS = 8
_HIGHEST = math.log2(math.sqrt(0.5))  # cycles per pixel, at a corner of the spectrum


def frequencies(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Computes the frequency of each coefficient of ``rfft2``.

    Args:
        height: Height of the images.
        width: Width of the images.

    Returns:
        Cycles per pixel and direction in radians, each ``(H, W // 2 + 1)``, float32 on the CPU.

    Examples:
        >>> frequencies(4, 4)[0][0]
        tensor([0.0000, 0.2500, 0.5000])
    """
    rows = torch.fft.fftfreq(height, dtype=torch.float32, device="cpu")[:, None]
    columns = torch.fft.rfftfreq(width, dtype=torch.float32, device="cpu")[None]
    return torch.hypot(rows, columns), torch.atan2(rows, columns.expand(height, -1))


def tabulate(amplitude: Tensor, width: int, decay: float) -> Tensor:
    """Puts a spectrum into a table.

    Args:
        amplitude: ``(C, H, W // 2 + 1)``, positive but at frequency 0, which does not count.
        width: Width W of the images.
        decay: Exponent of the power law.

    Returns:
        ``(C, SCALES, DIRECTIONS)``; scales that the images are too small for repeat the nearest one.
    """
    frequency, direction = (part.flatten()[1:].double() for part in frequencies(amplitude.shape[1], width))
    residual = amplitude.flatten(1)[:, 1:].double().clamp_min(1e-20).log() + decay * frequency.log()
    octave = 2 * (_HIGHEST - frequency.log2())[:, None]
    near = torch.exp(-((octave - torch.arange(SCALES, dtype=octave.dtype, device="cpu")) ** 2))
    # scales below the lowest frequency are those of the lowest
    near = torch.where(near.amax(0) > 1e-3, near, near[:, near.amax(0) > 1e-3][:, -1:])
    turn = direction[:, None] / (math.pi / DIRECTIONS) - torch.arange(DIRECTIONS, dtype=octave.dtype, device="cpu")
    turn = (turn + DIRECTIONS / 2) % DIRECTIONS - DIRECTIONS / 2
    along = torch.exp(-2 * turn**2) + 1e-4  # a little of all, where there is nothing in a direction
    weight = near[:, :, None] * along[:, None]
    return torch.einsum("cf,fsd->csd", residual, weight) / weight.sum(0)


def look_up(table: Tensor, height: int, width: int, decay: float) -> Tensor:
    """Reads a spectrum from a table, interpolating between scales and directions.

    Args:
        table: ``(C, SCALES, DIRECTIONS)``, as `tabulate` makes it.
        height: Height of the images.
        width: Width of the images.
        decay: Exponent of the power law.

    Returns:
        Amplitudes ``(C, H, W // 2 + 1)``, 0 at frequency 0.
    """
    frequency, direction = (part.double() for part in frequencies(height, width))
    frequency[0, 0] = 1.0
    octave = (2 * (_HIGHEST - frequency.log2())).clamp(0, SCALES - 1)
    turn = direction / (math.pi / DIRECTIONS) % DIRECTIONS
    scale, way = octave.floor().long().clamp_max(SCALES - 2), turn.floor().long() % DIRECTIONS
    down, along = octave - scale, turn - turn.floor()
    after = (way + 1) % DIRECTIONS
    upper = table[:, scale, way] * (1 - along) + table[:, scale, after] * along
    lower = table[:, scale + 1, way] * (1 - along) + table[:, scale + 1, after] * along
    amplitude = (upper * (1 - down) + lower * down).exp() * frequency**-decay
    amplitude[:, 0, 0] = 0
    return amplitude
