"""What a diagnosis says of real networks, with and without planted faults, and what it adds to a validation pass.

    python -m tests.benchmarks.diagnosis [--images 500] [--rounds 5] [--device cpu]

AlexNet's convolutions, SqueezeNet 1.1 and EfficientNet-Lite 0, trained on ImageNet, on photographs at 224 px; the
weights and photographs are not part of the project. The limits were chosen on these networks, healthy; the faults
take no part in that. Each fault is planted into four maps of the first layer and of one in the middle, one at a time.
The time is that of forward passes in batches of 32, with the statistics and without, in turn; medians over the
rounds. On a CPU it is the processor's time, which other processes do not lengthen.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections import Counter
from contextlib import nullcontext

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_cnnvis.functional import diagnose
from lightning_cnnvis.functional.diagnosis.census import Census
from lightning_cnnvis.functional.diagnosis.examination import examine, followed_layers
from lightning_cnnvis.functional.noise import gaussian
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layers import get_layer

from . import tables
from .machine import default_device, synchronize
from .real_models import EFFICIENTNET, IMAGENET, data_folder, efficientnet, imagenet_photographs, squeezenet

# the first layer and one in the middle: convolution, what holds its bias, and the layer of its rectified output
PLACES = {
    "AlexNet": (("0", "0", "1"), ("6", "6", "7")),
    "SqueezeNet 1.1": (
        ("features.0", "features.0", "features.1"),
        ("features.6.expand3x3", "features.6.expand3x3", "features.6.expand3x3_activation"),
    ),
    "EfficientNet-Lite 0": (
        ("conv_stem", "bn1", "bn1.act"),
        ("blocks.3.0.conv_pw", "blocks.3.0.bn1", "blocks.3.0.bn1.act"),
    ),
}
KINDS = ("dead", "always_on", "dominating", "duplicate", "aliased", "noisy")


def alexnet(device: str) -> nn.Module:
    """AlexNet's convolutions, trained on ImageNet."""
    net = torchvision.models.alexnet(weights=None).features
    weights = load_file(data_folder() / "alexnet_features_imagenet.safetensors")
    net.load_state_dict({name.removeprefix("features."): value for name, value in weights.items()})
    return net.eval().to(device)


def networks(device: str) -> dict[str, tuple[nn.Module, InputSpec]]:
    """The networks, each with the format of its input."""
    return {
        "AlexNet": (alexnet(device), IMAGENET),
        "SqueezeNet 1.1": (squeezenet(device), IMAGENET),
        "EfficientNet-Lite 0": (efficientnet(device), EFFICIENTNET),
    }


def plant(net: nn.Module, conv: str, biased: str, kind: str, channel: int) -> set[int]:
    """Makes a fault; returns the maps that it concerns."""
    weight, bias = get_layer(net, conv).weight.data, get_layer(net, biased).bias.data
    norm = weight[channel].norm()
    if kind in ("dead", "always_on"):
        bias[channel] = -1e6 if kind == "dead" else 1e6
    elif kind == "dominating":
        weight[channel] *= 100
    elif kind == "duplicate":
        other = (channel + 7) % len(weight)
        weight[channel] = -weight[other].roll(weight.shape[-1] // 3, -1)
        return {channel, other}
    elif kind == "aliased":
        side = torch.arange(weight.shape[2], device=weight.device)
        weight[channel] = (-1.0) ** (side[:, None] + side)
        weight[channel] *= norm / weight[channel].norm()
    else:
        weight[channel] = gaussian(weight.shape[1:], seed=channel).to(weight)
        weight[channel] *= norm / weight[channel].norm()
    return {channel}


def planted(net: nn.Module, spec: InputSpec, batches: list[Tensor], places: tuple) -> dict[str, str]:
    """Of the faults of each kind, how many were found at the right map."""
    found: dict[str, str] = {}
    for kind in KINDS:
        hits = tries = 0
        for n, (conv, biased, layer) in enumerate(places):
            if n and kind in ("aliased", "noisy"):
                continue  # of kernels that read the image
            maps = len(get_layer(net, conv).weight)
            for channel in range(2, maps, maps // 4):
                damaged = copy.deepcopy(net)
                expected = plant(damaged, conv, biased, kind, channel)
                result = diagnose(damaged, batches, input_spec=spec, layers=[layer])
                named = {c for one in result.findings if one.kind == kind for c in one.channels}
                hits, tries = hits + (expected <= named), tries + 1
        found[kind] = f"{hits} of {tries}"
    return found


def overhead(net: nn.Module, batches: list[Tensor], rounds: int) -> tuple[float, float, float]:
    """Seconds of the plain pass, of one with the statistics, and of what comes after it."""
    dims = followed_layers(net, batches[0][:1])
    clock = time.process_time if batches[0].device.type == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {"plain": [], "followed": [], "after": []}
    for n in range(2 * rounds + 2):
        followed = bool(n % 2)
        census = Census(net, dims) if followed else None
        synchronize(batches[0].device)
        start = clock()
        with torch.no_grad(), census or nullcontext():
            for batch in batches:
                net(batch)
        synchronize(batches[0].device)
        passed = clock()
        if census is not None:
            examine(net, census)
        if n >= 2:
            seconds["followed" if followed else "plain"].append(passed - start)
            if followed:
                seconds["after"].append(clock() - passed)
    plain, with_statistics, after = (statistics.median(values) for values in seconds.values())
    return plain, with_statistics, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default=default_device())
    args = parser.parse_args()
    photographs = imagenet_photographs(args.images)
    healthy, hits, costs = [], [], []
    for name, (net, spec) in networks(args.device).items():
        batches = list(spec.normalize(photographs).to(args.device).split(32))
        result = diagnose(net, batches, input_spec=spec)
        counts = Counter(one.kind for one in result.findings for _ in one.channels)
        share = len({(one.layer, c) for one in result.findings for c in one.channels}) / result.maps
        healthy.append([name, f"{result.maps:,}", *(str(counts[kind]) for kind in KINDS), f"{share:.2%}"])
        hits.append([name, *planted(net, spec, batches[:3], PLACES[name]).values()])
        plain, followed, after = overhead(net, batches, args.rounds)
        costs.append([name, f"{plain:.2f} s", f"{followed / plain - 1:+.1%}", f"{after:.2f} s", f"{after / plain:.1%}"])
    print(tables.table(["healthy", "maps", *KINDS, "with findings"], healthy))
    print(tables.table(["planted, found", *KINDS], hits))
    print(tables.table(["time", "plain pass", "statistics add", "then", "of the pass"], costs))


if __name__ == "__main__":
    main()
