"""Every form of a rectifier, and what a deconvnet must refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cnnvis.functional.activations.harvest import top_activations
from lightning_cnnvis.functional.deconvnet.projection import project
from lightning_cnnvis.functional.deconvnet.rules import RULES, Rule, UnsupportedOperationError, get_rule

IMAGES = torch.randn(2, 3, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
UNITS = torch.tensor([1, 4]), torch.tensor([[0, 0], [4, 5]])


class Net(nn.Module):
    """Two convolutions with a function between them."""

    def __init__(self, between: Callable[..., Tensor] | nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.between(self.conv1(x)))


class Negative(torch.autograd.Function):
    """A function of the user's own with a name that torch uses too."""

    @staticmethod
    def forward(ctx, x):
        return x.tanh()

    @staticmethod
    def backward(ctx, grad):
        return grad


Negative.__name__ = Negative.__qualname__ = "Relu"


def projected(between: Callable[..., Tensor] | nn.Module, rule: str | Rule = "deconvnet", **options: str) -> Tensor:
    return project(Net(between).double(), IMAGES, "conv2", *UNITS, rule=rule, **options).full()


def by_hand(rectify: Callable[[Tensor, Tensor], Tensor], between: Callable[[Tensor], Tensor]) -> Tensor:
    net = Net(between).double()
    with torch.no_grad():
        middle = net.conv1(IMAGES)
        output = net.conv2(between(middle))
        signal = torch.zeros_like(output)
        units = (torch.arange(2), UNITS[0], UNITS[1][:, 0], UNITS[1][:, 1])
        signal[units] = output[units]
        signal = rectify(F.conv_transpose2d(signal, net.conv2.weight, padding=1), middle)
        return F.conv_transpose2d(signal, net.conv1.weight, padding=1)


RELUS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    F.relu,
    torch.relu,
    torch.relu_,
    lambda x: x.relu(),
    lambda x: F.threshold(x, 0, 0),
    lambda x: x.clamp(min=0),
    lambda x: x.clamp_(0),
    lambda x: torch.clamp_min(x, 0.0),
    lambda x: torch.clip(x, min=0),
]


@pytest.mark.parametrize("relu", RELUS)
def test_every_form_of_relu(relu):
    expected = by_hand(lambda s, _: s.clamp(min=0), torch.relu)
    assert torch.allclose(projected(relu), expected, rtol=1e-12)
    guided = by_hand(lambda s, x: s.clamp(min=0) * (x > 0), torch.relu)
    assert torch.allclose(projected(relu, "guided"), guided, rtol=1e-12)


@pytest.mark.parametrize("relu6", [nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6, lambda x: x.clamp(0, 6)])
def test_every_form_of_relu6(relu6):
    assert torch.allclose(projected(relu6), by_hand(lambda s, _: s.clamp(min=0), F.relu6), rtol=1e-12)


def test_leaky_rectifiers_leak():
    def leak(slope):
        return lambda s, _: torch.where(s > 0, s, slope * s)

    expected = by_hand(leak(0.1), lambda x: F.leaky_relu(x, 0.1))
    for leaky in (nn.LeakyReLU(0.1), nn.LeakyReLU(0.1, inplace=True), lambda x: F.leaky_relu(x, 0.1)):
        assert torch.allclose(projected(leaky), expected, rtol=1e-12)
    prelu = nn.PReLU(6).double()
    nn.init.uniform_(prelu.weight)
    expected = by_hand(leak(prelu.weight.detach().view(-1, 1, 1)), prelu)
    for frozen in (False, True):
        assert torch.allclose(projected(prelu.requires_grad_(not frozen)), expected, rtol=1e-12)


def test_a_shared_relu():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(6, 6, 1), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.conv(self.relu(x)))

    torch.manual_seed(1)
    shared = Shared().double()
    weight = shared.conv.weight.detach()

    def down(signal: Tensor, _: Tensor) -> Tensor:
        return F.conv_transpose2d(signal.clamp(min=0), weight).clamp(min=0)

    with torch.no_grad():
        assert torch.allclose(projected(shared), by_hand(down, lambda x: shared(x.clone())), rtol=1e-12)


