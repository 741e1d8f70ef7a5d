"""Representations of images in a layer, and the objective of reproducing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.inversion.metrics import squared_distance
from lightning_cnnvis.functional.network.chunks import in_chunks
from lightning_cnnvis.functional.network.forward import plain_forward
from lightning_cnnvis.functional.optimization.objectives import Loss, Objective

Select = Callable[[Tensor], Tensor]
"""A function of a layer's output ``(N, ...)`` that returns the part of it to reproduce, ``(N, ...)``."""


@dataclass(frozen=True)
class FeatureMask:
    """The part of a layer's output to reproduce: the masks of Mahendran & Vedaldi (arXiv 1412.0035).

    Args:
        channels: Channels, or units of a fully connected layer, to reproduce; None takes all.
        positions: Positions of the maps to reproduce: the side of a square at the centre, or top, left, bottom and
            right, the last two exclusive. None takes all.
    """

    channels: Sequence[int] | None = None
    positions: int | tuple[int, int, int, int] | None = None

    def select(self, layer: str, shape: Sequence[int]) -> Select:
        """Makes the function that selects the part of a layer's output.

        Args:
            layer: Name of the layer, for errors.
            shape: Shape ``(N, ...)`` of its output.

        Returns:
            A function of the output ``(N, ...)`` that returns the part ``(N, ...)``.

        Raises:
            ValueError: If the layer has no such channels or positions.

        Examples:
            >>> select = FeatureMask(channels=[0], positions=1).select("conv", (2, 4, 3, 3))
            >>> select(torch.arange(72.0).view(2, 4, 3, 3)).flatten()
            tensor([ 4., 40.])
        """
        channels = None if self.channels is None else [int(channel) for channel in self.channels]
        if channels is not None and not (channels and all(0 <= channel < shape[1] for channel in channels)):
            raise ValueError(
                f"channels={channels}: layer {layer!r} has channels 0 to {shape[1] - 1}; name at least one of them."
            )
        box = None if self.positions is None else self._box(layer, shape)

        def select(output: Tensor) -> Tensor:
            if channels is not None:
                output = output[:, channels]
            return output if box is None else output[..., box[0] : box[2], box[1] : box[3]]

        return select

    def _box(self, layer: str, shape: Sequence[int]) -> Sequence[int]:
        if len(shape) != 4:
            raise ValueError(
                f"positions={self.positions}: the output of layer {layer!r} has shape {tuple(shape)}, not maps with "
                "positions. Choose channels instead."
            )
        height, width = shape[2:]
        if isinstance(self.positions, int):
            top, left = (height - self.positions + 1) // 2, (width - self.positions + 1) // 2
            box: Sequence[int] = (top, left, top + self.positions, left + self.positions)
        else:
            box = self.positions or ()
        if len(box) != 4 or not (0 <= box[0] < box[2] <= height and 0 <= box[1] < box[3] <= width):
            raise ValueError(
                f"positions={self.positions} is not a part of the {height}×{width} maps of layer {layer!r}. Give the "
                "side of a square, or top, left, bottom and right, inside of the maps."
            )
        return box


@dataclass(frozen=True)
class Representation:
    """The features of the originals in a layer, in the part to reproduce.

    Attributes:
        features: ``(N, ...)``, Φ₀.
        norms: ``(N,)``, ‖Φ₀‖².
        select: The function that selects the part of the layer's whole output.
    """

    features: Tensor
    norms: Tensor
    select: Select


def encode(model: nn.Module, images: Tensor, layer: str, mask: FeatureMask, chunk: int) -> Representation:
    """Computes the representation of images in a layer.

    Args:
        model: The network, in evaluation mode.
        images: ``(N, C, H, W)``, normalised for the network.
        layer: Dotted module name.
        mask: The part of the output that counts.
        chunk: Number of images in a forward pass; halved when memory runs out.

    Returns:
        The representation.

    Raises:
        ValueError: If the layer has no such part, or computes something that is not finite.
    """
    outputs = outputs_of(model, images, [layer], chunk)[layer]
    select = mask.select(layer, outputs.shape)
    features = select(outputs)
    if not features.isfinite().all():
        raise ValueError(f"Layer {layer!r} computes NaN or infinite values for the images: the network has diverged.")
    return Representation(features, features.square().flatten(1).sum(1), select)


def outputs_of(model: nn.Module, inputs: Tensor, layers: Sequence[str], chunk: int) -> dict[str, Tensor]:
    """Computes the outputs of layers, without gradients, in chunks that fit the memory.

    Args:
        model: The network, in evaluation mode.
        inputs: ``(N, C, H, W)``, normalised for the network.
        layers: Dotted module names, or `OUTPUT`.
        chunk: Number of images in a forward pass; halved when memory runs out.

    Returns:
        The outputs, layer -> ``(N, ...)``, at least in float32.
    """
    forward = plain_forward(model, layers)

    def work(part: slice) -> Mapping[str, Tensor]:
        with torch.no_grad():
            return forward(inputs[part])

    parts = list(in_chunks(work, len(inputs), chunk))
    outputs = {layer: torch.cat([part[layer] for part in parts]) for layer in layers}
    return {layer: output.to(torch.promote_types(output.dtype, torch.float32)) for layer, output in outputs.items()}


@dataclass(frozen=True)
class Reconstructions:
    """The images of a batch: layer by layer in order of depth, restart by restart, original by original.

    Args:
        representations: Representations of the originals, by layer, in the order of the forward pass.
        weights: Factor on each layer's error.
        restarts: Number of reconstructions of each original.
    """

    representations: Mapping[str, Representation]
    weights: Mapping[str, float]
    restarts: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of layers, restarts and originals."""
        return len(self.representations), self.restarts, len(next(iter(self.representations.values())).norms)

    def rows(self, part: slice) -> dict[str, slice]:
        """Finds the images of each layer that a part of the batch holds.

        Args:
            part: Range of the batch's images.

        Returns:
            Range of the layer's images, by layer; layers without images are left out.
        """
        _, restarts, originals = self.shape
        rows = {}
        for index, layer in enumerate(self.representations):
            first = index * restarts * originals
            start, stop = (min(max(end - first, 0), restarts * originals) for end in (part.start, part.stop))
            if start < stop:
                rows[layer] = slice(start, stop)
        return rows

    def objective(self) -> Objective:
        """Makes the objective: the weighted squared error ‖Φ(x) − Φ₀‖² / ‖Φ₀‖², not divided where Φ₀ is 0.

        Returns:
            The objective of all images of the batch.
        """

        def bind(part: slice, device: torch.device) -> Loss:
            wanted = {}
            for layer, rows in self.rows(part).items():
                known = self.representations[layer]
                originals = torch.arange(rows.start, rows.stop, device=known.norms.device) % len(known.norms)
                norms = torch.where(known.norms > 0, known.norms, 1.0)
                factors = (self.weights[layer] / norms[originals]).to(device)
                wanted[layer] = (known.select, known.features[originals].to(device), factors)

            def loss(recorded: Mapping[str, Tensor]) -> Tensor:
                return torch.cat(
                    [
                        factors * squared_distance(select(recorded[layer]), features)
                        for layer, (select, features, factors) in wanted.items()
                    ]
                )

            return loss

        return Objective(tuple(self.representations), bind)
