"""Top activations over a folder of JPEGs, against a plain DataLoader and forward pass; and memory over many images.

    python -m tests.benchmarks.folder [--images 2000] [--workers 2] [--rounds 3] [--many 100000]

JPEGs of 256 px, ZFNet at 64 px and a quarter of its width, 16 maps of each of its 5 layers, top 9. The plain side
reads with Pillow and torchvision's transforms in as many worker processes, and only runs the network. Both sides run in
turn; medians over the rounds. ``--many`` synthetic images of 32 px then go through a small network, all of whose maps
are followed: the bytes that are held at most stand beside the formula's bound.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lightning_cnnvis import InputSpec, ZFNet, analyze
from lightning_cnnvis.functional import Harvest
from lightning_cnnvis.methods.deconv import top_activations

from .harvest import LAYERS, bytes_held
from .machine import default_device, seconds

SPEC = InputSpec(size=(64, 64))
K = 9


class Plain(Dataset):
    """Photographs as most programs read them."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.transform = v2.Compose(
            [v2.Resize(64), v2.CenterCrop(64), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor:
        with Image.open(self.paths[number]) as image:
            pixels: Tensor = self.transform(image.convert("RGB"))
        return pixels


def write_jpegs(folder: Path, count: int) -> list[Path]:
    """Smooth random pictures of 256 px."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{n:06d}.jpg" for n in range(count)]
    for path in paths:
        small = Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8))
        small.resize((256, 256), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


def measure(images: int = 2000, workers: int = 2, rounds: int = 3, device: str = default_device()) -> dict[str, Any]:
    """Images a second: plain, ours with as many workers, and ours with none."""
    torch.manual_seed(0)
    net = ZFNet(1000, width=0.25, image_size=64).eval().to(device)
    channels = {layer: list(range(16)) for layer in LAYERS}
    with tempfile.TemporaryDirectory() as place:
        paths = write_jpegs(Path(place), images)

        def plain() -> None:
            with torch.no_grad():
                for batch in DataLoader(Plain(paths), 32, num_workers=workers, pin_memory=device != "cpu"):
                    net(batch.to(device))

        def ours(workers: int) -> None:
            analysis = analyze(net, place, input_spec=SPEC, device=device, workers=workers)
            found = top_activations(analysis.subject, channels, K, "deconvnet")
            assert all(top.windows.isfinite().all() for top in found.values())

        sides = {"plain": plain, "ours": lambda: ours(workers), "ours_one_thread": lambda: ours(0)}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, work in sides.items():
                times[name].append(seconds(work, device))
    rates = {name: images / statistics.median(values) for name, values in times.items()}
    share = statistics.median(p / o for p, o in zip(times["plain"], times["ours"], strict=True))
    return {"device": device, "images": images, "workers": workers, "images_a_second": rates, "share_of_plain": share}


def memory(images: int = 100_000, device: str = default_device()) -> dict[str, Any]:
    """The most bytes that are held over many images, and the bound."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU()).to(device)
    held = {100: 0, images // 10: 0, images: 0}

    def batches() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(images // 100):
            yield torch.rand(100, 3, 32, 32, generator=generator)

    most = seen = 0
    with torch.no_grad(), Harvest(net, {"1": None, "4": None}, K) as harvest:
        for batch in batches():
            net(batch.to(device))
            seen += len(batch)
            most = max(most, bytes_held(harvest))
            if seen in held:
                held[seen] = most
    bound = sum(len(t) * K * (3 * t.geometry.size[0] * t.geometry.size[1] * 4 + 56) for t in harvest.tops.values())
    return {"images": images, "most_bytes_after": held, "bound": bound, "data_bytes": images * 3 * 32 * 32 * 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--device", default=default_device())
    options = vars(parser.parse_args())
    many = options.pop("many")
    print(json.dumps({**measure(**options), "memory": memory(many, options["device"])}, indent=2))


if __name__ == "__main__":
    main()
