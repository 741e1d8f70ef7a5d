"""Project the top activations of feature maps to pixels.

Zeiler & Fergus 2013 (arXiv 1311.2901).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from lightning_cnnvis import figures
from lightning_cnnvis.evolution.features import LayerEvolution
from lightning_cnnvis.functional.activations.harvest import Harvest
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.functional.deconvnet.projection import Projections, plan_windows
from lightning_cnnvis.functional.deconvnet.rules import Rule, get_rule
from lightning_cnnvis.functional.deconvnet.specificity import Specificity, specificity
from lightning_cnnvis.functional.deconvnet.supported_ops import check_supported, fitting_rule
from lightning_cnnvis.functional.deconvnet.windows import Windows
from lightning_cnnvis.functional.network.canonical import LRNRule, check_choice
from lightning_cnnvis.functional.network.defaults import choose_channels
from lightning_cnnvis.functional.randomization.comparison import RANK_MEASURES
from lightning_cnnvis.functional.randomization.results import verdict
from lightning_cnnvis.functional.randomization.stages import randomized_projections
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.method import Drawings, Method, Parts, ScalarPlot, Title
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.pictures import Picture, as_bytes
from lightning_cnnvis.viewer.content import Block, FeatureMap, FeatureMaps, Section, Track, Tracks

TILE_SIDE = 64
"""Longer side in pixels of the tiles of feature maps in a report."""

AUTO = "auto"
"""The rule that depends on the network: see `with_rule`."""


@dataclass(frozen=True)
class DeconvOptions:
    """Projects the top activations of feature maps to pixels (Zeiler & Fergus 2013, Fig. 2, arXiv 1311.2901).

    Args:
        layers: Dotted names of the layers, and patterns, such as ``"layer*.1"``, or ``"all"``; at most six rectified
            convolutions, spread over the depth, if None.
        channels: Numbers of the feature maps to show of each layer, from 0; a seeded random choice if None.
        num_channels: Number of feature maps to choose; every one if None.
        k: Number of activations of each that are shown, at most one from an image.
        rule: Rule of the way down: ``"auto"``, which is ``"deconvnet"`` for a network with max-pooling and ``"guided"``
            for one without; ``"deconvnet"``, ``"guided"``, ``"gradient"`` or one that was registered; or a `Rule`. See
            `RectifiedBackward`.
        lrn: Rule of local response normalisation on the way down: ``"identity"`` or ``"gradient"``; see
            `RectifiableForward`.
        dependence: Whether to test how far the projections depend on the weights: 0 if they are the same with random
            weights, 1 if they have nothing in common. Takes as long as the projections. See `weight_dependence`.
        seed: Seed of the choice, and of the random weights.

    Raises:
        ValueError: If an option is out of range, a layer is not there or cannot be projected, or a channel is out of
            range.
    """

    layers: Sequence[str] | None = None
    channels: Sequence[int] | None = None
    _: KW_ONLY
    num_channels: int | None = 16
    k: int = 9
    rule: str | Rule = AUTO
    lrn: LRNRule = "identity"
    dependence: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_lists(layers=self.layers, channels=self.channels)
        check_at_least_one(num_channels=self.num_channels, k=self.k)
        if self.rule != AUTO:
            get_rule(self.rule)
        check_choice("lrn", self.lrn, LRNRule)


@dataclass(frozen=True, eq=False)
class LayerProjections:
    """The top activations of some feature maps of a layer, projected.

    Attributes:
        projections: ``maps * k`` units, map by map, each from the strongest down.
        top: The activations that were projected.
        dependence: ``(maps * k,)``, how far each projection depends on the weights; NaN for units that are not active.
            None if it was not asked for.
    """

    projections: Projections
    top: TopActivations
    dependence: Tensor | None = None

    @property
    def k(self) -> int:
        """The number of units of each feature map."""
        return self.top.k

    @cached_property
    def specificity(self) -> Specificity:
        """Whether the projections of a map are more alike than those of different maps."""
        units, field = self.projections, self.top.geometry.field
        offset, stride = (torch.tensor(pair, device=units.corners.device) for pair in (field.offset, field.stride))
        active = (units.activations > 0).cpu()
        return specificity(
            units.pixels.cpu()[active],
            units.channels.cpu()[active],
            self.top.sample_ids.flatten().cpu()[active],
            (units.corners - offset - stride * units.positions).cpu()[active],
        )


class DeconvResult(Result):
    """Top activations, projected to pixels."""

    @property
    def k(self) -> int:
        """The number of units of each feature map."""
        return min(int(part.k) for part in self.parts.values())

    @property
    def projections(self) -> Mapping[str, Projections]:
        """The projections by layer; ``maps * k`` units, map by map, each from the strongest down."""
        return {layer: part.projections for layer, part in self.parts.items()}

    @property
    def tops(self) -> Mapping[str, TopActivations]:
        """The activations that were projected, by layer."""
        return {layer: part.top for layer, part in self.parts.items()}


def with_rule(subject: Subject, options: DeconvOptions) -> DeconvOptions:
    """Settles the rule of ``rule="auto"``: one for all layers of a network, so that their figures compare.

    Args:
        subject: The network.
        options: The options.

    Returns:
        The options with ``"deconvnet"`` if there is a max-pooling below the deepest rectified convolution, whose
        switches a deconvnet needs, or no such convolution, else with ``"guided"``. Another rule stays as it is.
    """
    if options.rule != AUTO:
        return options
    deepest = subject.rectified_layers()[-1:]
    rule = "deconvnet"
    if deepest:
        with isolated(subject.network) as network:
            rule = fitting_rule(network, deepest[0], subject.blank())
    return replace(options, rule=rule)


def rule_suffix(options: DeconvOptions) -> str:
    """The part of tags that tells a rule from the deconvnet.

    Args:
        options: The options, with a settled rule.

    Returns:
        Such as ``"_guided"``; empty for the deconvnet.
    """
    name = get_rule(options.rule).name
    return "" if name == "deconvnet" else f"_{name}"


def plan(subject: Subject, options: DeconvOptions) -> dict[str, tuple[list[int], Windows]]:
    """Chooses the feature maps of each layer, and finds out on which windows of the images they are computed.

    Args:
        subject: The network.
        options: What to show.

    Returns:
        Feature maps and windows by layer.

    Raises:
        LayerError: If a layer is not there, or cannot be projected.
        ValueError: If a channel is out of range.
    """
    options = with_rule(subject, options)
    layers = subject.default_layers() if options.layers is None else subject.known_layers(options.layers)
    planned = {}
    for layer in layers:
        with isolated(subject.network) as network:
            windows = plan_windows(network, layer, subject.blank(), rule=options.rule)
        maps = windows.field.map_shape[0]
        if options.channels is None:
            chosen = choose_channels(layer, maps, options.num_channels, options.seed)
        else:
            chosen = check_channels(layer, options.channels, maps)
        planned[layer] = (chosen, windows)
    return planned


def check_channels(layer: str, channels: Sequence[int], maps: int) -> list[int]:
    """The channels, each once, when it is clear that the layer has them.

    Args:
        layer: The layer's name.
        channels: Numbers of feature maps.
        maps: The number of feature maps of the layer.

    Returns:
        The channels.

    Raises:
        ValueError: If one is out of range.
    """
    for channel in channels:
        if not 0 <= channel < maps:
            raise ValueError(f"Channel {channel} is not in layer {layer!r}: it has channels 0 to {maps - 1}.")
    return list(dict.fromkeys(channels))


def _parts(subject: Subject, options: DeconvOptions) -> Parts:
    return {layer: channels for layer, (channels, _) in plan(subject, options).items()}


def _prepare(subject: Subject, options: DeconvOptions, parts: Parts) -> dict[str, TopActivations]:
    return top_activations(subject, parts, options.k, with_rule(subject, options).rule)


def top_activations(
    subject: Subject, channels: Mapping[str, Sequence[int]], k: int, rule: str | Rule
) -> dict[str, TopActivations]:
    """The strongest activations of feature maps over all images.

    Args:
        subject: The network and the images.
        channels: Numbers of feature maps, by layer.
        k: Number of activations of each; fewer where there are fewer images, which would leave holes in pictures.
        rule: The projection rule that the layers must allow.

    Returns:
        The activations by layer.
    """
    settings = {
        "channels": {layer: list(maps) for layer, maps in channels.items()},
        "k": k,
        "rule": get_rule(rule).name,
    }
    with isolated(subject.network) as network, Harvest(network, channels, k, rule=rule) as harvest:
        seen = subject.show_images(network, harvest, settings)
    return {layer: top.best(min(k, seen)) for layer, top in harvest.tops.items()}


def _run(
    subject: Subject, options: DeconvOptions, layer: str, channels: Sequence[int], tops: Mapping[str, TopActivations]
) -> LayerProjections:
    options = with_rule(subject, options)
    top = tops[layer]
    known = top.channels.tolist()
    first = known.index(channels[0])
    if len(channels) < len(known):  # a process's share, which is a run of neighbours
        top = top[slice(first, first + len(channels))]
    top = top.to(subject.blank().device)
    projections = top.project(subject.network, layer, rule=options.rule, lrn=options.lrn)
    dependence = _dependence(subject, options, layer, top, projections) if options.dependence else None
    return LayerProjections(projections.to("cpu"), tops[layer], dependence)


def _dependence(
    subject: Subject, options: DeconvOptions, layer: str, top: TopActivations, projections: Projections
) -> Tensor:
    """How far each projection depends on the weights, ``(maps * k,)`` on the CPU."""
    test = randomized_projections(
        subject.network,
        top,
        layer,
        rule=options.rule,
        lrn=options.lrn,
        steps=1,
        seed=options.seed,
        controls=(),
        measures=RANK_MEASURES,
        originals=projections.pixels,
    )
    return test.dependence.masked_fill(projections.activations <= 0, torch.nan).cpu()


def _merge(results: Sequence[LayerProjections]) -> LayerProjections:
    shares = [result.dependence for result in results if result.dependence is not None]
    return LayerProjections(
        Projections.cat([result.projections for result in results]),
        results[0].top,
        torch.cat(shares) if shares else None,
    )


def _draw(subject: Subject, options: DeconvOptions, layer: str, result: LayerProjections, title: Title) -> Drawings:
    options = with_rule(subject, options)
    rule = get_rule(options.rule).name
    picture = figures.top_features(
        result.projections, result.k, subject.input_spec, title(f"{layer} · {rule}"), remark=_remark(options, result)
    )
    return {f"{DECONV.tag}{rule_suffix(options)}/{layer}": picture}


def _remark(options: DeconvOptions, result: LayerProjections) -> str:
    """Whether a layer's projections tell its maps apart, and how far they depend on the weights, where it is known."""
    found = result.specificity
    sentences = [] if math.isnan(found.within + found.between) else [f"Cosine of projections: {found}."]
    if found.fails:
        guided = "rule='guided' or " if get_rule(options.rule).name == "deconvnet" else ""
        sentences.append(
            "As alike between maps as within one, they say next to nothing about a single map, as happens with "
            f"few or no max-poolings below: try {guided}images optimised for the map."
        )
    if result.dependence is not None:
        sentences.append(f"The layer's projections: {verdict(_mean(result))}.")
    return " ".join(sentences)


