"""Aliasing in feature maps: what a shift of the image changes in them that a shift of the map does not explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_cnnvis.layers import activations

_SHIFTS = (1, 2, 4)
"""Pixels by which images are shifted."""

_VARYING = 0.01
"""Variance of a map, over the median of its layer, below which it is hardly there."""

MIN_SIDE = 24
"""Least side of a map that has enough of an inside to compare."""


def shift_errors(model: nn.Module, images: Tensor, strides: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """Measures how far feature maps are from following an image that is shifted by less than their stride.

    A map without aliasing is a sampled picture: where the image moves by half a stride, the map moves by half a
    position, which its own values determine. The map is shifted through its Fourier series, mirrored at the border, and
    compared with the map of the shifted image. Half of the images move to the left, half upwards; the shifts are 1, 2
    and 4 pixels, and for each layer those that are at most half of its stride (Azulay & Weiss 2019, arXiv 1805.12177,
    on what aliasing does to networks).

    Args:
        model: The network, isolated and in evaluation mode.
        images: ``(N, C, H, W)``, normalised; at least two.
        strides: Strides in pixels of the layers' units, by layer.

    Returns:
        ``(K,)`` by layer, on the CPU: the mean squared difference over the variance of the map, the largest over the
        shifts. 0 if the map follows; 2 if the map of the shifted image is as unlike as one of another image. Layers
        with a stride of 1, or with maps of less than 24 positions a side, are missing; maps that hardly vary have 0.

    Examples:
        >>> images = torch.rand(2, 3, 128, 128)
        >>> checks = nn.Conv2d(3, 1, 4, stride=4)
        >>> _ = checks.weight.data.copy_(torch.tensor([[1.0, -1.0], [1.0, -1.0]]).repeat(1, 3, 2, 2))
        >>> errors = shift_errors(nn.Sequential(checks, nn.ReLU()), images, {"1": (4, 4)})
        >>> float(errors["1"]) > 1
        True
    """
    height, width = images.shape[2:]
    layers = [layer for layer, stride in strides.items() if max(stride) > 1]
    room = max(_SHIFTS)
    if not layers or len(images) < 2 or min(height, width) <= 2 * room:
        return {}
    half = len(images) // 2
    padded = nn.functional.pad(images, (0, room, 0, room), mode="reflect")

    def moved(shift: int, which: Sequence[str]) -> dict[str, Tensor]:
        right = padded[:half, :, :height, shift : shift + width]
        down = padded[half:, :, shift : shift + height, :width]
        with torch.no_grad():
            return activations(model, torch.cat([right, down]), which)

    rest = {layer: output for layer, output in moved(0, layers).items() if _has_inside(output)}
    errors: dict[str, Tensor] = {}
    for shift in _SHIFTS:
        judged = [layer for layer in rest if shift <= max(1, max(strides[layer]) // 2)]
        if not judged:
            break
        for layer, output in moved(shift, judged).items():
            stride = strides[layer]
            left = _errors(rest[layer][:half], output[:half], shift / stride[1])
            up = _errors(rest[layer][half:].mT, output[half:].mT, shift / stride[0])
            error = torch.maximum(left, up)
            errors[layer] = torch.maximum(errors[layer], error) if layer in errors else error
    return errors


def _has_inside(output: Tensor) -> bool:
    return output.ndim == 4 and min(output.shape[2:]) >= MIN_SIDE


def _errors(maps: Tensor, after: Tensor, shift: float) -> Tensor:
    """What a shift of the maps along their rows leaves of the difference, over the variance; ``(K,)``."""
    maps, after = maps.cpu().float(), after.cpu().float()
    rows, columns = (max(1, side // 8) for side in maps.shape[2:])
    inside = (..., slice(rows, -rows), slice(columns, -columns))
    found, expected = after[inside], _shifted(maps, shift)[inside]
    spread = (found - found.mean((2, 3), keepdim=True)).square().mean((0, 2, 3))
    error = (found - expected).square().mean((0, 2, 3))
    judged = spread > spread.median() * _VARYING
    return torch.where(judged, error / spread.clamp_min(torch.finfo(torch.float32).tiny), 0.0)


def _shifted(maps: Tensor, shift: float) -> Tensor:
    """Maps moved to the left by a part of a position: by their Fourier series, mirrored at the border."""
    width = maps.shape[3]
    mirrored = torch.fft.rfft(torch.cat([maps, maps.flip(3)], dim=3))
    phase = 2 * torch.pi * shift * torch.fft.rfftfreq(2 * width, dtype=torch.float32, device=maps.device)
    moved: Tensor = torch.fft.irfft(mirrored * torch.polar(torch.ones_like(phase), phase), n=2 * width)
    return moved[..., :width]
