"""Projections and class images in other types and memory layouts, beside float32 in the usual one."""

from __future__ import annotations

import statistics
from typing import Any

import torch
import torchvision

from lightning_cnnvis.functional import VisualizationOptions, visualize_classes
from lightning_cnnvis.models import ZFNet

from .. import deconvnet
from ..machine import seconds
from ..real_models import IMAGENET
from .results import Settings

PROJECTIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, channels_last": {"memory_format": torch.channels_last},
    "bfloat16": {"dtype": torch.bfloat16},
    "bfloat16, channels_last": {"dtype": torch.bfloat16, "memory_format": torch.channels_last},
}


def timed(work: Any, settings: Settings) -> float:
    """Median seconds, after a run that warms up."""
    work()
    return statistics.median(seconds(work, settings.device) for _ in range(settings.pick(3, 1)))


def projections_in_layouts(settings: Settings) -> dict[str, Any]:
    """Milliseconds a unit, and the largest difference to float32 over its largest value."""
    found: dict[str, Any] = {}
    for layer in settings.pick(deconvnet.LAYERS[1::2], deconvnet.LAYERS[:1]):
        reference = None
        for name, options in PROJECTIONS.items():
            torch.manual_seed(0)
            net = ZFNet(1000).eval().to(settings.device, **options)
            sample = deconvnet.Sample(net, layer, settings.pick(288, 2), settings.device)
            pixels = sample.ours().float()
            reference = pixels if reference is None else reference
            units = settings.pick(288, 2)
            found[f"{layer}, {name}"] = {
                "ms": timed(sample.ours, settings) / units * 1e3,
                "difference": ((pixels - reference).abs().max() / reference.abs().max()).item(),
            }
    return found


def class_images_in_layouts(settings: Settings) -> dict[str, Any]:
    """Seconds of 16 class images of SqueezeNet with random weights."""
    found = {}
    for precision in ("float32", "bfloat16"):
        for layout in (torch.contiguous_format, torch.channels_last):
            torch.manual_seed(0)
            net = torchvision.models.squeezenet1_1(weights=None).eval().to(settings.device, memory_format=layout)
            options = VisualizationOptions(size=settings.pick((128, 128), (64, 64)), precision=precision)

            def work(net: Any = net, options: VisualizationOptions = options) -> None:
                classes = list(range(settings.pick(16, 1)))
                visualize_classes(net, classes, input_spec=IMAGENET, steps=settings.pick(64, 1), options=options)

            name = f"{precision}{', channels_last' if layout is torch.channels_last else ''}"
            found[name] = {"seconds_of_64_steps": timed(work, settings)}
    return found
