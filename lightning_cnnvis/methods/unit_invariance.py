"""Walk from what a unit responds to most in the directions that it cares about least and most.

Berkes & Wiskott 2006 (https://doi.org/10.1162/neco.2006.18.8.1868).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.functional.network.defaults import choose_channels
from lightning_cnnvis.functional.optimization.recipes import Recipe
from lightning_cnnvis.functional.sensitivity.unit_invariance import UnitInvariance, unit_invariance
from lightning_cnnvis.functional.visualization.presets import check_preset
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import activations
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.deconv import check_channels
from lightning_cnnvis.methods.method import Drawings, Method, Parts, ScalarPlot, Strip, Title
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject

STRIP_SIDE = 96
"""Longest side in pixels of the pictures of a strip, which checkpoints keep."""

_SILENT = "does not respond\nto its stimulus"


@dataclass(frozen=True)
class UnitInvarianceOptions:
    """Finds the changes that units care about least and most, and walks along them; see `unit_invariance`.

    Args:
        layers: Dotted names of the layers; the deepest rectified convolution if None.
        channels: Numbers of the feature maps or units of each layer, from 0; a seeded choice if None.
        num_channels: Number to choose; every one if None.
        real: Whether to begin at the image that excites the unit most, of the first ``sample``, and not at an
            optimised one.
        sample: Number of images to look for it.
        num_directions: Number of directions of each kind, least and most.
        frequencies: Highest frequency of the search, in periods over the receptive field.
        preset: Name of a recipe of the stimuli, or a `Recipe`; see `preset_recipe`.
        steps: Number of optimisation steps; the preset's if None.
        seed: Seed of the choice and of the stimuli.

    Raises:
        ValueError: If an option is out of range, or there is no such layer or channel.
    """

    layers: Sequence[str] | None = None
    channels: Sequence[int] | None = None
    _: KW_ONLY
    num_channels: int | None = 2
    real: bool = False
    sample: int = 64
    num_directions: int = 3
    frequencies: int = 4
    preset: str | Recipe = "fourier"
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_lists(layers=self.layers, channels=self.channels)
        check_at_least_one(
            num_channels=self.num_channels,
            sample=self.sample,
            num_directions=self.num_directions,
            frequencies=self.frequencies,
            steps=self.steps,
        )
        if not isinstance(self.preset, Recipe):
            check_preset(self.preset)
        if self.channels is not None and not self.layers:
            raise ValueError(
                f"channels={list(self.channels)} requires layers: name the layers that they belong to, layers=[...]."
            )


class UnitInvarianceResult(Result):
    """Directions that units care about least and most."""

    @property
    def units(self) -> Mapping[str, UnitInvariance]:
        """The directions by layer."""
        return dict(self.parts)


def _parts(subject: Subject, options: UnitInvarianceOptions) -> Parts:
    layers = subject.rectified_layers()[-1:] if options.layers is None else subject.known_layers(options.layers)
    parts = {}
    with torch.no_grad(), isolated(subject.network) as network:
        outputs = activations(network, subject.blank(), layers)
    for layer in layers:
        maps = outputs[layer].shape[1]
        if options.channels is None:
            parts[layer] = choose_channels(layer, maps, options.num_channels, options.seed)
        else:
            parts[layer] = check_channels(layer, options.channels, maps)
    return parts


def _prepare(subject: Subject, options: UnitInvarianceOptions, parts: Parts) -> Tensor | None:
    """The images to look for stimuli in, ``(N, C, H, W)`` in [0, 1]; None for optimised ones."""
    return subject.images.first(options.sample, subject.input_spec) if options.real else None


def _run(
    subject: Subject,
    options: UnitInvarianceOptions,
    part: str,
    channels: Sequence[int],
    images: Tensor | None,
) -> UnitInvariance:
    return unit_invariance(
        subject.network,
        part,
        channels,
        input_spec=subject.input_spec,
        images=None if images is None else _most_exciting(subject, part, channels, images),
        num_directions=options.num_directions,
        frequencies=options.frequencies,
        preset=options.preset,
        steps=options.steps,
        seed=options.seed,
    )


def _most_exciting(subject: Subject, layer: str, channels: Sequence[int], images: Tensor) -> Tensor:
    """The image of each channel with its strongest activation, ``(N, C, H, W)``."""
    inputs = subject.to_network(subject.input_spec.normalize(images))
    with torch.no_grad(), isolated(subject.network) as network:
        outputs = [activations(network, image[None], [layer])[layer][0] for image in inputs]
    peaks = torch.stack([output.reshape(len(output), -1).amax(1) for output in outputs]).cpu()
    return images[peaks[:, list(channels)].argmax(0)]


def _draw(
    subject: Subject, options: UnitInvarianceOptions, part: str, result: UnitInvariance, title: Title
) -> Drawings:
    labels = [
        [_label(result, unit, row) for row in range(result.walks.shape[1])] if responds else [_SILENT]
        for unit, responds in enumerate(result.responds)
    ]
    picture = figures.unit_invariance_figure(
        result.images,
        result.walks,
        result.angles,
        labels,
        [f"{part} #{channel}" for channel in result.channels],
        title(f"What units do not care about · {part}"),
    )
    return {f"{UNIT_INVARIANCE.tag}/{part}": picture}


def _label(found: UnitInvariance, unit: int, row: int) -> str:
    """Names a direction: its rank, its curvature and the change that it resembles most, if it resembles one."""
    half = found.walks.shape[1] // 2
    rank = f"least {row + 1}" if row < half else f"most {row - half + 1}"
    known = max(found.alignments, key=lambda name: float(found.alignments[name][unit, row]))
    share = float(found.alignments[known][unit, row])
    return f"{rank}: {float(found.curvatures[unit, row]):.2f}" + (f"\n{known} ({share:.2f})" if share > 0.3 else "")


def _scalars(options: UnitInvarianceOptions, part: str, result: UnitInvariance) -> Mapping[str, float]:
    return {
        f"{UNIT_INVARIANCE.tag}_curvature/{name}/{part}": float(values[result.responds].mean())
        for name, values in result.changes.items()
        if result.responds.any()
    }


def _strip(options: UnitInvarianceOptions, part: str, result: UnitInvariance) -> Strip:
    return Strip(
        f"{UNIT_INVARIANCE.tag}/evolution/{part}",
        f"Stimuli of units · {part} · evolution",
        [f"#{channel}" for channel in result.channels],
        figures.as_bytes(figures.reduced(result.stimuli, STRIP_SIDE)),
        [
            f"{float(one[0]):.2f} to {float(one[len(one) // 2]):.2f}" if responds else "does not respond"
            for one, responds in zip(result.curvatures, result.responds, strict=True)
        ],
        side=STRIP_SIDE,
    )


UNIT_INVARIANCE = Method(
    name="unit_invariance",
    tag="unit_invariance",
    summary=__doc__,
    options=UnitInvarianceOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    merge=UnitInvariance.cat,
    draw=_draw,
    scalars=_scalars,
    plots={
        "unit_invariance_curvature": ScalarPlot(
            "Curvature of units in the direction of known changes",
            "Second derivative of the activation over the activation, per square radian: 0 is invariant.",
        )
    },
    strip=_strip,
    result=UnitInvarianceResult,
)
register_method(UNIT_INVARIANCE)
