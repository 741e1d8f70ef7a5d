"""Results of methods: what was found, and the pictures of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_cnnvis.figures import stacked
from lightning_cnnvis.pictures import Picture, encode_gif, encode_png
from lightning_cnnvis.sinks.atomic import write
from lightning_cnnvis.sinks.tags import as_markdown, document_file, tag_path


@dataclass(frozen=True, eq=False)
class Animation:
    """A moving picture.

    Attributes:
        frames: Pictures of one size.
        seconds_per_frame: How long a frame is shown.
    """

    frames: Sequence[Picture]
    seconds_per_frame: float = 0.1


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The result of a method. In a notebook it shows its pictures.

    Attributes:
        pictures: ``(H, W, 3)`` uint8 arrays, by tag such as ``"deconvnet/relu1"``.
        parts: What the method's function returned, by part: by layer, or under ``""`` where there is one part.
        animations: Moving pictures by tag.
        scalars: Numbers by tag.
        tables: Lines of CSV files by tag.
        texts: Sentences by tag.
        documents: Files of text by name.
        skipped: Image files that could not be read, and why.
    """

    pictures: Mapping[str, Picture]
    parts: Mapping[str, Any] = field(kw_only=True)
    animations: Mapping[str, Animation] = field(default_factory=dict, kw_only=True)
    scalars: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    tables: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict, kw_only=True)
    documents: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    skipped: Mapping[Path, str] = field(default_factory=dict, kw_only=True)

    def _repr_png_(self) -> bytes:
        return encode_png(stacked(list(self.pictures.values())))

    def save(self, path: str | Path) -> list[Path]:
        """Writes the pictures, animations, tables and texts.

        Args:
            path: A file that ends in ``.png`` gets all pictures, one below the other; else a folder, in which each
                picture, animation, table and text gets a file.

        Returns:
            The files. Each is written under a temporary name first.

        Raises:
            OSError: If one cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() == ".png":
            files = {path: self._repr_png_()}
        else:
            files = {path / f"{tag_path(tag)}.png": encode_png(picture) for tag, picture in self.pictures.items()}
            for tag, animation in self.animations.items():
                gif = encode_gif(animation.frames, animation.seconds_per_frame)
                files[path / f"{tag_path(tag)}.gif"] = gif
            files |= {path / f"{tag_path(tag)}.csv": table.encode() for tag, table in self.tables.items()}
            files |= {
                path / document_file(f"{tag}.md"): as_markdown(lines).encode() for tag, lines in self.texts.items()
            }
            files |= {path / document_file(name): content.encode() for name, content in self.documents.items()}
        for file, data in files.items():
            write(file, data)
        return list(files)

    def __repr__(self) -> str:
        """The names of the pictures."""
        return f"{type(self).__name__}({', '.join([*self.pictures, *self.animations])})"
