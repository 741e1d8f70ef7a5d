"""What a report shows, as plain data: the page is made of this and nothing else, wherever it came from."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_cnnvis.viewer.content import NetworkLayer, Section


@dataclass(frozen=True)
class Curves:
    """A plot.

    Attributes:
        title: What it shows.
        x: What is on the horizontal axis.
        lines: Points ``(x, y)`` by name.
        note: A sentence on how to read it.
        joined: Whether the points of a line are joined.
        log: Whether the horizontal axis is logarithmic.
    """

    title: str
    x: str
    lines: dict[str, tuple[tuple[float, float], ...]]
    note: str = ""
    joined: bool = True
    log: bool = False


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
        left_out: What was left out, and why.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    network: tuple[NetworkLayer, ...]
    sections: tuple[Section, ...] = ()
    layers: tuple[NetworkLayer, ...] = ()
    curves: tuple[Curves, ...] = ()
    left_out: tuple[str, ...] = ()
