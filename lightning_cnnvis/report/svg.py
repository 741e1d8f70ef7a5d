"""Plots as SVG that takes its colours from the page, light or dark."""

from __future__ import annotations

import io
import re

from lightning_cnnvis.report.content import Curves

COLORS = 8
"""How many line colours the page defines, ``--line-0`` to ``--line-7``; further lines begin again, dashed."""

# Colours that nothing else has, exchanged for the page's own.
_INK, _FAINT = "#010203", "#010204"
_LINES = tuple(f"#0102{0x10 + n:02x}" for n in range(COLORS))


def svg(curves: Curves, name: str = "plot") -> str:
    """Draws a plot.

    No text of the user's is in it, only numbers: titles and names stand in the page, where the template escapes them.

    Args:
        curves: What to draw.
        name: Begins the ids inside, which must differ between the plots of a page.

    Returns:
        An ``<svg>`` element.

    Example:
        >>> svg(Curves("accuracy", "epoch", {"val": ((1, 0.2), (2, 0.5))}))[:4]
        '<svg'
    """
    from matplotlib import rc_context  # noqa: PLC0415 - only a report needs it
    from matplotlib.figure import Figure  # noqa: PLC0415 - a figure of its own: no window system, no global state
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter  # noqa: PLC0415

    # text stays text, in the page's font; the ids are the same every time
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lightning_cnnvis", "font.size": 9}):
        figure = Figure(figsize=(4.6, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for n, points in enumerate(curves.lines.values()):
            axes.plot(
                *zip(*points, strict=True),
                color=_LINES[n % COLORS],
                linestyle=("-" if n < COLORS else "--") if curves.joined else "none",
                linewidth=1.6,
                marker="o",
                markersize=3.5,
            )
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_FAINT)
        axes.tick_params(color=_FAINT, labelcolor=_INK, length=3)
        axes.grid(axis="y", color=_FAINT, alpha=0.25, linewidth=0.6)
        axes.set_xlabel(curves.x, color=_INK)
        if curves.log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        if curves.x == "epoch":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        buffer = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)
    for color, value in {_INK: "var(--ink)", _FAINT: "var(--faint)"}.items():
        text = text.replace(color, value)
    for n, color in enumerate(_LINES):
        text = text.replace(color, f"var(--line-{n})")
    return text
