"""From an analysis of a trained network, and the checkpoints of its run, to what a report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.evolution.features import LayerEvolution
from lightning_cnnvis.figures.projections import STRIP_SIDE
from lightning_cnnvis.functional.deconvnet.projection import Projections
from lightning_cnnvis.functional.inversion.results import Inversions
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.pictures import Picture
from lightning_cnnvis.posthoc import Analysis, DeconvResult, LayerInfo
from lightning_cnnvis.report.content import (
    Curves,
    FeatureMap,
    InversionRow,
    LayerContent,
    NetworkLayer,
    ReportContent,
    Tile,
    Track,
)

SIDE = 64
"""Longer side of the tiles of feature maps, in pixels."""
PICTURE_SIDE = 224
"""Longest side of optimised and rebuilt images; larger ones are reduced."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows, and how long it takes to make.

    Args:
        num_channels: Feature maps of each layer, a seeded random choice; every one if None.
        k: Strongest activations of each.
        classes: Images of classes; 0 leaves them out.
        inversions: Images that are rebuilt from the layers; 0 leaves them out.
        steps: Steps of the optimisations; the methods' own if None.
        seed: Seed of all random choices.

    Raises:
        ValueError: If a number is out of range.
    """

    num_channels: int | None = 32
    k: int = 9
    classes: int = 12
    inversions: int = 2
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name, least in (("num_channels", 1), ("k", 1), ("classes", 0), ("inversions", 0), ("steps", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value}: it must be at least {least}.")


def collect(
    analysis: Analysis,
    layers: Sequence[str] | None = None,
    *,
    evolutions: Mapping[str, LayerEvolution] | None = None,
    curves: Sequence[Curves] = (),
    options: ReportOptions | None = None,
) -> ReportContent:
    """Looks at a network with every method that it allows.

    Args:
        analysis: The network.
        layers: Dotted names of the layers to show; the rectified convolutions that a deconvnet can pass if None.
        evolutions: The epochs of its layers, by name.
        curves: Plots of its training.
        options: What to show.

    Returns:
        What a report shows. A network that is no classifier has no classes.

    Raises:
        LayerError: If a layer is not there or cannot be projected.
    """
    options = options or ReportOptions()
    table = {row.name: row for row in analysis.layers()}
    if layers is None:
        layers = [row.name for row in table.values() if row.default and row.passable]
    deconv = (
        analysis.deconv(layers, num_channels=options.num_channels, k=options.k, seed=options.seed) if layers else None
    )
    spec = analysis.input_spec
    return ReportContent(
        title=analysis.checkpoint.name,
        facts=_facts(analysis, deconv),
        network=tuple(NetworkLayer(row.name, row.kind, row.shape) for row in table.values() if _is_leaf(row, table)),
        layers=tuple(
            _layer(table[name], deconv, (evolutions or {}).get(name), spec) for name in layers if deconv is not None
        ),
        classes=_classes(analysis, options),
        inversions=_inversions(analysis, layers, options),
        curves=tuple(curves),
    )


def _facts(analysis: Analysis, deconv: DeconvResult | None) -> tuple[tuple[str, str], ...]:
    checkpoint, spec = analysis.checkpoint, analysis.input_spec
    weights = sum(parameter.numel() for parameter in analysis.model.parameters())
    facts = [("Input", f"{spec.channels}×{spec.size[0]}×{spec.size[1]}"), ("Weights", f"{weights:,}")]
    if spec.class_names:
        facts.append(("Classes", str(len(spec.class_names))))
    if checkpoint.epoch is not None:
        facts.append(("Epochs", str(checkpoint.epoch)))
    facts += [(name, f"{value:.3g}") for name, value in checkpoint.metrics.items()]
    if checkpoint.path is not None:
        facts.append(("Checkpoint", checkpoint.path.name))
    if checkpoint.absent:
        facts.append(("Weights are missing of", ", ".join(checkpoint.absent)))
    if deconv is not None and deconv.skipped:
        facts.append(("Images skipped", str(len(deconv.skipped))))
    return tuple(facts)


def _is_leaf(row: LayerInfo, table: Mapping[str, LayerInfo]) -> bool:
    """Whether a layer does something itself, and is not only there for others."""
    inside = any(other.startswith(f"{row.name}.") for other in table)
    return not inside and row.kind not in {"Dropout", "Dropout2d", "Identity"}


def _layer(row: LayerInfo, deconv: DeconvResult, evolution: LayerEvolution | None, spec: InputSpec) -> LayerContent:
    columns = evolution.columns if evolution is not None else []
    whole = row.stride is None or row.stride == (0, 0)
    return LayerContent(
        name=row.name,
        kind=row.kind,
        shape=row.shape,
        field=None if whole else row.field,
        stride=None if whole else row.stride,
        features=_features(deconv.projections[row.name], deconv.k, spec),
        epochs=tuple(column.epoch for column in columns),
        tracks=_tracks(evolution, spec) if evolution is not None and columns else (),
    )


def _features(projections: Projections, k: int, spec: InputSpec) -> tuple[FeatureMap, ...]:
    pictures = figures.contrast(figures.reduced(projections.pixels, SIDE))
    patches = spec.denormalize(projections.patches)
    found = []
    for start in range(0, len(projections), k):
        units = slice(start, start + k)
        activations = projections.activations[units].tolist()
        # where there were fewer images than places
        pixels = [pictures[units], patches[units]]
        active = [activation > 0 for activation in activations]
        rows = [
            _row([p if on else p.new_full(p.shape, 0.5) for p, on in zip(row, active, strict=True)]) for row in pixels
        ]
        found.append(FeatureMap(int(projections.channels[start]), tuple(activations), np.concatenate(rows)))
    return tuple(found)


def _tracks(evolution: LayerEvolution, spec: InputSpec) -> tuple[Track, ...]:
    assert evolution.fixed is not None
    sources = spec.denormalize(figures.reduced(evolution.fixed.patches[:, 0].cpu(), STRIP_SIDE))
    found = []
    for n, channel in enumerate(evolution.fixed.channels.tolist()):
        similarities, changed, before = [], [], None
        for column in evolution.columns:
            similarity = column.similarity[n]
            similarities.append(None if similarity.isnan() else float(similarity))
            changed.append(before is not None and int(column.sample_ids[n]) != before)
            before = int(column.sample_ids[n])
        rows = [
            _row([getattr(column, of)[n] / 255 for column in evolution.columns])
            for of in ("projections", "patches", "fixed")
        ]
        rows.append(_row([sources[n]] * len(evolution.columns)))
        found.append(Track(channel, tuple(similarities), tuple(changed), np.concatenate(rows)))
    return tuple(found)


def _row(pictures: Sequence[Tensor]) -> Picture:
    """Pictures ``(C, H, W)`` of one size side by side, as tiles."""
    return np.concatenate([np.asarray(figures.tile(picture, SIDE)) for picture in pictures], axis=1)


def _classes(analysis: Analysis, options: ReportOptions) -> tuple[Tile, ...]:
    count = min(options.classes, _number_of_classes(analysis))
    if not count:
        return ()
    shown = analysis.classes(range(count), steps=options.steps, seed=options.seed).visualizations
    assert shown is not None
    pictures = _pictures(shown.images)
    return tuple(
        Tile(picture, label, figures.state_of(shown, n).replace("\n", " · "))
        for n, (picture, label) in enumerate(zip(pictures, shown.labels, strict=True))
    )


def _number_of_classes(analysis: Analysis) -> int:
    """How many logits the network has; 0 if it is no classifier, or its end is missing."""
    if analysis.checkpoint.absent:
        return 0
    spec = analysis.input_spec
    parameter = next(analysis.model.parameters(), torch.empty(0))
    with torch.no_grad():
        output = analysis.model(torch.zeros(1, *spec.shape, dtype=parameter.dtype, device=parameter.device))
    return output.shape[1] if isinstance(output, Tensor) and output.ndim == 2 else 0


def _inversions(analysis: Analysis, layers: Sequence[str], options: ReportOptions) -> tuple[InversionRow, ...]:
    if not options.inversions or not layers:
        return ()
    inverted: Inversions = analysis.invert(
        layers, count=options.inversions, steps=options.steps, seed=options.seed
    ).inversions
    return tuple(
        InversionRow(
            original,
            tuple(
                Tile(picture, layer, figures.inversion_caption(image, error))
                for picture, layer, image, error in zip(
                    _pictures(inverted.images[:, 0, n]),
                    inverted.layers,
                    inverted.images[:, 0, n],
                    inverted.errors[:, 0, n],
                    strict=True,
                )
            ),
        )
        for n, original in enumerate(_pictures(inverted.originals))
    )


def _pictures(images: Tensor) -> list[Picture]:
    """Images ``(N, C, H, W)`` in [0, 1] as pictures."""
    pixels = figures.as_bytes(figures.reduced(images.clamp(0, 1), PICTURE_SIDE))
    return [picture.permute(1, 2, 0).numpy() for picture in pixels]
