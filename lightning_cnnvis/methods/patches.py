"""Find the parts of images that excite units of dense layers and of the output.

Donahue et al. 2013 (arXiv 1310.1531), with the occlusion of Zeiler & Fergus 2013 (arXiv 1311.2901).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_cnnvis import figures
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.functional.network.defaults import choose_channels
from lightning_cnnvis.functional.sensitivity.greyed_forward import squares
from lightning_cnnvis.functional.sensitivity.patches import Patches, check_without_map, patches_of
from lightning_cnnvis.layers import LayerError, get_layer
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.deconv import check_channels, top_activations
from lightning_cnnvis.methods.method import Drawings, Method, Parts, ScalarPlot, Strip, Title
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.viewer.content import Gallery, Section, Tile

STRIP_SIDE = 96
"""Longest side in pixels of the pictures of a strip, which checkpoints keep."""

_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.ELU, nn.Hardswish, nn.Mish, nn.PReLU)
_LAST_LAYERS = 2
"""How many layers are shown where none are named."""


@dataclass(frozen=True)
class PatchesOptions:
    """Finds the images that excite units of dense layers and of the output most, and the parts of them that do it.

    See `patches`.

    Args:
        layers: Dotted names of layers that give ``(N, units)``; the last two, rectified where they are, if None.
        channels: Numbers of the units to show of each layer, from 0; a seeded random choice if None.
        num_channels: Number of units to choose; every one if None.
        k: Number of images of each unit.
        patch: Side of the square that covers parts in pixels; a seventh of the input's shorter side if None.
        stride: Step of the square in pixels; half of its side if None.
        seed: Seed of the choice.

    Raises:
        ValueError: If an option is out of range, the square is larger than the input, a layer is not there or has a
            map, or a unit is out of range.
    """

    layers: Sequence[str] | None = None
    channels: Sequence[int] | None = None
    _: KW_ONLY
    num_channels: int | None = 6
    k: int = 4
    patch: int | None = None
    stride: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_lists(layers=self.layers, channels=self.channels)
        check_at_least_one(num_channels=self.num_channels, k=self.k, patch=self.patch, stride=self.stride)


@dataclass(frozen=True, eq=False)
class LayerPatches:
    """The parts of images that excite units of a layer.

    Attributes:
        patches: Images and drops, unit by unit.
        labels: Label of each unit.
        strongest: ``(units, 3, h, w)``, ``uint8``, the strongest image of each unit with its part outlined, small.
    """

    patches: Patches
    labels: tuple[str, ...]
    strongest: Tensor


class PatchesResult(Result):
    """The parts of images that excite units."""

    @property
    def patches(self) -> Mapping[str, Patches]:
        """Images and drops by layer."""
        return {layer: part.patches for layer, part in self.parts.items()}


def _square(size: tuple[int, int], options: PatchesOptions) -> tuple[int, int]:
    patch = max(1, min(size) // 7) if options.patch is None else options.patch
    return patch, max(1, patch // 2) if options.stride is None else options.stride


def _shapes(subject: Subject) -> dict[str, tuple[int, ...]]:
    """The outputs' shapes of the layers that run once and have units without a map, in the order in which they run."""
    calls, _ = subject.calls()
    return {
        name: call.shape
        for name, call in calls.items()
        if call.calls == 1 and call.shape and call.shape[0] > 1 and all(side == 1 for side in call.shape[1:])
    }


