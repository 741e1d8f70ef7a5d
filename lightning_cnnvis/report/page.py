"""The page of a report: one HTML file with everything in it."""

from __future__ import annotations

from lightning_cnnvis.report.content import ReportContent
from lightning_cnnvis.report.views import views_of
from lightning_cnnvis.viewer.document import document
from lightning_cnnvis.viewer.encode import Compression

LARGEST = 25_000_000
"""Size in bytes up to which a page is compressed no further."""

LEVELS = (Compression(), Compression(quality=60, track_side=32), Compression(quality=45, track_side=20, map_side=44))
"""How much the pictures are compressed, in turn, until the page is no larger than that."""


def render(content: ReportContent) -> str:
    """Makes the page: the viewer, with its data in it.

    A large one has its pictures compressed further, first of all those of the film strips.

    Args:
        content: What to show.

    Returns:
        HTML.
    """
    for compression in LEVELS:
        page = document(views_of(content, compression), content.title, content.facts, content.left_out)
        if len(page) <= LARGEST:  # it is ASCII but for its script
            break
    return page
