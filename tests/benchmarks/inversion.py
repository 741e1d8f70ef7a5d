"""Inversion of ImageNet-trained AlexNet: the default beside Mahendran & Vedaldi 2014 and 2016, and layers in a batch.

    python -m tests.benchmarks.inversion [--images 8] [--layers relu1,pool5] [--steps-scale 1] [--out folder]
    python -m tests.benchmarks.inversion --batch | --rates

Table: for each layer and method, means over the photographs of the squared error (a), of the structural similarity
and of the peak signal-to-noise ratio to the original, and the median time of one photograph alone; photographs on
which a method diverges are counted, and left out of its means. The methods take turns on each photograph.
``--steps-scale`` shortens all methods alike, for a quick look. ``--batch`` times 6 layers × 4 restarts × 4 images in
one `invert_layers` call against the same one after the other: layer by layer, and image by image. ``--rates`` counts
the operations of a forward and a backward pass, of one core, by the number of images in a batch.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_cnnvis.functional.inversion.methods import inversion_method
from lightning_cnnvis.functional.inversion.reconstruction import InversionOptions, invert, invert_layers
from lightning_cnnvis.functional.optimization.transforms import resize

from . import tables
from .deconvnet import flops
from .machine import default_device, seconds, synchronize
from .real_models import IMAGENET, data_folder, photograph, photographs, save_sheet

LAYERS = {"relu1": "1", "relu2": "4", "relu3": "7", "relu4": "9", "relu5": "11", "pool5": "12"}
METHODS = ("fourier", "mahendran2014", "mahendran2016")


def alexnet_features(device: str = "cpu") -> nn.Module:
    """The convolutional part of torchvision's AlexNet, trained on ImageNet."""
    model = torchvision.models.alexnet(weights=None).features
    state = load_file(data_folder() / "alexnet_features_imagenet.safetensors")
    model.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
    return model.eval().to(device)


