"""Faults that are planted into trained networks are found at the right map, and nothing else is new."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_cnnvis import InputSpec
from lightning_cnnvis.functional import FindingLimits, diagnose
from lightning_cnnvis.functional.diagnosis.census import Census
from lightning_cnnvis.functional.diagnosis.examination import examine, followed_layers
from lightning_cnnvis.functional.diagnosis.findings import KINDS
from lightning_cnnvis.functional.noise import gaussian, uniform
from lightning_cnnvis.layers import LayerError

SIDE, CLASSES = 40, 4
SPEC = InputSpec(size=(SIDE, SIDE))


def pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Coloured noise with the spectrum of photographs, under a grating whose direction is the class."""
    labels = torch.arange(count) % CLASSES
    rows, columns = torch.meshgrid(torch.arange(SIDE) * 1.0, torch.arange(SIDE) * 1.0, indexing="ij")
    frequency = torch.hypot(torch.fft.fftfreq(SIDE)[:, None], torch.fft.rfftfreq(SIDE)).clamp_min(1 / SIDE)
    images = torch.fft.irfft2(torch.fft.rfft2(gaussian((count, 3, SIDE, SIDE), seed)) / frequency, s=(SIDE, SIDE))
    angles = labels * torch.pi / CLASSES + 0.3 * (uniform((count,), seed) - 0.5)
    phase = 0.8 * (rows * angles.sin()[:, None, None] + columns * angles.cos()[:, None, None])
    return images / images.std() + phase.cos()[:, None], labels


class Plain(nn.Sequential):
    """Large kernels, biases, local response normalisation."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 24, 7, 2, 3), nn.ReLU(), nn.LocalResponseNorm(5), nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES),
        )  # fmt: skip


class Normalised(nn.Sequential):
    """Batch normalisation and a leaky rectifier."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 24, 5, 2, 2, bias=False), nn.BatchNorm2d(24), nn.LeakyReLU(0.05),
            nn.Conv2d(24, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.LeakyReLU(0.05),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES),
        )  # fmt: skip


