"""The parts of a run on a GPU: each measures one thing, under a limit of time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .results import Figures, Settings

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        measure: Fills in the figures.
        limit: Seconds after which it is stopped.
    """

    measure: Callable[[Settings, Figures], None]
    limit: float


_peaks = [0]


def peak_of(work: Callable[[], Any], settings: Settings) -> dict[str, Any]:
    """What the work returns, with the most memory that torch held meanwhile."""
    if settings.device == "cpu":
        return work()
    highest_mib()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    result = work()
    return {**result, "peak_mib_here": torch.cuda.max_memory_allocated() / 2**20}


def highest_mib() -> float:
    """The most memory that torch has held in this process."""
    _peaks.append(torch.cuda.max_memory_allocated())
    return max(_peaks) / 2**20


def tests(settings: Settings, figures: Figures) -> None:
    """The tests of the marker ``gpu``."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/gpu",
        "-m",
        "gpu",
        "-q",
        "-rfE",
        "--tb=short",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-n", str(settings.pick(4, 0)), "--durations=8"]
    lines = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        for line in run.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.strip())
    figures["summary"] = next((line for line in reversed(lines) if line), "")
    figures["failed"] = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if run.returncode:
        raise SystemExit(run.returncode)


def projections(settings: Settings, figures: Figures) -> None:
    """Every projection of ZFNet for real, beside whole images and captum, and in other types and layouts."""
    from lightning_cnnvis.models import ZFNet

    from .. import deconvnet
    from ..machine import seconds
    from .layouts import projections_in_layouts

    device, layers = settings.device, settings.pick(deconvnet.LAYERS, deconvnet.LAYERS[:1])
    torch.manual_seed(0)
    net = ZFNet(1000).eval().to(device)

    def all_units() -> dict[str, Any]:
        found, count = {}, 0
        for layer in layers:
            sample = deconvnet.Sample(net, layer, settings.pick(None, 4), device)
            work = sample.ours
            work()
            found[layer] = min(seconds(work, device) for _ in range(settings.pick(3, 1)))
            count += len(sample.images)
            del sample, work
        return {"units": count, "seconds": sum(found.values()), "layers": found}

    figures.attempt("all_units", lambda: peak_of(all_units, settings))
    figures.attempt(
        "beside_peers",
        lambda: deconvnet.measure(
            settings.pick(288, 2), settings.pick(16, 1), settings.pick(3, 1), device, layers=layers
        ),
    )
    figures.attempt(
        "captum_over_all_units",
        lambda: figures["beside_peers"]["all"]["captum"] / figures["all_units"]["seconds"],
    )
    figures.attempt("layouts", lambda: projections_in_layouts(settings))


def harvest(settings: Settings, figures: Figures) -> None:
    """What picking up top activations adds to a validation, of ZFNet and of ResNet-50."""
    from .. import harvest as module
    from .training import harvest_of_resnet50

    rounds, batches, size = settings.pick((3, 40, 64), (1, 2, 2))
    figures.attempt("zfnet", lambda: peak_of(lambda: module.measure(rounds, batches, size, settings.device), settings))
    figures.attempt("resnet50", lambda: peak_of(lambda: harvest_of_resnet50(settings), settings))


def class_images(settings: Settings, figures: Figures) -> None:
    """Class images beside lucent, and which of 100 random classes are reached."""
    from .. import class_visualization
    from .layouts import class_images_in_layouts

    def beside_lucent() -> dict[str, Any]:
        return class_visualization.measure(settings.pick(3, 1), device=settings.device)

    if not settings.quick:  # minutes on a CPU
        figures.attempt("beside_lucent", lambda: peak_of(beside_lucent, settings))
        found = figures["beside_lucent"]
        if "ours" in found:
            figures["share_of_lucent"] = found["ours"]["seconds"] / found["lucent"]["seconds"]
    figures.attempt("layouts", lambda: class_images_in_layouts(settings))
    if not settings.quick:
        figures.attempt("random_classes", lambda: class_visualization.random_classes(100, settings.device))


def deepdream(settings: Settings, figures: Figures) -> None:
    """DeepDream of a photograph beside a plain port."""
    from .. import deepdream as module

    options = replace(module.DreamOptions(), **settings.pick({}, {"octaves": 2, "steps": 1}))
    figures.attempt(
        "beside_port",
        lambda: peak_of(
            lambda: module.measure(rounds=settings.pick(5, 1), device=settings.device, options=options), settings
        ),
    )


def inversion(settings: Settings, figures: Figures) -> None:
    """Inversions beside the published methods, in batches, and the rates of their passes."""
    from .. import inversion as module

    device = settings.device
    figures.attempt(
        "batch", lambda: peak_of(lambda: module.batched(10, device), settings) if not settings.quick else {}
    )
    layers, images, scale = settings.pick((tuple(module.LAYERS), 2, 1.0), (("relu1",), 1, 0.001))
    figures.attempt("rates", lambda: module.rates(settings.pick(5, 1), device))
    for layer in layers:  # one after the other, so that a limit of time leaves the first ones
        figures.attempt(layer, lambda layer=layer: module.measure([layer], images, scale, device=device)["layers"][0])


def training(settings: Settings, figures: Figures) -> None:
    """A training of ResNet-50 with all callbacks and without."""
    from lightning_cnnvis.methods import method_names

    from .training import PRECISIONS, TARGETED, shown_epoch, with_and_without

    for precision in settings.pick(PRECISIONS, PRECISIONS[:2]):
        figures.attempt(precision, lambda p=precision: peak_of(lambda: shown_epoch(settings, p), settings))
        figures.attempt(
            f"{precision}, identity", lambda p=precision: peak_of(lambda: with_and_without(settings, p), settings)
        )
    for name in method_names():  # one after the other, so that a limit of time leaves the first ones
        if name not in TARGETED:
            figures.attempt(name, lambda n=name: peak_of(lambda: shown_epoch(settings, PRECISIONS[0], (n,)), settings))


def occlusion(settings: Settings, figures: Figures) -> None:
    """Occlusion beside captum's and whole copies, and what covering the places that it finds does."""
    from .. import occlusion as module
    from .training import network, spec_of

    def speed() -> dict[str, Any]:
        side = settings.pick(224, 32)
        net = network(settings).eval().to(settings.device)
        return module.speed("random weights", net, spec_of(settings), side, settings.pick(3, 1), settings.device)

    figures.attempt("random_weights", lambda: peak_of(speed, settings))
    if not settings.quick:
        figures.attempt("beside_captum", lambda: module.measure(3, 20, settings.device))


def presets(settings: Settings, figures: Figures) -> None:
    """The presets at equal passes."""
    from .. import presets as module

    if not settings.quick:  # minutes on a CPU
        figures.attempt("equal_passes", lambda: peak_of(lambda: module.measure(device=settings.device), settings))


def synchronizations(settings: Settings, figures: Figures) -> None:
    """How often the loops make the host wait for the device."""
    from .synchronizations import LOOPS, in_a_loop

    for name, loop in LOOPS.items():
        figures.attempt(name, lambda loop=loop: in_a_loop(loop, settings))


PARTS = {
    "projections": Part(projections, 60),
    "harvest": Part(harvest, 45),
    "synchronizations": Part(synchronizations, 40),
    "class_images": Part(class_images, 75),
    "training": Part(training, 150),
    "deepdream": Part(deepdream, 30),
    "tests": Part(tests, 120),
    "occlusion": Part(occlusion, 30),
    "inversion": Part(inversion, 75),
    "presets": Part(presets, 60),
}
"""The parts in their order: what has a target comes first. Their limits together may exceed that of the run."""
