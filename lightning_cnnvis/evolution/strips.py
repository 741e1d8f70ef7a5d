"""Strips: pictures of several epochs, side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar

from torch import Tensor

MAX_COLUMNS = 24
"""Longest strip. A longer one loses every second of its older columns, so that pictures and checkpoints stay small."""


@dataclass(frozen=True)
class PictureColumn:
    """One epoch of a strip of plain pictures.

    Attributes:
        epoch: The epoch, counted from 1.
        pictures: One picture per row of the strip, ``(R, 3, h, w)``, ``uint8``.
        captions: Captions of the pictures.
    """

    epoch: int
    pictures: Tensor
    captions: tuple[str, ...]


@dataclass
class PictureStrip:
    """The epochs of a set of pictures so far, such as the visualisations of classes.

    Attributes:
        columns: The columns of the strip, one per epoch.
    """

    columns: list[PictureColumn] = field(default_factory=list)

    def add(self, column: PictureColumn) -> None:
        """Appends a column; drops columns of this or later epochs, and columns whose pictures differ in shape.

        Args:
            column: The new last column.
        """
        same = [known for known in self.columns if known.pictures.shape == column.pictures.shape]
        self.columns = appended(same, column)

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint: only tensors and builtins.

        Returns:
            The state that `from_state_dict` takes.
        """
        columns = [{**asdict(column), "captions": list(column.captions)} for column in self.columns]
        return {"columns": columns}

    @staticmethod
    def from_state_dict(state: dict[str, Any]) -> PictureStrip:
        """Restores a strip.

        Args:
            state: A state that `state_dict` returned.

        Returns:
            The strip.
        """
        return PictureStrip([PictureColumn(c["epoch"], c["pictures"], tuple(c["captions"])) for c in state["columns"]])


class _HasEpoch(Protocol):
    @property
    def epoch(self) -> int: ...


C = TypeVar("C", bound=_HasEpoch)


def appended(columns: list[C], column: C) -> list[C]:
    """Appends a column; drops columns of its or later epochs, and thins out a strip longer than `MAX_COLUMNS`.

    Args:
        columns: The columns so far, in the order of their epochs. The list itself is not changed.
        column: The new last column.

    Returns:
        The new list of columns.

    Examples:
        >>> from torch import zeros
        >>> first, second, again = (PictureColumn(epoch, zeros(1, 3, 8, 8), ("",)) for epoch in (1, 2, 2))
        >>> [column.epoch for column in appended(appended([first], second), again)]
        [1, 2]
    """
    columns = [known for known in columns if known.epoch < column.epoch] + [column]
    return columns[:-2:2] + columns[-2:] if len(columns) > MAX_COLUMNS else columns