@pytest.mark.parametrize("norm", [nn.LocalResponseNorm(3, 0.5), lambda x: F.local_response_norm(x, 3, alpha=0.5)])
def test_response_normalisation(norm):
    identity = by_hand(lambda s, _: s, norm)
    assert torch.allclose(projected(norm), identity, rtol=1e-12)

    def derivative(signal: Tensor, x: Tensor) -> Tensor:
        return torch.autograd.functional.vjp(norm, x, signal)[1]

    with torch.enable_grad():
        gradient = by_hand(derivative, norm)
    assert not torch.allclose(gradient, identity)
    assert torch.allclose(projected(norm, lrn="gradient"), gradient, rtol=1e-12)
    # the gradient is the gradient, whatever is said about normalisation
    assert torch.allclose(projected(norm, rule="gradient"), gradient, rtol=1e-12)


LINEAR = [
    lambda x: x * 2 + x.new_ones(10),
    lambda x: x / 3 - 1,
    lambda x: torch.cat([x[:, 3:], x[:, :3]], 1),
    lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    lambda x: torch.stack(x.unbind(1), 1),
    lambda x: torch.cat(x.split([1, 5], 1)[::-1], 1),
    lambda x: x[:, [5, 4, 3, 2, 1, 0]],
    lambda x: x[:, :, 1:-1],
    lambda x: F.pad(x[:, :, ::1, ::2], (2, 1, 0, 3)),
    lambda x: F.pad(x, (-1, 2, 0, -2)),
    lambda x: F.pad(x, (1, 1, 2, 0), value=3.0),
    lambda x: F.pad(x, (1, 1, 2, 2), mode="reflect"),
    lambda x: F.interpolate(x, scale_factor=2),
    lambda x: F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2),
    lambda x: x + x.mean((2, 3), keepdim=True),
    lambda x: x.flip(3),
    lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    lambda x: F.adaptive_avg_pool2d(x, 7),
    lambda x: F.adaptive_max_pool2d(x, 7),
    nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 3, padding="same", bias=False)),
    nn.Conv2d(6, 6, (3, 2), padding="same"),
    nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"),
    nn.Conv2d(6, 6, 3, padding=1, padding_mode="replicate"),
    nn.ConvTranspose2d(6, 6, 3, 2),
    nn.Sequential(nn.ReLU(), nn.Unflatten(1, (2, 3)), nn.Flatten(1, 2), nn.ChannelShuffle(2)),
]


