"""Parts (b) and (c) of `information_study`: error and accuracy at every epoch, for several seeds and widths."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from torch import Tensor

from lightning_cnnvis import ImageClassifier, ImageFolder, PhotoCrops
from lightning_cnnvis.functional import invert_layers
from lightning_cnnvis.functional.inversion.reconstruction import InversionOptions
from lightning_cnnvis.inputs import InputSpec

from .information_images import Row, append, read

LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5", "fc6", "fc7")
SETS = ("photocrops", "tiny10")
WIDTHS = (1 / 16, 1 / 8, 1 / 4)
SEEDS = (1, 2, 3, 4, 5)
EPOCHS = 6
PROBES = 8
STEPS = 48
COLUMNS = ("data", "width", "seed", "epoch", "layer", "log_error", "ssim", "images", "accuracy")


class Inverted(Callback):
    """Inverts the same images after each epoch's validation, and keeps a row for each layer."""

    def __init__(
        self, images: Tensor, input_spec: InputSpec, layers: Iterable[str] = LAYERS, steps: int = STEPS
    ) -> None:
        self.images = images
        self.input_spec = input_spec
        self.layers = tuple(layers)
        self.steps = steps
        self.rows: list[Row] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Inverts."""
        network = pl_module.get_submodule("model")
        found = invert_layers(
            network,
            self.images,
            self.layers,
            input_spec=self.input_spec,
            steps=self.steps,
            options=InversionOptions(chunk=16),
        )
        for depth, layer in enumerate(self.layers):
            errors, ssim = found.errors[depth, 0], found.ssim[depth, 0]
            known = errors.isfinite() & (errors > 0)
            self.rows.append({
                "epoch": trainer.current_epoch + 1,
                "layer": layer,
                "log_error": f"{float(errors[known].log().mean()):.5f}",
                "ssim": f"{float(ssim[known].mean()):.5f}",
                "images": int(known.sum()),
                "accuracy": f"{float(trainer.callback_metrics['val_accuracy']):.5f}",
            })  # fmt: skip


def data_of(name: str, folder: Path) -> LightningDataModule:
    """One of the `SETS`; the second is a folder of images."""
    return PhotoCrops() if name == "photocrops" else ImageFolder(root=str(folder))


def probes(data: LightningDataModule, count: int = PROBES) -> Tensor:
    """The first validation image of each of the first classes, ``(count, 3, H, W)``, normalised."""
    data.setup("fit")
    chosen: dict[int, Tensor] = {}
    for images, labels in data.val_dataloader():
        for image, label in zip(images, labels.tolist(), strict=True):
            chosen.setdefault(label, image)
    return torch.stack([chosen[label] for label in sorted(chosen)[:count]])


def train(name: str, width: float, seed: int, folder: Path, epochs: int = EPOCHS) -> list[Row]:
    """Trains a network.

    Args:
        name: One of `SETS`.
        width: Factor on the numbers of feature maps.
        seed: Seed of weights, order and augmentation.
        folder: The images of ``"tiny10"``.
        epochs: Number of epochs.

    Returns:
        A row for each epoch and layer.
    """
    data = data_of(name, folder)
    seed_everything(seed, verbose=False)
    classifier = ImageClassifier("zfnet", data.num_classes, data.image_size, width=width)  # type: ignore[attr-defined]
    inverted = Inverted(probes(data), data.input_spec)  # type: ignore[attr-defined]
    Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[inverted],
    ).fit(classifier.to(memory_format=torch.channels_last), data)  # type: ignore[call-overload]
    return [{"data": name, "width": width, "seed": seed, **row} for row in inverted.rows]


def run_runs(path: Path, folder: Path, seeds: Iterable[int] = SEEDS) -> None:
    """Trains the networks of the study that are not in the file yet.

    Args:
        path: The CSV file to which rows are added after every training.
        folder: The images of ``"tiny10"``.
        seeds: Seeds of which to train all.
    """
    done = {(row["data"], float(row["width"]), int(row["seed"])) for row in read(path)}
    for seed in seeds:
        for width in WIDTHS:
            for name in SETS:
                if (name, width, seed) not in done:
                    rows = train(name, width, seed, folder)
                    append(path, rows, COLUMNS)
                    print(f"{name}, width {width}, seed {seed}: {float(rows[-1]['accuracy']):.3f}", flush=True)
