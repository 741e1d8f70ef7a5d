"""Style transfer against a plain port of Gatys et al. 2015 with L-BFGS: what is left of the style distance, and time.

    python -m tests.benchmarks.style [--photographs 10] [--port 3]

224 px; the style is scikit-image's picture of coffee. The port has the same layers and the same loss, on the pixels of
the photograph, and torch's L-BFGS with as many evaluations as the default has steps. Medians.
"""

from __future__ import annotations

import argparse
import time
import warnings
from statistics import median

import skimage
import torch
from torch import Tensor, nn

from lightning_cnnvis.functional import stylize
from lightning_cnnvis.functional.style.gram import gram
from lightning_cnnvis.inputs.photographs import fit_photograph
from lightning_cnnvis.layers import activations

from .real_models import EFFICIENTNET, IMAGENET, efficientnet, imagenet_photographs, squeezenet
from .tables import table

STEPS = 200
CONTENT_WEIGHT = 0.1


def painting() -> Tensor:
    """``(3, 224, 224)`` in [0, 1]."""
    return fit_photograph(torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1) / 255, (224, 224))


def port(net: nn.Module, photo: Tensor, style: Tensor, layers: tuple[str, ...], content_layer: str) -> Tensor:
    """A picture ``(1, 3, H, W)`` by L-BFGS on pixels."""

    def features(images: Tensor) -> dict[str, Tensor]:
        return activations(net, IMAGENET.normalize(images), [*layers, content_layer])

    with torch.no_grad():
        originals = features(photo)
        targets = {layer: gram(maps) for layer, maps in features(style[None]).items() if layer in layers}
        scale = {layer: (gram(originals[layer]) - targets[layer]).square().sum() for layer in layers}
        content = originals[content_layer]
    image = photo.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([image], max_iter=STEPS, max_eval=STEPS, history_size=20)

    def closure() -> Tensor:
        optimizer.zero_grad()
        found = features(image)
        far = [(gram(found[layer]) - targets[layer]).square().sum() / scale[layer] for layer in layers]
        loss = torch.stack(far).mean()
        loss = loss + CONTENT_WEIGHT * (found[content_layer] - content).square().sum() / content.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return image.detach().clamp(0, 1)


def remaining(net: nn.Module, image: Tensor, photo: Tensor, style: Tensor, layers: tuple[str, ...]) -> float:
    """The share of the style distance that is left, mean over the layers."""
    with torch.no_grad():
        after, before, wanted = (
            {layer: gram(maps) for layer, maps in activations(net, IMAGENET.normalize(x), list(layers)).items()}
            for x in (image, photo, style[None])
        )
    shares = [
        (after[layer] - wanted[layer]).square().sum() / (before[layer] - wanted[layer]).square().sum()
        for layer in layers
    ]
    return float(torch.stack(shares).mean())


def measure(photographs: int, ported: int) -> str:
    """The table."""
    style, photos = painting(), imagenet_photographs(photographs)
    rows = []
    for name, net, spec in (
        ("SqueezeNet", squeezenet(), IMAGENET),
        ("EfficientNet-Lite 0", efficientnet(), EFFICIENTNET),
    ):
        seconds, falls, kept = [], [], 0
        for photo in photos:
            start = time.perf_counter()
            found = stylize(net, photo, style, input_spec=spec, content_weight=CONTENT_WEIGHT, steps=STEPS)
            seconds.append(time.perf_counter() - start)
            falls.append(float(found.fall))
            kept += bool(found.kept)
            print(name, "ours", seconds[-1], falls[-1], bool(found.kept), flush=True)
        rows.append(
            [name, "ours", f"{100 * median(falls):.1f} %", f"{kept} of {len(photos)}", f"{median(seconds):.1f}"]
        )
        if name != "SqueezeNet":
            continue
        times, left, same = [], [], 0
        for photo in photos[:ported]:
            start = time.perf_counter()
            image = port(net, photo[None], style, found.layers, found.content_layer)
            times.append(time.perf_counter() - start)
            left.append(remaining(net, image, photo[None], style, found.layers))
            with torch.no_grad():
                same += len(net(spec.normalize(torch.cat([photo[None], image]))).argmax(1).unique()) == 1
            print(name, "port", times[-1], 1 - left[-1], flush=True)
        rows.append([name, "port, L-BFGS on pixels", f"{100 - 100 * median(left):.1f} %", f"{same} of {ported}",
                     f"{median(times):.1f}"])  # fmt: skip
    return table(["network", "", "style distance falls by", "class kept", "seconds"], rows)


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=10)
    parser.add_argument("--port", type=int, default=3)
    options = parser.parse_args()
    print(measure(options.photographs, options.port))


if __name__ == "__main__":
    main()