class Residual(nn.Module):
    """A rectifier that is a function, a sum of branches, depthwise convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 24, 7, 2, 3, bias=False), nn.BatchNorm2d(24)
        self.depthwise, self.point = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 24, 1)
        self.act, self.last, self.last_act = nn.ReLU(), nn.Conv2d(24, 32, 3), nn.GELU()
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = self.act(self.point(F.relu(self.depthwise(x))) + x)
        return self.head(self.last_act(self.last(x)).mean((2, 3)))


NETWORKS = {"plain": (Plain, "0", "1"), "normalised": (Normalised, "0", "2"), "residual": (Residual, "stem", "norm")}
SECOND = {"plain": ("3", "4"), "normalised": ("3", "5"), "residual": ("last", "last")}


@cache
def trained(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = NETWORKS[name][0]()
    first = net.get_submodule(NETWORKS[name][1])
    # smooth from the start, as after a longer training
    smooth = F.avg_pool2d(F.pad(first.weight.data, (1, 1, 1, 1), mode="replicate"), 3, 1)
    first.weight.data.copy_(smooth * first.weight.data.norm() / smooth.norm())
    images, labels = pictures(256, seed=1)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(40):
        batch = slice(64 * (step % 4), 64 * (step % 4 + 1))
        optimizer.zero_grad()
        F.cross_entropy(net(images[batch]), labels[batch]).backward()
        optimizer.step()
    return net.eval()


def bias_of(net: nn.Module, conv: str) -> torch.Tensor:
    """The bias of a convolution, or of the normalisation after it."""
    own = net.get_submodule(conv).bias
    if own is not None:
        return own.data
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    return norms[0 if conv in ("0", "stem") else -1].bias.data


def plant(net: nn.Module, conv: str, kind: str, channel: int) -> tuple[int, ...]:
    """Makes a fault; returns the maps that it concerns."""
    weight, bias = net.get_submodule(conv).weight.data, bias_of(net, conv)
    norm = weight[channel].norm()
    if kind == "dead":
        bias[channel] = -1e3
    elif kind == "always_on":
        bias[channel] = 1e3
    elif kind == "dominating":
        weight[channel] *= 300
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        if norms:
            norms[0 if conv in ("0", "stem") else -1].running_var[channel] = 1.0
    elif kind == "duplicate":
        weight[channel] = -weight[3].roll(1, 2)
        return (3, channel)
    elif kind == "aliased":
        side = torch.arange(weight.shape[2])
        weight[channel] = (-1.0) ** (side[:, None] + side)
        weight[channel] *= norm / weight[channel].norm()
    elif kind == "noisy":
        weight[channel] = gaussian(weight.shape[1:], seed=3)
        weight[channel] *= norm / weight[channel].norm()
    return (channel,)


def found_in(net: nn.Module, layers=None) -> set[tuple[str, str, int]]:
    images, _ = pictures(64, seed=2)
    found = diagnose(net, images.split(24), input_spec=SPEC, layers=layers)
    return {(one.kind, one.layer, channel) for one in found.findings for channel in one.channels}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["dead", "always_on", "dominating", "duplicate", "aliased", "noisy"])
def test_a_planted_fault_is_found(name, kind):
    net = copy.deepcopy(trained(name))
    before = found_in(net)
    layer = NETWORKS[name][2]
    planted = {(kind, layer, channel) for channel in plant(net, NETWORKS[name][1], kind, channel=17)}
    after = found_in(net)
    assert planted <= after
    # a map that was damaged may have been something else before; nothing new is found at other maps of the layer
    assert {one for one in after - before - planted if one[1] == layer and one[2] != 17} == set()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["dead", "always_on", "dominating", "duplicate"])
def test_a_planted_fault_in_a_later_layer_is_found(name, kind):
    net, (conv, layer) = copy.deepcopy(trained(name)), SECOND[name]
    before = found_in(net)
    planted = {(kind, layer, channel) for channel in plant(net, conv, kind, channel=9)}
    assert found_in(net) - before >= planted


@pytest.mark.parametrize("name", NETWORKS)
def test_a_healthy_network_has_few_findings(name):
    maps = {"plain": 56, "normalised": 56, "residual": 24 * 3 + 32}[name]
    found = {one for one in found_in(trained(name)) if one[0] != "dead"}
    assert len(found) <= 0.03 * maps
    assert all(kind in KINDS for kind, _, _ in found)


def test_dead_means_on_the_whole_set():
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU())
    images = -uniform((64, 3, 8, 8))
    net[0].weight.data.copy_(torch.eye(4, 3)[:, :, None, None])
    images[63, 1, 7, 7] = 0.5
    found = diagnose(net, images.split(8), input_spec=InputSpec(size=(8, 8)))
    assert found.findings[0].kind == "dead"
    assert found.findings[0].channels == (0, 2, 3)
    assert "64 images" in found.findings[0].sentence


def test_processes_say_what_one_says():
    net, (images, _) = trained("plain"), pictures(40, seed=5)
    whole = diagnose(net, images.split(16), input_spec=SPEC)
    dims = followed_layers(net, images[:1])
    parts = []
    for rank in range(2):
        with Census(net, dims) as census, torch.no_grad():
            census.number(rank, 2, 40)
            # a distributed sampler repeats the first images to even the processes out
            net(images[[*range(rank, 40, 2), rank]])
        parts.append(census.on_cpu())
    parts[0].merge(parts[1])
    joined = examine(net, parts[0])
    assert joined.sentences() == whole.sentences()
    assert joined.images == whole.images == 40
    for layer, measures in whole.layers.items():
        torch.testing.assert_close(measures.dominance, joined.layers[layer].dominance, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            measures.shift_error, joined.layers[layer].shift_error, atol=1e-4, rtol=1e-3, equal_nan=True
        )


def test_layers_are_judged_as_a_whole():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU())
    board = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8))
    net[0].weight.data.mul_(board)  # all detail
    net[2].weight.data.copy_(torch.eye(32)[:, :, None, None])
    net[2].bias.data.zero_()
    net[2].weight.data[8:] = 0  # most are dead
    images, _ = pictures(64, seed=2)
    found = diagnose(net, [images], input_spec=SPEC)
    kinds = {(one.kind, one.layer) for one in found.layer_findings}
    assert {("undersampled", "1"), ("too_wide", "3")} <= kinds
    net[2].weight.data.copy_(torch.eye(32)[:, :, None, None])
    found = diagnose(net, [images], input_spec=SPEC)
    assert ("could_go", "3") in {(one.kind, one.layer) for one in found.layer_findings}
    assert found.layers["3"].similarity_to_previous == pytest.approx(1)


def test_the_results_speak():
    net = copy.deepcopy(trained("plain"))
    plant(net, "0", "dead", 17)
    images, _ = pictures(64, seed=2)
    found = diagnose(net, [images], input_spec=SPEC)
    sentences = found.sentences(1)
    assert sentences[0].startswith("Looked at 56 feature maps of 2 layers on 64 images")
    lines = found.table().splitlines()
    assert len(lines) == 57
    assert lines[0].startswith("layer,map,findings,is_dead,")
    assert lines[18].startswith("1,17,dead,1,")
    assert found.findings_table().startswith("kind,layer,maps,value,limit,sentence\n")
    assert '"images": 64' in found.to_json()
    assert found.shares("1")["dead"] >= 1 / 24
    everything = FindingLimits(similarity=0, small_similarity=1)
    assert len(diagnose(net, [images], input_spec=SPEC, limits=everything).findings) > len(found.findings)


def test_bad_input_is_refused_in_a_sentence():
    images = torch.rand(4, 3, 16, 16)
    spec = InputSpec(size=(16, 16))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3))
    with pytest.raises(LayerError, match="has no convolution"):
        diagnose(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), [images], input_spec=spec)
    with pytest.raises(ValueError, match="There was no image"):
        diagnose(net, [], input_spec=spec)
    with pytest.raises(ValueError, match="There was one image"):
        diagnose(net, [images[:1]], input_spec=spec)
    with pytest.raises(LayerError, match="no layer '10'"):
        diagnose(net, [images], input_spec=spec, layers=["10"])
    with pytest.raises(ValueError, match="gave a str"):
        diagnose(net, ["images"], input_spec=spec)
    # a layer without a map is one of units
    assert diagnose(net, [images], input_spec=spec, layers=["3"]).layers["3"].maps == 3


def test_a_stream_of_tuples_and_dense_layers():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3), nn.ReLU())
    net[3].bias.data[1] = -100
    batches = [(torch.rand(4, 3, 16, 16), torch.arange(4)) for _ in range(3)]
    found = diagnose(net, batches, input_spec=InputSpec(size=(16, 16)), layers=["4", "1"])
    assert list(found.layers) == ["1", "4"]
    assert ("dead", "4", (1,)) in {(one.kind, one.layer, one.channels) for one in found.findings}
