"""Test whether projections depend on the network, or on the image only.

Adebayo et al. 2018 (arXiv 1810.03292).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cnnvis import figures
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.functional.deconvnet.rules import UnsupportedOperationError, get_rule
from lightning_cnnvis.functional.deconvnet.supported_ops import check_supported
from lightning_cnnvis.functional.network.canonical import LRNRule, check_choice
from lightning_cnnvis.functional.network.defaults import choose_depths
from lightning_cnnvis.functional.network.forward import noise_image
from lightning_cnnvis.functional.randomization.results import Randomization
from lightning_cnnvis.functional.randomization.stages import randomized_projections
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.deconv import DeconvOptions, plan, top_activations
from lightning_cnnvis.methods.method import Drawings, Method, Parts, ScalarPlot, Title
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.viewer.content import Gallery, Section, Tile

_RULES = ("deconvnet", "guided", "gradient")


@dataclass(frozen=True)
class RandomizationOptions:
    """Draws layers anew from the output down, and compares projections with those of the trained network.

    A picture that stays alike does not depend on the weights. See `randomization_test`.

    Args:
        layers: Dotted names of the layers; a low, a middle and a high rectified convolution if None.
        channels: Numbers of the feature maps of each layer, from 0; a seeded random choice if None. Of each map,
            the strongest activation is projected.
        num_channels: Number of feature maps to choose; every one if None.
        rules: Rules of the way down; ``"deconvnet"``, ``"guided"`` and ``"gradient"`` if None, of which the first two
            are left out where the network has operations that they cannot pass.
        stages: Number of stages, each of which draws one or more layers anew; a stage a layer if None.
        samples: Number of noisy copies of each image that a picture is the mean of; the smooth test takes 50.
        noise: Standard deviation of that noise over the range of values.
        lrn: Rule of local response normalisation on the way down: ``"identity"`` or ``"gradient"``.
        seed: Seed of the choice, of the weights and of the noise.

    Raises:
        ValueError: If an option is out of range, a layer is not there or cannot be projected, or a channel is out of
            range.
    """

    layers: Sequence[str] | None = None
    channels: Sequence[int] | None = None
    _: KW_ONLY
    num_channels: int | None = 8
    rules: Sequence[str] | None = None
    stages: int | None = 6
    samples: int = 1
    noise: float = 0.1
    lrn: LRNRule = "identity"
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_lists(layers=self.layers, channels=self.channels, rules=self.rules)
        check_at_least_one(num_channels=self.num_channels, stages=self.stages, samples=self.samples)
        if not self.noise >= 0:
            raise ValueError(f"noise={self.noise} must not be negative.")
        for rule in self.rules or ():
            get_rule(rule)
        check_choice("lrn", self.lrn, LRNRule)


@dataclass(frozen=True, eq=False)
class LayerRandomizations:
    """The tests of a layer's projections.

    Attributes:
        tests: The test of each rule, by its name.
        patches: ``(maps, C, h, w)``, what was projected, as the network saw it.
        channels: ``(maps,)``, numbers of the feature maps.
    """

    tests: Mapping[str, Randomization]
    patches: Tensor
    channels: Tensor


class RandomizationResult(Result):
    """Whether projections depend on the network."""

    @property
    def randomizations(self) -> Mapping[str, Mapping[str, Randomization]]:
        """The tests by layer and rule."""
        return {layer: part.tests for layer, part in self.parts.items()}


def _parts(subject: Subject, options: RandomizationOptions) -> Parts:
    layers = choose_depths(subject.default_layers()) if options.layers is None else options.layers
    for rule in options.rules or _RULES[-1:]:
        chosen = DeconvOptions(
            layers, options.channels, num_channels=options.num_channels, rule=rule, lrn=options.lrn, seed=options.seed
        )
        planned = plan(subject, chosen)
    return {layer: channels for layer, (channels, _) in planned.items()}


def _prepare(subject: Subject, options: RandomizationOptions, parts: Parts) -> dict[str, TopActivations]:
    return top_activations(subject, parts, 1, "gradient")


def _run(
    subject: Subject,
    options: RandomizationOptions,
    layer: str,
    channels: Sequence[int],
    tops: Mapping[str, TopActivations],
) -> LayerRandomizations:
    top = tops[layer]
    known = top.channels.tolist()
    first = known.index(channels[0])
    top = top[slice(first, first + len(channels))].to(subject.blank().device)  # a process's share: neighbours
    tests = {
        rule: randomized_projections(
            subject.network,
            top,
            layer,
            rule=rule,
            lrn=options.lrn,
            steps=options.stages,
            samples=options.samples,
            noise=options.noise,
            seed=options.seed,
        )
        for rule in options.rules or _rules_of(subject, layer)
    }
    return LayerRandomizations(tests, top.patches.flatten(0, 1), top.channels)


def _rules_of(subject: Subject, layer: str) -> tuple[str, ...]:
    """The rules that can pass what is before a layer."""
    with isolated(subject.network) as network:
        try:
            check_supported(network, layer, noise_image(network, subject.input_spec.size, subject.input_spec.channels))
        except UnsupportedOperationError:
            return _RULES[-1:]
    return _RULES


def _merge(results: Sequence[LayerRandomizations]) -> LayerRandomizations:
    return LayerRandomizations(
        {rule: Randomization.cat([result.tests[rule] for result in results]) for rule in results[0].tests},
        torch.cat([result.patches for result in results]),
        torch.cat([result.channels for result in results]),
    )


def _draw(
    subject: Subject, options: RandomizationOptions, layer: str, result: LayerRandomizations, title: Title
) -> Drawings:
    patches = subject.input_spec.denormalize(result.patches.cpu().float()).clamp(0, 1)
    labels = [f"#{channel}" for channel in result.channels.tolist()]
    picture = figures.randomization_figure(result.tests, patches, labels, title(layer), shown=2)
    return {f"{RANDOMIZATION.tag}/{layer}": picture}


def _scalars(options: RandomizationOptions, layer: str, result: LayerRandomizations) -> Mapping[str, float]:
    return {
        f"weight_dependence/{rule}/{layer}": float(test.dependence.nanmean()) for rule, test in result.tests.items()
    }


def _tables(options: RandomizationOptions, layer: str, result: LayerRandomizations) -> Mapping[str, str]:
    """Every score: of each rule, stage and control."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    first = next(iter(result.tests.values()))
    table.writerow(("rule", "stage", *first.scores))
    for rule, test in result.tests.items():
        stages = zip(test.layers, zip(*(scores.tolist() for scores in test.scores.values()), strict=True), strict=True)
        for stage, scores in [*stages, *((name, of.values()) for name, of in test.control_scores.items())]:
            table.writerow((rule, stage, *(f"{score:.4f}" for score in scores)))
    return {f"{RANDOMIZATION.tag}/{layer}": buffer.getvalue()}


