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
import time
import warnings
from collections.abc import Callable
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

TOP = 9
LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5")


class Sample:
    """Units of one layer, drawn at random."""

    def __init__(self, net: nn.Module, layer: str, count: int, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.net, self.layer = net, layer
        self.images = torch.randn(count, 3, 224, 224, generator=generator).to(device)
        begin = time.perf_counter()
        with isolated(net):
            self.plan = plan_windows(net, layer, self.images)
        self.planning = time.perf_counter() - begin
        maps, rows, columns = self.plan.field.map_shape
        self.total = maps * TOP
        self.channels = torch.randint(maps, (count,), generator=generator).to(device)
        self.positions = torch.stack(
            [torch.randint(n, (count,), generator=generator) for n in (rows, columns)], dim=1
        ).to(device)
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


def seconds(work: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=96, help="units of each layer, ours and on whole images")
    parser.add_argument("--captum-units", type=int, default=8, help="units of each layer for captum; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    net = ZFNet(num_classes=1000).eval().to(args.device)
    rate = attainable(args.device)
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads, {args.device}: {rate / 1e9:.0f} GFLOP/s attainable")
    print("milliseconds a unit (median), and times as long as ours")
    columns = {"units": 7, "field": 7, "ours": 9, "whole": 9, "×": 6, "captum": 9, "x": 6, "GFLOP/s": 9, "error": 9}
    print("layer   " + "".join(f"{name:>{width}}" for name, width in columns.items()))
    totals = {"ours": 0.0, "whole": 0.0, "captum": 0.0}
    work_done, units = 0.0, 0
    for layer in LAYERS:
        sample = Sample(net, layer, args.units, args.device)
        sides = {"ours": (sample.ours, args.units), "whole": (sample.whole_images, args.units)}
        if args.captum_units:
            sides["captum"] = (lambda s=sample: s.captum(args.captum_units), args.captum_units)
        times: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(args.rounds + 1):
            for side, (work, count) in sides.items():
                times[side].append(seconds(work, args.device) / count)
        # the first round warms up
        each = {side: statistics.median(values[1:]) for side, values in times.items()}
        for side, value in each.items():
            totals[side] += value * sample.total
        totals["ours"] += sample.planning
        units += sample.total
        counted = flops(sample.ours) / args.units
        work_done += counted * sample.total
        captum = each.get("captum", float("nan"))
        difference = sample.same_as_captum(args.captum_units) if args.captum_units else float("nan")
        print(
            f"{layer:8}{sample.total:7}{sample.plan.field.size[0]:7}{each['ours'] * 1e3:9.2f}{each['whole'] * 1e3:9.2f}"
            f"{each['whole'] / each['ours']:6.1f}{captum * 1e3:9.2f}{captum / each['ours']:6.1f}"
            f"{counted / each['ours'] / 1e9:9.0f}{difference:9.0e}",
            flush=True,
        )
    print(
        f"all {units} units: ours {totals['ours']:.1f} s ({units / totals['ours']:.0f} units/s, "
        f"{work_done / totals['ours'] / rate:.0%} of the attainable FLOP rate), "
        f"whole images {totals['whole']:.1f} s ({totals['whole'] / totals['ours']:.1f} times as long), "
        f"captum {totals['captum']:.1f} s ({totals['captum'] / totals['ours']:.1f} times as long)"
    )


if __name__ == "__main__":
    main()
