"""Every convolutional map of ZFNet at 224², top 9 of each: ours against whole images, and against captum.

    python -m tests.benchmarks.deconvnet [--units 96] [--captum-units 8] [--rounds 3] [--device cpu]

A sample of units of each layer is timed, each of an image of its own, and scaled up to all 1,376 maps × 9 = 12,384
units. The sides take turns. "Whole images" is the same batched engine without windows. captum's `NeuronDeconvolution`
takes one unit at a time. "error" is the largest relative difference of our pictures to captum's, response
normalisation passing its gradient as it does there. FLOPs are counted as they are run; the attainable rate is that of
the faster of a large matrix product and a large convolution.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lightning_cnnvis.functional.deconvnet.projection import plan_windows, project, project_windows
from lightning_cnnvis.functional.deconvnet.windows import Windows, cut
from lightning_cnnvis.functional.network.receptive_field import ReceptiveField
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.models import ZFNet

from . import tables
from .machine import default_device, seconds

TOP = 9
LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5")


class Sample:
    """Units of one layer, drawn at random; without a count, as many as there are, of 96 images."""

    def __init__(self, net: nn.Module, layer: str, count: int | None, device: str) -> None:
        generator = torch.Generator(device).manual_seed(0)
        self.net, self.layer = net, layer
        weight = next(net.parameters())
        self.images = torch.randn(count or 96, 3, 224, 224, generator=generator, device=device).to(weight.dtype)
        begin = time.perf_counter()
        with isolated(net):
            self.plan = plan_windows(net, layer, self.images)
        self.planning = time.perf_counter() - begin
        maps, rows, columns = self.plan.field.map_shape
        self.total = maps * TOP
        if count is None:
            count = self.total
            self.images = self.images[torch.arange(count, device=device) % len(self.images)]
        self.channels = torch.randint(maps, (count,), generator=generator, device=device)
        self.positions = torch.stack(
            [torch.randint(n, (count,), generator=generator, device=device) for n in (rows, columns)], dim=1
        )
        size = self.plan.field.input_size
        self.full = Windows(ReceptiveField(size, (0, 0), (0, 0), self.plan.field.map_shape, size))

    def ours(self) -> Tensor:
        return self._engine(self.plan)

    def whole_images(self) -> Tensor:
        return self._engine(self.full)

    def _engine(self, plan: Windows) -> Tensor:
        with isolated(self.net):
            corners = plan.corners(self.positions)
            windows = cut(self.images, corners, plan.size)
            within = plan.positions_within(self.positions, corners)
            pixels, _ = project_windows(self.net, windows, self.layer, self.channels, within, geometry=plan)
        return cut(pixels, plan.field_corners(self.positions) - corners, plan.field_size)

    def captum(self, count: int) -> Tensor:
        from captum.attr import NeuronDeconvolution

        method = NeuronDeconvolution(self.net, self.net.get_submodule(self.layer))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.cat(
                [
                    method.attribute(image[None], (int(channel), int(row), int(column)))
                    for image, channel, (row, column) in zip(
                        self.images[:count], self.channels, self.positions, strict=False
                    )
                ]
            )

    def same_as_captum(self, count: int) -> float:
        """The largest difference to captum, relative; it takes the gradient of response normalisation."""
        theirs = self.captum(count)
        units = self.channels[:count], self.positions[:count]
        mine = project(self.net, self.images[:count], self.layer, *units, start="one", lrn="gradient").full()
        return float((mine - theirs).abs().max() / theirs.abs().max())


def attainable(device: str) -> float:
    """FLOP a second."""
    size = 2048 if device == "cpu" else 8192
    matrix = torch.randn(size, size, device=device)
    inputs, weight = torch.randn(32, 256, 28, 28, device=device), torch.randn(256, 256, 3, 3, device=device)
    works: dict[Callable[[], object], int] = {
        lambda: matrix @ matrix: 2 * size**3,
        lambda: torch.conv2d(inputs, weight, padding=1): 2 * 32 * 28**2 * 256**2 * 9,
    }
    return max(flops / min(seconds(work, device) for _ in range(6)) for work, flops in works.items())


class FlopCounter(TorchDispatchMode):
    """Counts the operations run, forward and back, by torch's formulas.

    `FlopCounterMode` itself hooks into the modules, which a backward pass to the input alone does not allow.
    """

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def flops(work: Callable[[], object]) -> int:
    with FlopCounter() as counter:
        work()
    return counter.total


def measure(
    units: int = 96,
    captum_units: int = 8,
    rounds: int = 3,
    device: str = default_device(),
    layers: Sequence[str] = LAYERS,
) -> dict[str, Any]:
    """Seconds a unit of each side, layer by layer and in all.

    Args:
        units: Units of each layer, ours and on whole images.
        captum_units: Units of each layer for captum; 0 leaves it out.
        rounds: Measured rounds, after one that warms up.
        device: Where to run.
        layers: The layers to measure.
    """
    torch.manual_seed(0)
    net = ZFNet(num_classes=1000).eval().to(device)
    rate = attainable(device)
    rows = []
    totals: dict[str, float] = dict.fromkeys(("ours", "whole_images", "captum"), 0.0)
    work_done = 0.0
    for layer in layers:
        sample = Sample(net, layer, units, device)
        sides = {"ours": (sample.ours, units), "whole_images": (sample.whole_images, units)}
        if captum_units:
            sides["captum"] = (lambda s=sample: s.captum(captum_units), captum_units)
        found: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(rounds + 1):
            for side, (work, count) in sides.items():
                found[side].append(seconds(work, device) / count)
        # the first round warms up
        each = {side: statistics.median(values[1:]) for side, values in found.items()}
        for side, value in each.items():
            totals[side] += value * sample.total
        totals["ours"] += sample.planning
        counted = flops(sample.ours) / units
        work_done += counted * sample.total
        captum = each.get("captum")
        rows.append(
            {
                "layer": layer,
                "units": sample.total,
                "field": sample.plan.field.size[0],
                "ours": each["ours"],
                "whole_images": each["whole_images"],
                "whole_images_ratio": each["whole_images"] / each["ours"],
                "captum": captum,
                "captum_ratio": None if captum is None else captum / each["ours"],
                "gflops": counted / each["ours"] / 1e9,
                "error": sample.same_as_captum(captum_units) if captum_units else None,
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    all_units = sum(row["units"] for row in rows)
    return {
        "device": device,
        "attainable_gflops": rate / 1e9,
        "layers": rows,
        "all": {
            "units": all_units,
            "ours": totals["ours"],
            "whole_images": totals["whole_images"],
            "whole_images_ratio": totals["whole_images"] / totals["ours"],
            "captum": totals["captum"] if captum_units else None,
            "captum_ratio": totals["captum"] / totals["ours"] if captum_units else None,
            "units_per_second": all_units / totals["ours"],
            "attainable_share": work_done / totals["ours"] / rate,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=96, help="units of each layer, ours and on whole images")
    parser.add_argument("--captum-units", type=int, default=8, help="units of each layer for captum; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default=default_device())
    print(tables.deconvnet(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
