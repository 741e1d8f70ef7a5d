"""Pictures of several epochs, in one strip."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar

from torch import Tensor

MAX_COLUMNS = 24
"""A longer strip loses every second of its older columns, so that neither pictures nor checkpoints grow for ever."""


@dataclass(frozen=True)
class PictureColumn:
    """One epoch of a strip of plain pictures.

    Attributes:
        epoch: The epoch, counted from 1.
        pictures: ``(R, 3, h, w)``, ``uint8``, one a row of the strip.
        captions: What is written above each.
    """

    epoch: int
    pictures: Tensor
    captions: tuple[str, ...]


@dataclass
class PictureStrip:
    """The epochs of some pictures so far, as of the visualisations of classes.

    Attributes:
        columns: What the strip shows.
    """

    columns: list[PictureColumn] = field(default_factory=list)

    def add(self, column: PictureColumn) -> None:
        """Appends an epoch; what is there of it or of later ones goes, and so do epochs with other rows."""
        same = [known for known in self.columns if known.pictures.shape == column.pictures.shape]
        self.columns = appended(same, column)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and builtins only."""
        columns = [{**asdict(column), "captions": list(column.captions)} for column in self.columns]
        return {"columns": columns}

    @staticmethod
    def from_state_dict(state: dict[str, Any]) -> PictureStrip:
        """The inverse of `state_dict`."""
        return PictureStrip([PictureColumn(c["epoch"], c["pictures"], tuple(c["captions"])) for c in state["columns"]])


class _HasEpoch(Protocol):
    @property
    def epoch(self) -> int: ...


C = TypeVar("C", bound=_HasEpoch)


def appended(columns: list[C], column: C) -> list[C]:
    """Appends a column; drops columns of its or later epochs, and thins out what is longer than `MAX_COLUMNS`."""
    columns = [known for known in columns if known.epoch < column.epoch] + [column]
    return columns[:-2:2] + columns[-2:] if len(columns) > MAX_COLUMNS else columns