@pytest.mark.parametrize("between", LINEAR)
def test_linear_operations_pass_as_their_transpose(between):
    net = Net(between).double()
    images = IMAGES.clone().requires_grad_()
    with torch.no_grad():
        rows, columns = net(images).shape[2:]
    units = UNITS[0], torch.tensor([[0, columns - 1], [rows - 1, columns // 2]])
    whole = project(net, IMAGES, "conv2", *units, windowed=False, start="one").full()
    if not isinstance(between, nn.Sequential):
        output = net(images)[torch.arange(2), units[0], units[1][:, 0], units[1][:, 1]].sum()
        assert torch.allclose(whole, torch.autograd.grad(output, images)[0], rtol=1e-10)
    assert torch.allclose(project(net, IMAGES, "conv2", *units, start="one").full(), whole, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("between", "kind"),
    [
        (nn.GELU(), "Gelu"),
        (nn.SiLU(), "Silu"),
        (nn.Hardswish(), "Hardswish"),
        (nn.Sigmoid(), "Sigmoid"),
        (nn.ELU(), "Elu"),
        (nn.Hardtanh(), "Hardtanh"),
        (nn.RReLU(), "RreluWithNoise"),
        (lambda x: x.softmax(1), "Softmax"),
        (lambda x: x * (x > 0), "Mul"),
        (lambda x: (x > 0).double() * x, "Mul"),
        (lambda x: x / x.detach().std(), "Div"),
        (lambda x: x.new_ones(10) / x, "Div"),
        (lambda x: x * x, "Mul"),
        (lambda x: torch.where(x > 0, x, 0), "Where"),
        (lambda x: x.masked_fill(x < 0, 0), "MaskedFill"),
        (lambda x: torch.maximum(x, x.new_zeros(())), "Maximum"),
        (lambda x: x.clamp(-1, 1), "Clamp"),
        (lambda x: x.clamp(min=0.5), "Clamp"),
        (lambda x: x + x.amax((2, 3), keepdim=True), "Amax"),
        (lambda x: x + x.max(1, keepdim=True)[0], "Max"),
        (nn.InstanceNorm2d(6), "NativeBatchNorm"),
        (nn.GroupNorm(2, 6), "NativeGroupNorm"),
        (nn.BatchNorm2d(6, track_running_stats=False), "NativeBatchNorm"),
        (F.normalize, "Div|ClampMin|LinalgVectorNorm"),
        (lambda x: x.pow(2), "Pow"),
        (lambda x: x @ x.mT @ x, "Bmm"),
        (lambda x: F.lp_pool2d(x, 2, 3, 1), "Pow"),
        (Negative.apply, r".*test_rectification\.Relu"),
    ],
)
def test_everything_else_is_refused(between, kind):
    net = Net(between).double()
    where = "module 'between'" if isinstance(between, nn.Module) else "the forward method of Net"
    with pytest.raises(UnsupportedOperationError, match=rf"cannot pass ({kind}) in {where}.*rule='gradient'"):
        project(net, IMAGES, "conv2", *UNITS)
    images = IMAGES.clone().requires_grad_()
    alone = [net(image[None])[0, c, y, x] for image, c, (y, x) in zip(images, UNITS[0], UNITS[1], strict=True)]
    if not isinstance(between, nn.BatchNorm2d | nn.RReLU) and kind != "Div":
        (expected,) = torch.autograd.grad(sum(alone), images)
        result = project(net, IMAGES, "conv2", *UNITS, rule="gradient", start="one")
        assert torch.allclose(result.full(), expected, rtol=1e-9, atol=1e-14)


def test_a_rule_can_be_registered_or_passed(monkeypatch):
    monkeypatch.setattr(RULES, "_entries", dict(RULES._entries))
    # the signal, halved where the unit was inactive
    half = Rule("half", lambda signal, rectifier: (signal + rectifier.gradient(signal)) / 2)
    RULES.register("half", half)
    prelu = nn.PReLU(6).double()
    for rectifier, slope in ((nn.ReLU(), 0.0), (nn.LeakyReLU(0.1), 0.1), (prelu, 0.25)):
        factor = (1 + slope) / 2
        expected = by_hand(lambda s, x, factor=factor: torch.where(x > 0, s, factor * s), rectifier)
        assert torch.allclose(projected(rectifier, "half"), expected, rtol=1e-12)
        assert torch.equal(projected(rectifier, half), projected(rectifier, "half"))
    # a rule of one's own takes the same networks as a deconvnet, unless it leaves everything alone
    with pytest.raises(UnsupportedOperationError):
        projected(nn.GELU(), half)
    assert torch.equal(projected(nn.GELU(), Rule("plain", None)), projected(nn.GELU(), "gradient"))
    top = top_activations(Net(nn.ReLU()), [IMAGES.float()], ["conv2"], k=1)["conv2"]
    assert torch.equal(
        top.project(Net(nn.ReLU()), "conv2", rule=half).pixels, top.project(Net(nn.ReLU()), "conv2", rule="half").pixels
    )
    with pytest.raises(ValueError, match=r"rule='halve': there is no such rule\. Did you mean 'half'\?"):
        projected(nn.ReLU(), "halve")


def test_the_built_in_rules_are_what_they_say():
    for rule in ("deconvnet", "guided", "gradient"):
        assert get_rule(rule).name == rule
        assert torch.equal(projected(nn.PReLU(6).double(), rule), projected(nn.PReLU(6).double(), get_rule(rule)))


def test_the_refusal_names_what_is_nearest_to_the_image():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Sequential(nn.SiLU(), nn.ReLU()), nn.Conv2d(6, 6, 3), nn.GELU())
    with pytest.raises(UnsupportedOperationError, match=r"cannot pass Silu in module '1\.0'"):
        project(net.double(), IMAGES, "3", UNITS[0])
