"""Units that depend on their place in the image, however weakly, are computed on whole images; others on windows."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lightning_cnnvis.functional import project, top_activations
from lightning_cnnvis.functional.deconvnet.projection import plan_windows
from lightning_cnnvis.functional.network.place_dependence import depends_on_place
from lightning_cnnvis.functional.network.precision import InPrecision
from lightning_cnnvis.models import ZFNet

SIZE = 40
WEAK = 1e-3


class CoordConv(nn.Conv2d):
    """A convolution over the image and the places in it (Liu et al. 2018), with weak weights for the places."""

    def __init__(self, channels, maps, weight=WEAK):
        super().__init__(channels + 2, maps, 3, padding=1)
        with torch.no_grad():
            self.weight[:, -2:] *= weight

    def forward(self, x):
        rows, columns = (torch.linspace(-1, 1, n, dtype=x.dtype, device=x.device) for n in x.shape[2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        return super().forward(torch.cat([x, grid.expand(len(x), -1, -1, -1)], 1))


class Function(nn.Module):
    """An operation between the convolutions, with tensors that it needs."""

    def __init__(self, function, **tensors):
        super().__init__()
        self.function = function
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            elif isinstance(tensor, nn.Module):
                self.add_module(name, tensor)
            else:
                self.register_buffer(name, tensor)

    def forward(self, x):
        return self.function(self, x)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def border_of_zeros(x):
    mask = torch.zeros_like(x[:1, :1])
    mask[..., 2:-2, 2:-2] = 1
    return mask


def counted(x):
    """A coordinate that is counted off, from ones of the image's shape."""
    return torch.ones_like(x[:, :1]).cumsum(3)


DEPENDENT = {
    "CoordConv": lambda: CoordConv(4, 4),
    "CoordConv of zero weight": lambda: CoordConv(4, 4, 1e-12),
    "linspace, added": lambda: Function(lambda m, x: x + WEAK * torch.linspace(0, 1, x.shape[3]).to(x)),
    "arange of rows, times": lambda: Function(
        lambda m, x: x * (1 + WEAK * torch.arange(x.shape[2]).to(x)[:, None] / x.shape[2])
    ),
    "counted places": lambda: Function(lambda m, x: x - WEAK * counted(x) / x.shape[3]),
    "NumPy": lambda: Function(lambda m, x: x + torch.from_numpy(np.linspace(0, WEAK, x.shape[2]))[:, None].to(x)),
    "embeddings of positions": lambda: Function(
        lambda m, x: x + m.embeddings, embeddings=nn.Parameter(WEAK * noise(1, 4, SIZE, SIZE))
    ),
    "embeddings that are zero yet": lambda: Function(
        lambda m, x: x + m.embeddings, embeddings=nn.Parameter(torch.zeros(1, 4, SIZE, SIZE))
    ),
    "cropped embeddings": lambda: Function(
        lambda m, x: x + m.embeddings[..., : x.shape[2], : x.shape[3]],
        embeddings=nn.Parameter(WEAK * noise(1, 4, SIZE + 8, SIZE + 8)),
    ),
    "resized embeddings": lambda: Function(
        lambda m, x: x + F.interpolate(m.embeddings, x.shape[2:], mode="bilinear"),
        embeddings=nn.Parameter(WEAK * noise(1, 4, 7, 7)),
    ),
    "embeddings of rows and columns": lambda: Function(
        lambda m, x: (
            x
            + m.rows(torch.arange(x.shape[2])).T[None, :, :, None].to(x)
            + m.columns(torch.arange(x.shape[3])).T[None, :, None].to(x)
        ),
        rows=nn.Embedding(SIZE, 4),
        columns=nn.Embedding(SIZE, 4),
    ),
    "a gain for each place": lambda: Function(
        lambda m, x: x * m.gain, gain=nn.Parameter(1 + WEAK * noise(1, 1, SIZE, SIZE))
    ),
    "gains of one": lambda: Function(lambda m, x: x * m.gain, gain=nn.Parameter(torch.ones(1, 1, SIZE, SIZE))),
    "a bias for each row": lambda: Function(
        lambda m, x: x + m.bias[: x.shape[2]], bias=nn.Parameter(WEAK * noise(SIZE, 1))
    ),
    "a mean image": lambda: Function(lambda m, x: x - m.mean, mean=WEAK * noise(4, SIZE, SIZE)),
    "coordinates convolved": lambda: Function(
        lambda m, x: x + WEAK * m.conv(counted(x[:1])), conv=nn.Conv2d(1, 4, 3, padding=1)
    ),
    "a mask of the border": lambda: Function(lambda m, x: x * border_of_zeros(x)),
    "a choice by the border": lambda: Function(lambda m, x: torch.where(border_of_zeros(x) > 0, x, 0.9 * x)),
    "a padded mask": lambda: Function(lambda m, x: x * F.pad(x.new_ones(x.shape[2] - 2, x.shape[3] - 2), [1] * 4)),
    "the share of the padding": lambda: Function(
        lambda m, x: x / F.avg_pool2d(torch.ones_like(x[:1, :1]), 3, 1, 1).clamp(min=0.5)
    ),
    "written into a part": lambda: Function(lambda m, x: set_border(x.clone())),
    "the size": lambda: Function(lambda m, x: x * (1 + 1e-4 * x.shape[3])),
    "noise that is kept": lambda: Function(lambda m, x: x + m.noise, noise=WEAK * noise(SIZE, SIZE)),
}


