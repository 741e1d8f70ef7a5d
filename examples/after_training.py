"""After training: what did the network learn, and when?

    python examples/after_training.py                          # trains a small network first
    python examples/after_training.py cnnvis_runs/version_0    # an existing run
    python examples/after_training.py weights.pth --model torchvision:alexnet --data photographs

The commands ``lightning-cnnvis deconv``, ``invert``, ``evolve`` and ``report`` do the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning_cnnvis import analyze
from lightning_cnnvis.cli import main as command
from lightning_cnnvis.posthoc import evolve
from lightning_cnnvis.report import ReportOptions, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", nargs="?", help="a run, a folder with checkpoints, or a checkpoint")
    parser.add_argument("--model", help="model of the weights, if they do not name it, such as torchvision:alexnet")
    parser.add_argument("--data", help="a folder of photographs; default: the run's own images")
    parser.add_argument("--output", type=Path, default=Path("what_it_learnt"))
    parser.add_argument("--steps", type=int, help="steps of each optimisation; default: each method's own")
    parser.add_argument("--quick", action="store_true", help="train on a few tiny images, if no source is given")
    arguments = parser.parse_args()
    source = arguments.source or train(arguments.quick)

    # one network: its layers, its feature maps, and what each layer retains of two images
    analysis = analyze(source, arguments.data, model=arguments.model, progress=True)
    print(analysis.layers())
    layers = [layer.name for layer in analysis.layers() if layer.default and layer.passable]
    analysis.deconv(layers, num_channels=8).save(arguments.output)
    inverted = analysis.invert(layers, steps=arguments.steps)
    inverted.save(arguments.output)
    for layer, errors in zip(layers, inverted.inversions.errors, strict=True):
        print(f"{layer}: inversion error {errors.mean():.3f}")

    # all the checkpoints of a run, in order
    if Path(source).is_dir():
        evolution = evolve(source, arguments.data, model=arguments.model, progress=True)
        evolution.save(arguments.output)
        print(f"Epochs {', '.join(map(str, evolution.epochs))}")

    # everything on one page
    options = ReportOptions(steps=arguments.steps)
    page = report(source, arguments.output / "report.html", arguments.data, options=options, model=arguments.model)
    print(f"Open {page} in a browser.")


def train(quick: bool) -> str:
    """Trains as ``lightning-cnnvis fit`` does, which keeps the weights of the epochs that are shown."""
    small = ["--data.image_size=32", "--data.train_size=44", "--data.val_size=22", "--model.width=0.05"]
    run = Path("cnnvis_runs") / "after_training"
    logger = ["--trainer.logger.init_args.version=after_training"]
    command(["fit", "--trainer.max_epochs=2", *logger, *(small if quick else [])])
    return str(run)


if __name__ == "__main__":
    main()
