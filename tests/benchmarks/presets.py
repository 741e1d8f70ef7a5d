"""The presets of other papers beside the default, at equal passes through the network for each image.

    python -m tests.benchmarks.presets [--classes 4] [--passes 256] [--out folder]

On SqueezeNet and EfficientNet-Lite 0 at 128², with random classes that took no part in any tuning. "Reached" is a
probability of 0.9 on the picture itself at 128², the mean probability is that at 224², and transfer is the share of the
pictures whose class is among the top 5 of the other network at 224².
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional import Recipe, preset_recipe, visualize_classes
from lightning_cnnvis.functional.optimization.parameterizations import ImageStatistics
from lightning_cnnvis.functional.optimization.transforms import resize
from lightning_cnnvis.inputs import InputSpec

from .machine import default_device
from .real_models import EFFICIENTNET, IMAGENET, efficientnet, save_sheet, squeezenet

SIZE = (128, 128)
COPIES = {"maco": 16, "plug_in": 8}


def recipe(preset: str, passes: int, spec: InputSpec) -> Recipe:
    """The preset's recipe, of as many passes for each image."""
    copies = COPIES.get(preset, 1)
    made = preset_recipe(preset, spec, steps=passes // copies, coarse=True)
    return replace(made, phases=tuple(replace(phase, copies=copies) for phase in made.phases))


def logits(network: nn.Module, spec: InputSpec, images: Tensor) -> Tensor:
    with torch.no_grad():
        seen: Tensor = network(spec.normalize(resize(images.clamp(0, 1), (224, 224))))
    return seen


def measure(
    classes: int = 4, passes: int = 256, out: Path | None = None, device: str = default_device()
) -> dict[str, Any]:
    """What each preset reaches on each network.

    Args:
        classes: Number of classes.
        passes: Passes through the network for each image.
        out: A folder for contact sheets.
        device: Where to run.
    """
    targets = torch.randperm(1000, generator=torch.Generator().manual_seed(16))[:classes].tolist()
    networks = {"SqueezeNet": (squeezenet(device), IMAGENET), "EfficientNet-Lite": (efficientnet(device), EFFICIENTNET)}
    found: dict[str, Any] = {"device": device, "classes": classes, "runs": {}}
    for name, (network, spec) in networks.items():
        judge, judge_spec = next(pair for other, pair in networks.items() if other != name)
        runs = {"fourier, 96": ("fourier", 96)}
        runs |= {f"{preset}, {passes}": (preset, passes) for preset in ("fourier", "maco", "plug_in")}
        if name == "EfficientNet-Lite":
            runs[f"deepinversion, {passes}"] = ("deepinversion", passes)
        for label, (preset, count) in runs.items():
            small = replace(spec, size=SIZE)
            start = time.perf_counter()
            shown = visualize_classes(network, targets, input_spec=small, preset=recipe(preset, count, small))
            images = shown.images.cpu()
            seconds = time.perf_counter() - start
            rows, index = torch.arange(classes), torch.tensor(targets)
            own = logits(network, spec, images.to(device)).cpu().softmax(1)[rows, index]
            top = logits(judge, judge_spec, images.to(device)).cpu().topk(5).indices
            found["runs"][f"{name}: {label}"] = {
                "reached": shown.states.count("reached") / classes,
                "probability": own.mean().item(),
                "transfer": (top == index[:, None]).any(1).float().mean().item(),
                "decay": ImageStatistics.measure(images).decay,
                "seconds": seconds,
            }
            print(name, label, found["runs"][f"{name}: {label}"], file=sys.stderr, flush=True)
            if out:
                save_sheet(images, out / f"{name}_{label}.png", columns=3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--passes", type=int, default=256)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    measure(options.classes, options.passes, options.out)


if __name__ == "__main__":
    main()
