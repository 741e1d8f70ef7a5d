"""The protocol of sinks, and what they are given."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lightning_cnnvis.pictures import Picture


@dataclass(frozen=True, eq=False)
class EncodedPicture:
    """A picture as pixels and as a file: it is encoded once, however many sinks take it.

    Attributes:
        pixels: ``(H, W, 3)``, uint8.
        png: The same as a PNG file.
    """

    pixels: Picture
    png: bytes


@dataclass(frozen=True, eq=False)
class EncodedAnimation:
    """An animation as frames and as a file.

    Attributes:
        frames: Pictures of one shape ``(H, W, 3)``, uint8; at least one.
        gif: The same as a GIF file.
        path: Local file that holds the GIF; None if there is none.
    """

    frames: Sequence[Picture]
    gif: bytes
    path: Path | None = None

    @contextmanager
    def as_file(self, name: str) -> Iterator[Path]:
        """Gives a local file with the animation to those who read it from there only.

        Args:
            name: Name of the temporary file that is made if no file holds the animation.

        Yields:
            The file. A temporary one is removed afterwards.
        """
        if self.path is not None:
            yield self.path
        else:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / name
                file.write_bytes(self.gif)
                yield file


@dataclass(frozen=True, eq=False)
class EncodedView:
    """What a method shows of one part of its work at one epoch, as the viewer reads it; see docs/viewer.md.

    Attributes:
        key: Tells it from the others of the same epoch, such as ``"deconvnet/relu1"``: any text.
        head: What is in it, as JSON: small, since a viewer reads the heads of all.
        body: The pictures' places in the sheets and what is said of them, as JSON.
        sheets: Sprite sheets, WebP files.
    """

    key: str
    head: bytes
    body: bytes
    sheets: tuple[bytes, ...] = ()


class Sink:
    """A place where pictures, animations, tables and scalars go.

    A subclass overrides what its place can show; the rest does nothing. Failures are raised: `Sinks` gathers them, and
    tries the other sinks all the same.

    Examples:
        >>> class Printer(Sink):
        ...     def scalar(self, tag: str, value: float, step: int) -> None:
        ...         print(f"{tag} at epoch {step}: {value}")
        >>> Printer().scalar("score", 0.5, step=3)
        score at epoch 3: 0.5
    """

    takes_views: bool = False
    """Whether it has a use for what the viewer reads, which costs some time to encode."""

    takes_pages: bool = False
    """Whether it has a use for a page of all that the viewer reads, when a run has ended."""

    def picture(self, tag: str, picture: EncodedPicture, step: int) -> None:
        """Takes a picture.

        Args:
            tag: Name of the picture: any text, with slashes between its parts.
            picture: The picture.
            step: The epoch, counted from 1.
        """

    def animation(self, tag: str, animation: EncodedAnimation, step: int) -> None:
        """Takes an animation.

        Args:
            tag: Name of the animation.
            animation: The animation.
            step: The epoch, counted from 1.
        """

    def table(self, tag: str, csv: str) -> None:
        """Takes a table, which replaces an earlier one of that name.

        Args:
            tag: Name of the table.
            csv: Its lines, comma-separated values.
        """

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Takes a number.

        Args:
            tag: Name of the curve.
            value: The number.
            step: The epoch, counted from 1.
        """

    def text(self, tag: str, lines: Sequence[str], step: int) -> None:
        """Takes sentences.

        Args:
            tag: Name of the text.
            lines: The sentences, plain text.
            step: The epoch, counted from 1.
        """

    def document(self, name: str, content: str) -> None:
        """Takes a file of text, which replaces an earlier one of that name.

        Args:
            name: Name of the file, with slashes between its folders, such as ``"diagnosis/findings.json"``.
            content: What is in it.
        """

    def view(self, view: EncodedView, step: int) -> None:
        """Takes what the viewer reads, if it `takes_views`.

        Args:
            view: The data.
            step: The epoch, counted from 1.
        """

    def page(self, name: str, html: str) -> None:
        """Takes the page of a run that has ended, if it `takes_pages`.

        Args:
            name: Name of the page.
            html: One HTML file that needs no other.
        """

    def flush(self) -> None:
        """Shows what has been taken in so far."""


class SinkError(OSError):
    """Pictures, tables or scalars could not be written. The message names each file and logger, and the reason.

    Args:
        failures: A phrase for each: the file or logger, and the reason in brackets.

    Attributes:
        failures: The same, without repetitions.
    """

    failures: tuple[str, ...]

    def __init__(self, failures: Sequence[str]) -> None:
        # a full disk fails for every picture in the same way
        self.failures = tuple(dict.fromkeys(failures))
        super().__init__(self.failures)

    def __str__(self) -> str:
        """Names the first three."""
        more = len(self.failures) - 3
        return f"Could not write to {'; '.join(self.failures[:3])}{f' and {more} more' if more > 0 else ''}."
