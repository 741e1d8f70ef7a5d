"""Correspondence: whether a layer treats a part alike in different images (Zeiler & Fergus 2013, section 4.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.forward import model_options, plain_forward
from lightning_cnnvis.functional.network.tracing import check_calls
from lightning_cnnvis.functional.sensitivity.greyed_forward import greyed
from lightning_cnnvis.functional.sensitivity.occlusion import check_images
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated

RANDOM = "random"
"""Name of the random parts that the others are compared to."""


@dataclass(frozen=True, eq=False)
class Correspondence:
    """How differently layers react when the same part is covered in different images.

    Attributes:
        parts: Boxes of each part, ``(N, 4)``, top, left, bottom and right in pixels, by name.
        random: ``(S, N, 4)``, boxes of the random parts: S sets, each of the size of one of the parts.
        deltas: By layer and part, the mean over the pairs of images of the share of features whose change has another
            sign, in [0, 1]; `RANDOM` is that of the random parts. Low where the layer reacts alike.
        stds: By layer and part, the standard deviation over the pairs.
        pairs: By part, how many pairs these are of.
    """

    parts: Mapping[str, Tensor]
    random: Tensor
    deltas: Mapping[str, Mapping[str, float]]
    stds: Mapping[str, Mapping[str, float]]
    pairs: Mapping[str, int]

    def to_csv(self) -> str:
        """Formats the table, one row a layer and part.

        Returns:
            Its lines, with a header.
        """
        lines = ["layer,part,delta,std,pairs"]
        for layer, of_layer in self.deltas.items():
            lines += [
                f"{_cell(layer)},{_cell(part)},{delta:.6f},{self.stds[layer][part]:.6f},{self.pairs[part]}"
                for part, delta in of_layer.items()
            ]
        return "\n".join(lines) + "\n"


def correspondence(
    model: nn.Module,
    images: Tensor,
    parts: Mapping[str, Tensor | Sequence[Sequence[int]]],
    layers: Sequence[str],
    *,
    input_spec: InputSpec,
    random_sets: int = 10,
    seed: int = 0,
) -> Correspondence:
    """Covers the same part in several images, and compares how layers react (Zeiler & Fergus 2013, Table 1).

    For each image i, eps_i = features(image) − features(image with the part grey). Delta is the mean over the pairs of
    images of the Hamming distance of sign(eps_i) and sign(eps_j) over the number of features. Where it is lower for a
    part than for random places, the layer knows, in a way, which part it is.

    Args:
        model: The network. It is left as it was.
        images: ``(N, C, H, W)``, normalised as the network expects them; at least two.
        parts: Boxes ``(N, 4)`` of each part, top, left, bottom and right in pixels, by name; bottom and right are
            exclusive. A part named ``"random"`` takes the place of random ones.
        layers: Dotted names of the layers; `OUTPUT` for the model's output.
        input_spec: The network's input. Grey is its mean, 0 after normalisation.
        random_sets: Number of sets of random parts. They have the sizes of the parts, one after the other.
        seed: Seed of the random parts.

    Returns:
        The deltas.

    Raises:
        LayerError: If a layer does not exist, does not run, or does not return a tensor.
        ValueError: If there are fewer than two images, no part or no layer; if a part does not have a box for each
            image, or a box is empty or not within its image.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        >>> nose = [[4, 4, 9, 9], [5, 3, 10, 8], [4, 5, 9, 10]]
        >>> found = correspondence(net, torch.rand(3, 3, 16, 16), {"nose": nose}, ["1"], input_spec=InputSpec((16, 16)))
        >>> list(found.deltas["1"]), found.pairs
        (['nose', 'random'], {'nose': 3, 'random': 30})
    """
    check_images(images, input_spec)
    if len(images) < 2:
        raise ValueError("A correspondence compares images, but there is only one. Give at least two.")
    if not parts:
        raise ValueError("parts is empty. Give the boxes of at least one part.")
    if isinstance(layers, str) or not layers:
        raise ValueError(f"layers={layers!r} is not a list. Give the names of at least one layer.")
    if random_sets < 1:
        raise ValueError(f"random_sets={random_sets} must be at least 1.")
    size = (images.shape[2], images.shape[3])
    named = {name: check_boxes(name, boxes, len(images), size) for name, boxes in parts.items()}
    random = named[RANDOM][None] if RANDOM in named else _random_parts(list(named.values()), size, random_sets, seed)
    sets = {name: boxes[None] for name, boxes in named.items()} | {RANDOM: random}
    unlike: dict[str, dict[str, list[Tensor]]] = {layer: {name: [] for name in sets} for layer in layers}
    with isolated(model) as network, torch.no_grad():
        images = images.detach().to(model_options(network)).contiguous()
        check_calls(network, layers, images[:1])
        forward = plain_forward(network, layers)
        # One by one, and laid out alike, so that what a part does not change is the same to the last bit: the sign of a
        # rounding error is no sign.
        untouched = [forward(image[None].clone()) for image in images]
        for name, several in sets.items():
            for boxes in several:
                signs: dict[str, list[Tensor]] = {layer: [] for layer in layers}
                for n, before in enumerate(untouched):
                    after = forward(greyed(images[n, None], boxes[n, None]))
                    for layer in layers:
                        signs[layer].append((before[layer] - after[layer]).sign().flatten().to(torch.int8))
                for layer in layers:
                    unlike[layer][name] += [(a != b).sum() for a, b in combinations(signs[layer], 2)]
    # counted on the device, and read at the end
    values = {
        layer: {name: torch.stack(counts).cpu().double() / untouched[0][layer].numel() for name, counts in of.items()}
        for layer, of in unlike.items()
    }
    return Correspondence(
        parts={name: boxes for name, boxes in named.items() if name != RANDOM},
        random=random,
        deltas={layer: {name: float(d.mean()) for name, d in of.items()} for layer, of in values.items()},
        # of all pairs there are, whichever of two images comes first
        stds={layer: {name: float(d.std(correction=0)) for name, d in of.items()} for layer, of in values.items()},
        pairs={name: len(several) * len(images) * (len(images) - 1) // 2 for name, several in sets.items()},
    )


def check_boxes(name: str, boxes: Tensor | Sequence[Sequence[int]], count: int, size: tuple[int, int]) -> Tensor:
    """The boxes of a part, when it is clear that there is one in each image.

    Args:
        name: The part's name.
        boxes: ``(N, 4)``, top, left, bottom and right in pixels.
        count: The number of images.
        size: Height and width of the images.

    Returns:
        ``(N, 4)`` integers, on the CPU.

    Raises:
        ValueError: If there is another number of boxes, or one is empty or not within its image.
    """
    if not len(boxes) or any(len(box) != 4 for box in boxes):
        raise ValueError(f"Part {name!r} must have boxes of 4 numbers: top, left, bottom and right.")
    if len(boxes) != count:
        raise ValueError(f"Part {name!r} has {len(boxes)} boxes for {count} images. Give one for each image.")
    found = torch.as_tensor(boxes, device="cpu")
    if found.is_floating_point() and not torch.equal(found, found.round()):
        raise ValueError(f"Part {name!r} has a box that does not begin or end at whole pixels. Round it.")
    for n, box in enumerate(found.long().tolist()):
        top, left, bottom, right = box
        if not (0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]):
            raise ValueError(
                f"Box {n} of part {name!r}, {box}, is empty or not within the image of {size[0]} × {size[1]} pixels. "
                "Give top, left, bottom and right; bottom and right are exclusive."
            )
    return found.long()


def _random_parts(parts: Sequence[Tensor], size: tuple[int, int], sets: int, seed: int) -> Tensor:
    """Draws parts at random places, ``(S, N, 4)``; set s has the size of part s, counted round."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for n in range(sets):
        sides = parts[n % len(parts)][:, 2:] - parts[n % len(parts)][:, :2]
        room = torch.tensor(size, device="cpu") - sides + 1
        # the place of an image does not depend on how many there are after it
        corners = torch.stack(
            [
                torch.stack([torch.randint(int(side), (), generator=generator, device="cpu") for side in of])
                for of in room
            ]
        )
        drawn.append(torch.cat([corners, corners + sides], dim=1))
    return torch.stack(drawn)


def _cell(text: str) -> str:
    """A text as one cell of a CSV file."""
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r') else text
