"""Class visualisation against lucent 0.1.8, on SqueezeNet: probability, naturalness and time, side by side.

    python -m tests.benchmarks.class_visualization [--rounds 3] [--random-classes 100] [--out folder]

Both make 16 classes at 128² in one batch with their default settings, lucent with 128 steps. Probabilities are those of
the picture itself, resampled to 224². Naturalness: the exponent of the amplitude spectrum, and the distance of
the colour covariance from that of photographs, relative to the latter's norm.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cnnvis.functional.optimization.parameterizations import ImageStatistics
from lightning_cnnvis.functional.optimization.transforms import resize
from lightning_cnnvis.functional.visualization.classes import visualize_classes
from lightning_cnnvis.functional.visualization.results import VisualizationOptions

from . import tables
from .machine import default_device
from .real_models import IMAGENET, photographs, save_sheet, squeezenet

CLASSES = [13, 22, 130, 162, 291, 340, 386, 417, 497, 555, 701, 779, 817, 920, 937, 949]


def ours(seed: int, device: str = "cpu") -> Tensor:
    options = VisualizationOptions(size=(128, 128))
    return visualize_classes(squeezenet(device), CLASSES, input_spec=IMAGENET, seed=seed, options=options).images


def lucent(seed: int, device: str = "cpu") -> Tensor:
    """Its images are on a GPU whenever there is one, so the network has to be there, too."""
    if (
        "IPython" not in sys.modules and find_spec("IPython") is None
    ):  # which lucent imports to show pictures in notebooks
        sys.modules.setdefault("IPython", ModuleType("IPython"))
        sys.modules.setdefault("IPython.display", ModuleType("IPython.display"))
    from lucent.optvis import objectives, param, render

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that lucent draws from
    logits = [objectives.channel("classifier_3", index, batch=i) for i, index in enumerate(CLASSES)]
    images = render.render_vis(
        squeezenet(device),
        objectives.Objective.sum(logits),
        lambda: param.image(128, batch=len(CLASSES)),
        thresholds=(128,),
        show_image=False,
        progress=False,
    )[-1]
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().cpu()


def probabilities(images: Tensor, classes: list[int]) -> Tensor:
    """On the clean image at 224²."""
    with torch.no_grad():
        logits = squeezenet()(IMAGENET.normalize(resize(images.clamp(0, 1), IMAGENET.size)))
    return logits.softmax(1)[torch.arange(len(classes)), torch.tensor(classes)]


def measure(rounds: int = 3, out: Path | None = None, device: str = default_device()) -> dict[str, Any]:
    """Medians over seeds, of ours and of lucent, beside the photographs.

    Args:
        rounds: Number of seeds.
        out: A folder for contact sheets.
        device: Where to run.
    """
    if device != "cpu":
        for method in (ours, lucent):
            method(0, device)  # a GPU's first run compiles and chooses
    photos = ImageStatistics.measure(photographs())
    reference = torch.tensor(photos.covariance)
    rows: dict[str, list[tuple[float, float, float, float]]] = {"ours": [], "lucent": []}
    for seed in range(rounds):
        for name, method in (("ours", ours), ("lucent", lucent)):
            start = time.perf_counter()
            images = method(seed, device).cpu()  # which waits for a GPU
            seconds = time.perf_counter() - start
            found = ImageStatistics.measure(images)
            distance = (torch.tensor(found.covariance) - reference).norm() / reference.norm()
            mean = probabilities(images, CLASSES).mean().item()
            rows[name].append((seconds, mean, found.decay, distance.item()))
            print(name, seed, rows[name][-1], file=sys.stderr, flush=True)
            if out:
                save_sheet(images, out / f"{name}_{seed}.png", columns=4)
    columns = ("seconds", "probability", "decay", "distance")
    medians = {
        name: dict(zip(columns, map(statistics.median, zip(*values, strict=True)), strict=True))
        for name, values in rows.items()
    }
    return {"device": device, "photographs": {"decay": photos.decay}, **medians}


def random_classes(count: int = 100, device: str = default_device()) -> dict[str, Any]:
    """How many of randomly chosen classes the default reaches at the network's own size."""
    classes = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:count].tolist()
    start = time.perf_counter()
    shown = visualize_classes(squeezenet(device), classes, input_spec=IMAGENET)
    return {
        "device": device,
        "classes": count,
        "reached": sum(state == "reached" for state in shown.states),
        "seconds": time.perf_counter() - start,
        "lowest": shown.probabilities.sort().values[:5].tolist(),
    }


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--random-classes", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.rounds:
        print(tables.class_visualization(measure(arguments.rounds, arguments.out)))
    if arguments.random_classes:
        print(tables.random_classes(random_classes(arguments.random_classes)))


if __name__ == "__main__":
    main()
