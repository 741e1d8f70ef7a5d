"""What picking up top activations adds to a validation pass: time and memory.

    python -m tests.benchmarks.harvest [--rounds 5] [--batches 6] [--device cpu]

ZFNet at 224 px, batches of 64. Both sides run in turn in one process; medians over the rounds. The images differ from
batch to batch, so that winners change as in a real validation. The plan, made once at the first batch, and the first
batch, which fills every place, are part of what is timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext

import torch
from torch import Tensor

from lightning_cnnvis import ZFNet
from lightning_cnnvis.functional import Harvest

LAYERS = [f"relu{n}" for n in range(1, 6)]


def validation_pass(model: torch.nn.Module, batches: list[Tensor], channels: dict | None) -> tuple[float, int]:
    """Seconds of the pass, and bytes that the harvest holds at its end."""
    follow = nullcontext() if channels is None else Harvest(model, channels, k=9)
    with torch.no_grad(), follow as harvest:
        synchronize(batches[0])
        start = time.perf_counter()
        for batch in batches:
            model(batch)
        synchronize(batches[0])
        seconds = time.perf_counter() - start
    held = 0 if harvest is None else sum(top.nbytes for top in harvest.tops.values())
    return seconds, held


def synchronize(like: Tensor) -> None:
    if like.is_cuda:
        torch.cuda.synchronize(like.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = ZFNet(1000).eval().to(options.device)
    shape = (options.batch_size, 3, 224, 224)
    batches = [torch.randn(shape, device=options.device) for _ in range(options.batches)]
    some = {layer: list(range(16)) for layer in LAYERS}
    every = dict.fromkeys(LAYERS)
    cases: dict[str, dict | None] = {"plain validation": None, "16 maps a layer": some, "every map": every}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    held = dict.fromkeys(cases, 0)
    for channels in cases.values():
        validation_pass(model, batches[:1], channels)
    for _ in range(options.rounds):
        for name, channels in cases.items():
            spent, held[name] = validation_pass(model, batches, channels)
            seconds[name].append(spent)
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    images = options.batches * options.batch_size
    print(f"torch {torch.__version__}, {device}, {images} images of 224 px, median of {options.rounds}")
    plain = statistics.median(seconds["plain validation"])
    for name in cases:
        median = statistics.median(seconds[name])
        print(f"{name:18} {median:8.3f} s  {median / plain - 1:+7.1%}  holds {held[name] / 2**20:8.1f} MiB")


if __name__ == "__main__":
    main()
