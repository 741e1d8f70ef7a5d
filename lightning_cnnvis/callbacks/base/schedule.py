"""Schedule: the epochs at which to visualise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_fabric.utilities.exceptions import MisconfigurationException

DEFAULT_EPOCHS = (1, 2, 5, 10, 20, 30, 40, 64)
"""The epochs that Zeiler & Fergus (2013, arXiv 1311.2901, Fig. 4) show."""


@dataclass(frozen=True)
class Schedule:
    """Epochs, counted from 1: a list of them, every n-th one, or `DEFAULT_EPOCHS` if neither is given.

    Attributes:
        epochs: The epochs.
        every_n_epochs: Distance between two epochs, in place of a list.

    Raises:
        MisconfigurationException: If both are given, or if a value is not a whole number of at least 1.

    Examples:
        >>> [epoch for epoch in range(1, 13) if epoch in Schedule()]
        [1, 2, 5, 10]
        >>> [epoch for epoch in range(1, 13) if epoch in Schedule(every_n_epochs=4)]
        [4, 8, 12]
    """

    epochs: Sequence[int] | None = None
    every_n_epochs: int | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.epochs is not None and self.every_n_epochs is not None:
            raise MisconfigurationException(
                f"Both epochs={list(self.epochs)} and every_n_epochs={self.every_n_epochs} are given. Choose one."
            )
        for epoch in self.epochs or ():
            if not _counts(epoch):
                raise MisconfigurationException(
                    f"epochs={list(self.epochs or ())} contains {epoch!r}. Epochs are whole numbers that count from 1."
                )
        if self.every_n_epochs is not None and not _counts(self.every_n_epochs):
            raise MisconfigurationException(
                f"every_n_epochs={self.every_n_epochs!r} is not a whole number of at least 1. Pass one, or a list of "
                "epochs."
            )

    def __contains__(self, epoch: int) -> bool:
        """Whether an epoch is scheduled."""
        if self.every_n_epochs is not None:
            return epoch % self.every_n_epochs == 0
        return epoch in self._listed

    def after(self, epoch: int) -> int | None:
        """Finds the first scheduled epoch after a given one.

        Args:
            epoch: An epoch, counted from 1.

        Returns:
            The epoch; None if no later one is scheduled.

        Examples:
            >>> Schedule().after(2), Schedule(epochs=[1]).after(1)
            (5, None)
        """
        if self.every_n_epochs is not None:
            return epoch - epoch % self.every_n_epochs + self.every_n_epochs
        return min((later for later in self._listed if later > epoch), default=None)

    @property
    def _listed(self) -> Sequence[int]:
        return DEFAULT_EPOCHS if self.epochs is None else self.epochs


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
