"""Inversion of ImageNet-trained AlexNet: the default beside Mahendran & Vedaldi 2014 and 2016, and layers in a batch.

    python -m tests.benchmarks.inversion [--images 8] [--layers relu1,pool5] [--steps-scale 1] [--batch] [--out folder]

Table: for each layer and method, means over the photographs of the squared error (a), of the structural similarity
and of the peak signal-to-noise ratio to the original, and the median time of one photograph alone; photographs on
which a method diverges are counted, and left out of its means. The methods take turns on each photograph.
``--steps-scale`` shortens all methods alike, for a quick look. ``--batch`` times 6 layers × 4 restarts × 4 images in
one `invert_layers` call against the same one after the other: layer by layer, and image by image.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_cnnvis.functional.inversion.methods import Method, inversion_method
from lightning_cnnvis.functional.inversion.reconstruction import InversionOptions, invert, invert_layers
from lightning_cnnvis.functional.optimization.transforms import resize
from tests.benchmarks.real_models import IMAGENET, data_folder, photograph, photographs, save_sheet

LAYERS = {"relu1": "1", "relu2": "4", "relu3": "7", "relu4": "9", "relu5": "11", "pool5": "12"}
METHODS: tuple[Method, ...] = ("fourier", "mahendran2014", "mahendran2016")


def alexnet_features() -> nn.Module:
    """The convolutional part of torchvision's AlexNet, trained on ImageNet."""
    model = torchvision.models.alexnet(weights=None).features
    state = load_file(data_folder() / "alexnet_features_imagenet.safetensors")
    model.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
    return model.eval()


def eight_photographs() -> Tensor:
    """``(8, 3, 224, 224)`` in [0, 1]: a cat, a sky, four of scikit-image and two of tiny10."""
    arrays = [getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")]
    pictures = [photograph("cat.jpg"), photograph("sky1024px.jpg")]
    pictures += [torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1) / 255 for array in arrays]
    small = photographs()
    pictures += [small[len(small) // 5], small[len(small) * 7 // 10]]
    squares = [torchvision.transforms.functional.center_crop(p, [min(p.shape[1:])] * 2) for p in pictures]
    return torch.cat([resize(square[None], IMAGENET.size).clamp(0, 1) for square in squares])


def steps_of(method: Method, scale: float) -> int | None:
    if scale == 1:
        return None
    total = sum(stage.recipe.steps for stage in inversion_method(method, None, IMAGENET).stages)
    return max(2, round(scale * total))


def compare(names: list[str], count: int, scale: float, out: Path | None) -> None:
    model, pictures = alexnet_features(), eight_photographs()[:count]
    inputs = IMAGENET.normalize(pictures)
    print(f"{count} photographs at 224², {torch.get_num_threads()} threads, {scale:g} of each method's steps")
    print("layer  method          error (a)    SSIM   PSNR  seconds")
    for name in names:
        rows: dict[Method, list[tuple[float, float, float, float]]] = {method: [] for method in METHODS}
        images: dict[Method, list[Tensor]] = {method: [] for method in METHODS}
        for image in inputs.split(1):
            for method in METHODS:
                start = time.perf_counter()
                found = invert(
                    model, image, LAYERS[name], input_spec=IMAGENET, method=method, steps=steps_of(method, scale)
                )
                seconds = time.perf_counter() - start
                rows[method].append((found.errors.item(), found.ssim.item(), found.psnr.item(), seconds))
                images[method].append(found.images[0, 0])
        for method in METHODS:
            found = [row for row in rows[method] if math.isfinite(row[0])]
            error, ssim, psnr, _ = zip(*found, strict=True)
            means = f"{statistics.mean(error):10.4f} {statistics.mean(ssim):7.3f} {statistics.mean(psnr):6.1f}"
            seconds = statistics.median(row[3] for row in rows[method])
            diverged = f"   diverged on {len(rows[method]) - len(found)}" if len(found) < len(rows[method]) else ""
            print(f"{name:6} {method:14} {means} {seconds:8.1f}{diverged}", flush=True)
        if out:
            shown = torch.cat([pictures, *(torch.cat(images[method]) for method in METHODS)])
            save_sheet(shown, out / f"inversion_{name}.png", columns=count)


def batched(steps: int) -> None:
    """6 layers × 4 restarts × 4 images, at once and one after the other, with the same settings."""
    model, inputs = alexnet_features(), IMAGENET.normalize(eight_photographs()[:4])
    layers = list(LAYERS.values())

    def at_once(chunk: int) -> None:
        options = InversionOptions(chunk=chunk)
        invert_layers(model, inputs, layers, input_spec=IMAGENET, restarts=4, steps=steps, options=options)

    def by_layer() -> None:
        for layer in layers:
            invert(model, inputs, layer, input_spec=IMAGENET, restarts=4, steps=steps)

    def one_by_one() -> None:
        for layer in layers:
            for image in inputs.split(1):
                for seed in range(4):
                    invert(model, image, layer, input_spec=IMAGENET, steps=steps, seed=seed)

    runs: dict[str, Callable[[], None]] = {
        "invert_layers, chunks of 16": lambda: at_once(16),
        "invert_layers, one chunk": lambda: at_once(96),
        "layer by layer": by_layer,
        "image by image": one_by_one,
    }
    print(f"6 layers × 4 restarts × 4 images, {steps} steps, {torch.get_num_threads()} threads")
    for name, run in runs.items():
        start = time.perf_counter()
        run()
        print(f"{name:28} {time.perf_counter() - start:7.1f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--layers", default=",".join(LAYERS))
    parser.add_argument("--steps-scale", type=float, default=1.0)
    parser.add_argument("--batch", action="store_true", help="time the batch of layers instead")
    parser.add_argument("--batch-steps", type=int, default=10)
    parser.add_argument("--out", type=Path, help="folder for contact sheets")
    chosen = parser.parse_args()
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.batch:
        batched(chosen.batch_steps)
    else:
        compare(chosen.layers.split(","), chosen.images, chosen.steps_scale, chosen.out)