def set_border(x):
    x[:, :, 0] = 0
    return x


LOCAL = {
    "nothing": nn.Identity,
    "a gain for each channel": lambda: Function(lambda m, x: x * m.gain, gain=nn.Parameter(noise(1, 4, 1, 1))),
    "a mean for each channel": lambda: Function(lambda m, x: x - m.mean, mean=noise(4, 1, 1)),
    "normalisation": lambda: nn.BatchNorm2d(4),
    "PReLU": lambda: nn.PReLU(4),
    "LRN": lambda: nn.LocalResponseNorm(3),
    "numbers": lambda: Function(lambda m, x: 2 * x + 1),
    "channels of zeros": lambda: Function(lambda m, x: torch.cat([x[:, :2], torch.zeros_like(x[:, :2])], 1)),
    "a mask of ones": lambda: Function(lambda m, x: x * torch.ones_like(x[:1, :1])),
    "two branches": lambda: Function(lambda m, x: x + m.conv(x), conv=nn.Conv2d(4, 4, 3, padding=1)),
    "maximum": lambda: Function(lambda m, x: torch.maximum(x, m.conv(x)), conv=nn.Conv2d(4, 4, 1)),
    "convolution by weights that are made": lambda: Function(
        lambda m, x: F.conv2d(x, m.kernel * m.kernel.new_ones(3, 3), padding=1), kernel=nn.Parameter(noise(4, 4, 1, 1))
    ),
}


def network(between):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), between, nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()
    ).eval()


@pytest.fixture
def images():
    return torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