def _mean(result: LayerProjections) -> float:
    assert result.dependence is not None
    return float(result.dependence.nanmean())


def _scalars(options: DeconvOptions, layer: str, result: LayerProjections) -> Mapping[str, float]:
    return {} if result.dependence is None else {f"projection_dependence/{layer}": _mean(result)}


def _refuse_layer(network: nn.Module, layer: str, image: Tensor) -> None:
    check_supported(network, layer, image)


def _sections(
    subject: Subject, options: DeconvOptions, result: DeconvResult, evolutions: Mapping[str, LayerEvolution]
) -> list[Section]:
    options = with_rule(subject, options)
    return [_section(subject, options, layer, result, evolutions.get(layer)) for layer in result.parts]


def _section(
    subject: Subject, options: DeconvOptions, layer: str, result: DeconvResult, evolution: LayerEvolution | None
) -> Section:
    part = result.parts[layer]
    blocks: list[Block] = []
    if evolution is not None and evolution.columns:
        epochs = tuple(column.epoch for column in evolution.columns)
        blocks.append(Tracks(epochs, _tracks(evolution, subject.input_spec)))
    total = part.top.geometry.field.map_shape[0]
    blocks.append(FeatureMaps(_feature_maps(part.projections, part.k, subject.input_spec), total))
    rule = get_rule(options.rule).name
    note = f"{'' if rule == 'deconvnet' else f'Projected by the rule {rule}. '}{_remark(options, part)}".strip()
    return Section(layer, tuple(blocks), note, layer=True)


