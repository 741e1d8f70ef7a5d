"""The module that holds a convolution's rectified output is found whatever the layers are made of."""

import pytest
import timm
import torch
import torchvision
from timm import layers as timm_layers
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from lightning_cnnvis.functional import project
from lightning_cnnvis.layers import record, trace_layers


class NormAndReLU(nn.Module):
    """A normalisation and a ReLU in one module, as functions."""

    def __init__(self, activate):
        super().__init__()
        self.norm, self.activate = nn.BatchNorm2d(4), activate

    def forward(self, x):
        return self.activate(self.norm(x))


class FrozenNormAndReLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.rand(1, 4, 1, 1) + 0.5)
        self.register_buffer("bias", torch.randn(1, 4, 1, 1))

    def forward(self, x):
        return (x * self.scale + self.bias).relu_()


class InstanceNormAndReLU(nn.Module):
    def forward(self, x):
        variance, mean = torch.var_mean(x, (2, 3), keepdim=True)
        return torch.relu((x - mean) * (variance + 1e-5).rsqrt())


class ScaledReLU(nn.Module):
    def forward(self, x):
        return F.relu(x) * 1.7


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


class StandardizedConv2d(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class Block(nn.Module):
    """A convolution with a functional ReLU."""

    def __init__(self, conv):
        super().__init__()
        self.conv, self.norm, self.dropout = conv, nn.BatchNorm2d(4), nn.Dropout2d()

    def forward(self, x):
        return self.dropout(F.relu(self.norm(self.conv(x)), inplace=True))


def conv(kind=nn.Conv2d, **options):
    return kind(3, 4, 3, padding=1, **options)


def parametrized():
    module = conv()
    parametrize.register_parametrization(module, "weight", Halved())
    return module


def old_spectral_norm():
    module = nn.utils.spectral_norm(conv())
    module(torch.randn(1, 3, 8, 8))
    return module


NORMS = {
    "module": (lambda: nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), "1.1"),
    "group norm": (lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.ReLU()), "1.1"),
    "instance norm": (lambda: nn.Sequential(nn.InstanceNorm2d(4), nn.ReLU6()), "1.1"),
    "relu": (lambda: NormAndReLU(F.relu), "1"),
    "relu in place": (lambda: NormAndReLU(torch.relu_), "1"),
    "relu6": (lambda: NormAndReLU(F.relu6), "1"),
    "clamp": (lambda: NormAndReLU(lambda x: x.clamp(min=0)), "1"),
    "threshold": (lambda: NormAndReLU(lambda x: F.threshold(x, 0, 0)), "1"),
    "frozen": (FrozenNormAndReLU, "1"),
    "by hand": (InstanceNormAndReLU, "1"),
    "scaled": (ScaledReLU, "1"),
    "torchvision frozen": (lambda: nn.Sequential(torchvision.ops.FrozenBatchNorm2d(4), nn.ReLU()), "1.1"),
    "BatchNormAct2d": (lambda: timm_layers.BatchNormAct2d(4), "1.act"),
    "GroupNormAct": (lambda: timm_layers.GroupNormAct(4, num_groups=2), "1.act"),
    "FrozenBatchNormAct2d": (lambda: timm_layers.FrozenBatchNormAct2d(4), "1.act"),
    "LayerNormAct2d": (lambda: timm_layers.LayerNormAct2d(4), "1.act"),
    "FilterResponseNormAct2d": (lambda: timm_layers.FilterResponseNormAct2d(4), "1.act"),
}

CONVOLUTIONS = {
    "plain": conv,
    "old weight_norm": lambda: nn.utils.weight_norm(conv()),
    "new weight_norm": lambda: parametrizations.weight_norm(conv()),
    "old spectral_norm": old_spectral_norm,
    "new spectral_norm": lambda: parametrizations.spectral_norm(conv()),
    "orthogonal": lambda: parametrizations.orthogonal(conv()),
    "register_parametrization": parametrized,
    "own subclass": lambda: conv(StandardizedConv2d),
    "Conv2dSame": lambda: timm_layers.Conv2dSame(3, 4, 3),
    "StdConv2d": lambda: timm_layers.StdConv2d(3, 4, 3, padding=1),
    "ScaledStdConv2d": lambda: timm_layers.ScaledStdConv2d(3, 4, 3, padding=1),
    "CondConv2d": lambda: WithRouting(timm_layers.CondConv2d(3, 4, 3, padding=1, num_experts=2)),
    "MixedConv2d": lambda: timm_layers.MixedConv2d(3, 4, [1, 3]),
}


class WithRouting(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x, x.new_ones(len(x), 2) / 2)