def _sections(
    subject: Subject, options: RandomizationOptions, result: RandomizationResult, evolutions: Mapping[str, Any]
) -> list[Section]:
    tiles = []
    for layer, tests in result.randomizations.items():
        state = "; ".join(f"{rule}: {test.verdict}" for rule, test in tests.items())
        tiles.append(Tile(result.pictures[f"{RANDOMIZATION.tag}/{layer}"], layer, state))
    note = (
        "Pictures of the trained network beside those of the same network when its layers get random weights, from the "
        "last one down. What stays alike comes from the image and from the way pictures are made, not from what the "
        "network has learnt: 0 is the same picture, 1 has nothing in common with it."
    )
    return [Section("Are the pictures about the network?", (Gallery(tuple(tiles)),), note)]


def _refuse_layer(network: nn.Module, layer: str, image: Tensor) -> None:
    """Any layer can be tested by the plain gradient."""


RANDOMIZATION = Method(
    name="randomization",
    tag="randomization",
    summary=__doc__,
    options=RandomizationOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    merge=_merge,
    draw=_draw,
    scalars=_scalars,
    tables=_tables,
    plots={
        "weight_dependence": ScalarPlot(
            "Dependence of projections on the weights",
            "0: the same picture with random weights; 1: one that has nothing in common with it.",
        )
    },
    result=RandomizationResult,
    section=_sections,
    report={"num_channels": 4, "stages": 4},
)
register_method(RANDOMIZATION)
