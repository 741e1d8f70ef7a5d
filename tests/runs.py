"""Small training runs with every callback, for the tests that hold the package to its promises."""

from __future__ import annotations

import random
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import toy
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_cnnvis import FeatureConvergence, InputSpec
from lightning_cnnvis.callbacks import callback_of
from lightning_cnnvis.functional import DreamOptions
from lightning_cnnvis.methods import all_methods, method_names

toy.load()  # every method, from outside of the package, too

# what Lightning says of runs as short as these
_EXPECTED = ("many workers", "not resumable", "log_every_n", "eval mode", "`val_data", "callbacks used", "treesp")

SIDE = 16
SPEC = InputSpec(size=(SIDE, SIDE), class_names=("cat", "dog", "emu"))
IMAGES = torch.rand(12, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


def network(*, dropout: bool = False) -> nn.Sequential:
    """Two convolutions with BatchNorm: layers "2" and "5" are rectified."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), *([nn.Dropout()] if dropout else []), nn.Linear(20, 3),
    )  # fmt: skip


class Classifier(pl.LightningModule):
    """Notes its losses."""

    def __init__(self, *, dropout: bool = False) -> None:
        super().__init__()
        self.model = network(dropout=dropout)
        self.losses: list[torch.Tensor] = []

    def training_step(self, batch, _):
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.losses.append(loss.detach().clone())
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, _, dataloader_idx=0):
        self.log("val_loss", F.cross_entropy(self.model(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Augmented(Dataset):
    """Draws from every global random generator there is."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.rand(3, SIDE, SIDE) + random.random() + np.random.rand()  # noqa: NPY002
        return IMAGES[index] + 0.1 * noise, LABELS[index]


def loader(batch_size: int = 4, **options) -> DataLoader:
    return DataLoader(TensorDataset(IMAGES, LABELS), batch_size, **options)


QUICK = {
    "deconv": {"num_channels": 2, "k": 2},
    "classes": {"classes": [0, "dog"], "steps": 2, "transparency": True},
    "maximize": {"layers": ["2"], "num_channels": 2, "steps": 2, "statistics": "own"},
    "dream": {"layers": ["5"], "options": DreamOptions(octaves=1, steps=1), "zoom_frames": 2},
    "accentuate": {"layers": ["2"], "steps": 2},
    "style": {"layers": ["2"], "content_layer": "5", "count": 2, "steps": 2},
    "invert": {"layers": ["2"], "steps": 2, "probes": 1, "restarts": 1},
    "correspondence": {"layers": ["2"], "count": 2, "random_sets": 2},
    "patches": {"num_channels": 1, "k": 2, "patch": 6, "stride": 5},
    "occlusion": {"probes": 1, "patch": 6, "stride": 5},
    "randomization": {"layers": ["2"], "num_channels": 2, "rules": ["guided"]},
    "diagnose": {"num_channels": 0},
    "unit_invariance": {"layers": ["2"], "channels": [1, 2], "steps": 2, "num_directions": 2, "frequencies": 1},
    "invariance": {"layers": ["2"], "probes": 2, "sample": 4, "transformations": ["rotation"], "rotations": [0, 90]},
}
"""Arguments of the methods' callbacks that make them as quick as can be."""


def every_callback(**options) -> list[pl.Callback]:
    """One of each method, and what goes by their measurements."""
    options = {"input_spec": SPEC, "on_error": "raise", "every_n_epochs": 1, **options}
    first, *others = [callback_of(name, **QUICK.get(name, {}), **options) for name in method_names()]
    return [first, FeatureConvergence(similarity=0.01, patience=2), *others]


def trainer_of(folder: Path, *callbacks: pl.Callback, package=pl, **options):
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, package.callbacks.Checkpoint) for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 2,
    }
    return package.Trainer(default_root_dir=folder, callbacks=list(callbacks), **{**quiet, **options})


def fit(folder: Path, *callbacks: pl.Callback, module=None, train=None, val=None, ckpt_path=None, **options):
    """Trains; ``val=False`` is no validation."""
    trainer = trainer_of(folder, *callbacks, **options)
    with warnings.catch_warnings():
        for about in _EXPECTED:
            warnings.filterwarnings("ignore", f".*{about}")
        val = None if val is False else loader() if val is None else val
        trainer.fit(
            Classifier() if module is None else module, loader() if train is None else train, val, ckpt_path=ckpt_path
        )
    return trainer


KINDS = {"deconvnet_evolution", "activation_maximization_evolution", *(method.tag for method in all_methods())}
"""The folders of every callback's pictures."""


class NoLuck(RuntimeError):
    pass


def fails(*_, **__):
    raise NoLuck("no luck")


def break_functions(patch, *names: str) -> None:
    """Lets functions of the package fail, given their dotted names in it."""
    for name in names:
        module, _, function = name.rpartition(".")
        patch.setattr(import_module(f"lightning_cnnvis.{module}"), function, fails)


PROJECTION = ("functional.activations.top_k.project_windows",)
OPTIMISATION = tuple(
    f"functional.{module}.optimize"
    for module in (
        "visualization.classes",
        "visualization.units",
        "deepdream.octaves",
        "inversion.reconstruction",
        "style.transfer",
        "visualization.accentuation",
    )
)
FIGURES = tuple(
    f"figures.{name}"
    for name in (
        "top_features", "labelled_pictures", "inversion_pictures", "occlusion_figure", "correspondence_figure",
        "patches_figure", "invariance_figure", "unit_invariance_figure", "randomization_figure",
        "kernels_figure", "style_figure", "accentuation_figure",
    )
)  # fmt: skip


def pictures(folder: Path) -> dict[str, bytes]:
    """Every picture of a run, by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}
