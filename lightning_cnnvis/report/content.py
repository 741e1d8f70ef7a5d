"""What a report shows, as plain data: the page is made of this and nothing else, wherever it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lightning_cnnvis.viewer.content import Curves, NetworkLayer, Section


@dataclass(frozen=True)
class ReportContent:
    """Everything on the page; what is empty is left out.

    Attributes:
        title: Name of the network or the run.
        facts: Names and values, shown below the title.
        network: The layers that do something themselves, in the order in which they run.
        sections: What the methods show: sections about the whole network, then those about a layer.
        layers: The layers that a section is about, by name.
        curves: The plots.
        numbers: Numbers by tag, such as ``"top_overlap/relu1"``, and epoch: those of a layer are shown with it.
        left_out: What was left out, and why.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    network: tuple[NetworkLayer, ...]
    sections: tuple[Section, ...] = ()
    layers: tuple[NetworkLayer, ...] = ()
    curves: tuple[Curves, ...] = ()
    numbers: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
