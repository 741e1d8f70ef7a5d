"""The page of a report: one HTML file with everything in it."""

from __future__ import annotations

import base64
import io
import math

from PIL import Image

from lightning_cnnvis._version import __version__
from lightning_cnnvis.pictures import Picture
from lightning_cnnvis.report.content import ReportContent
from lightning_cnnvis.report.svg import COLORS, svg


def render(content: ReportContent) -> str:
    """Makes the page.

    Names of layers and classes may hold anything: the template escapes them, in the data of the scripts, too. The page
    forbids itself to ask the network for anything (a Content-Security-Policy).

    Args:
        content: What to show.

    Returns:
        HTML.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - only a report needs it
    from markupsafe import Markup  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("lightning_cnnvis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    environment.filters["number"] = "{:.3g}".format
    environment.filters["svg"] = lambda curves, name: Markup(svg(curves, name))  # drawn here, of numbers alone
    environment.filters["bar"] = _bar
    return environment.get_template("report.html.j2").render(
        content=content,
        version=__version__,
        colors=COLORS,
        anchors=_anchors(content),
        layers={layer.name: layer for layer in content.layers},
    )


def data_uri(picture: Picture) -> str:
    """A picture ``(H, W, 3)`` as the address of an image that is in the address itself."""
    image = Image.fromarray(picture)
    buffer = io.BytesIO()
    few = image.getcolors(maxcolors=4096)
    image.save(buffer, "WEBP", lossless=few is not None, quality=86, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _anchors(content: ReportContent) -> dict[str, str]:
    """Where in the page a layer is: names themselves may hold what an address cannot."""
    return {layer.name: f"layer-{n}" for n, layer in enumerate(content.layers)}


def _bar(shape: tuple[int, ...]) -> dict[str, int]:
    """Width and height in pixels of the block that stands for a layer: its channels, and the size of its map."""
    channels, side = (shape[0], shape[1]) if len(shape) == 3 else (shape[0] if shape else 1, 1)
    return {"width": round(3 + 1.6 * math.log2(max(channels, 1))), "height": round(6 + 6 * math.log2(max(side, 1)))}
