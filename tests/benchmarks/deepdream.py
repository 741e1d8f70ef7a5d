"""DeepDream of a photograph at its full size against a plain port of the reference loop, on SqueezeNet.

    python -m tests.benchmarks.deepdream [--layer features.9] [--rounds 3] [--out folder]

The port does what the notebook of https://github.com/google/deepdream does, in PyTorch: the network up to the layer,
a backward pass from its activations, a roll before and after, the normalised step, four octaves. Both sides go through
the same octaves and number of steps; ours includes its Laplacian pyramid. Megapixel-steps count each octave's pixels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cnnvis.functional.deepdream.octaves import DreamOptions, dream
from lightning_cnnvis.layers import get_layer

from . import tables
from .machine import default_device
from .real_models import IMAGENET, photograph, save_sheet, squeezenet


def plain_port(model: nn.Module, image: Tensor, layer: str, options: DreamOptions) -> Tensor:
    """The reference loop, written as its many PyTorch ports are: a hook, ``.backward()``, one octave at a time."""
    activations: list[Tensor] = []
    net = model.features if layer.startswith("features.") else model
    upto = nn.Sequential(*list(net.children())[: int(layer.rsplit(".", 1)[-1]) + 1]) if net is not model else model
    handle = get_layer(model, layer).register_forward_hook(lambda _m, _i, output: activations.append(output))
    rng = np.random.default_rng(0)
    octaves = [IMAGENET.normalize(image[None])]
    for _ in range(options.octaves - 1):
        octaves.append(F.interpolate(octaves[-1], scale_factor=1 / options.octave_scale, mode="bilinear"))
    detail = torch.zeros_like(octaves[-1])
    low, high = (IMAGENET.normalize(torch.full((1, 3, 1, 1), value, device=image.device)) for value in (0.0, 1.0))
    for base in reversed(octaves):
        detail = F.interpolate(detail, base.shape[-2:], mode="bilinear")
        source = base + detail
        for _ in range(options.steps):
            dy, dx = rng.integers(-options.jitter, options.jitter + 1, 2).tolist()
            rolled = source.roll((dy, dx), (2, 3)).requires_grad_()
            activations.clear()
            upto(rolled)
            end = activations[0]
            end.backward(end.detach())
            gradient = rolled.grad
            step = options.step_size / 255 / 0.226 / gradient.abs().mean()
            moved = (rolled.detach() + step * gradient).roll((-dy, -dx), (2, 3))
            source = torch.maximum(torch.minimum(moved, high), low)
        detail = source - base
    handle.remove()
    return IMAGENET.denormalize(source)[0]


def measure(
    photo: str = "sky1024px.jpg",
    layer: str = "features.9",
    rounds: int = 3,
    out: Path | None = None,
    device: str = default_device(),
    options: DreamOptions | None = None,
) -> dict[str, Any]:
    """Medians of the seconds that ours and the port take.

    Args:
        photo: File name of the photograph, in the folder of real data.
        layer: Dotted name of the layer.
        rounds: Measured rounds.
        out: A folder for the dreams.
        device: Where to run.
        options: Octaves and steps of both sides; None takes the defaults.
    """
    image, options = photograph(photo).to(device), options or DreamOptions()
    pixels = sum(options.octave_scale ** (-2 * i) for i in range(options.octaves)) * image[0].numel()
    megapixel_steps = pixels * options.steps / 1e6
    model = squeezenet(device)
    methods = {
        "ours": lambda: dream(model, image, layer, input_spec=IMAGENET, options=options).images[0],
        "port": lambda: plain_port(model, image, layer, options),
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    if device != "cpu":
        for method in methods.values():
            method()  # a GPU's first run compiles and chooses
    for _ in range(rounds):
        for name, method in methods.items():
            start = time.perf_counter()
            dreamt = method().cpu()  # which waits for a GPU
            seconds[name].append(time.perf_counter() - start)
            if out:
                save_sheet(dreamt[None], out / f"{name}.png")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "device": device,
        "megapixel_steps": megapixel_steps,
        "ratio": medians["port"] / medians["ours"],
        **{
            name: {"seconds": median, "megapixel_steps_per_second": megapixel_steps / median}
            for name, median in medians.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", default="sky1024px.jpg")
    parser.add_argument("--layer", default="features.9")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default=default_device())
    arguments = parser.parse_args()
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    print(tables.deepdream(measure(**vars(arguments))))


if __name__ == "__main__":
    main()
