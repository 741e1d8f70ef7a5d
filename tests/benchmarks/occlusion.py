"""Occlusion against captum's, side by side: how long it takes, and whether what it finds matters to the network.

    python -m tests.benchmarks.occlusion [--rounds 3] [--photographs 20]

Both sides slide a square of 32 px with a step of 8, or of a seventh and a 28th of a larger image, and grey is the
mean. captum is given the best of several numbers of copies a pass. "Whole copies" is what ours takes without the
shortcut. If a map shows what matters, covering the tenth of a photograph's pixels where it is highest lowers the
probability of the class more than random squares of the same area do.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional import OUTPUT, occlusion
from lightning_cnnvis.functional.sensitivity.greyed_forward import GreyedForward, squares
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated

from . import tables
from .machine import default_device, seconds
from .real_models import EFFICIENTNET, IMAGENET, efficientnet, imagenet_photographs, squeezenet

COPIES = (1, 4, 8, 16)
"""Copies of the image in a pass of captum's."""
SHARE = 0.1
RANDOM_DRAWS = 10


def cases(device: str) -> dict[str, tuple[nn.Module, InputSpec, int]]:
    """Networks, the format of their input, and the size of the images."""
    return {
        "EfficientNet-Lite 0, 224 px": (efficientnet(device), EFFICIENTNET, 224),
        "SqueezeNet, 224 px": (squeezenet(device), IMAGENET, 224),
        "SqueezeNet, 448 px": (squeezenet(device), IMAGENET, 448),
    }


def captum_map(model: nn.Module, image: Tensor, target: int, patch: int, stride: int, copies: int) -> Tensor:
    """captum's drop of the probability of a class at each pixel, ``(H, W)``."""
    from captum.attr import Occlusion as CaptumOcclusion

    def probability(inputs: Tensor) -> Tensor:
        return model(inputs).softmax(1)

    channels = image.shape[1]
    attributed: Tensor = CaptumOcclusion(probability).attribute(
        image,
        sliding_window_shapes=(channels, patch, patch),
        strides=(channels, stride, stride),
        target=target,
        baselines=0.0,
        perturbations_per_eval=copies,
    )
    return attributed[0].mean(0)


def whole_copies(model: nn.Module, image: Tensor, patch: int, stride: int) -> None:
    """The same copies as ours, each computed whole."""
    boxes = squares((image.shape[2], image.shape[3]), patch, stride)
    with isolated(model) as network:
        for _ in GreyedForward(network, [OUTPUT], boxes, "copies").read(image, lambda outputs: outputs[OUTPUT]):
            pass


def speed(name: str, model: nn.Module, spec: InputSpec, side: int, rounds: int, device: str) -> dict[str, Any]:
    """Medians of the seconds a square."""
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    patch, stride = side // 7, side // 28
    places = len(squares((side, side), patch, stride))
    taken: dict[str, list[float]] = {"ours": [], "whole": [], "captum": []}
    with torch.no_grad():
        target = int(model(image).argmax())

        def captum(step: int, copies: int) -> Callable[[], object]:
            return lambda: captum_map(model, image, target, patch, step, copies)

        # a coarse grid tells which number of copies suits the machine
        few = {copies: seconds(captum(4 * stride, copies), device) for copies in COPIES}
        best = min(few, key=lambda copies: few[copies])
        methods: dict[str, Callable[[], object]] = {
            "ours": lambda: occlusion(model, image, input_spec=spec, patch=patch, stride=stride),
            "whole": lambda: whole_copies(model, image, patch, stride),
            "captum": captum(stride, best),
        }
        for _ in range(rounds):
            for method, work in methods.items():
                taken[method].append(seconds(work, device))
    medians = {method: statistics.median(values) for method, values in taken.items()}
    return {
        "network": name,
        "squares": places,
        "copies": best,
        **{method: median / places for method, median in medians.items()},
        "whole_ratio": medians["whole"] / medians["ours"],
        "captum_ratio": medians["captum"] / medians["ours"],
    }


def _drop(model: nn.Module, image: Tensor, target: int, mask: Tensor) -> float:
    both = torch.cat([image, torch.where(mask, 0.0, image)])
    before, after = model(both).softmax(1)[:, target].tolist()
    return before - after


def _strongest(of_pixels: Tensor) -> Tensor:
    """The pixels with the highest values, a tenth of all."""
    count = round(SHARE * of_pixels.numel())
    mask = torch.zeros(of_pixels.numel(), dtype=torch.bool, device=of_pixels.device)
    mask[of_pixels.flatten().topk(count).indices] = True
    return mask.view(of_pixels.shape)


def _random(size: tuple[int, int], patch: int, generator: torch.Generator) -> Tensor:
    """Random squares, until a tenth of the image is covered."""
    mask = torch.zeros(size, dtype=torch.bool)
    while mask.float().mean() < SHARE:
        top, left = (int(torch.randint(length - patch + 1, (), generator=generator)) for length in size)
        mask[top : top + patch, left : left + patch] = True
    return mask


def harm(count: int, device: str) -> dict[str, Any]:
    """How far covering a tenth of photographs lowers the probability of what the network takes them for."""
    model, images = efficientnet(device), EFFICIENTNET.normalize(imagenet_photographs(count)).to(device)
    generator = torch.Generator().manual_seed(0)
    drops: dict[str, list[float]] = {"ours": [], "captum": [], "random": []}
    with torch.no_grad():
        for image in images.split(1):
            found = occlusion(model, image, input_spec=EFFICIENTNET)
            target = int(found.classes[0])
            drops["ours"].append(_drop(model, image, target, _strongest(found.harm[0])))
            drops["captum"].append(_drop(model, image, target, _strongest(captum_map(model, image, target, 32, 8, 4))))
            masks = [_random((224, 224), 32, generator).to(device) for _ in range(RANDOM_DRAWS)]
            drops["random"].append(statistics.mean(_drop(model, image, target, mask) for mask in masks))
    return {
        "photographs": len(images),
        "above_random": sum(a > b for a, b in zip(drops["ours"], drops["random"], strict=True)),
        **{name: statistics.mean(values) for name, values in drops.items()},
    }


def measure(rounds: int = 3, photographs: int = 20, device: str = default_device()) -> dict[str, Any]:
    """Milliseconds a square, and what covering the places that were found does.

    Args:
        rounds: Measured rounds.
        photographs: Number of photographs to cover parts of.
        device: Where to run.
    """
    speeds = [speed(name, *case, rounds, device) for name, case in cases(device).items()]
    return {"device": device, "harm": harm(photographs, device), "speed": speeds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photographs", type=int, default=20)
    parser.add_argument("--device", default=default_device())
    print(tables.occlusion(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
