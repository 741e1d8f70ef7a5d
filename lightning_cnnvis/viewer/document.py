"""The viewer with its data in it: one HTML file."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_cnnvis._version import __version__
from lightning_cnnvis.sinks.protocol import EncodedView
from lightning_cnnvis.viewer.bundle import bundled_script, bundled_style

_MADE = (
    f"Made by lightning_cnnvis {__version__}, after Zeiler & Fergus 2013, Simonyan et al. 2013, "
    "Mordvintsev et al. 2015, Mahendran & Vedaldi 2014 and 2016."
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="lightning_cnnvis {version}">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}
</style>
</head>
<body class="cnnvis">
<div class="titles"><h1>{title}</h1><p>The data are being read …</p></div>
<noscript><p>The report is shown by a script, and scripts are switched off.</p></noscript>
{data}
<script type="module">
{script}
</script>
</body>
</html>
"""

# within a script element, these could end it, or begin a comment
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&'"}


def document(
    views: Iterable[EncodedView],
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    left_out: Sequence[str] = (),
) -> str:
    """Makes a page of one run.

    Names of layers and classes may hold anything: they are data of the page's script, which shows them as text. The
    page forbids itself to ask the network for anything (a Content-Security-Policy).

    Args:
        views: What the run has shown.
        title: The title.
        facts: Names and values for the head of the page.
        left_out: Sentences on what is not shown.

    Returns:
        HTML.

    Examples:
        >>> "<title>A &amp; B</title>" in document([], "A & B")
        True
    """
    entries: list[dict[str, Any]] = []
    stores: dict[str, Any] = {}
    for n, view in enumerate(views):
        entry, parts = _entry(f"d{n}", view)
        entries.append(entry)
        stores |= parts
    index = {
        "title": title,
        "facts": facts,
        "left_out": left_out,
        "made": _MADE,
        "runs": [{"run": ".", "entries": entries}] if entries else [],
    }
    return _PAGE.format(
        title=html.escape(title),
        version=__version__,
        data="\n".join(_element(id_, data) for id_, data in {"index": index, **stores}.items()),
        script=bundled_script(),
        style=bundled_style(),
    )


def _entry(name: str, view: EncodedView) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What the index has of a view, and the rest by the ids of the elements that hold it."""
    sheets = {f"{name}-{n}": base64.b64encode(sheet).decode() for n, sheet in enumerate(view.sheets)}
    entry = {"id": name, "at": 0, "head": json.loads(view.head), "body": name, "sheets": list(sheets)}
    return entry, {name: json.loads(view.body), **sheets}


def _element(name: str, data: Any) -> str:
    text = json.dumps(data, separators=(",", ":")).translate(_ESCAPED)
    return f'<script type="application/json" id="{name}">{text}</script>'