@pytest.fixture
def image():
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def rectified(net, image):
    torch.manual_seed(0)
    net = net.eval()
    _, layers = trace_layers(net, image)
    with torch.no_grad(), record(net, layers, stop=False) as outputs:
        net(image)
    assert all(output.min() >= 0 for output in outputs.values())
    return layers


@pytest.mark.parametrize("kind", NORMS)
def test_norms_that_rectify(image, kind):
    make, expected = NORMS[kind]
    assert rectified(nn.Sequential(conv(), make(), nn.Dropout()), image) == [expected]


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_of_all_kinds(image, kind):
    net = nn.Sequential(CONVOLUTIONS[kind](), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU())
    assert rectified(net, image) == ["2", "4"]


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_the_module_around_a_functional_rectifier(image, kind):
    net = nn.Sequential(Block(CONVOLUTIONS[kind]()), nn.Flatten(), nn.Linear(4 * 8 * 8, 2))
    assert rectified(net, image) == ["0"]


@pytest.mark.parametrize("kind", ["new weight_norm", "new spectral_norm", "orthogonal", "register_parametrization"])
def test_parametrised_layers_are_named_and_projected(image, kind):
    net = nn.Sequential(CONVOLUTIONS[kind](), timm_layers.BatchNormAct2d(4)).eval()
    calls, layers = trace_layers(net, image)
    assert calls["0"].kind == "Conv2d"
    assert project(net, image, layers[0], torch.tensor([1])).pixels.abs().sum() > 0


def test_torchvisions_fused_layers(image):
    fused = torchvision.ops.Conv2dNormActivation
    assert rectified(nn.Sequential(fused(3, 4), fused(4, 4, norm_layer=None)), image) == ["0.2", "1.1"]


def test_what_is_not_rectified_is_the_normalised_output(image):
    act = timm_layers.BatchNormAct2d
    net = nn.Sequential(conv(), act(4, apply_act=False), nn.Conv2d(4, 4, 1), act(4, act_layer=nn.SiLU)).eval()
    calls, layers = trace_layers(net, image)
    assert layers == ["1", "3.drop"]
    with torch.no_grad(), record(net, layers, stop=False) as outputs:
        net(image)
    assert torch.equal(outputs["1"], net[1](net[0](image)))
    assert torch.equal(F.silu(outputs["3.drop"]), net(image))
    assert calls["1"].shape == outputs["1"].shape[1:]


def test_a_bound_that_is_a_tensor_is_not_a_rectifier(image):
    net = nn.Sequential(conv(), NormAndReLU(lambda x: x.clamp(min=torch.zeros(4, 1, 1)))).eval()
    assert trace_layers(net, image)[1] == ["1.norm"]


def test_filters_that_are_not_layers(image):
    """An antialiased pooling is a convolution with a fixed kernel, and no layer of its own."""
    net = nn.Sequential(conv(), nn.ReLU(), timm_layers.BlurPool2d(4), nn.Conv2d(4, 4, 1), nn.ReLU()).eval()
    assert trace_layers(net, image)[1] == ["1", "4"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_in_every_mode(image, mode, memory_format):
    net = (
        nn.Sequential(conv(), timm_layers.BatchNormAct2d(4), Block(nn.Conv2d(4, 4, 1)))
        .eval()
        .to(memory_format=memory_format)
    )
    with mode():
        assert trace_layers(net, image.to(memory_format=memory_format))[1] == ["1.act", "2"]


@pytest.mark.parametrize("name", ["regnetx_002", "efficientnet_lite0", "resnetv2_50", "mixnet_s", "inception_v4"])
def test_networks_of_timm_show_no_bare_convolution(name):
    net = timm.create_model(name, pretrained=False).eval()
    _, layers = trace_layers(net, torch.randn(1, 3, 96, 96))
    fused = {n for n, m in net.named_modules() if isinstance(m, timm_layers.BatchNormAct2d)}
    after_a_norm = [n for n in layers if n in fused or n.rpartition(".")[0] in fused]
    rectifying = [n for n in fused if isinstance(net.get_submodule(n).act, nn.ReLU | nn.ReLU6)]
    # those of a pre-activation network that follow a sum are not applied to one convolution
    assert len(after_a_norm) > 0.6 * len(rectifying) > 0
    assert not any(isinstance(net.get_submodule(n), nn.Conv2d) and n.replace("conv", "bn") in fused for n in layers)


def test_blocks_of_torchvisions_inception_are_named():
    net = torchvision.models.googlenet(init_weights=False).eval()
    _, layers = trace_layers(net, torch.randn(1, 3, 64, 64))
    assert layers[:3] == ["conv1", "conv2", "conv3"]
    assert len(layers) == 57
