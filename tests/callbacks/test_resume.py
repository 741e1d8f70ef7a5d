"""A run that was interrupted and resumed shows what the uninterrupted run shows, from whichever checkpoint."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from runs import IMAGES, LABELS, every_callback, fit, pictures
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis.callbacks.base import VisualizationCallback

EPOCHS = [1, 2, 3]


def same_batches() -> DataLoader:
    """Four batches that are the same, so that a resume in the middle of an epoch trains on what it would have been."""
    return DataLoader(TensorDataset(IMAGES[:4].repeat(4, 1, 1, 1), LABELS[:4].repeat(4)), 4)


def columns(callback) -> list[list[int]]:
    strips = callback._evolutions.values() if hasattr(callback, "_evolutions") else callback._strips.values()
    return [[column.epoch for column in strip.columns] for strip in strips]


@pytest.mark.parametrize(
    ("keep", "options"),
    [
        pytest.param({}, {}, id="at the end of the epoch", marks=pytest.mark.slow),
        pytest.param({"save_on_train_epoch_end": False}, {}, id="after the validation"),
        pytest.param(
            {"monitor": "val_loss"},
            {"val_check_interval": 0.5},
            id="after each of two validations",
            marks=pytest.mark.slow,
        ),
        pytest.param({"every_n_train_steps": 3}, {}, id="in the middle of an epoch"),
        pytest.param(
            {"every_n_train_steps": 4}, {}, id="after the last batch, before the validation", marks=pytest.mark.slow
        ),
        pytest.param(
            {"every_n_train_steps": 4}, {"max_steps": 12, "max_epochs": -1}, id="counting steps", marks=pytest.mark.slow
        ),
        pytest.param(
            {"save_on_train_epoch_end": True},
            {"check_val_every_n_epoch": 2},
            id="with rare validations",
            marks=pytest.mark.slow,
        ),
        pytest.param({}, {"val": False}, id="without validation"),
    ],
)
def test_resumed_from_any_checkpoint_shows_what_the_whole_run_shows(tmp_path, keep, options):
    options = {"max_epochs": 3, "train": same_batches(), **options}
    saves = ModelCheckpoint(tmp_path / "checkpoints", save_top_k=-1, **keep)
    whole = every_callback()
    fit(tmp_path / "whole", *whole, saves, **options)
    expected = pictures(tmp_path / "whole")
    assert {name.rsplit("_", 1)[1] for name in expected} == {f"000{epoch}.png" for epoch in EPOCHS}
    checkpoints = sorted((tmp_path / "checkpoints").iterdir())
    assert len(checkpoints) >= 3
    for checkpoint in checkpoints:
        if torch.load(checkpoint, weights_only=True)["global_step"] == options.get("max_steps"):
            continue  # nothing is left to train: Lightning calls no hook
        callbacks, folder = every_callback(), tmp_path / checkpoint.stem
        fit(folder, *callbacks, ckpt_path=checkpoint, **options)
        shown = pictures(folder)
        assert shown == {name: expected[name] for name in shown}
        for callback in callbacks:
            if isinstance(callback, VisualizationCallback):
                assert callback.state_dict()["shown"] == EPOCHS
                assert all(strip == EPOCHS for strip in columns(callback))
        assert callbacks[1].settled == whole[1].settled
