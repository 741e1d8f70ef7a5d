"""What a network computes for copies of an image, each with one square of it grey."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.chunks import chunk_size, in_chunks, is_out_of_memory
from lightning_cnnvis.functional.network.data_dependence import reads_values
from lightning_cnnvis.functional.network.forward import noise_image, plain_forward
from lightning_cnnvis.functional.sensitivity.changed_forward import ChangedForward

T = TypeVar("T")

Way = Literal["changes", "copies", "one by one"]
"""How the copies are computed: only what a square changes; whole copies in batches; or each copy by itself."""

GREY = 0.0
"""The value of grey after normalisation: the mean of the data."""


def squares(size: tuple[int, int], patch: int, stride: int) -> Tensor:
    """Places a square on an image, step by step, so that the last row and column end with the image.

    Args:
        size: Height and width of the image in pixels.
        patch: Side of the square in pixels.
        stride: Step in pixels; the last one may be shorter.

    Returns:
        ``(P, 4)``, top, left, bottom and right of each place, row by row; bottom and right are exclusive.

    Raises:
        ValueError: If the square is larger than the image, or a number is below 1.

    Examples:
        >>> squares((4, 5), 4, 3).tolist()
        [[0, 0, 4, 4], [0, 1, 4, 5]]
    """
    for name, value in (("patch", patch), ("stride", stride)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1 pixel.")
    if patch > min(size):
        raise ValueError(
            f"patch={patch} is larger than the image of {size[0]} × {size[1]} pixels. Give at most {min(size)}."
        )
    tops, lefts = (torch.tensor([*range(0, length - patch, stride), length - patch], device="cpu") for length in size)
    corners = torch.cartesian_prod(tops, lefts)
    return torch.cat([corners, corners + patch], dim=1)


@dataclass(frozen=True, eq=False)
class GreyedForward:
    """Forward passes of copies of an image, each with one square grey.

    Attributes:
        model: The network, isolated and in evaluation mode.
        layers: Dotted names of the layers, and `OUTPUT` for the model's output.
        boxes: ``(P, 4)``, the squares, on the CPU.
        way: How the copies are computed; all ways give the same.
    """

    model: nn.Module
    layers: Sequence[str]
    boxes: Tensor
    way: Way

    def read(self, image: Tensor, read: Callable[[Mapping[str, Tensor]], T]) -> Iterator[T]:
        """Runs the copies of an image.

        Args:
            image: ``(1, C, H, W)``, on the model's device and in its dtype.
            read: Function that takes what it wants from the layers' outputs ``(B, ...)`` of some copies.

        Yields:
            What it takes, in the order of the squares.
        """
        size = {"changes": 4 * chunk_size(image), "copies": chunk_size(image), "one by one": 1}[self.way]

        @torch.no_grad()
        def chunk(part: slice) -> T:
            return read(self._outputs(image, self.boxes[part]))

        yield from in_chunks(chunk, len(self.boxes), size)

    def _outputs(self, image: Tensor, boxes: Tensor) -> Mapping[str, Tensor]:
        forward = plain_forward(self.model, self.layers)
        if self.way != "changes":
            return forward(laid_out(greyed(image.expand(len(boxes), -1, -1, -1), boxes)))
        height, width = (boxes[0, 2:] - boxes[0, :2]).tolist()
        windows = image.new_full((len(boxes), image.shape[1], height, width), GREY)
        changed = ChangedForward(laid_out(image.clone()), laid_out(windows), boxes[:, :2])
        with changed:
            outputs = forward(changed.inputs)
        return {layer: changed.whole(output) for layer, output in outputs.items()}


def plan_greyed(model: nn.Module, layers: Sequence[str], image: Tensor, boxes: Tensor) -> GreyedForward:
    """Finds the cheapest way to compute copies of an image that gives what each copy by itself gives.

    Each way is tried out on three squares in an image of noise.

    Args:
        model: The network, isolated and in evaluation mode.
        layers: Dotted names of the layers, the deepest last; `OUTPUT` for the model's output.
        image: ``(1, C, H, W)``; only its shape matters.
        boxes: ``(P, 4)``, squares of one size.

    Returns:
        The forward passes.

    Raises:
        LayerError: If a layer does not exist, does not run, or does not return a tensor.
    """
    noise = noise_image(model, (image.shape[2], image.shape[3]), image.shape[1])
    single = GreyedForward(model, layers, boxes, "one by one")
    few = boxes[[0, len(boxes) // 2, -1]]
    with torch.no_grad():
        expected = [single._outputs(noise, box[None]) for box in few]
        if reads_values(model, layers[-1], noise):
            return single
        ways: tuple[Way, ...] = ("changes", "copies")
        for way in ways:
            planned = GreyedForward(model, layers, boxes, way)
            try:
                found = planned._outputs(noise, few)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                continue  # such as a network that takes one image at a time; by itself, each copy just went well
            if all(_same(found[layer], torch.cat([one[layer] for one in expected])) for layer in layers):
                return planned
    return single


def _same(found: Tensor, expected: Tensor) -> bool:
    """Whether two results differ by rounding errors only."""
    if found.shape != expected.shape:
        return False
    tolerance = torch.finfo(expected.dtype).eps ** 0.5 * expected.abs().max()
    return bool(((found - expected).abs() <= tolerance).all())


def greyed(images: Tensor, boxes: Tensor) -> Tensor:
    """Makes a box of each image grey.

    Args:
        images: ``(N, C, H, W)``, normalised.
        boxes: ``(N, 4)``, top, left, bottom and right.

    Returns:
        Copies of the images.

    Examples:
        >>> greyed(torch.ones(1, 1, 2, 2), torch.tensor([[0, 0, 1, 2]])).tolist()
        [[[[0.0, 0.0], [1.0, 1.0]]]]
    """
    copies = images.clone(memory_format=torch.contiguous_format)
    for copy, (top, left, bottom, right) in zip(copies, boxes.tolist(), strict=True):
        copy[:, top:bottom, left:right] = GREY
    return copies


def laid_out(images: Tensor) -> Tensor:
    """Lays images out as they are computed fastest: on a CPU, with the channels side by side."""
    return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images
