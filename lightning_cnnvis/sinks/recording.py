"""Pictures and numbers kept in memory."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

from lightning_cnnvis.pictures import Picture, encode_png


class Recorder:
    """Takes in what a run's logger would: pictures as PNG files in memory, and numbers.

    Attributes:
        pictures: PNG files by tag and epoch.
        scalars: Numbers by tag and epoch.
    """

    log_dir = None

    def __init__(self) -> None:
        self.pictures: dict[str, dict[int, bytes]] = {}
        self.scalars: dict[str, dict[int, float]] = {}
        self.tables: dict[str, str] = {}
        self.experiment = _Pictures(self.pictures)  # what Lightning calls the library behind a logger

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Takes in numbers; what the pictures cost is not the training's."""
        for name, value in metrics.items():
            if not name.startswith("cnnvis/"):
                self.scalars.setdefault(name, {})[step] = float(value)


class _Pictures:
    def __init__(self, pictures: dict[str, dict[int, bytes]]) -> None:
        self._pictures = pictures

    def log_image(self, picture: Picture | BytesIO, name: str, step: int) -> None:
        # a picture as loggers get it: encoded already, or as it was drawn
        png = picture.getvalue() if isinstance(picture, BytesIO) else encode_png(picture)
        self._pictures.setdefault(name, {})[step] = png
