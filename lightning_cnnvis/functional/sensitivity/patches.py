"""Patches: the parts of images that excite units without a map, such as those of dense layers and the output.

Donahue et al. 2013 (arXiv 1310.1531) look at such layers; a projection of theirs shows the whole image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.activations.harvest import top_activations
from lightning_cnnvis.functional.activations.top_k import NO_SAMPLE, TopActivations
from lightning_cnnvis.functional.network.forward import model_options
from lightning_cnnvis.functional.sensitivity.greyed_forward import GreyedForward, plan_greyed, squares
from lightning_cnnvis.functional.sensitivity.occlusion import over_pixels
from lightning_cnnvis.functional.tensors import cat_fields
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError, activations

SHARE = 0.5
"""A place belongs to a patch if it lowers the activation by this share of what the most harmful place does."""


@dataclass(frozen=True, eq=False)
class Patches:
    """The images that excite units most, and how far covering places of them lowers the activation.

    Attributes:
        images: ``(U, C, H, W)``, as the network saw them; ``units * k``, unit by unit, each from the strongest down.
        channels: ``(U,)``, numbers of the units.
        sample_ids: ``(U,)``, numbers of the images in the order in which they came; -1 where there were fewer.
        activations: ``(U,)``, the activations.
        drops: ``(U, P)``, how far a grey square at each place lowers the activation; negative where it rises.
        boxes: ``(P, 4)``, top, left, bottom and right of the squares.
        grid: Number of rows and columns of the squares.
        k: Number of images of each unit.
    """

    images: Tensor
    channels: Tensor
    sample_ids: Tensor
    activations: Tensor
    drops: Tensor
    boxes: Tensor
    grid: tuple[int, int]
    k: int

    def __len__(self) -> int:
        """The number of images, of all units together."""
        return len(self.images)

    @property
    def harm(self) -> Tensor:
        """How far each pixel lowers the activation, ``(U, H, W)``: the mean over the squares that cover it."""
        return over_pixels(self.drops, self.boxes, (self.images.shape[2], self.images.shape[3]))

    @property
    def regions(self) -> Tensor:
        """``(U, H, W)`` booleans: the pixels that lower the activation at least by half of what the worst one does."""
        harm = self.harm
        worst = harm.flatten(1).amax(1)[:, None, None]
        return (harm >= SHARE * worst) & (worst > 0)

    @property
    def extents(self) -> Tensor:
        """``(U, 4)``, the box around the most harmful square and what is connected to it; the image if nothing is."""
        height, width = self.images.shape[2:]
        found = []
        boxes = self.boxes.cpu()
        for drops in self.drops.cpu():
            members = _connected(drops.view(self.grid))
            if members:
                chosen = boxes[[row * self.grid[1] + column for row, column in sorted(members)]]
                found.append([*chosen[:, :2].amin(0).tolist(), *chosen[:, 2:].amax(0).tolist()])
            else:
                found.append([0, 0, height, width])
        return torch.tensor(found, device=self.boxes.device)

    @staticmethod
    def cat(parts: Sequence[Patches]) -> Patches:
        """Joins the units of several results with the same squares.

        Args:
            parts: Results of shares of the units, at least one.

        Returns:
            All units, in order.
        """
        return cat_fields(parts, shared=["boxes", "grid", "k"])


def _connected(drops: Tensor) -> set[tuple[int, int]]:
    """The places around the worst one that share an edge with it or one another, and do at least half of the harm."""
    worst = float(drops.max())
    if not worst > 0:
        return set()
    harmful = (drops >= SHARE * worst).tolist()
    start = divmod(int(drops.argmax()), drops.shape[1])
    members, frontier = {start}, [start]
    while frontier:
        row, column = frontier.pop()
        for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= place[0] < drops.shape[0] and 0 <= place[1] < drops.shape[1]
            if inside and place not in members and harmful[place[0]][place[1]]:
                members.add(place)
                frontier.append(place)
    return members


def patches(
    model: nn.Module,
    loader: Iterable[object],
    layer: str,
    channels: Sequence[int] | None = None,
    *,
    k: int = 9,
    patch: int = 32,
    stride: int = 8,
) -> Patches:
    """Finds the images that excite units of a layer without a map most, and the parts of them that do it.

    A projection of such a unit shows the whole image, since the unit depends on all of it. Here a grey square slides
    over the image, and where the unit's activation falls, the square covers what excites it; see `occlusion`.

    Args:
        model: The network. It is left as it was.
        loader: Batches of images ``(N, C, H, W)``, or tuples and lists that begin with them, normalised as the network
            expects them.
        layer: Dotted name of the layer, whose output is ``(N, units)`` or ``(N, units, 1, 1)``.
        channels: Numbers of the units; all of them if None.
        k: Number of images of each unit.
        patch: Side of the square in pixels.
        stride: Step of the square in pixels.

    Returns:
        ``units * k`` images with their drops, on the model's device.

    Raises:
        LayerError: If the layer does not exist, or has a map: projections show the parts of its units.
        ValueError: If a number is out of range, or there are fewer images than ``k``.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> found = patches(net, [torch.rand(6, 3, 16, 16)], "4", [0, 3], k=2, patch=6, stride=5)
        >>> found.images.shape, found.drops.shape, found.regions.shape
        (torch.Size([4, 3, 16, 16]), torch.Size([4, 9]), torch.Size([4, 16, 16]))
    """
    # what is wrong shows on the first batch, before all images have been gone through
    batches = iter(loader)
    first = next(batches, None)
    image = first[0] if isinstance(first, list | tuple) else first
    if not isinstance(image, Tensor):
        raise ValueError(f"The loader gave a {type(image).__name__}, not a tensor of images (N, C, H, W).")
    squares((image.shape[2], image.shape[3]), patch, stride)
    with isolated(model) as network, torch.no_grad():
        output = activations(network, image[:1].to(model_options(network)), [layer])[layer]
    check_without_map(layer, output.shape[1:])
    for channel in channels or ():
        if not 0 <= channel < output.shape[1]:
            raise ValueError(f"Unit {channel} is not in layer {layer!r}: it has units 0 to {output.shape[1] - 1}.")
    top = top_activations(model, chain([first], batches), [layer], k, channels)[layer]
    return patches_of(model, top, layer, patch=patch, stride=stride)


@torch.no_grad()
def patches_of(model: nn.Module, top: TopActivations, layer: str, *, patch: int, stride: int) -> Patches:
    """Finds the parts of images that excite units, where the images are known: the step of `patches` after that.

    Args:
        model: The network. It is left as it was.
        top: The strongest activations of the layer.
        layer: Dotted name of the layer.
        patch: Side of the square in pixels.
        stride: Step of the square in pixels.

    Returns:
        The patches.

    Raises:
        LayerError: If the layer has a map.
        ValueError: If a number is out of range.
    """
    check_without_map(layer, top.geometry.field.map_shape)
    boxes = squares(top.geometry.field.input_size, patch, stride)
    images, ids = top.windows.flatten(0, 1), top.sample_ids.flatten()
    channels = top.channels.repeat_interleave(top.k)
    with isolated(model) as network, torch.no_grad():
        drops = images.new_zeros(len(images), len(boxes))
        forward = plan_greyed(network, [layer], images[:1], boxes)
        # an image is covered once, however many units it excites
        of_sample: dict[int, list[int]] = {}
        for number, sample in enumerate(ids.tolist()):
            if sample != NO_SAMPLE:
                of_sample.setdefault(sample, []).append(number)
        for numbers in of_sample.values():
            own = torch.tensor(numbers, device=images.device)
            wanted = channels[own]
            untouched = top.values.flatten()[own].to(images.dtype)
            drops[own] = (untouched - _activations(forward, layer, images[own[:1]], wanted)).T
    rows = len(set(boxes[:, 0].tolist()))
    return Patches(
        images=images,
        channels=channels,
        sample_ids=ids,
        activations=top.values.flatten(),
        drops=drops,
        boxes=boxes.to(images.device),
        grid=(rows, len(boxes) // rows),
        k=top.k,
    )


def _activations(forward: GreyedForward, layer: str, image: Tensor, channels: Tensor) -> Tensor:
    """The activations of units with each square, ``(P, units)``."""
    return torch.cat(list(forward.read(image, lambda outputs: outputs[layer].flatten(1)[:, channels])))


def check_without_map(layer: str, shape: Sequence[int]) -> None:
    """Refuses layers whose units have a place.

    Args:
        layer: Name of the layer.
        shape: Shape of its output for one image: units, height and width.

    Raises:
        LayerError: If height or width are more than 1.
    """
    if any(side > 1 for side in shape[1:]):
        raise LayerError(
            f"Layer {layer!r} has maps of {' × '.join(map(str, shape[1:]))}: projections (deconv) show the parts that "
            "excite its units. Name a layer that gives (N, units)."
        )
