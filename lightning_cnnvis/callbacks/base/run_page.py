"""The page of a run, for loggers that take one when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lightning_cnnvis.sinks import EncodedView, Sinks
from lightning_cnnvis.viewer.document import document


class RunPage:
    """What a run has shown, kept until its end where a logger takes pages: some megabytes at most."""

    def __init__(self, views: Iterable[EncodedView] = ()) -> None:
        self._views = list(views)

    @classmethod
    def of(cls, pages: Iterable[RunPage]) -> RunPage:
        """Puts what several callbacks have shown on one page.

        Args:
            pages: A page for each callback.

        Returns:
            The page of all.
        """
        return cls(view for page in pages for view in page._views)

    def taking(self, sinks: Sinks) -> Callable[[EncodedView, int], None] | None:
        """Finds out who has a use for what is shown now.

        Args:
            sinks: The sinks of the run.

        Returns:
            Gives a view of an epoch to the sinks, and keeps it for the page; None if nobody has a use for either.
        """
        at_once, at_the_end = sinks.takes_views, sinks.takes_pages

        def take(view: EncodedView, epoch: int) -> None:
            if at_the_end:
                self._views.append(view)
            if at_once:
                sinks.view(view, epoch)

        return take if at_once or at_the_end else None

    def give(self, sinks: Sinks, title: str) -> None:
        """Gives the page to the sinks that take pages, if anything has been shown.

        Args:
            sinks: The sinks of the run.
            title: The title.
        """
        if self._views:
            sinks.page("report", document(self._views, title))
