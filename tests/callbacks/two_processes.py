"""Trains on two processes, which are forks: ``python two_processes.py FOLDER``.

Without callbacks, with every callback, and with every callback while one of the two processes fails at everything. Each
process notes what the run left behind, under FOLDER.
"""

from __future__ import annotations

import random
import sys
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from runs import Augmented, every_callback, fit
from torch.utils.data import DataLoader

from lightning_cnnvis.functional.activations.top_k import TopActivations


class Note(pl.Callback):
    """Saves what the run left behind, on each rank: the processes are gone when ``fit`` returns."""

    def on_train_end(self, trainer, pl_module):
        state = dict(pl_module.state_dict())
        entries = trainer.optimizers[0].state_dict()["state"].items()
        state |= {f"optimizer.{name}.{key}": value for name, entry in entries for key, value in entry.items()}
        state |= {f"loss {i}": loss for i, loss in enumerate(pl_module.losses)}
        state |= {f"logged {name}": v for name, v in trainer.logged_metrics.items() if "loss" in name}
        state["rng"] = torch.get_rng_state()
        others = repr((random.getstate(), np.random.get_state()))  # noqa: NPY002
        state["other rngs"] = torch.tensor(list(others.encode()))
        state["modes"] = torch.tensor([m.training for m in pl_module.modules()])
        state["hooks"] = torch.tensor([len(m._forward_hooks) + len(m._forward_pre_hooks) for m in pl_module.modules()])
        torch.save(state, Path(trainer.default_root_dir) / f"rank{trainer.global_rank}.pt")


class FailOnRankOne(pl.Callback):
    """Breaks harvest and optimisation in one of the two processes."""

    def on_train_start(self, trainer, pl_module):
        if trainer.global_rank == 1:

            def fails(*_, **__):
                raise RuntimeError("no luck")

            TopActivations.update = fails
            for name in (
                "visualization.classes",
                "visualization.units",
                "deepdream.octaves",
                "inversion.reconstruction",
                "style.transfer",
                "visualization.accentuation",
            ):
                import_module(f"lightning_cnnvis.functional.{name}").optimize = fails


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    runs = {
        "without": [],
        "with": every_callback(),
        "failing": [FailOnRankOne(), *every_callback(on_error="warn")],
    }
    for name, callbacks in runs.items():
        (folder / name).mkdir()
        pl.seed_everything(1, verbose=False)
        fit(
            folder / name,
            *callbacks,
            Note(),
            train=DataLoader(Augmented(), 2, shuffle=True),
            val=DataLoader(Augmented(), 2),
            devices=2,
            strategy="ddp_fork",
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