def _feature_maps(projections: Projections, k: int, spec: InputSpec) -> tuple[FeatureMap, ...]:
    pictures = figures.contrast(figures.reduced(projections.pixels, TILE_SIDE))
    patches = spec.denormalize(projections.patches)
    found = []
    for start in range(0, len(projections), k):
        units = slice(start, start + k)
        activations = projections.activations[units]
        # grey where there were fewer images than places
        missing = (activations <= 0).view(-1, 1, 1, 1)
        rows = [_row(row[units].masked_fill(missing, 0.5)) for row in (pictures, patches)]
        found.append(FeatureMap(int(projections.channels[start]), tuple(activations.tolist()), np.concatenate(rows)))
    return tuple(found)


def _tracks(evolution: LayerEvolution, spec: InputSpec) -> tuple[Track, ...]:
    assert evolution.fixed is not None
    sources = spec.denormalize(figures.reduced(evolution.fixed.patches[:, 0].cpu(), figures.STRIP_SIDE))
    found = []
    for n, channel in enumerate(evolution.fixed.channels.tolist()):
        similarities, changed, before = [], [], None
        for column in evolution.columns:
            similarity = column.similarity[n]
            similarities.append(None if similarity.isnan() else float(similarity))
            changed.append(before is not None and int(column.sample_ids[n]) != before)
            before = int(column.sample_ids[n])
        rows = [
            _row(figures.from_bytes(torch.stack([getattr(column, of)[n] for column in evolution.columns])))
            for of in ("projections", "patches", "fixed")
        ]
        rows.append(_row(sources[n].expand(len(evolution.columns), -1, -1, -1)))
        found.append(Track(channel, tuple(similarities), tuple(changed), np.concatenate(rows)))
    return tuple(found)


