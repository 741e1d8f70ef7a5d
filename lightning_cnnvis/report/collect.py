"""From an analysis of a trained network, and the checkpoints of its run, to what a report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lightning_cnnvis.methods.method import Method
from lightning_cnnvis.methods.registry import all_methods, get_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.posthoc import Analysis, DataError, LayerInfo
from lightning_cnnvis.report.content import ReportContent
from lightning_cnnvis.viewer.content import Curves, NetworkLayer, Section


@dataclass(frozen=True)
class ReportOptions:
    """The methods that a report shows, and options of theirs.

    Args:
        show: Names of the methods; all that the network allows if None.
        num_channels: Number of feature maps of each layer; a number of each method's own if None.
        k: Number of strongest activations of each feature map; 9, or a number of each method's own, if None.
        steps: Number of optimisation steps; each method's own if None.
        seed: Seed of all random choices; 0 if None.
        rule: Rule of the projections, such as ``"guided"``; the one that suits the network if None.

    Raises:
        ValueError: If a number is out of range, or there is no method or rule of a name.
    """

    show: Sequence[str] | None = None
    num_channels: int | None = None
    k: int | None = None
    steps: int | None = None
    seed: int | None = None
    rule: str | None = None

    def __post_init__(self) -> None:
        """Checks the ranges and the names."""
        if isinstance(self.show, str):
            raise ValueError(f"show={self.show!r} is one name, not a list: give show=[{self.show!r}].")
        for name in ("num_channels", "k", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        for name in self.show or ():
            get_method(name)
        for method in self.methods:
            if self.rule is not None and "rule" in method.fields:
                self.of(method, None)  # refuses an unknown one

    @property
    def methods(self) -> list[Method[..., Any]]:
        """The methods to show, in the order in which they are listed."""
        shown = None if self.show is None else {get_method(name).name for name in self.show}
        return [
            method for method in all_methods() if (method.report is not None if shown is None else method.name in shown)
        ]

    def of(self, method: Method[..., Any], layers: Sequence[str] | None) -> Any:
        """The options of a method in a report.

        Args:
            method: The method.
            layers: Dotted names of the layers to show; those that the method chooses if None.

        Returns:
            The options: those asked for, else those that the method has for reports, else its defaults.
        """
        asked = {field.name: getattr(self, field.name) for field in fields(self)} | {"layers": layers}
        given = {name: value for name, value in asked.items() if value is not None}
        return method.options_of({**(method.report or {}), **given})


def collect(
    analysis: Analysis,
    layers: Sequence[str] | None = None,
    *,
    evolutions: Mapping[str, Any] | None = None,
    curves: Sequence[Curves] = (),
    numbers: Mapping[str, Mapping[int, float]] | None = None,
    options: ReportOptions | None = None,
) -> ReportContent:
    """Looks at a network with every method that it allows.

    Args:
        analysis: The network.
        layers: Dotted names of the layers to show; those that each method chooses, and can be used on, if None.
        evolutions: What was gathered over the epochs of a run, by layer.
        curves: Plots of its training.
        numbers: Numbers of its training by tag and epoch.
        options: The methods to show, and options of theirs.

    Returns:
        What a report shows. Methods that the network does not allow are left out, and named.

    Raises:
        DataError: If there are no images to show the network.
        LayerError: If a named layer is not there.
        ValueError: If a method cannot be used on a named layer.
    """
    options = options or ReportOptions()
    table = {row.name: row for row in analysis.layers()}
    if layers is not None:
        layers = analysis.subject.known_layers(layers)
    passable = [row.name for row in table.values() if row.default and row.passable]
    sections: list[Section] = []
    left_out: list[str] = []
    results: list[Result] = []
    for method in options.methods:
        of_method = (
            passable if layers is None and method.refuse_layer is not None else _suited(analysis, method, layers)
        )
        try:
            if of_method is not None and not of_method:
                raise ValueError("There is no layer that it can be used on.")
            chosen = options.of(method, of_method)
            result = analysis.look(method, chosen)
        except DataError:
            raise
        except ValueError as error:
            if of_method and layers is not None and "layers" in method.fields:
                raise
            left_out.append(f"{method.name}: {error}")
            continue
        results.append(result)
        sections += method.sections(analysis.subject, chosen, result, evolutions or {})
    about = {section.title for section in sections if section.layer}
    return ReportContent(
        title=analysis.checkpoint.name,
        facts=_facts(analysis, results),
        network=tuple(_network_layer(row) for row in table.values() if _is_leaf(row, table)),
        sections=tuple(sorted(sections, key=lambda section: (not section.first, section.layer))),
        layers=tuple(_network_layer(row) for row in table.values() if row.name in about),
        curves=tuple(curves),
        numbers=numbers or {},
        left_out=tuple(left_out),
    )


def _suited(analysis: Analysis, method: Method[..., Any], layers: Sequence[str] | None) -> Sequence[str] | None:
    """Those of the named layers that a method is for."""
    return layers and [layer for layer in layers if method.suits(analysis.subject, layer)]


def _facts(analysis: Analysis, results: Sequence[Result]) -> tuple[tuple[str, str], ...]:
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
    skipped = {path for result in results for path in result.skipped}
    if skipped:
        facts.append(("Images skipped", str(len(skipped))))
    return tuple(facts)


def _network_layer(row: LayerInfo) -> NetworkLayer:
    whole = row.stride is None or row.stride == (0, 0)
    return NetworkLayer(row.name, row.kind, row.shape, None if whole else row.field, None if whole else row.stride)


def _is_leaf(row: LayerInfo, table: Mapping[str, LayerInfo]) -> bool:
    """Whether a layer does something itself, and is not only there for others."""
    inside = any(other.startswith(f"{row.name}.") for other in table)
    return not inside and row.kind not in {"Dropout", "Dropout2d", "Identity"}
