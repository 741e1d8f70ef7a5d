"""How often a loop makes the host wait for the device: by torch's warnings, and by the calls that the profiler sees.

A loop is run for some turns and for twice as many. What is done once cancels out; the rest is what a turn costs.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_cnnvis.functional import (
    DreamOptions,
    Harvest,
    dream,
    invert,
    maximize_activation,
    project,
    top_activations,
    visualize_classes,
)
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.models import ZFNet

from .results import Settings

SPEC = InputSpec(size=(96, 96))
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")

Loop = Callable[[nn.Module, str, int], object]


def harvest(net: nn.Module, device: str, turns: int) -> None:
    """Batches of a validation."""
    batches = torch.randn(turns, 8, 3, 96, 96, device=device).unbind()
    with Harvest(net, {"relu2": range(8), "relu5": range(8)}, k=4), torch.no_grad():
        for batch in batches:
            net(batch)


def harvest_of_every_map(net: nn.Module, device: str, turns: int) -> None:
    """Batches of a validation, with many maps: batches are cut up as they come."""
    top_activations(net, torch.randn(turns, 8, 3, 96, 96, device=device).unbind(), ["relu2", "relu5"], k=4)


def projections(net: nn.Module, device: str, turns: int) -> None:
    """Calls of `project`."""
    images = torch.randn(8, 3, 96, 96, device=device)
    for _ in range(turns):
        project(net, images, "relu5", torch.arange(8, device=device))


LOOPS: dict[str, Loop] = {
    "harvest, a batch": harvest,
    "harvest of every map, a batch": harvest_of_every_map,
    "project, a call": projections,
    "class images, a step": lambda net, _, n: visualize_classes(net, [0, 1], input_spec=SPEC, steps=n),
    "maximised activations, a step": lambda net, _, n: maximize_activation(
        net, "relu5", [0, 1], input_spec=SPEC, steps=n
    ),
    "inversion, a step": lambda net, device, n: invert(
        net, torch.randn(2, 3, 96, 96, device=device), "relu3", input_spec=SPEC, steps=n
    ),
    "inversion of 2014, a step": lambda net, device, n: invert(
        net, torch.randn(2, 3, 96, 96, device=device), "relu3", input_spec=SPEC, steps=n, method="mahendran2014"
    ),
    "DeepDream, a step": lambda net, device, n: dream(
        net, torch.rand(1, 3, 96, 96, device=device), "relu4", input_spec=SPEC, options=DreamOptions(octaves=1, steps=n)
    ),
}


def in_a_loop(loop: Loop, settings: Settings) -> dict[str, Any]:
    """The waits of a turn, and the lines that cause them."""
    torch.manual_seed(0)
    net = ZFNet(10, image_size=96, width=0.25).eval().to(settings.device)
    turns = settings.pick(10, 2)
    loop(net, settings.device, turns)
    if settings.device == "cpu":
        loop(net, settings.device, 2 * turns)
        return {"a_turn": None, "note": "a CPU has none"}
    few, many = (warned(loop, net, settings, n) for n in (turns, 2 * turns))
    lines = {line: (many[line] - few[line]) / turns for line in many | few if many[line] != few[line]}
    few_calls, many_calls = (profiled(loop, net, settings, n) for n in (turns, 2 * turns))
    return {
        "a_turn": sum(lines.values()),
        "lines": dict(sorted(lines.items(), key=lambda item: -item[1])[:12]),
        "calls_a_turn": {name: (many_calls[name] - few_calls[name]) / turns for name in many_calls | few_calls},
        "once": sum(few.values()) - sum(lines.values()) * turns,
    }


def warned(loop: Loop, net: nn.Module, settings: Settings, turns: int) -> Counter[str]:
    """What torch warns of, by file and line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            loop(net, settings.device, turns)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return Counter(
        f"{'/'.join(Path(w.filename).parts[-2:])}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)
    )


def profiled(loop: Loop, net: nn.Module, settings: Settings, turns: int) -> Counter[str]:
    """How often the runtime's waiting calls are made."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        loop(net, settings.device, turns)
    return Counter({event.key: event.count for event in profile.key_averages() if event.key in WAITS})
