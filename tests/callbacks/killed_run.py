"""Kills a training run over and over, at random moments of the callbacks' work, and lets it go on each time.

``python killed_run.py FOLDER KILLS EPOCHS SEED``: in FOLDER, "whole" is the run that nobody killed, "parts" the other.
It imports torch once and forks: a run of this size is over before a fresh process would have imported it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from runs import every_callback, fit

from lightning_cnnvis.callbacks.base import VisualizationCallback


class Announce(pl.Callback):
    """Tells the parent whenever a callback is about to show an epoch."""

    def __init__(self, pipe: int) -> None:
        original = VisualizationCallback._show

        def show(callback, *arguments):
            os.write(pipe, b".")
            original(callback, *arguments)

        VisualizationCallback._show = show


def train(folder: Path, epochs: int, last: Path | None, *others: pl.Callback) -> None:
    saves = ModelCheckpoint(folder / "checkpoints", save_last=True)
    fit(folder, *every_callback(), *others, saves, max_epochs=epochs, ckpt_path=last)


def killed_after(moments: int, delay: float, folder: Path, epochs: int, last: Path | None) -> bool:
    """Trains in a fork; kills it some time after callbacks have begun their work so many times. False if it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            train(folder, epochs, last, Announce(writer))
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while moments > 0 and (said := pipe.read(1)):
            moments -= len(said)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("The run failed by itself.")
    return os.WIFSIGNALED(status)


def strips_of(checkpoint: dict[str, Any]) -> Iterator[list[int]]:
    """The epochs of each strip that a checkpoint holds."""
    for state in checkpoint["callbacks"].values():
        for strip in (state.get("strip"), *state.get("strips", {}).values(), *state.get("evolutions", {}).values()):
            if strip is not None and strip["columns"]:
                yield [column["epoch"] for column in strip["columns"]]


def main(folder: Path, kills: int, epochs: int, seed: int) -> None:
    torch.set_num_threads(1)
    chance = random.Random(seed)
    shows = sum(isinstance(callback, VisualizationCallback) for callback in every_callback())
    train(folder / "whole", epochs, None)
    parts, reached = folder / "parts", [0]
    last = parts / "checkpoints" / "last.ckpt"
    while len(reached) <= kills:
        # as many callbacks show each epoch: in the first two epochs after the resume, but well before the last ends
        moments = chance.randint(1, 2 * shows if reached[-1] < epochs - 2 else shows // 2)
        if not killed_after(moments, chance.uniform(0, 0.05), parts, epochs, last if last.exists() else None):
            raise RuntimeError(f"The run ended before it was killed; it had reached epochs {reached}.")
        reached.append(torch.load(last, weights_only=True)["epoch"] + 1 if last.exists() else 0)
    train(parts, epochs, last if last.exists() else None)
    strips, whole = (
        list(strips_of(torch.load(one / "checkpoints" / "last.ckpt", weights_only=True)))
        for one in (parts, folder / "whole")
    )
    (folder / "report.json").write_text(json.dumps({"reached": reached, "strips": strips, "whole": whole}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
