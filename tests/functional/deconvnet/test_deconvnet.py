"""`project` on networks and inputs of every sort."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.deconvnet.projection import project
from lightning_cnnvis.layers import LayerError


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-300))


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU()
    ).eval()


UNITS = torch.tensor([0, 3, 5]), torch.tensor([[0, 0], [3, 4], [6, 6]])


def test_gradient_is_autograds():
    net = nn.Sequential(nn.LocalResponseNorm(3), *small_net(), nn.SiLU()).double()
    images = torch.randn(3, 3, 31, 31, dtype=torch.float64)
    channels, positions = UNITS
    result = project(net, images, "6", channels, positions, rule="gradient", start="one")
    leaf = images.clone().requires_grad_()
    values = net(leaf)[torch.arange(3), channels, positions[:, 0], positions[:, 1]]
    (expected,) = torch.autograd.grad(values.sum(), leaf)
    assert relative_error(result.full(), expected) < 1e-10
    assert torch.allclose(result.activations, values.detach())


def test_strongest_place_is_found():
    net, images = small_net(), torch.randn(3, 3, 31, 31)
    result = project(net, images, "4", UNITS[0])
    maps = net(images)[torch.arange(3), UNITS[0]].flatten(1)
    assert torch.allclose(result.activations, maps.max(1).values)
    assert torch.equal(result.positions[:, 0] * 7 + result.positions[:, 1] + maps.shape[1] // 49, maps.argmax(1) + 1)


def test_order_of_units_is_kept():
    net, images = small_net().double(), torch.randn(64, 3, 31, 31, dtype=torch.float64)
    channels, positions = torch.randint(6, (64,)), torch.randint(7, (64, 2))
    together = project(net, images, "4", channels, positions)
    for n in (0, 31, 63):
        alone = project(net, images[n : n + 1], "4", channels[n : n + 1], positions[n : n + 1])
        assert relative_error(alone.pixels[0], together.pixels[n]) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(dtype):
    net, images = small_net(), torch.randn(3, 3, 31, 31)
    expected = project(net.double(), images.double(), "4", *UNITS)
    # images are computed in the dtype of the weights
    result = project(net.to(dtype), images, "4", *UNITS)
    assert result.pixels.dtype == dtype
    close = 1e-5 if dtype is torch.float32 else 0.1
    assert relative_error(result.pixels.double(), expected.pixels) < close


def test_channels_last_frozen_weights_inference_and_compiled():
    net, images = small_net(), torch.randn(3, 3, 31, 31)
    expected = project(net, images, "4", *UNITS).pixels
    net = net.to(memory_format=torch.channels_last).requires_grad_(False)
    result = project(net, images.contiguous(memory_format=torch.channels_last), "4", *UNITS)
    assert relative_error(result.pixels, expected) < 1e-5
    with torch.inference_mode():
        units = [unit.clone() for unit in UNITS]
        assert relative_error(project(net, images.clone(), "4", *units).pixels, expected) < 1e-5
        assert relative_error(project(net, images.clone(), "4", *units, windowed=False).full(), result.full()) < 1e-5
    with torch.no_grad():
        assert relative_error(project(net, images, "4", *UNITS).pixels, expected) < 1e-5
    compiled = torch.compile(net)
    assert relative_error(project(compiled, images, "_orig_mod.4", *UNITS).pixels, expected) < 1e-5
    assert not any(p.requires_grad for p in net.parameters())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.idle = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.ReLU()
        self.halves = Halves()

    def forward(self, x: Tensor) -> Tensor:
        return self.halves(self.conv(self.relu(self.conv(x))))[0]


class Halves(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :1], x[:, 1:]


IMAGES = torch.zeros(1, 3, 16, 16)
CHANNEL, PLACE = torch.tensor([0]), torch.tensor([[0, 0]])


@pytest.mark.parametrize(
    ("net", "images", "layer", "channels", "positions", "message"),
    [
        (small_net(), IMAGES[:, :, :2, :2], "4", CHANNEL, None, "does not get through the network to layer '4'"),
        (small_net(), IMAGES[:, :2], "4", CHANNEL, None, "2 × 16 × 16"),
        (small_net(), IMAGES[0], "4", CHANNEL, None, r"\(N, C, H, W\)"),
        (small_net(), IMAGES.long(), "4", CHANNEL, None, "floating-point"),
        (small_net(), IMAGES / 0, "4", CHANNEL, PLACE, "is nan. Check the image"),
        (small_net(), IMAGES, "4", torch.tensor([6]), None, "channel 6 is not in layer '4': it has channels 0 to 5"),
        (small_net(), IMAGES, "4", torch.tensor([-1]), None, "channel -1"),
        (small_net(), IMAGES, "4", torch.tensor([0, 1]), None, "one channel for each"),
        (small_net(), IMAGES, "4", CHANNEL, torch.tensor([[3, 0]]), "row 3 is not in layer '4': it has rows 0 to 2"),
        (small_net(), IMAGES, "4", CHANNEL, torch.tensor([[0, -1]]), "column -1"),
        (small_net(), IMAGES, "4", CHANNEL, torch.tensor([0, 0]), "a row and a column"),
        (small_net(), IMAGES, "5", CHANNEL, None, "no layer '5'"),
        (small_net(), IMAGES.to("meta"), "4", CHANNEL, None, "images are on meta"),
        (Twice(), IMAGES, "conv", CHANNEL, None, "runs 2 times"),
        (Twice(), IMAGES, "idle", CHANNEL, None, "does not run in the model's forward pass"),
        (Twice(), IMAGES, "halves", CHANNEL, None, "returns a tuple"),
        (nn.Sequential(nn.Flatten(2)), IMAGES, "0", CHANNEL, None, "neither a map"),
    ],
)
def test_bad_input(net, images, layer, channels, positions, message):
    with pytest.raises(ValueError, match=message):
        project(net, images, layer, channels, positions)
    for module in net.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert module.training or isinstance(net, nn.Sequential)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("rule", "rule='other': there is no such rule. There are 'deconvnet', 'guided', 'gradient'"),
        ("start", "start='other' is none of"),
        ("lrn", "lrn='other' is none of"),
    ],
)
def test_unknown_options(option, message):
    with pytest.raises(ValueError, match=message):
        project(small_net(), torch.randn(1, 3, 16, 16), "4", CHANNEL, **{option: "other"})


class Failing(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.conv, self.error = nn.Conv2d(3, 3, 3), error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("of size 1"), RuntimeError("disk full"), KeyError("x")])
def test_other_errors_are_not_disguised(error):
    with pytest.raises(type(error)) as caught:
        project(Failing(error), IMAGES, "conv", CHANNEL)
    assert caught.value is error


def test_what_lies_behind_the_layer_need_not_fit_the_image():
    net = nn.Sequential(small_net(), nn.Flatten(), nn.Linear(6 * 49, 2))
    assert project(net, torch.randn(1, 3, 40, 24), "0.4", CHANNEL).pixels.shape[1] == 3
    with pytest.raises(LayerError, match="does not get through"):
        project(net, torch.randn(1, 3, 40, 24), "2", CHANNEL)
