"""Say what is wrong with the feature maps of a network.

Zeiler & Fergus 2013, section 4.1 (arXiv 1311.2901); Pezzotti et al. 2018, DeepEyes (https://doi.org/10.1109/TVCG.2017.2744358).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.functional.activations.harvest import Harvest
from lightning_cnnvis.functional.deconvnet.projection import Projections
from lightning_cnnvis.functional.deconvnet.rules import UnsupportedOperationError
from lightning_cnnvis.functional.deconvnet.supported_ops import fitting_rule
from lightning_cnnvis.functional.diagnosis.census import Census
from lightning_cnnvis.functional.diagnosis.examination import examine, followed_layers
from lightning_cnnvis.functional.diagnosis.findings import KINDS, FindingLimits
from lightning_cnnvis.functional.diagnosis.kernels import nyquist, spectra
from lightning_cnnvis.functional.diagnosis.measures import LayerMeasures
from lightning_cnnvis.functional.diagnosis.results import Diagnosis
from lightning_cnnvis.functional.network.defaults import choose_channels
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.method import Drawings, Method, Parts, ScalarPlot, Strip, Title
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.pictures import Picture
from lightning_cnnvis.viewer.content import Block, Gallery, Mark, Section, Sentences, Tile

STRIP_KERNELS = 12
"""Number of kernels in the strip over the epochs."""


@dataclass(frozen=True)
class DiagnoseOptions:
    """Says which feature maps are dead, always on, dominating, duplicates, aliased or noise, and what to try.

    See `diagnose` for what the words mean, and the page on diagnosis for the limits.

    Args:
        layers: Dotted names of the layers; the rectified output of every convolution if None.
        fail_on: Kinds of findings for which the command ends with status 1: ``dead``, ``always_on``, ``dominating``,
            ``duplicate``, ``aliased``, ``noisy``, ``undersampled``, ``too_wide`` or ``could_go``.
        num_channels: Number of feature maps with findings whose patches and projections are shown, the worst first; 0
            shows none.
        k: Number of images of each, out of 32 that are spread over the data.
        limits: The numbers from which something counts as wrong.

    Raises:
        ValueError: If an option is out of range, there is no such kind, or a layer is not there or has no maps.
    """

    layers: Sequence[str] | None = None
    _: KW_ONLY
    fail_on: Sequence[str] = ()
    num_channels: int = 6
    k: int = 4
    limits: FindingLimits = field(default_factory=FindingLimits)

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_lists(layers=self.layers)
        check_at_least_one(k=self.k)
        if isinstance(self.fail_on, str):
            raise ValueError(f"fail_on={self.fail_on!r} is one name, not a list: give fail_on=[{self.fail_on!r}].")
        unknown = [kind for kind in self.fail_on if kind not in KINDS]
        if unknown:
            raise ValueError(f"fail_on={unknown[0]!r} is not a kind of finding. There are {', '.join(KINDS)}.")
        if self.num_channels < 0:
            raise ValueError(f"num_channels={self.num_channels} must be at least 0.")


@dataclass(frozen=True, eq=False)
class Offenders:
    """Feature maps with findings, and what excites them.

    Attributes:
        layer: Name of the layer.
        projections: ``maps * k`` units, map by map, each from the strongest down.
        k: Number of units of each map.
    """

    layer: str
    projections: Projections
    k: int


@dataclass(frozen=True, eq=False)
class DiagnosedNetwork:
    """A diagnosis with pictures of the worst maps.

    Attributes:
        diagnosis: The diagnosis.
        offenders: The worst maps that are not dead, layer by layer.
    """

    diagnosis: Diagnosis
    offenders: tuple[Offenders, ...]


@dataclass(frozen=True, eq=False)
class Observed:
    """What was seen of a network.

    Attributes:
        census: What its maps did on the images.
        settled: The epoch at which each layer has settled, where that is known.
    """

    census: Census
    settled: Mapping[str, int] = field(default_factory=dict)


class DiagnoseResult(Result):
    """The diagnosis of a network."""

    @property
    def diagnosis(self) -> Diagnosis:
        """The findings, and the numbers behind them."""
        (part,) = self.parts.values()
        found: Diagnosis = part.diagnosis
        return found

    def __str__(self) -> str:
        """The findings in sentences, the worst first."""
        return "\n".join(self.diagnosis.sentences(20))


def channel_dims(subject: Subject, layers: Sequence[str] | None) -> dict[str, int]:
    """The layers to look at, each with the dimension of its output that holds the channels; see `followed_layers`.

    Args:
        subject: The network.
        layers: Dotted names; the rectified output of every convolution if None.

    Returns:
        The dimension by layer.

    Raises:
        LayerError: If a layer is not there or has no maps; if the network has no convolution.
    """
    known = None if layers is None else subject.known_layers(layers)
    return followed_layers(subject.network, subject.blank(), known)


def _parts(subject: Subject, options: DiagnoseOptions) -> Parts:
    return {"": list(channel_dims(subject, options.layers))}


def _prepare(subject: Subject, options: DiagnoseOptions, parts: Parts) -> Observed:
    dims = channel_dims(subject, parts[""])
    with isolated(subject.network) as network, Census(network, dims) as census:
        subject.show_images(network, census, {"layers": dims})
    return Observed(census)


def _run(
    subject: Subject, options: DiagnoseOptions, part: str, items: Sequence[str], observed: Observed
) -> DiagnosedNetwork:
    found = examine(subject.network, observed.census, limits=options.limits, settled=observed.settled)
    return DiagnosedNetwork(found, _offenders(subject, options, found, observed.census.images))


def _offenders(subject: Subject, options: DiagnoseOptions, found: Diagnosis, images: Tensor) -> tuple[Offenders, ...]:
    chosen: dict[str, list[int]] = {}
    room = options.num_channels
    for finding in found.findings:
        channels = [] if finding.kind == "dead" else finding.channels[:room]
        known = chosen.setdefault(finding.layer, []) if channels else []
        new = [channel for channel in channels if channel not in known]
        known += new
        room -= len(new)
    shown = [_projected(subject, layer, channels, images, options.k) for layer, channels in chosen.items()]
    return tuple(one for one in shown if one is not None)


def _projected(subject: Subject, layer: str, channels: Sequence[int], images: Tensor, k: int) -> Offenders | None:
    inputs = subject.to_network(images)
    with isolated(subject.network) as network:
        try:
            rule = fitting_rule(network, layer, inputs[:1])
            with Harvest(network, {layer: channels}, k, rule=rule) as harvest, torch.no_grad():
                network(inputs)
            top = harvest.tops[layer].best(min(k, len(inputs)))
            return Offenders(layer, top.project(network, layer, rule=rule), top.k)
        except (UnsupportedOperationError, LayerError):
            return None  # what a deconvnet cannot pass is no reason for not saying what is wrong


def _found_in(diagnosis: Diagnosis, layer: str) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for finding in diagnosis.findings:
        if finding.layer == layer:
            for channel in finding.channels:
                found.setdefault(channel, []).append(finding.kind)
    return found


def _first_layers(diagnosis: Diagnosis) -> list[LayerMeasures]:
    """The layers that read the image."""
    return [layer for layer in diagnosis.layers.values() if layer.reads_image]


def _pictures(subject: Subject, result: DiagnosedNetwork, title: Title) -> dict[str, Picture]:
    diagnosis, drawn = result.diagnosis, {}
    for first in _first_layers(diagnosis):
        assert first.convolution is not None
        name, found, weight = first.layer, _found_in(diagnosis, first.layer), first.convolution.weight
        drawn[f"kernels/{name}"] = figures.kernels_figure(weight, found, title(f"{name} · kernels"))
        if max(first.convolution.stride) > 1:
            limit = nyquist(first.convolution.stride)
            drawn[f"spectra/{name}"] = figures.spectra_figure(
                *spectra(weight), limit, first.aliased_energy, found, title(f"{name} · spectra of the kernels")
            )
    for one in result.offenders:
        drawn[f"maps/{one.layer}"] = figures.top_features(
            one.projections, one.k, subject.input_spec, title(f"{one.layer} · maps with findings")
        )
    return drawn


def _draw(subject: Subject, options: DiagnoseOptions, part: str, result: DiagnosedNetwork, title: Title) -> Drawings:
    return {f"{DIAGNOSE.tag}/{name}": picture for name, picture in _pictures(subject, result, title).items()}


def _scalars(options: DiagnoseOptions, part: str, result: DiagnosedNetwork) -> Mapping[str, float]:
    numbers: dict[str, float] = {}
    for layer, measures in result.diagnosis.layers.items():
        shares = {**result.diagnosis.shares(layer), "saturation": measures.saturation}
        numbers |= {f"{DIAGNOSE.tag}_{name}/{layer}": value for name, value in shares.items() if not math.isnan(value)}
    return numbers


def _tables(options: DiagnoseOptions, part: str, result: DiagnosedNetwork) -> Mapping[str, str]:
    found = result.diagnosis
    return {f"{DIAGNOSE.tag}/maps": found.table(), f"{DIAGNOSE.tag}/findings": found.findings_table()}


def _texts(options: DiagnoseOptions, part: str, result: DiagnosedNetwork) -> Mapping[str, Sequence[str]]:
    return {f"{DIAGNOSE.tag}/findings": result.diagnosis.sentences()}


def _documents(options: DiagnoseOptions, part: str, result: DiagnosedNetwork) -> Mapping[str, str]:
    return {f"{DIAGNOSE.tag}/findings.json": result.diagnosis.to_json()}


def _verdict(options: DiagnoseOptions, result: DiagnoseResult) -> str:
    found = [kind for kind in result.diagnosis.kinds if kind in options.fail_on]
    return f"There are findings of the kinds that must not be: {', '.join(found)}." if found else ""


def _strip(options: DiagnoseOptions, part: str, result: DiagnosedNetwork) -> Strip | None:
    first = next(iter(_first_layers(result.diagnosis)), None)
    if first is None or first.convolution is None:
        return None
    channels = choose_channels(first.layer, first.maps, STRIP_KERNELS, 0)
    found = _found_in(result.diagnosis, first.layer)
    return Strip(
        f"{DIAGNOSE.tag}/evolution/{first.layer}",
        f"{first.layer} · kernels",
        [f"#{channel}" for channel in channels],
        figures.kernel_pictures(first.convolution.weight[channels]),
        [" ".join(kind.replace("_", " ") for kind in found.get(channel, ())[:1]) for channel in channels],
        side=56,
    )


def _sections(
    subject: Subject, options: DiagnoseOptions, result: DiagnoseResult, evolutions: Mapping[str, Any]
) -> list[Section]:
    (part,) = result.parts.values()
    pictures = _pictures(subject, part, lambda shown: shown)
    tiles = tuple(Tile(picture, name.partition("/")[2]) for name, picture in pictures.items())
    said = Sentences(tuple(result.diagnosis.sentences()))
    blocks: tuple[Block, ...] = (said, Gallery(tiles)) if tiles else (said,)
    note = "What is wrong with feature maps and layers, the worst first; framed kernels have findings."
    marks = tuple(
        Mark(finding.layer, finding.channels, finding.kind.replace("_", " "), finding.sentence)
        for finding in result.diagnosis.findings
    )
    return [Section("Diagnosis", blocks, note, first=True, marks=marks)]


DIAGNOSE = Method(
    name="diagnose",
    tag="diagnosis",
    summary=__doc__,
    options=DiagnoseOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    draw=_draw,
    scalars=_scalars,
    tables=_tables,
    texts=_texts,
    documents=_documents,
    verdict=_verdict,
    plots={
        "diagnosis_dead": ScalarPlot("Share of dead maps", "Maps that are above 0 on no image."),
        "diagnosis_always_on": ScalarPlot("Share of maps that are always on", "Above 0 everywhere, on every image."),
        "diagnosis_duplicate": ScalarPlot("Share of duplicate maps", "Kernels that are others' up to sign and shift."),
        "diagnosis_aliased_energy": ScalarPlot(
            "Aliased energy", "Mean share of the energy of the first kernels above what their stride can sample."
        ),
        "diagnosis_saturation": ScalarPlot(
            "Saturation", "Share of directions that hold 99 % of a layer's variance: low where it is too wide."
        ),
    },
    strip=_strip,
    result=DiagnoseResult,
    section=_sections,
    report={},
    training={},
)
register_method(DIAGNOSE)
