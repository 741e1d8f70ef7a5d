"""Part (a) of `information_study`: how well images can be rebuilt from the layers of good networks, image by image."""

from __future__ import annotations

import csv
import io
import math
import random
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from lightning_cnnvis.functional import invert_layers
from lightning_cnnvis.functional.inversion.reconstruction import InversionOptions
from lightning_cnnvis.inputs import InputSpec

from .real_models import EFFICIENTNET, IMAGENET, data_folder, efficientnet, squeezenet

SIZE = 128
STEPS = 48
COUNT = 200
SEED = 17
BATCH = 10
COLUMNS = ("network", "image", "layer", "error", "ssim", "norm", "right", "margin", "gradient", "bytes")

Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A trained network, and the layers to invert, in the order of their depth."""

    load: Callable[[], nn.Module]
    input_spec: InputSpec
    layers: tuple[str, ...]


SUBJECTS = {
    "squeezenet": Subject(
        squeezenet, IMAGENET, ("features.1", "features.4", "features.7", "features.9", "features.12", "classifier.2")
    ),
    "efficientnet_lite0": Subject(
        efficientnet, EFFICIENTNET, ("bn1", "blocks.1", "blocks.2", "blocks.4", "blocks.6", "bn2")
    ),
}


def sample(numbers: Iterable[int], count: int = COUNT) -> list[int]:
    """Draws the images of the study, without the eight on which the cost was measured.

    Args:
        numbers: Numbers of all photographs; each is that of its class.
        count: Number of images.

    Returns:
        The numbers, in the order in which they are inverted.
    """
    ordered = sorted(numbers)
    pilot = set(ordered[:: max(1, len(ordered) // 8)][:8])
    others = [number for number in ordered if number not in pilot]
    random.Random(SEED).shuffle(others)
    return others[:count]


def photographs() -> dict[int, Tensor]:
    """Photographs ``(3, SIZE, SIZE)`` in [0, 1] by class: the middle 224 of 256 pixels, scaled down."""
    found = {}
    with tarfile.open(data_folder() / "photos500.tar") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                photo = Image.open(file).convert("RGB").crop((16, 16, 240, 240))
                small = photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
                found[int(Path(member.name).stem)] = pil_to_tensor(small) / 255
    return found


def complexity(image: Tensor) -> Row:
    """Two measures of how much there is to see in an image ``(3, H, W)`` in [0, 1]."""
    grey = image.mean(0)
    steps = [grey.diff(dim=dim).square().mean() for dim in (0, 1)]
    file = io.BytesIO()
    to_pil_image(image).save(file, "JPEG", quality=90)
    return {"gradient": float(sum(steps)), "bytes": file.tell()}


def features(net: nn.Module, inputs: Tensor, layers: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits ``(N, classes)``, and the norm ``(N,)`` of what each layer makes of the images."""
    norms: dict[str, Tensor] = {}
    hooks = [
        net.get_submodule(layer).register_forward_hook(
            lambda module, args, output, layer=layer: norms.update({layer: output.flatten(1).norm(dim=1)})
        )
        for layer in layers
    ]
    try:
        with torch.no_grad():
            return net(inputs), norms
    finally:
        for hook in hooks:
            hook.remove()


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """The logit of each image's class less the largest other one, ``(N,)``; above 0 where the network is right."""
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - logits.scatter(1, labels[:, None], -math.inf).amax(1)


def measured(name: str, net: nn.Module, images: dict[int, Tensor], steps: int = STEPS) -> list[Row]:
    """Inverts images.

    Args:
        name: One of `SUBJECTS`.
        net: The network.
        images: ``(3, H, W)`` in [0, 1], by class.
        steps: Steps of each inversion.

    Returns:
        A row for each image and layer.
    """
    subject = SUBJECTS[name]
    pixels = torch.stack(list(images.values()))
    spec = replace(subject.input_spec, size=(pixels.shape[2], pixels.shape[3]))
    inputs = spec.normalize(pixels)
    logits, norms = features(net, inputs, subject.layers)
    margin = margins(logits, torch.tensor(list(images)))
    found = invert_layers(net, inputs, subject.layers, input_spec=spec, steps=steps, options=InversionOptions(chunk=16))
    looks = [complexity(image) for image in pixels]
    return [
        {
            "network": name,
            "image": number,
            "layer": layer,
            "error": f"{float(found.errors[depth, 0, place]):.6g}",
            "ssim": f"{float(found.ssim[depth, 0, place]):.5f}",
            "norm": f"{float(norms[layer][place]):.6g}",
            "right": int(margin[place] > 0),
            "margin": f"{float(margin[place]):.5f}",
            "gradient": f"{looks[place]['gradient']:.6g}",
            "bytes": looks[place]["bytes"],
        }
        for place, number in enumerate(images)
        for depth, layer in enumerate(subject.layers)
    ]


def append(path: Path, rows: list[Row], columns: Iterable[str]) -> None:
    """Adds rows to a CSV file, which gets its header first."""
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, as text; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_images(path: Path, share: float = 1.0) -> None:
    """Inverts the images of the study that are not in the file yet.

    Args:
        path: The CSV file to which rows are added after every batch.
        share: The share of the images to have in the file afterwards, the first ones.
    """
    pixels = photographs()
    wanted = sample(pixels)
    wanted = wanted[: round(share * len(wanted))]
    for name, subject in SUBJECTS.items():
        done = {int(row["image"]) for row in read(path) if row["network"] == name}
        left = [number for number in wanted if number not in done]
        net = subject.load() if left else nn.Identity()
        for start in range(0, len(left), BATCH):
            rows = measured(name, net, {number: pixels[number] for number in left[start : start + BATCH]})
            append(path, rows, COLUMNS)
            print(f"{name}: {start + len(rows) // len(subject.layers)} of {len(left)} images", flush=True)
