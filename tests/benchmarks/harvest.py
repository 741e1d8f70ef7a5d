"""What picking up top activations adds to a validation pass: time and memory.

    python -m tests.benchmarks.harvest [--rounds 5] [--batches 6] [--device cpu]

ZFNet at 224 px, batches of 64. Both sides run in turn in one process; medians over the rounds. The images differ from
batch to batch, so that winners change as in a real validation. The plan, made once at the first batch, is part of what
is timed. Apart from it stands the time that it takes after the pass to cut windows out of the batches that were kept.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from lightning_cnnvis import ZFNet
from lightning_cnnvis.functional import Harvest

from . import tables
from .machine import default_device, synchronize

LAYERS = [f"relu{n}" for n in range(1, 6)]


def validation_pass(model: torch.nn.Module, batches: list[Tensor], channels: dict | None) -> tuple[float, float, int]:
    """Seconds of the pass and of cutting windows after it, and the most bytes that the harvest held."""
    follow = nullcontext() if channels is None else Harvest(model, channels, k=9)
    with torch.no_grad(), follow as harvest:
        synchronize(batches[0].device)
        start = time.perf_counter()
        held = 0
        for batch in batches:
            model(batch)
            held = max(held, 0 if harvest is None else bytes_held(harvest))
        synchronize(batches[0].device)
        passed = time.perf_counter()
    for top in () if harvest is None else harvest.tops.values():
        assert top.windows.shape[:2] == (len(top), top.k)
    synchronize(batches[0].device)
    finished = time.perf_counter()
    return passed - start, finished - passed, max(held, 0 if harvest is None else bytes_held(harvest))


def bytes_held(harvest: Harvest) -> int:
    # layers share the batches that are kept
    kept = {batch.data_ptr(): batch.nbytes for top in harvest.tops.values() for batch in top.batches}
    return sum(kept.values()) + sum(top.nbytes for top in harvest.tops.values())


def measure(rounds: int = 5, batches: int = 6, batch_size: int = 64, device: str = default_device()) -> dict[str, Any]:
    """Seconds of a validation pass that is plain, or that picks up some maps or all of them."""
    torch.manual_seed(0)
    model = ZFNet(1000).eval().to(device)
    images = [torch.randn((batch_size, 3, 224, 224), device=device) for _ in range(batches)]
    some = {layer: list(range(16)) for layer in LAYERS}
    cases: dict[str, dict | None] = {"plain": None, "some_maps": some, "every_map": dict.fromkeys(LAYERS)}
    measured: dict[str, list[tuple[float, float, int]]] = {name: [] for name in cases}
    for channels in cases.values():
        validation_pass(model, images[:1], channels)
    for _ in range(rounds):
        for name, channels in cases.items():
            measured[name].append(validation_pass(model, images, channels))
    medians = {
        name: [statistics.median(values) for values in zip(*rows, strict=True)] for name, rows in measured.items()
    }
    plain = medians.pop("plain")[0]
    every = sum(module.out_channels for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    maps = {"some_maps": 16, "every_map": every}
    return {
        "device": device,
        "images": batches * batch_size,
        "plain": {"seconds": plain},
        **{
            name: {
                "maps": maps[name],
                "seconds": seconds,
                "added": seconds / plain - 1,
                "seconds_after": after,
                "bytes_held": held,
            }
            for name, (seconds, after, held) in medians.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default=default_device())
    print(tables.harvest(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
