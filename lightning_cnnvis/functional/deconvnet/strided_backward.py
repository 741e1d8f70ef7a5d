"""The way down through a first convolution: a transposed convolution with a stride, to a few channels.

oneDNN runs that at a third of the speed that it has elsewhere, since the few channels fill none of its blocks, and in a
large window it is what takes longest. The pixels of one phase of the stride are a convolution without a stride; those
of all phases together are one convolution with as many times the channels, whose output is shuffled into its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 4
"""As many channels as images have, at most."""


def is_slow(args: Sequence[Any]) -> bool:
    """Whether a convolution's backward pass is one that `backward_by_phases` computes, and faster than torch.

    Args:
        args: The arguments of ``aten.convolution_backward``.

    Returns:
        True on a CPU, in float32, for the gradient of an image's few channels alone, below a convolution with one
        stride of 2 or more, undilated and without groups.
    """
    signal, image, weight, _, stride, padding, dilation, transposed, _, groups, wanted = args
    return (
        image.device.type == signal.device.type == weight.device.type == "cpu"
        and image.dtype == signal.dtype == weight.dtype == torch.float32
        and image.ndim == 4
        and image.shape[1] <= FEW
        and signal.numel() > 0
        and not (transposed or wanted[1] or wanted[2])
        and groups == 1
        and set(dilation) == {1}
        and len(set(stride)) == 1
        and stride[0] > 1
        and len(padding) == 2
    )


def backward_by_phases(signal: Tensor, image: Tensor, weight: Tensor, stride: int, padding: Sequence[int]) -> Tensor:
    """Takes a signal down through a convolution.

    Args:
        signal: ``(N, K, H', W')``, the signal at its output.
        image: ``(N, C, H, W)``, of which only the shape matters.
        weight: ``(K, C, h, w)``.
        stride: The stride.
        padding: Zeros on either side, of rows and of columns.

    Returns:
        ``(N, C, H, W)``, the signal at its input.

    Examples:
        >>> signal, weight = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 3)
        >>> backward_by_phases(signal, torch.empty(1, 1, 5, 5), weight, 2, (0, 0))[0, 0, 2]
        tensor([2., 2., 4., 2., 2.])
    """
    maps, channels, rows, columns = weight.shape
    high, wide = -(-rows // stride), -(-columns // stride)
    whole = F.pad(weight, (0, wide * stride - columns, 0, high * stride - rows))
    phases = whole.view(maps, channels, high, stride, wide, stride).flip(2, 4).permute(1, 3, 5, 0, 2, 4)
    kernels = phases.reshape(channels * stride**2, maps, high, wide)
    pixels = F.pixel_shuffle(F.conv2d(signal, kernels, padding=(high - 1, wide - 1)), stride)
    # pixels that no kernel has reached are 0
    (top, left), (height, width) = padding, image.shape[2:]
    missing = [max(0, left + width - pixels.shape[3]), max(0, top + height - pixels.shape[2])]
    return F.pad(pixels, (0, missing[0], 0, missing[1]))[:, :, top : top + height, left : left + width]
