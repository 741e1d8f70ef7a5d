"""A training of ResNet-50 on synthetic images, with all callbacks and without."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis import FeatureConvergence
from lightning_cnnvis.callbacks import callback_of
from lightning_cnnvis.callbacks.base import VisualizationCallback
from lightning_cnnvis.functional import DreamOptions
from lightning_cnnvis.functional.network.defaults import choose_channels
from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from lightning_cnnvis.methods import method_names
from lightning_cnnvis.methods.subject import Subject

from ..harvest import validation_pass
from .results import Settings

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
TARGETED = ("deconv", "classes", "maximize", "dream", "invert")
"""The methods whose time together has a target; the others are timed one by one."""
SHORT: dict[str, dict[str, Any]] = {
    "deconv": {"num_channels": 2, "k": 2},
    "classes": {"classes": [0, 1], "steps": 2},
    "maximize": {"num_channels": 1, "steps": 2},
    "dream": {"options": DreamOptions(octaves=1, steps=1)},
    "invert": {"steps": 2, "probes": 1, "restarts": 1},
    "style": {"count": 2, "steps": 2},
    "accentuate": {"classes": [0], "steps": 2},
    "occlusion": {"probes": 1, "patch": 16, "stride": 64},
    "patches": {"num_channels": 1, "k": 2, "patch": 16, "stride": 64},
    "correspondence": {"count": 2, "random_sets": 1},
    "invariance": {"probes": 2, "sample": 2, "transformations": ["rotation"], "rotations": [0, 90]},
    "unit_invariance": {"layers": ["layer1"], "channels": [0], "steps": 2, "num_directions": 1, "frequencies": 1},
    "randomization": {"layers": ["layer1"], "num_channels": 1, "rules": ["guided"]},
    "diagnose": {"num_channels": 0},
}
"""Arguments that make the methods quick, where only the run's own result matters."""


def network(settings: Settings) -> nn.Module:
    """ResNet-50 with random weights; a smaller one for a smoke run."""
    torch.manual_seed(0)
    return settings.pick(torchvision.models.resnet50, torchvision.models.resnet18)(weights=None, num_classes=1000)


def spec_of(settings: Settings) -> InputSpec:
    side = settings.pick(224, 32)
    return InputSpec(size=(side, side), mean=IMAGENET_MEAN, std=IMAGENET_STD)


class Classifier(pl.LightningModule):
    """Keeps its losses on the device."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.losses: list[Tensor] = []

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.detach().clone())
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def callbacks(settings: Settings, methods: Sequence[str], *, short: bool) -> list[pl.Callback]:
    """One of each method; with projections, also the one that goes by their measurements."""
    options = {"input_spec": spec_of(settings), "every_n_epochs": 1, "on_error": "raise", "max_overhead": None}
    made = [callback_of(name, **(SHORT.get(name, {}) if short else {}), **options) for name in methods]
    return [*made, FeatureConvergence()] if "deconv" in methods else made


def data(settings: Settings) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    count = settings.pick(8 * 64, 4)
    images = torch.randn(count, 3, *spec_of(settings).size, generator=generator)
    # two images of each class, which correspondence compares
    return TensorDataset(images, torch.arange(count) // 2)


def fit(
    settings: Settings, images: TensorDataset, precision: str, epochs: int, *added: pl.Callback, deterministic: Any
) -> tuple[dict[str, Tensor], float]:
    """The weights and losses after a training, and its seconds."""
    pl.seed_everything(0, verbose=False)
    module = Classifier(network(settings))
    batches = settings.pick(64, 2)
    train = DataLoader(images, batches, shuffle=True, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu" if settings.device == "cpu" else "gpu",
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=epochs,
            deterministic=deterministic,
            callbacks=list(added),
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        begin = time.perf_counter()
        trainer.fit(module, train, DataLoader(images, batches))
        seconds = time.perf_counter() - begin
        count = len(list(Path(folder).rglob("*.png")))
    if added and not count:
        raise RuntimeError("The callbacks made no picture.")
    kept = {name: value.cpu() for name, value in module.state_dict().items()}
    return {**kept, **{f"loss {i}": loss.cpu() for i, loss in enumerate(module.losses)}}, seconds


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit; a NaN equals itself."""
    return one.keys() == other.keys() and all(
        torch.equal(a.reshape(-1).view(torch.uint8), other[name].reshape(-1).view(torch.uint8))
        for name, a in one.items()
        if a.numel()
    )


def with_and_without(settings: Settings, precision: str) -> dict[str, Any]:
    """Whether the run is the same bit for bit with a callback of every method."""
    images = data(settings)
    deterministic: Any = True
    try:
        without, first = fit(settings, images, precision, 2, deterministic=True)
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        deterministic = "warn"
        without, first = fit(settings, images, precision, 2, deterministic="warn")
    every = callbacks(settings, method_names(), short=True)
    with_all, _ = fit(settings, images, precision, 2, *every, deterministic=deterministic)
    again, second = fit(settings, images, precision, 2, deterministic=deterministic)
    return {
        "methods": method_names(),
        "deterministic": deterministic,
        "bit_identical": equal(without, with_all),
        "bit_identical_without_callbacks": equal(without, again),
        "finite": bool(all(value.isfinite().all() for value in without.values())),
        "epoch_without": min(first, second) / 2,
    }


def shown_epoch(settings: Settings, precision: str, methods: Sequence[str] = TARGETED) -> dict[str, Any]:
    """What an epoch costs that is shown with all defaults, and the training around it."""
    images, shown = data(settings), callbacks(settings, methods, short=settings.quick)
    _, seconds = fit(settings, images, precision, 1, *shown, deterministic=False)
    _, plain = fit(settings, images, precision, 1, deterministic=False)
    costs = {type(c).__name__: c._cost.seconds for c in shown if isinstance(c, VisualizationCallback)}
    return {"an_epoch_shown": sum(costs.values()), "with": seconds, "without": plain, "costs": costs}


def harvest_of_resnet50(settings: Settings) -> dict[str, Any]:
    """What a validation takes more when the default layers' 16 maps are followed."""
    net, spec = network(settings).eval().to(settings.device), spec_of(settings)
    layers = Subject(network=net, input_spec=spec).rectified_layers()
    channels = {layer: choose_channels(layer, 64, 16, 0) for layer in layers}
    size = settings.pick((50, 64), (2, 2))
    batches = list(torch.randn(*size, *spec.shape, device=settings.device))
    followed: list[tuple[float, float, int]] = []
    plain: list[float] = []
    validation_pass(net, batches[:1], channels)
    for _ in range(settings.pick(3, 1)):
        plain.append(validation_pass(net, batches, None)[0])
        followed.append(validation_pass(net, batches, channels))
    seconds, after, held = (statistics.median(values) for values in zip(*followed, strict=True))
    return {
        "layers": len(layers),
        "images": size[0] * size[1],
        "plain": statistics.median(plain),
        "seconds": seconds,
        "added": seconds / statistics.median(plain) - 1,
        "seconds_after": after,
        "bytes_held": held,
    }
