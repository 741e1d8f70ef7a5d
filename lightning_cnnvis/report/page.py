"""The page of a report: one HTML file with everything in it."""

from __future__ import annotations

from lightning_cnnvis.report.content import ReportContent
from lightning_cnnvis.report.views import views_of
from lightning_cnnvis.viewer.document import document


def render(content: ReportContent) -> str:
    """Makes the page: the viewer, with its data in it.

    Args:
        content: What to show.

    Returns:
        HTML.
    """
    return document(views_of(content), content.title, content.facts, content.left_out)
