"""AlexNet's first layer against ZFNet's, trained alike: what docs/redesign.md shows.

    python -m tests.benchmarks.first_layer DATA OUTPUT [--seeds 5] [--epochs 12] [--arms 11x11/4 7x7/2] [--figures DIR]

DATA has images of 64×64 pixels of ten classes, ``train/<class>/<image>`` and ``val/<class>/<image>``. A network that
is in OUTPUT is not trained again. What was measured goes to runs.csv, a row a network, and maps.csv, a row a map of
the first layer, in docs/redesign by default; `first_layer_page` makes the page from them.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import torch
from PIL import Image
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_cnnvis import ImageClassifier
from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD
from lightning_cnnvis.models.convnet import ConvNet, Stage

from .tables import DOCS

SIZE = 128
MAPS = 32
"""Feature maps of the first layer."""

GEOMETRIES = {
    "11x11/4": (Stage(MAPS, 11, 4, padding=2, after=("pool",)), 1, 2),
    "7x7/2": (Stage(MAPS, 7, 2, padding=2, after=("pool",)), 2, 1),
    "7x7/4": (Stage(MAPS, 7, 4, padding=1, after=("pool",)), 1, 2),
    "11x11/2": (Stage(MAPS, 11, 2, padding=4, after=("pool",)), 2, 1),
}
"""The first layer, and the stride and the padding of the second, which takes up what the first leaves of the scale."""

ARMS = ("11x11/4", "7x7/2")
IMAGENET_ALEXNET = "AlexNet, ImageNet"
"""The name of the network that was trained on ImageNet."""


def network(arm: str, seed: int) -> ConvNet:
    """Builds a network of one of the geometries; all but the first layer begins with the same weights."""
    first, stride, padding = GEOMETRIES[arm]

    class Network(ConvNet):
        @staticmethod
        def stages(image_size: int) -> tuple[Stage, ...]:
            return (
                first,
                Stage(64, 5, stride, padding=padding, after=("pool",)),
                Stage(96, 3, padding=1),
                Stage(96, 3, padding=1),
                Stage(64, 3, padding=1, after=("pool",)),
            )

    torch.manual_seed(seed)
    net = Network(10, SIZE, dropout=0.25)
    for number, (inputs, outputs) in {6: (net.fc6.in_features, 512), 7: (512, 512), 8: (512, 10)}.items():
        setattr(net, f"fc{number}", nn.Linear(inputs, outputs))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name != "conv1.weight":
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
    return net


class Photographs(LightningDataModule):
    """The photographs of a folder in memory; each is scaled up as it is drawn."""

    def __init__(self, folder: Path, seed: int, batch_size: int = 64) -> None:
        super().__init__()
        self.names = sorted(path.name for path in (folder / "train").iterdir())
        self.train = self._read(folder / "train")
        self.val = self._read(folder / "val")
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def _read(self, folder: Path) -> tuple[Tensor, Tensor]:
        images, labels = [], []
        for label, name in enumerate(self.names):
            for path in sorted((folder / name).iterdir()):
                values = bytearray(Image.open(path).convert("RGB").tobytes())
                images.append(torch.frombuffer(values, dtype=torch.uint8).view(64, 64, 3))
                labels.append(label)
        return torch.stack(images).permute(0, 3, 1, 2), torch.tensor(labels)

    def _train_batch(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        side = int(torch.randint(48, 65, (), generator=self.generator))
        places = torch.randint(65 - side, (len(numbers), 2), generator=self.generator).tolist()
        mirrored = torch.randint(2, (len(numbers),), generator=self.generator).tolist()
        crops = [
            self.train[0][number, :, top : top + side, left : left + side].flip([2] * mirror)
            for number, (top, left), mirror in zip(numbers, places, mirrored, strict=True)
        ]
        gain = 0.7 + 0.6 * torch.rand(len(numbers), 1, 1, 1, generator=self.generator)
        return enlarged(torch.stack(crops)) * gain, self.train[1][numbers]

    def _val_batch(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        return enlarged(self.val[0][numbers]), self.val[1][numbers]

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of random crops, mirrored half of the time."""
        numbers = range(len(self.train[0]))
        return DataLoader(
            numbers,  # type: ignore[arg-type]
            self.batch_size,
            shuffle=True,
            drop_last=True,
            collate_fn=self._train_batch,
            generator=self.generator,
        )

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of whole images."""
        return DataLoader(range(len(self.val[0])), self.batch_size, collate_fn=self._val_batch)  # type: ignore[arg-type]


def enlarged(images: Tensor) -> Tensor:
    """Bytes ``(N, 3, h, w)`` as network inputs ``(N, 3, 128, 128)``."""
    images = images.contiguous(memory_format=torch.channels_last).float()
    mean, std = (255 * torch.tensor(numbers)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    return nn.functional.interpolate((images - mean) / std, (SIZE, SIZE), mode="bilinear", align_corners=False)


class Curve(Callback):
    """Keeps the accuracy after each epoch."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the latest."""
        self.values.append(float(trainer.callback_metrics["val_accuracy"]))
        print(f"epoch {trainer.current_epoch}: {self.values[-1]:.3f}", flush=True)


def path_of(arm: str, seed: int, output: Path) -> Path:
    """Where the weights of a network are kept."""
    return output / f"{arm.replace('/', 's')}-{seed}.pt"


def train(arm: str, seed: int, epochs: int, data: Path, output: Path) -> None:
    """Trains a network and keeps its weights, unless they are there."""
    path = path_of(arm, seed, output)
    if path.exists():
        there = torch.load(path, weights_only=True)["epochs"]
        if there != epochs:
            raise SystemExit(f"{path} was trained for {there} epochs, not {epochs}. Name another folder.")
        return
    net = network(arm, seed)
    images = Photographs(data, seed)
    seed_everything(seed, verbose=False)
    classifier = ImageClassifier(net, num_classes=10, image_size=SIZE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    curve = Curve()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[curve],
    )
    began = time.process_time()
    trainer.fit(classifier, images)
    taken = time.process_time() - began
    accuracy = float(trainer.callback_metrics["val_accuracy"])
    print(f"{arm} seed {seed}: {accuracy:.1%} after {taken:.0f} s of a core", flush=True)
    kept = {
        "weights": net.state_dict(),
        "accuracy": accuracy,
        "seconds": taken,
        "epochs": epochs,
        "curve": curve.values,
    }
    torch.save(kept, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--arms", nargs="+", choices=GEOMETRIES, default=ARMS)
    parser.add_argument("--figures", type=Path, default=DOCS / "redesign")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.output.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for arm in options.arms:
            train(arm, seed, options.epochs, options.data, options.output)
    from .first_layer_measures import measure  # which needs this module

    measure(options.data, options.output, options.figures)


if __name__ == "__main__":
    main()
