"""Rebuild images from what layers compute for them.

Mahendran & Vedaldi 2014 (arXiv 1412.0035) and 2016 (arXiv 1512.02017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.functional.inversion.metamers import FEWEST_OTHERS
from lightning_cnnvis.functional.inversion.methods import InversionMethod, check_method
from lightning_cnnvis.functional.inversion.reconstruction import InversionOptions, invert_layers
from lightning_cnnvis.functional.inversion.results import Inversions
from lightning_cnnvis.functional.noise import uniform
from lightning_cnnvis.functional.optimization.recipes import Recipe
from lightning_cnnvis.inputs.photographs import check_photographs, read_photographs
from lightning_cnnvis.layers import naming_layer
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.classes import preset_name
from lightning_cnnvis.methods.method import Drawings, Method, Parts, ScalarPlot, Strip, Title
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.viewer.content import Section, Series
from lightning_cnnvis.viewer.tiles import page_pictures, page_tiles

STRIP_SIDE = 96
"""Longest side in pixels of the pictures of a strip."""


@dataclass(frozen=True)
class InvertOptions:
    """Rebuilds images from what layers compute for them; see `invert_layers`. What is missing, the layer does not hold.

    Args:
        layers: Dotted names of the layers, and patterns, such as ``"layer*.1"``, or ``"all"``; at most six rectified
            convolutions, spread over the depth, if None.
        images: Photographs: files, which are cut to the network's input size, or ``(N, C, H, W)`` in [0, 1] of that
            size. The first of the images if None.
        count: Number of images to take where none are given.
        restarts: Number of reconstructions of each image, from different noise.
        method: ``"fourier"``, ``"mahendran2014"``, ``"mahendran2016"`` or one that was registered; or a
            `Recipe` or an `InversionMethod`.
        steps: Number of optimisation steps; the method's if None.
        others: Number of other images of the data to take. Features that are more alike than those of any pair of them,
            and the same label, say that a layer takes a reconstruction and its original for the same: each tile then
            tells. 0 leaves that out.
        seed: Seed of the noise to start from.

    Raises:
        ValueError: If an option is out of range, a photograph cannot be read, or a layer is not there.
    """

    layers: Sequence[str] | None = None
    _: KW_ONLY
    images: Sequence[str | Path] | Tensor | None = None
    count: int = 2
    restarts: int = 1
    method: str | Recipe | InversionMethod = "fourier"
    steps: int | None = None
    others: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges, and that photographs can be read."""
        check_at_least_one(count=self.count, restarts=self.restarts, steps=self.steps)
        check_lists(layers=self.layers, images=self.images)
        if self.others and self.others < FEWEST_OTHERS:
            raise ValueError(
                f"others={self.others} must be 0, or at least {FEWEST_OTHERS}: pairs of them are compared."
            )
        check_method(self.method)
        check_photographs(self.images)


@dataclass(frozen=True, eq=False)
class LayerInversions:
    """Images rebuilt from layers.

    Attributes:
        inversions: The reconstructions and their errors.
        images: ``(N, C, H, W)`` in [0, 1], the originals.
    """

    inversions: Inversions
    images: Tensor


class InvertResult(Result):
    """Images rebuilt from their features."""

    @property
    def inversions(self) -> Inversions:
        """The reconstructions and their errors."""
        found: LayerInversions = self.parts[""]
        return found.inversions


Prepared = tuple[Tensor, Tensor | None]
"""Originals and others, ``(N, C, H, W)`` in [0, 1]."""


def _parts(subject: Subject, options: InvertOptions) -> Parts:
    return {"": subject.default_layers() if options.layers is None else subject.known_layers(options.layers)}


def _prepare(subject: Subject, options: InvertOptions, parts: Parts) -> Prepared:
    """The originals, and other images if they are asked for."""
    known = None if options.images is None else read_photographs(options.images, subject.input_spec)
    wanted = _from_data(options)
    found = subject.images.first(wanted, subject.input_spec) if wanted else None
    if not options.others:
        images = found if known is None else known
        assert images is not None
        return images, None
    assert found is not None
    own = options.count if known is None else 0
    if len(found) - own < FEWEST_OTHERS:
        raise ValueError(
            f"others={options.others} needs at least {own + FEWEST_OTHERS} images of the data, not {len(found)}. Give "
            "more, or others=0."
        )
    return (found[:own] if known is None else known), found[own:]


def _from_data(options: InvertOptions) -> int:
    """How many images of the data are needed."""
    return options.others + (options.count if options.images is None else 0)


