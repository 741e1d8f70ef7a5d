"""The page of a report: one HTML file with everything in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from lightning_cnnvis._version import __version__
from lightning_cnnvis.report.content import ReportContent
from lightning_cnnvis.report.views import views_of
from lightning_cnnvis.sinks import EncodedView
from lightning_cnnvis.viewer.bundle import bundled_script, bundled_style

_MADE = (
    f"Made by lightning_cnnvis {__version__}, after Zeiler & Fergus 2013, Simonyan et al. 2013, "
    "Mordvintsev et al. 2015, Mahendran & Vedaldi 2014 and 2016."
)


def render(content: ReportContent) -> str:
    """Makes the page: the viewer, with its data in it.

    Names of layers and classes may hold anything: they are data of the page's script, which shows them as text. The
    page forbids itself to ask the network for anything (a Content-Security-Policy).

    Args:
        content: What to show.

    Returns:
        HTML.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - only a report needs it

    environment = Environment(
        loader=PackageLoader("lightning_cnnvis.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    entries: list[dict[str, Any]] = []
    stores: dict[str, Any] = {}
    for n, view in enumerate(views_of(content)):
        entry, parts = _entry(f"d{n}", view)
        entries.append(entry)
        stores |= dict(parts)
    index = {
        "title": content.title,
        "facts": content.facts,
        "left_out": content.left_out,
        "made": _MADE,
        "runs": [{"run": ".", "entries": entries}] if entries else [],
    }
    return environment.get_template("report.html.j2").render(
        title=content.title,
        version=__version__,
        index=index,
        stores=stores,
        script=bundled_script(),
        style=bundled_style(),
    )


def _entry(name: str, view: EncodedView) -> tuple[dict[str, Any], Iterator[tuple[str, Any]]]:
    """What the index has of a view, and the rest by the ids of the elements that hold it."""
    sheets = {f"{name}-{n}": base64.b64encode(sheet).decode() for n, sheet in enumerate(view.sheets)}
    entry = {"id": name, "at": 0, "head": json.loads(view.head), "body": name, "sheets": list(sheets)}
    return entry, iter({name: json.loads(view.body), **sheets}.items())
