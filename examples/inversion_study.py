"""How does the inversion error of a layer relate to the accuracy of the network?

Trains ZFNets of several widths, each from one or more seeds, inverts their layers at every epoch, and compares the
inversion errors of all runs with their validation accuracies: in a table, a plot, and rank correlations with bootstrap
confidence intervals, over all runs and within each.

    python examples/inversion_study.py --output study
    python examples/inversion_study.py --data photos --output study    # photos/train/<class>, photos/val/<class>
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
from PIL import Image

from lightning_cnnvis import FeatureInversion, ImageClassifier, ImageFolder, PhotoCrops
from lightning_cnnvis.evolution.accuracy import Measurement, correlations, to_csv
from lightning_cnnvis.figures.accuracy import plot

LAYERS = ["relu1", "relu2", "relu3", "relu4", "relu5", "fc6", "fc7"]


def train(data: str | None, width: float, seed: int, options: argparse.Namespace) -> list[Measurement]:
    pl.seed_everything(seed, verbose=False)
    data_module = PhotoCrops() if data is None else ImageFolder(root=data)
    inversion = FeatureInversion(
        layers=LAYERS,
        probes=options.probes,
        restarts=1,
        steps=options.steps,
        every_n_epochs=1,
        max_overhead=None,
    )
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        limit_train_batches=options.batches,
        callbacks=[inversion],
        default_root_dir=options.output / f"width-{width:g}-seed-{seed}",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    classifier = ImageClassifier(
        "zfnet", num_classes=data_module.num_classes, image_size=data_module.image_size, width=width
    )
    trainer.fit(classifier, data_module)
    return [replace(measurement, run=f"width {width:g}, seed {seed}") for measurement in inversion.measurements]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of images; default: the photographs in scikit-image")
    parser.add_argument("--widths", type=float, nargs="+", default=[0.125, 0.25, 0.5])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batches", type=float, default=1.0, help="training batches per epoch: a share or a number")
    parser.add_argument("--probes", type=int, default=8, help="number of images to invert")
    parser.add_argument("--steps", type=int, help="steps of each inversion")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds; each width is trained from each")
    parser.add_argument("--output", type=Path, default=Path("inversion_study"))
    options = parser.parse_args(arguments)
    if options.batches > 1:
        options.batches = int(options.batches)
    options.output.mkdir(parents=True, exist_ok=True)

    measurements: list[Measurement] = []
    for width, seed in itertools.product(options.widths, options.seeds):
        measurements += train(options.data, width, seed, options)
        (options.output / "measurements.csv").write_text(to_csv(measurements), encoding="utf-8")
    Image.fromarray(plot(measurements)).save(options.output / "accuracy.png")

    print("Spearman's rank correlation of inversion error and accuracy, 95 % interval")
    for layer, correlation in correlations(measurements).items():
        print(f"{layer:6} all runs and epochs: {correlation}")
        for run in dict.fromkeys(m.run for m in measurements):
            own = correlations([m for m in measurements if m.run == run])
            print(f"       {run:19}: {own[layer]}")


if __name__ == "__main__":
    main()
