"""Pictures, animations and tables as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_cnnvis.sinks.atomic import join, located, write
from lightning_cnnvis.sinks.protocol import EncodedAnimation, EncodedPicture, Sink, SinkError
from lightning_cnnvis.sinks.tags import as_markdown, document_file, epoch_file, table_file


class FileSink(Sink):
    """Writes ``<folder>/<tag>/epoch_0005.png``, ``.gif``, and ``<folder>/<tag>.csv``. Files appear when complete.

    Args:
        folder: A local folder, or the URL of a remote one that fsspec knows, such as ``"s3://bucket/run"``.

    Attributes:
        folder: A path if it is local, else the URL.

    Examples:
        >>> sink = FileSink("memory://pictures")
        >>> sink.table("inversion/accuracy", "layer,error")
        >>> sink.path("deconvnet/relu1", 5, ".png")
        'memory://pictures/deconvnet/relu1/epoch_0005.png'
    """

    folder: Path | str

    def __init__(self, folder: str | Path) -> None:
        self.folder = located(folder)

    def path(self, tag: str, step: int, suffix: str) -> Path | str:
        """Names the file of a picture or an animation.

        Args:
            tag: Name of the picture.
            step: The epoch, counted from 1.
            suffix: ``".png"`` or ``".gif"``.

        Returns:
            A path if the folder is local, else a URL.
        """
        return join(self.folder, epoch_file(tag, step, suffix))

    def picture(self, tag: str, picture: EncodedPicture, step: int) -> None:
        """Writes a PNG file.

        Args:
            tag: Name of the picture.
            picture: The picture.
            step: The epoch, counted from 1.

        Raises:
            SinkError: If it cannot be written.
        """
        _write(self.path(tag, step, ".png"), picture.png)

    def animation(self, tag: str, animation: EncodedAnimation, step: int) -> None:
        """Writes a GIF file.

        Args:
            tag: Name of the animation.
            animation: The animation.
            step: The epoch, counted from 1.

        Raises:
            SinkError: If it cannot be written.
        """
        _write(self.path(tag, step, ".gif"), animation.gif)

    def table(self, tag: str, csv: str) -> None:
        """Writes a CSV file.

        Args:
            tag: Name of the table.
            csv: Its lines.

        Raises:
            SinkError: If it cannot be written.
        """
        _write(join(self.folder, table_file(tag)), csv.encode())

    def text(self, tag: str, lines: Sequence[str], step: int) -> None:
        """Writes a Markdown file, which replaces that of an earlier epoch.

        Args:
            tag: Name of the text.
            lines: The sentences.
            step: The epoch, counted from 1.

        Raises:
            SinkError: If it cannot be written.
        """
        _write(join(self.folder, document_file(f"{tag}.md")), as_markdown(lines).encode(errors="replace"))

    def document(self, name: str, content: str) -> None:
        """Writes a file of text.

        Args:
            name: Name of the file.
            content: What is in it.

        Raises:
            SinkError: If it cannot be written.
        """
        _write(join(self.folder, document_file(name)), content.encode(errors="replace"))


def _write(location: Path | str, data: bytes) -> None:
    try:
        write(location, data)
    except Exception as error:  # a remote store may raise anything
        raise SinkError([f"{location} ({type(error).__name__}: {error})"]) from error
