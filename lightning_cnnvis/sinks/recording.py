"""Pictures, animations, tables and scalars kept in memory."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_cnnvis.sinks.protocol import EncodedAnimation, EncodedPicture, Sink
from lightning_cnnvis.sinks.tags import as_markdown


class Recording(Sink):
    """Keeps everything in memory, under the tags that it is given.

    Attributes:
        pictures: PNG files by tag and epoch.
        animations: GIF files by tag and epoch.
        tables: CSV by tag.
        documents: Files of text by name; sentences as Markdown, those of the last epoch.
        scalars: Numbers by tag and epoch. Those below ``cnnvis/``, the costs of the pictures, are left out.

    Examples:
        >>> recording = Recording()
        >>> recording.scalar("inversion_error/relu1", 0.5, step=3)
        >>> recording.scalars
        {'inversion_error/relu1': {3: 0.5}}
    """

    pictures: dict[str, dict[int, bytes]]
    animations: dict[str, dict[int, bytes]]
    tables: dict[str, str]
    documents: dict[str, str]
    scalars: dict[str, dict[int, float]]

    def __init__(self) -> None:
        self.pictures, self.animations, self.tables, self.documents, self.scalars = {}, {}, {}, {}, {}

    def picture(self, tag: str, picture: EncodedPicture, step: int) -> None:
        """Keeps a picture as a PNG file.

        Args:
            tag: Name of the picture.
            picture: The picture.
            step: The epoch, counted from 1.
        """
        self.pictures.setdefault(tag, {})[step] = picture.png

    def animation(self, tag: str, animation: EncodedAnimation, step: int) -> None:
        """Keeps an animation as a GIF file.

        Args:
            tag: Name of the animation.
            animation: The animation.
            step: The epoch, counted from 1.
        """
        self.animations.setdefault(tag, {})[step] = animation.gif

    def table(self, tag: str, csv: str) -> None:
        """Keeps a table.

        Args:
            tag: Name of the table.
            csv: Its lines.
        """
        self.tables[tag] = csv

    def text(self, tag: str, lines: Sequence[str], step: int) -> None:
        """Keeps sentences.

        Args:
            tag: Name of the text.
            lines: The sentences.
            step: The epoch, counted from 1.
        """
        self.documents[f"{tag}.md"] = as_markdown(lines)

    def document(self, name: str, content: str) -> None:
        """Keeps a file of text.

        Args:
            name: Name of the file.
            content: What is in it.
        """
        self.documents[name] = content

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Keeps a number.

        Args:
            tag: Name of the curve.
            value: The number.
            step: The epoch, counted from 1.
        """
        if not tag.startswith("cnnvis/"):
            self.scalars.setdefault(tag, {})[step] = float(value)