def _last_layers(subject: Subject, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The last dense layers, each as its rectifier gives it where it has one; else the last layer without a map."""
    found: list[str] = []
    for name in shapes:
        module = get_layer(subject.network, name)
        if isinstance(module, nn.Linear):
            found.append(name)
        elif found and isinstance(module, _RECTIFIERS) and shapes[name] == shapes[found[-1]]:
            found[-1] = name
    found = found or list(shapes)[-1:]
    if not found:
        raise LayerError(
            f"{type(subject.network).__name__} has no layer that gives (N, units). Projections (deconv) show the parts "
            "that excite feature maps."
        )
    return found[-_LAST_LAYERS:]


def _parts(subject: Subject, options: PatchesOptions) -> Parts:
    size = subject.input_spec.size
    squares(size, *_square(size, options))  # refuses one that is too large
    shapes = _shapes(subject)
    layers = _last_layers(subject, shapes) if options.layers is None else subject.known_layers(options.layers)
    parts = {}
    for layer in layers:
        shape = shapes.get(layer) or _shape_of(subject, layer)
        if options.channels is None:
            parts[layer] = choose_channels(layer, shape[0], options.num_channels, options.seed)
        else:
            parts[layer] = check_channels(layer, options.channels, shape[0])
    return parts


def _shape_of(subject: Subject, layer: str) -> tuple[int, ...]:
    """The shape of a layer that is none of those without a map; refuses it with the reason."""
    calls, _ = subject.calls()
    if layer not in calls:
        raise LayerError(f"Layer {layer!r} does not run in the model's forward pass. Name one that does.")
    check_without_map(layer, calls[layer].shape)
    if not calls[layer].shape or calls[layer].calls > 1:
        raise LayerError(f"Layer {layer!r} does not give (N, units) once in a forward pass. Name one that does.")
    return calls[layer].shape


def _prepare(subject: Subject, options: PatchesOptions, parts: Parts) -> dict[str, TopActivations]:
    return top_activations(subject, parts, options.k, "gradient")


def _run(
    subject: Subject, options: PatchesOptions, layer: str, channels: Sequence[int], tops: Mapping[str, TopActivations]
) -> LayerPatches:
    top = tops[layer]
    known = top.channels.tolist()
    if len(channels) < len(known):  # a process's share, which is a run of neighbours
        first = known.index(channels[0])
        top = top[slice(first, first + len(channels))]
    blank = subject.blank()
    patch, stride = _square((blank.shape[2], blank.shape[3]), options)
    found = patches_of(subject.network, top.to(blank.device), layer, patch=patch, stride=stride)
    return LayerPatches(found, tuple(_labels(subject, layer, channels)), _strongest(subject, found))


def _strongest(subject: Subject, found: Patches) -> Tensor:
    first = slice(None, None, found.k)
    images = subject.input_spec.denormalize(found.images[first].cpu().float())
    small = figures.reduced(images, STRIP_SIDE).clamp(0, 1)
    inside = figures.reduced(found.regions[first, None].cpu().float(), STRIP_SIDE)[:, 0]
    return figures.as_bytes(figures.outlined(small, inside >= 0.5))


def _labels(subject: Subject, layer: str, channels: Sequence[int]) -> list[str]:
    """Names of the classes for units of the output, else the units' numbers."""
    shapes = _shapes(subject)
    of_output = layer == next(reversed(shapes), None) and shapes[layer][0] == subject.number_of_classes()
    return [subject.input_spec.class_name(c) if of_output else f"#{c}" for c in channels]


def _merge(results: Sequence[LayerPatches]) -> LayerPatches:
    return LayerPatches(
        Patches.cat([result.patches for result in results]),
        tuple(label for result in results for label in result.labels),
        torch.cat([result.strongest for result in results]),
    )


def _draw(subject: Subject, options: PatchesOptions, layer: str, result: LayerPatches, title: Title) -> Drawings:
    picture = figures.patches_figure(result.patches, result.labels, subject.input_spec, title(layer))
    return {f"{PATCHES.tag}/{layer}": picture}


def _scalars(options: PatchesOptions, layer: str, result: LayerPatches) -> Mapping[str, float]:
    return {f"{PATCHES.tag}_area/{layer}": float(result.patches.regions.float().mean())}


def _strip(options: PatchesOptions, layer: str, result: LayerPatches) -> Strip:
    found = result.patches
    first = slice(None, None, found.k)
    return Strip(
        f"{PATCHES.tag}/evolution/{layer}",
        f"{layer} · evolution",
        list(result.labels),
        result.strongest,
        [f"{float(activation):.3g}" for activation in found.activations[first]],
        side=STRIP_SIDE,
    )


def _sections(
    subject: Subject, options: PatchesOptions, result: PatchesResult, evolutions: Mapping[str, Any]
) -> list[Section]:
    blocks = []
    for layer, part in result.parts.items():
        found = part.patches
        shown = figures.patch_pictures(found, subject.input_spec, 112)
        tiles = [
            Tile(np.asarray(image), f"{layer} {part.labels[n // found.k]}", f"{float(found.activations[n]):.3g}")
            for n, image in enumerate(shown)
        ]
        blocks.append(Gallery(tuple(tiles)))
    note = (
        "The images that activate units of the last layers most. Outlined: where a grey square lowers the activation "
        "by at least half of what the worst place does."
    )
    return [Section("What excites the last layers", tuple(blocks), note)]


PATCHES = Method(
    name="patches",
    tag="patches",
    summary=__doc__,
    options=PatchesOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    merge=_merge,
    draw=_draw,
    scalars=_scalars,
    plots={
        "patches_area": ScalarPlot(
            "Share of the image that excites a unit",
            "Mean over units and images: small where a unit looks at one part.",
        )
    },
    strip=_strip,
    result=PatchesResult,
    section=_sections,
    report={"num_channels": 4, "k": 3},
    suits=lambda subject, layer: layer in _shapes(subject),
)
register_method(PATCHES)