def _row(pictures: Tensor) -> Picture:
    """Pictures ``(N, C, H, W)`` side by side, as `figures.tile` makes them one by one."""
    pixels = as_bytes(figures.reduced(pictures, TILE_SIDE)).permute(2, 0, 3, 1)
    height, count, width, colors = pixels.shape
    times = max(1, TILE_SIDE // max(height, width))
    return pixels.reshape(height, count * width, colors).numpy().repeat(times, axis=0).repeat(times, axis=1)


DECONV = Method(
    name="deconv",
    tag="deconvnet",
    summary=__doc__,
    options=DeconvOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    merge=_merge,
    draw=_draw,
    scalars=_scalars,
    plots={
        "projection_similarity": ScalarPlot(
            "Similarity of projections to the epoch before",
            "Of projections from images that stay the same: a layer near 1 has settled.",
            settles=True,
        ),
        "top_overlap": ScalarPlot(
            "Overlap of top images with the epoch before", "Of the images that activate a map most."
        ),
        "projection_dependence": ScalarPlot(
            "Dependence of projections on the weights",
            "0: the same picture with random weights; 1: one that has nothing in common with it.",
        ),
        "dead_maps": ScalarPlot("Share of dead feature maps", "Maps that no image activates."),
    },
    result=DeconvResult,
    section=_sections,
    report={"num_channels": 32, "dependence": True},
    evolve={},
    training={},
    refuse_layer=_refuse_layer,
)
register_method(DECONV)
