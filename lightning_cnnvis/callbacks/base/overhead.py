"""Pace: which epochs are shown, given the schedule and the limit on overhead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from lightning_cnnvis.callbacks.base.schedule import Schedule
from lightning_cnnvis.callbacks.base.timing import CostAccount


class Pace:
    """Decides which epochs are due, and postpones them while visualisations take too much of the training time.

    Args:
        who: Name of the callback, for the warning.
        schedule: The epochs to show.
        max_overhead: Largest share of the training time, in [0, 1]; None for no limit.
        free_seconds: Seconds that the visualisations may take whatever their share.
    """

    def __init__(self, who: str, schedule: Schedule, max_overhead: float | None, free_seconds: float) -> None:
        self.who = who
        self.schedule = schedule
        self.max_overhead = max_overhead
        self.free_seconds = free_seconds
        self.last_epoch: int | None = None  # None while it is unknown
        self.put_off = False
        self._warned = False
        self._decision: tuple[int, bool] | None = None

    def due(
        self, epoch: int, trainer: pl.Trainer, own: CostAccount, accounts: Sequence[CostAccount], *, first: bool = False
    ) -> bool:
        """Whether an epoch is to be shown: decided once per epoch, and alike on every rank. Every rank must call this.

        Args:
            epoch: The epoch, counted from 1.
            trainer: The trainer.
            own: Account of the callback.
            accounts: Accounts of all visualisations of the run.
            first: Whether the callback has not had a turn yet: then what the others have spent is not held against it.

        Returns:
            True if the epoch is scheduled, or has been postponed, and the overhead allows it; always at the last epoch.
        """
        if self._decision is None or self._decision[0] != epoch:
            self._decision = (epoch, self._decide(epoch, trainer, own, accounts, first))
        return self._decision[1]

    def _decide(
        self, epoch: int, trainer: pl.Trainer, own: CostAccount, accounts: Sequence[CostAccount], first: bool
    ) -> bool:
        if epoch == self.last_epoch:
            return True
        if epoch not in self.schedule and not self.put_off:
            return False
        spent = sum(account.seconds for account in accounts)
        overhead = spent / own.elapsed
        too_much = (
            self.max_overhead is not None
            and not first
            and spent > self.free_seconds
            and overhead > self.max_overhead
            and own.seconds / own.elapsed > self.max_overhead / len(accounts)
        )
        # the ranks' clocks differ, but all of them must show the same epochs
        self.put_off = bool(trainer.strategy.broadcast(too_much))
        if self.put_off and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"{self.who} postpones epoch {epoch}: so far, visualisations have taken {overhead:.0%} of the training "
                f"time, more than max_overhead={self.max_overhead}, and this one {own.seconds / own.elapsed:.0%}, more "
                "than its equal part of that. It resumes once the share is lower, and shows the last epoch in any "
                "case. Show less, show it less often, or raise max_overhead."
            )
        return not self.put_off

    def next_try(self, epoch: int) -> str | None:
        """When a visualisation that failed is tried again, in words.

        Args:
            epoch: The epoch at which it failed, counted from 1.

        Returns:
            A phrase such as ``"epoch 5"``; None after the last epoch.
        """
        if epoch == self.last_epoch:
            return None
        following = self.schedule.after(epoch)
        if following is None or (self.last_epoch is not None and following > self.last_epoch):
            return "the last epoch"
        return f"epoch {following}"

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"put_off": self.put_off}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of a checkpoint."""
        self.put_off = state_dict["put_off"]