POSITIONS = torch.tensor([[0, 0], [0, 39], [39, 3], [20, 20], [1, 17], [30, 38]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", DEPENDENT)
def test_they_get_whole_images(images, name, dtype):
    net, images = network(DEPENDENT[name]()).to(dtype), images.to(dtype)
    plan = plan_windows(net, "4", images, rule="gradient")
    assert plan.size == (SIZE, SIZE)
    assert not plan.cropped
    channels = torch.arange(6)
    found, whole = (project(net, images, "4", channels, POSITIONS, rule="gradient", windowed=w) for w in (True, False))
    assert torch.equal(found.full(), whole.full())
    assert torch.equal(found.activations, whole.activations)
    top = top_activations(net, [images], ["4"], 1)["4"]
    samples, places = top.sample_ids[:, 0], top.positions[:, 0]
    whole = project(net, images[samples], "4", channels, places, rule="gradient", windowed=False)
    near = {torch.float32: 1e-6, torch.bfloat16: 0.03, torch.float64: 1e-12}[dtype]
    found = top.project(net, "4", rule="gradient")
    assert (found.full() - whole.full()).abs().max() <= near * whole.full().abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("make", LOCAL.values(), ids=LOCAL)
def test_others_keep_their_windows(images, make, dtype):
    net, images = network(make()).to(dtype), images.to(dtype)
    if dtype is torch.bfloat16 and isinstance(net[2], nn.LocalResponseNorm):
        pytest.skip("torch has no such operation on the CPU")
    plan = plan_windows(net, "4", images, rule="gradient")
    assert max(plan.size) < 12
    channels = torch.arange(6)
    found, whole = (project(net, images, "4", channels, POSITIONS, rule="gradient", windowed=w) for w in (True, False))
    near = {torch.float32: 1e-6, torch.bfloat16: 0.03, torch.float64: 1e-12}[dtype]
    assert (found.full() - whole.full()).abs().max() <= near * whole.full().abs().max()


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
@pytest.mark.parametrize("make", [DEPENDENT["CoordConv"], DEPENDENT["a mask of the border"]])
def test_by_every_rule(images, make, rule):
    net = network(make())
    found, whole = (project(net, images, "4", torch.arange(6), POSITIONS, rule=rule, windowed=w) for w in (True, False))
    assert torch.equal(found.full(), whole.full())


def test_layers_before_the_coordinates_keep_their_windows(images):
    net = network(CoordConv(4, 4))
    assert not depends_on_place(net, "1", images[:1])
    assert plan_windows(net, "1", images).size == (3, 3)
    assert depends_on_place(net, "2", images[:1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (torchvision.models.alexnet, ["features.1", "features.4", "features.7"]),
        (torchvision.models.squeezenet1_1, ["features.1", "features.3", "features.7.squeeze_activation"]),
        (torchvision.models.resnet18, ["relu", "layer1.0.relu@2", "layer2.0.relu@1"]),
        (lambda: ZFNet(num_classes=5), ["relu1", "relu2"]),
        (lambda: pytest.importorskip("timm").create_model("efficientnet_lite0"), ["bn1", "blocks.1.0.bn2"]),
    ],
    ids=["AlexNet", "SqueezeNet", "ResNet-18", "ZFNet", "EfficientNet-Lite 0"],
)
def test_plain_networks_keep_their_windows(make, layers, dtype):
    torch.manual_seed(0)
    net = make().eval().to(dtype)
    for layer in layers:
        plan = plan_windows(net, layer, torch.zeros(1, 3, 160, 160, dtype=dtype))
        assert not plan.field.whole_image, layer
        assert max(plan.size) < 160, layer


def test_a_device_without_float64(images, monkeypatch):
    """What cannot be told in float32 is told by whole images."""
    enter = InPrecision.__enter__

    def refuse(self):
        if self.dtype == torch.float64:
            raise TypeError("The device has no float64.")
        return enter(self)

    monkeypatch.setattr(InPrecision, "__enter__", refuse)
    assert max(plan_windows(network(nn.Identity()), "4", images).size) < 12
    assert plan_windows(network(DEPENDENT["the size"]()), "4", images, rule="gradient").size == (SIZE, SIZE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_networks_run_in_another_precision(images, dtype):
    class Casts(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)
            self.register_buffer("scale", torch.tensor(0.1))

        def forward(self, x):
            x = self.conv(x.to(self.conv.weight.dtype)).float() * self.scale
            made = torch.zeros(x.shape[1], 1, 1)
            made += 1
            assert x.dtype == self.conv.weight.dtype
            return (x * made).type_as(self.scale)

    net = network(Casts()).bfloat16()
    with InPrecision(dtype), torch.no_grad():
        found = net(images)
    assert found.dtype == dtype
    weights = {name: tensor.to(dtype) for name, tensor in net.state_dict().items()}
    with torch.no_grad():
        x = F.conv2d(images.to(dtype), weights["0.weight"], weights["0.bias"], padding=1).relu()
        x = F.conv2d(x, weights["2.conv.weight"], weights["2.conv.bias"]) * weights["2.scale"]
        x = F.conv2d(x, weights["3.weight"], weights["3.bias"], padding=1).relu()
    assert torch.allclose(found, x, rtol=1e-5, atol=1e-6)
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}
