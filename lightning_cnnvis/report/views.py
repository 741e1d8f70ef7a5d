"""From what a report shows to what the viewer reads."""

from __future__ import annotations

from dataclasses import replace

from lightning_cnnvis.methods.registry import scalar_plots
from lightning_cnnvis.report.content import ReportContent
from lightning_cnnvis.sinks import EncodedView
from lightning_cnnvis.viewer.content import Plots, Section, Tracks
from lightning_cnnvis.viewer.encode import About, Compression, encode, encode_network

LABEL = "report"


def views_of(content: ReportContent, compression: Compression = Compression()) -> list[EncodedView]:  # noqa: B008
    """Encodes everything on a report.

    Args:
        content: What to show. What the methods found is of the last epoch that a layer was followed at; the tracks of
            layers over the epochs are taken apart, since the viewer has one slider for all.
        compression: How much the pictures are compressed.

    Returns:
        The layers of the network, the plots, and the sections.
    """
    last = max((epoch for section in content.sections for epoch in _epochs(section)), default=0)
    views = [encode_network(content.network)] if content.network else []
    if content.curves:
        views.append(encode(Section("Training", (Plots(content.curves),)), About("curves")))
    for n, section in enumerate(content.sections):
        part, order = (section.title, 0) if section.layer else ("", n)
        for epoch in sorted({*_epochs(section), last}):
            shown = section if epoch == last else replace(section, blocks=_tracks(section))
            numbers = _numbers(content, section.title, epoch) if section.layer else {}
            views.append(encode(shown, About(LABEL, part, order, epoch, numbers, scalar_plots()), compression))
    return views


def _numbers(content: ReportContent, layer: str, epoch: int) -> dict[str, float]:
    """The numbers of a layer at an epoch, by tag."""
    return {
        tag: points[epoch]
        for tag, points in content.numbers.items()
        if epoch in points and tag.partition("/")[2] == layer
    }


def _tracks(section: Section) -> tuple[Tracks, ...]:
    return tuple(block for block in section.blocks if isinstance(block, Tracks))


def _epochs(section: Section) -> set[int]:
    return {epoch for block in _tracks(section) for epoch in block.epochs}
