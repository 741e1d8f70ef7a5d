"""Deconvnet projections: the parts of an image that excite a unit (Zeiler & Fergus 2013, arXiv 1311.2901)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_cnnvis.channel_dim import as_maps
from lightning_cnnvis.functional.deconvnet.batching import Start, plan_windows, project_windows
from lightning_cnnvis.functional.deconvnet.rules import Rule
from lightning_cnnvis.functional.deconvnet.windows import cut
from lightning_cnnvis.functional.network.canonical import LRNRule, check_choice
from lightning_cnnvis.functional.network.chunks import chunk_size, in_chunks
from lightning_cnnvis.functional.network.forward import model_options
from lightning_cnnvis.functional.network.saturation import Unsaturated
from lightning_cnnvis.functional.tensors import cat_fields
from lightning_cnnvis.isolation import check_has_values, isolated
from lightning_cnnvis.layers import activations

__all__ = ["Projections", "Start", "plan_windows", "project", "project_windows"]


@dataclass(frozen=True)
class Projections:
    """Units projected back to pixels, each beside the part of the image that caused it.

    Attributes:
        pixels: ``(N, C, h, w)``, the projections. Height and width are those of the receptive field, or of the image
            where that is smaller.
        patches: ``(N, C, h, w)``, the same part of the images, as the network saw it.
        corners: ``(N, 2)``, top and left pixel of the pictures above in their image. At the borders they are moved
            into the image, so that they show only image.
        boxes: ``(N, 4)``, top, left, bottom and right of the exact receptive field in the image; bottom and right
            are exclusive.
        channels: ``(N,)``, the units' channels.
        positions: ``(N, 2)``, the units' rows and columns; zero for a layer without a map.
        activations: ``(N,)``, the units' activations.
        image_size: Height and width of the images.
    """

    pixels: Tensor
    patches: Tensor
    corners: Tensor
    boxes: Tensor
    channels: Tensor
    positions: Tensor
    activations: Tensor
    image_size: tuple[int, int]

    def __len__(self) -> int:
        """The number of units."""
        return len(self.pixels)

    def to(self, device: torch.device | str) -> Projections:
        """Copies the projections to another device.

        Args:
            device: The device.

        Returns:
            The same projections there.
        """
        return self._map(lambda name: getattr(self, name).to(device))

    def __getitem__(self, units: slice | Tensor) -> Projections:
        """A part of the units: a slice, row numbers or a mask ``(N,)``."""
        return self._map(lambda name: getattr(self, name)[units])

    @staticmethod
    def cat(parts: Sequence[Projections]) -> Projections:
        """Joins the units of several results of images of one size, at least one of them.

        Args:
            parts: Results of shares of the units.

        Returns:
            All units, in order.
        """
        return cat_fields(parts, shared=["image_size"])

    def _map(self, change: Callable[[str], Tensor]) -> Projections:
        names = [name for name, value in vars(self).items() if isinstance(value, Tensor)]
        return replace(self, **{name: change(name) for name in names})  # type: ignore[arg-type]

    def full(self) -> Tensor:
        """Puts the projections at their places in the images.

        Returns:
            ``(N, C, H, W)``, zero outside of the receptive fields.
        """
        count, channels, height, width = self.pixels.shape
        full = self.pixels.new_zeros(count, channels, *self.image_size)
        for picture, pixels, (top, left) in zip(full, self.pixels, self.corners.tolist(), strict=True):
            picture[:, top : top + height, left : left + width] = pixels
        return full


def project(
    model: nn.Module,
    images: Tensor,
    layer: str,
    channels: Tensor,
    positions: Tensor | None = None,
    *,
    rule: str | Rule = "deconvnet",
    start: Start = "activation",
    lrn: LRNRule = "identity",
    windowed: bool = True,
) -> Projections:
    """Projects units back to pixels, one unit of each image.

    All other activations of the layer are set to zero, and the unit's is passed down through the network: pooling
    puts it back where the maximum was and adds where windows overlap, rectifiers rectify, convolutions
    filter with their transposed kernels. No biases are added on the way.

    Only the receptive field of a unit is computed, forward and back, with the same result as on the whole image. The
    model runs in evaluation mode and is left as it was.

    Args:
        model: The network.
        images: ``(N, C, H, W)``, normalised as the network expects them, on the model's device. They are computed in
            the dtype of its weights.
        layer: Dotted module name. Its output is ``(N, K, H', W')``, or ``(N, K)`` without a map, or tokens
            ``(N, T, K)``; the channels K may also be last in a map.
        channels: ``(N,)`` integers, the channel of each image's unit.
        positions: ``(N, 2)`` integers, row and column of each unit, or 0 and the token's number; None takes each
            channel's strongest place, before an upper bound such as ReLU6's.
        rule: Rule of the rectifiers on the way down: ``"deconvnet"``, ``"guided"``, ``"gradient"`` or another name
            registered in `RULES`, see `RectifiedBackward`; or a `Rule`.
        start: Value at which the way down begins: the unit's ``"activation"`` as in the paper, or ``"one"``.
        lrn: Backward pass of local response normalisation, ``"identity"`` or ``"gradient"``; see `RectifiableForward`.
        windowed: Whether to compute receptive fields only. Switch it off for a network that takes only one size of
            image.

    Returns:
        The projections, on the images' device.

    Raises:
        LayerError: If the layer does not exist, does not stand for one call of a module, or its output is neither a
            map nor tokens nor a vector.
        UnsupportedOperationError: If the network has an operation before the layer that a deconvnet cannot pass.
        ValueError: If shapes do not fit together, a channel or a position is out of range, an option is not one of its
            choices, or if activations are not finite.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.ReLU())
        >>> projections = project(net, torch.rand(2, 3, 16, 16), "4", torch.tensor([0, 1]))
        >>> projections.pixels.shape, projections.full().shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 16, 16]))
    """
    check_choice("start", start, Start)
    _check_shapes(images, channels, positions)
    check_has_values(model)
    weights = model_options(model)
    if images.device != weights.device and next(model.parameters(), None) is not None:
        raise ValueError(f"images are on {images.device} and the model is on {weights.device}. Move one to the other.")
    channels = channels.to(images.device)
    with isolated(model) as network:
        images = images.to(weights.dtype)
        windows = plan_windows(network, layer, images, rule=rule, windowed=windowed)
        _check_range("channel", channels, windows.field.map_shape[0], layer)
        if positions is None:
            positions = _strongest_positions(network, images, layer, channels)
        positions = positions.to(images.device)
        _check_range("row", positions[:, 0], windows.field.map_shape[1], layer)
        _check_range("column", positions[:, 1], windows.field.map_shape[2], layer)
        corners = windows.corners(positions)
        inputs = cut(images, corners, windows.size)
        pixels, values = project_windows(
            network,
            inputs,
            layer,
            channels,
            windows.positions_within(positions, corners),
            rule=rule,
            start=start,
            lrn=lrn,
            geometry=windows,
        )
    field_corners = windows.field_corners(positions)
    within = field_corners - corners
    return Projections(
        pixels=cut(pixels, within, windows.field_size),
        patches=cut(inputs, within, windows.field_size),
        corners=field_corners,
        boxes=windows.boxes(positions),
        channels=channels,
        positions=positions,
        activations=values,
        image_size=(images.shape[2], images.shape[3]),
    )


def _strongest_positions(model: nn.Module, images: Tensor, layer: str, channels: Tensor) -> Tensor:
    @torch.no_grad()
    def strongest(part: slice) -> Tensor:
        with Unsaturated() as unsaturated:
            output = as_maps(activations(model, images[part], [layer])[layer])
        output = unsaturated.of(output)
        maps = output[torch.arange(len(output), device=output.device), channels[part]]
        width = output.shape[3] if output.ndim == 4 else 1
        best = maps.reshape(len(maps), -1).argmax(dim=1)
        return torch.stack([best // width, best % width], dim=1)

    return torch.cat(list(in_chunks(strongest, len(images), chunk_size(images))))


def _check_shapes(images: Tensor, channels: Tensor, positions: Tensor | None) -> None:
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images has shape {tuple(images.shape)}: it must be (N, C, H, W) with at least one image.")
    if not images.is_floating_point():
        raise ValueError(f"images is {images.dtype}. Give the network's normalised floating-point input.")
    if channels.shape != (len(images),):
        raise ValueError(
            f"channels has shape {tuple(channels.shape)}: it must have one channel for each of the "
            f"{len(images)} images."
        )
    if positions is not None and positions.shape != (len(images), 2):
        raise ValueError(
            f"positions has shape {tuple(positions.shape)}: it must have a row and a column for each of the "
            f"{len(images)} images."
        )


def _check_range(name: str, values: Tensor, limit: int, layer: str) -> None:
    bad = values[(values < 0) | (values >= limit)]
    if len(bad):
        raise ValueError(f"{name} {int(bad[0])} is not in layer {layer!r}: it has {name}s 0 to {limit - 1}.")