def eight_photographs() -> Tensor:
    """``(8, 3, 224, 224)`` in [0, 1]: a cat, a sky, four of scikit-image and two of tiny10."""
    arrays = [getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")]
    pictures = [photograph("cat.jpg"), photograph("sky1024px.jpg")]
    pictures += [torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1) / 255 for array in arrays]
    small = photographs()
    pictures += [small[len(small) // 5], small[len(small) * 7 // 10]]
    squares = [torchvision.transforms.functional.center_crop(p, [min(p.shape[1:])] * 2) for p in pictures]
    return torch.cat([resize(square[None], IMAGENET.size).clamp(0, 1) for square in squares])


def steps_of(method: str, scale: float) -> int | None:
    if scale == 1:
        return None
    total = sum(stage.recipe.steps for stage in inversion_method(method, None, IMAGENET).stages)
    return max(2, round(scale * total))


def measure(
    layers: Sequence[str] = tuple(LAYERS),
    images: int = 8,
    steps_scale: float = 1.0,
    out: Path | None = None,
    device: str = default_device(),
) -> dict[str, Any]:
    """Errors, similarities and seconds of each method at each layer.

    Args:
        layers: Keys of `LAYERS`.
        images: Number of photographs.
        steps_scale: Share of each method's own steps to take.
        out: A folder for contact sheets.
        device: Where to run.

    Returns:
        For each layer and method, means over the photographs on which it converges, None if there are none, and the
        median of the seconds.
    """
    model, pictures = alexnet_features(device), eight_photographs()[:images]
    inputs = IMAGENET.normalize(pictures).to(device)
    rows = []
    for name in layers:
        found: dict[str, list[tuple[float, float, float, float]]] = {method: [] for method in METHODS}
        rebuilt: dict[str, list[Tensor]] = {method: [] for method in METHODS}
        for image in inputs.split(1):
            for method in METHODS:
                start = time.perf_counter()
                result = invert(
                    model, image, LAYERS[name], input_spec=IMAGENET, method=method, steps=steps_of(method, steps_scale)
                )
                synchronize(device)
                took = time.perf_counter() - start
                found[method].append((result.errors.item(), result.ssim.item(), result.psnr.item(), took))
                rebuilt[method].append(result.images[0, 0].cpu())
        rows.append({"layer": name, "methods": {method: summary(values) for method, values in found.items()}})
        print(rows[-1], file=sys.stderr, flush=True)
        if out:
            shown = torch.cat([pictures, *(torch.cat(rebuilt[method]) for method in METHODS)])
            save_sheet(shown, out / f"inversion_{name}.png", columns=images)
    return {"device": device, "layers": rows}


def summary(values: Sequence[tuple[float, float, float, float]]) -> dict[str, Any]:
    """Means over the photographs on which a method converges, and the median of all seconds."""
    finite = [value for value in values if math.isfinite(value[0])]
    means = [statistics.mean(column) for column in zip(*finite, strict=True)][:3] if finite else [None] * 3
    return {
        **dict(zip(("error", "ssim", "psnr"), means, strict=True)),
        "seconds": statistics.median(value[3] for value in values),
        "photographs": len(values),
        "diverged": len(values) - len(finite),
    }


def batched(steps: int = 10, device: str = default_device()) -> dict[str, Any]:
    """Seconds of 6 layers × 4 restarts × 4 images, at once and one after the other, with the same settings."""
    model, inputs = alexnet_features(device), IMAGENET.normalize(eight_photographs()[:4]).to(device)
    layers = list(LAYERS.values())

    def at_once(chunk: int) -> None:
        options = InversionOptions(chunk=chunk)
        invert_layers(model, inputs, layers, input_spec=IMAGENET, restarts=4, steps=steps, options=options)

    def by_layer() -> None:
        for layer in layers:
            invert(model, inputs, layer, input_spec=IMAGENET, restarts=4, steps=steps)

    def by_image() -> None:
        for layer in layers:
            for image in inputs.split(1):
                for seed in range(4):
                    invert(model, image, layer, input_spec=IMAGENET, steps=steps, seed=seed)

    runs: dict[str, Callable[[], None]] = {
        "chunks_of_16": lambda: at_once(16),
        "one_chunk": lambda: at_once(96),
        "by_layer": by_layer,
        "by_image": by_image,
    }
    found: dict[str, Any] = {"device": device, "steps": steps}
    if device != "cpu":
        by_layer()  # a GPU's first run compiles and chooses
    for name, run in runs.items():
        found[name] = seconds(run, device)
    return found


def rates(rounds: int = 5, device: str = "cpu") -> dict[str, Any]:
    """GFLOP/s of one core, or of a GPU, on the way to a layer and back, by the number of images in a batch."""
    model = alexnet_features(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        batches = []
        for count in (1, 4, 16):
            images = torch.rand(count, 3, 224, 224, device=device, requires_grad=True)
            of_layer = {}
            for name in ("relu1", "relu3", "pool5"):
                part = model[: int(LAYERS[name]) + 1]

                def there_and_back(part: nn.Module = part, images: Tensor = images) -> None:
                    torch.autograd.grad(part(images).sum(), images)

                counted = flops(there_and_back)
                found = [seconds(there_and_back, device) for _ in range(rounds)]
                of_layer[name] = counted / statistics.median(found) / 1e9
            batches.append({"images": count, "gflops": of_layer})
    finally:
        torch.set_num_threads(threads)
    return {"device": device, "batches": batches}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--layers", default=",".join(LAYERS))
    parser.add_argument("--steps-scale", type=float, default=1.0)
    parser.add_argument("--batch", action="store_true", help="time the batch of layers instead")
    parser.add_argument("--batch-steps", type=int, default=10)
    parser.add_argument("--rates", action="store_true", help="count floating-point operations instead")
    parser.add_argument("--out", type=Path, help="folder for contact sheets")
    chosen = parser.parse_args()
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.batch:
        print(tables.inversion_batch(batched(chosen.batch_steps)))
    elif chosen.rates:
        print(tables.inversion_rates(rates()))
    else:
        print(tables.inversion(measure(chosen.layers.split(","), chosen.images, chosen.steps_scale, chosen.out)))


if __name__ == "__main__":
    main()