def _run(
    subject: Subject, options: InvertOptions, part: str, layers: Sequence[str], prepared: Prepared
) -> LayerInversions:
    images, others = prepared
    advanced = None if others is None else InversionOptions(others=subject.input_spec.normalize(others))
    with naming_layer(", ".join(layers)):  # which are worked on together
        inversions = invert_layers(
            subject.network,
            subject.to_network(subject.input_spec.normalize(images)),
            layers,
            input_spec=subject.input_spec,
            restarts=options.restarts,
            method=options.method,
            steps=options.steps,
            seed=options.seed,
            options=advanced,
        )
    return LayerInversions(inversions, images)


def _trial(subject: Subject, options: InvertOptions) -> tuple[InvertOptions, Prepared]:
    """A single step on noise."""
    return replace(options, restarts=1, steps=1), (uniform((1, *subject.input_spec.shape), options.seed), None)


def _merge(results: Sequence[LayerInversions]) -> LayerInversions:
    return LayerInversions(Inversions.cat([result.inversions for result in results]), results[0].images)


def _draw(subject: Subject, options: InvertOptions, part: str, result: LayerInversions, title: Title) -> Drawings:
    method = preset_name(options.method)
    rebuilt, found = result.inversions.images.clamp(0, 1), result.inversions
    drawn = figures.inversion_pictures(
        result.images, rebuilt, found.errors, found.layers, method, title, metamers=found.metamers
    )
    return {f"{INVERT.tag}/{name}": picture for name, picture in drawn.items()}


def _scalars(options: InvertOptions, part: str, result: LayerInversions) -> Mapping[str, float]:
    found, scalars = result.inversions, {}
    for n, layer in enumerate(found.layers):
        scalars[f"inversion_error/{layer}"] = float(found.errors[n].mean())
        if found.images.shape[1] > 1:
            scalars[f"inversion_variance/{layer}"] = float(found.pixel_variances[n].mean())
        if found.label_kept is not None:
            scalars[f"inversion_label_kept/{layer}"] = float(found.label_kept[n].float().mean())
        if found.metamers is not None:
            scalars[f"inversion_same/{layer}"] = float(found.metamers.taken_for_same[n].float().mean())
    return scalars


def _measured(state: Mapping[str, Any]) -> Mapping[str, Mapping[int, float]]:
    """The errors that `FeatureInversion` measured."""
    curves: dict[str, dict[int, float]] = {}
    for known in state.get("measurements", ()):
        curves.setdefault(f"inversion_error/{known['layer']}", {})[known["epoch"]] = known["error"]
    return curves


def _strip(options: InvertOptions, part: str, result: LayerInversions) -> Strip:
    first, errors = result.inversions.images.clamp(0, 1)[:, 0, 0], result.inversions.errors[:, 0, 0]
    return Strip(
        f"{INVERT.tag}/evolution",
        "Inversion · evolution",
        result.inversions.layers,
        figures.as_bytes(figures.reduced(first, STRIP_SIDE)),
        list(map(figures.inversion_caption, first, errors)),
        original=result.images[0],
        side=STRIP_SIDE,
    )


def _sections(
    subject: Subject, options: InvertOptions, result: InvertResult, evolutions: Mapping[str, Any]
) -> list[Section]:
    found = result.inversions
    rows = []
    for n, original in enumerate(page_pictures(found.originals)):
        rebuilt, errors = found.images[:, 0, n], found.errors[:, 0, n]
        states = list(map(figures.inversion_caption, rebuilt, errors))
        if found.metamers is not None:
            states = [f"{state} · {found.metamers.verdict(layer, 0, n)}" for layer, state in enumerate(states)]
        rows.append(Series(original, page_tiles(rebuilt, found.layers, states)))
    note = (
        "Images rebuilt from a layer's features alone, with the squared error over the features' squared norm. What "
        "differs from the original, the layer does not tell apart."
    )
    return [Section("What each layer still knows", tuple(rows), note)]


INVERT = Method(
    name="invert",
    tag="inversion",
    summary=__doc__,
    options=InvertOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    merge=_merge,
    draw=_draw,
    trial=_trial,
    scalars=_scalars,
    plots={
        "inversion_error": ScalarPlot(
            "Inversion error", "Squared, over the features' squared norm, of images rebuilt from each layer."
        ),
        "inversion_variance": ScalarPlot(
            "Variance between restarts",
            "Of the pixels, between images rebuilt from different noise: what the layer leaves open.",
        ),
        "inversion_label_kept": ScalarPlot(
            "Reconstructions of the original's class",
            "Rebuilt images that the network puts into the class it gave the original.",
        ),
        "inversion_same": ScalarPlot(
            "Reconstructions that the layer takes for the original",
            "Its features are more alike than those of any pair of other images, and the label is the same.",
        ),
    },
    error="inversion_error",
    measured=_measured,
    strip=_strip,
    probes=_from_data,
    result=InvertResult,
    section=_sections,
    evolve={"restarts": 1, "steps": 50},
    training={"restarts": 1, "steps": 64},
)
register_method(INVERT)
