"""Occlusion: what a network says of an image while a grey square slides over it (Zeiler & Fergus 2013, section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.forward import OUTPUT, model_options, plain_forward
from lightning_cnnvis.functional.network.output import ClassOutput, class_indices, read_output
from lightning_cnnvis.functional.network.tracing import check_calls
from lightning_cnnvis.functional.sensitivity.greyed_forward import GreyedForward, plan_greyed, squares
from lightning_cnnvis.functional.tensors import cat_fields
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError, activations, has_units, trace_layers


@dataclass(frozen=True, eq=False)
class Occlusion:
    """What a network says of N images while a grey square lies at P places.

    What is about classes is None if the network is not a classifier, what is about a layer if there is none to look at.

    Attributes:
        boxes: ``(P, 4)``, top, left, bottom and right of the squares in pixels, row by row; bottom and right are
            exclusive.
        grid: Number of rows and columns of the squares.
        image_size: Height and width of the images in pixels.
        layer: Name of the layer; empty if there is none.
        classes: ``(N,)``, the class of each image.
        probabilities: ``(N, P)``, probability of the image's class with each square, in [0, 1].
        top_classes: ``(N, P)``, the most probable class with each square; of a network with one output, whether it is
            more probable than not.
        untouched_probabilities: ``(N,)``, probability of the class without a square.
        channels: ``(N,)``, the layer's feature map whose activity, summed over the map, is largest without a square.
        activities: ``(N, P)``, its summed activity with each square.
        untouched_activities: ``(N,)``, its summed activity without a square.
    """

    boxes: Tensor
    grid: tuple[int, int]
    image_size: tuple[int, int]
    layer: str
    classes: Tensor | None
    probabilities: Tensor | None
    top_classes: Tensor | None
    untouched_probabilities: Tensor | None
    channels: Tensor | None
    activities: Tensor | None
    untouched_activities: Tensor | None

    @property
    def drops(self) -> Tensor:
        """How far each square lowers the probability, or the activity where there are no classes: ``(N, P)``."""
        if self.probabilities is not None and self.untouched_probabilities is not None:
            return self.untouched_probabilities[:, None] - self.probabilities
        assert self.activities is not None
        assert self.untouched_activities is not None
        return self.untouched_activities[:, None] - self.activities

    @property
    def most_harmful(self) -> Tensor:
        """The square of each image with the largest drop, ``(N, 4)``."""
        return self.boxes[self.drops.argmax(1)]

    @property
    def harm(self) -> Tensor:
        """The drop of each pixel, ``(N, H, W)``: the mean over the squares that cover it, 0 where none does."""
        return over_pixels(self.drops, self.boxes, self.image_size)

    def on_grid(self, values: Tensor) -> Tensor:
        """Arranges values of the squares as maps.

        Args:
            values: ``(N, P)``.

        Returns:
            ``(N, rows, columns)``.
        """
        return values.reshape(len(values), *self.grid)

    @staticmethod
    def cat(parts: Sequence[Occlusion]) -> Occlusion:
        """Joins the images of several results with the same squares and layer.

        Args:
            parts: Results of shares of the images, at least one.

        Returns:
            All images, in order.
        """
        return cat_fields(parts, shared=["boxes", "grid", "image_size", "layer"])


def occlusion(
    model: nn.Module,
    images: Tensor,
    *,
    input_spec: InputSpec,
    layer: str | None = None,
    patch: int = 32,
    stride: int = 8,
    classes: Sequence[int | str] | Tensor | int | str | None = None,
) -> Occlusion:
    """Slides a grey square over images, and records what the network says (Zeiler & Fergus 2013, Figs 6 and 7).

    Where the probability of the class falls, the square covers what the network recognises it by. Each copy differs
    from its image in the square only, and what a square cannot change is taken from the image: the first layers are
    computed around the square, whole maps only from the layer on where its traces have spread over half of the map. The
    results are those of whole copies, up to rounding.

    Args:
        model: The network. It is left as it was.
        images: ``(N, C, H, W)``, normalised as the network expects them.
        input_spec: The network's input. Grey is its mean, 0 after normalisation.
        layer: Dotted name of the layer whose strongest feature map is followed; the deepest rectified convolution if
            None.
        patch: Side of the square in pixels.
        stride: Step in pixels. The last row and column of squares end with the image, so that their step may be
            shorter.
        classes: Index or name of each image's class; one for all images; or what the network takes each image for if
            None.

    Returns:
        Probabilities and activities, on the model's device.

    Raises:
        LayerError: If the layer does not exist, does not run, or gives neither maps nor tokens nor vectors.
        ValueError: If a number or a shape is out of range, there is no such class, or the network is neither a
            classifier nor has a convolution.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> spec = InputSpec(size=(16, 16))
        >>> found = occlusion(net, torch.rand(2, 3, 16, 16), input_spec=spec, patch=6, stride=4)
        >>> found.probabilities.shape, found.grid, found.layer
        (torch.Size([2, 16]), (4, 4), '1')
    """
    check_images(images, input_spec)
    size = (images.shape[2], images.shape[3])
    boxes = squares(size, patch, stride)
    with isolated(model) as network, torch.no_grad():
        images = images.detach().to(model_options(network))
        output = read_output(network, input_spec, torch.zeros_like(images[:1]))
        layer = _layer_to_follow(network, layer, images[:1])
        if output is None and not layer:
            raise ValueError(
                f"{type(model).__name__} is not a classifier and has no convolution: name the layer to look at."
            )
        given = _given_classes(classes, len(images), output, input_spec)
        layers = [*([layer] if layer else []), *([OUTPUT] if output else [])]
        forward = plan_greyed(network, layers, images[:1], boxes)
        found = [
            _of_image(forward, image[None], layer, output, None if given is None else given[n])
            for n, image in enumerate(images)
        ]
    rows = len(set(boxes[:, 0].tolist()))
    return Occlusion(
        boxes=boxes.to(images.device),
        grid=(rows, len(boxes) // rows),
        image_size=size,
        layer=layer,
        **{name: torch.cat([one[name] for one in found]) if name in found[0] else None for name in _MEASURED},
    )


_MEASURED = (
    "classes", "probabilities", "top_classes", "untouched_probabilities",
    "channels", "activities", "untouched_activities",
)  # fmt: skip


def _of_image(
    forward: GreyedForward, image: Tensor, layer: str, output: ClassOutput | None, given: int | None
) -> dict[str, Tensor]:
    """The measurements of one image, by the name of their field."""
    untouched = plain_forward(forward.model, forward.layers)(image)
    found: dict[str, Tensor] = {}
    if output is not None:
        probabilities = output.probabilities(untouched[OUTPUT])
        found["classes"] = probabilities.argmax(1) if given is None else image.new_tensor([given], dtype=torch.long)
        found["untouched_probabilities"] = probabilities.index_select(1, found["classes"])[:, 0]
    if layer:
        strengths = _activities(untouched[layer])
        found["channels"] = strengths.argmax(1)
        found["untouched_activities"] = strengths.index_select(1, found["channels"])[:, 0]

    def read(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        read: dict[str, Tensor] = {}
        if output is not None:
            read["probabilities"] = output.probabilities(outputs[OUTPUT]).index_select(1, found["classes"])[:, 0]
            read["top_classes"] = output.labels(outputs[OUTPUT])
        if layer:
            read["activities"] = _activities(outputs[layer]).index_select(1, found["channels"])[:, 0]
        return read

    chunks = list(forward.read(image, read))
    return found | {name: torch.cat([chunk[name] for chunk in chunks])[None] for name in chunks[0]}


def _activities(output: Tensor) -> Tensor:
    """The activity of each feature map, summed over the map: ``(N, K)``."""
    return output.flatten(2).sum(2) if output.ndim > 2 else output


def _given_classes(
    classes: Sequence[int | str] | Tensor | int | str | None,
    count: int,
    output: ClassOutput | None,
    input_spec: InputSpec,
) -> list[int] | None:
    """The class of each image; None leaves it to the network."""
    if classes is None:
        return None
    if output is None:
        raise ValueError("classes were given, but the network does not return logits (N, classes). Leave them out.")
    if isinstance(classes, Tensor):
        classes = classes.flatten().tolist()
    several = [classes] if isinstance(classes, int | str) else classes
    indices = class_indices(several, output.count, input_spec)
    if len(indices) not in (1, count):
        raise ValueError(f"There are {len(indices)} classes for {count} images. Give one, or one for each image.")
    return indices * count if len(indices) == 1 else indices


def _layer_to_follow(network: nn.Module, layer: str | None, image: Tensor) -> str:
    """The layer, when it is clear that it has feature maps or units; empty if there is none."""
    if layer is None:
        _, rectified = trace_layers(network, image)
        return rectified[-1] if rectified else ""
    check_calls(network, [layer], image)
    output = activations(network, image, [layer])[layer]
    if not has_units(network, layer, output):
        raise LayerError(
            f"Layer {layer!r} gives {tuple(output.shape)} for one image: name a layer that gives (N, C, H, W), "
            "(N, units) or tokens (N, T, C)."
        )
    return layer


def over_pixels(values: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Spreads values of boxes over the pixels that they cover.

    Args:
        values: ``(N, P)``.
        boxes: ``(P, 4)``, top, left, bottom and right.
        size: Height and width of the images.

    Returns:
        ``(N, H, W)``, the mean of the boxes that cover a pixel, 0 where none does.

    Examples:
        >>> over_pixels(torch.tensor([[1.0, 3.0]]), torch.tensor([[0, 0, 1, 2], [0, 1, 1, 3]]), (1, 4)).tolist()
        [[[1.0, 2.0, 3.0, 0.0]]]
    """
    # on the CPU: MPS has no float64, and CUDA adds in any order
    own, boxes = values.cpu().double(), boxes.cpu()
    weighted = torch.cat([own, own.new_ones(1, len(boxes))])
    # each box adds its value from its first corner on, and takes it away after its sides
    sums = weighted.new_zeros(len(weighted), (size[0] + 1) * (size[1] + 1))
    for row, column, sign in ((0, 1, 1), (0, 3, -1), (2, 1, -1), (2, 3, 1)):
        sums.index_add_(1, boxes[:, row] * (size[1] + 1) + boxes[:, column], sign * weighted)
    sums = sums.view(-1, size[0] + 1, size[1] + 1).cumsum(1).cumsum(2)[:, :-1, :-1]
    return (sums[:-1] / sums[-1].clamp(min=1)).to(values.dtype).to(values.device)


def check_images(images: Tensor, input_spec: InputSpec) -> None:
    """Refuses what are not images.

    Args:
        images: Anything.
        input_spec: The network's input.

    Raises:
        ValueError: If it is not ``(N, C, H, W)`` of floating-point values, with the input's channels.
    """
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images has shape {tuple(images.shape)}: it must be (N, C, H, W) with at least one image.")
    if not images.is_floating_point():
        raise ValueError(f"images is {images.dtype}. Give the network's normalised floating-point input.")
    if images.shape[1] != input_spec.channels:
        raise ValueError(
            f"images has {images.shape[1]} channels, and the network's input {input_spec.channels}: give images of as "
            "many, or input_spec=InputSpec(channels=...)."
        )
