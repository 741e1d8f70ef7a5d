"""Operations that a deconvnet passes."""

import pytest
import torch
from torch import nn

from lightning_cnnvis.functional import project
from lightning_cnnvis.functional.deconvnet.rules import UnsupportedOperationError


@pytest.mark.parametrize("copied", [True, False])
def test_a_full_backward_hook_is_passed(copied, monkeypatch):
    if not copied:
        monkeypatch.setattr("lightning_cnnvis.isolation.working_copy", lambda _: None)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU())
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    channels = torch.tensor([0, 3])
    expected = project(net, images, "3", channels, windowed=copied).pixels
    net[1].register_full_backward_hook(lambda *_: None)
    net[2].register_full_backward_pre_hook(lambda *_: None)
    net.register_full_backward_hook(lambda *_: None)
    assert torch.equal(project(net, images, "3", channels, windowed=copied).pixels, expected)


class Part(nn.Module):
    """A step of a network, given as a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))
        self.register_buffer("mask", torch.tensor([True, False, True, True]).view(1, -1, 1, 1))

    def forward(self, x):
        return self.function(self, x)


def shifted(_, x):
    out = torch.zeros_like(x)
    out[:, :2, :, :-1] = x[:, :2, :, 1:]
    out[:, 2:] = x[:, 2:]
    return out


def accumulated(_, x):
    out = x.clone()
    out[:, :, 1:] += x[:, :, :-1]
    out[:, 0].mul_(0.5)
    return out


def rectified_in_part(_, x):
    out = x.clone()
    out[:, :2].relu_()
    return out


def written_by_index(part, x):
    return torch.zeros_like(x).index_copy(1, part.order, x)


def placed_by_index(part, x):
    out = torch.zeros_like(x)
    out[:, part.order] = x
    return out


def gathered(part, x):
    return x.gather(1, part.order.view(1, -1, 1, 1).expand_as(x))


def scattered(part, x):
    return torch.zeros_like(x).scatter_add(1, part.order.view(1, -1, 1, 1).expand_as(x), x)


LINEAR = {
    "circular padding": lambda _, x: torch.nn.functional.pad(x, (1, 1, 1, 1), "circular"),
    "reflection padding": lambda _, x: torch.nn.functional.pad(x, (1, 1, 1, 1), "reflect"),
    "roll": lambda _, x: x.roll((1, -1), (2, 3)),
    "slices written to": shifted,
    "slices added to": accumulated,
    "index_copy": written_by_index,
    "an index written to": placed_by_index,
    "an index": lambda part, x: x[:, part.order],
    "gather": gathered,
    "scatter_add": scattered,
    "masked_fill": lambda part, x: x.masked_fill(part.mask, 0.0),
    "where": lambda part, x: torch.where(part.mask, x, 2 * x),
}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("windowed", [True, False])
def test_linear_operations_pass_and_equal_their_transpose(name, windowed):
    torch.manual_seed(0)
    part = Part(LINEAR[name])
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), part, nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU()).double().eval()
    images = torch.randn(3, 3, 12, 16, dtype=torch.float64)
    channels = torch.tensor([0, 2, 4])
    projections = project(net, images, "4", channels, start="one", windowed=windowed)
    # the way down step by step: a filter transposed, a rectifier on the signal, the part's own transpose
    with torch.no_grad():
        middle = net[0](images)
        above = net[:3](images)
        signal = torch.zeros_like(net(images))
    signal[torch.arange(3), channels, projections.positions[:, 0], projections.positions[:, 1]] = 1
    signal = torch.nn.functional.conv_transpose2d(signal.relu(), net[3].weight).relu()
    assert signal.shape == above.shape
    (signal,) = torch.autograd.grad(part(middle.requires_grad_()), middle, signal)
    expected = torch.nn.functional.conv_transpose2d(signal, net[0].weight, padding=1)
    torch.testing.assert_close(projections.full(), expected, rtol=1e-10, atol=1e-12)


def test_a_rectifier_that_works_on_a_part_passes():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Part(rectified_in_part), nn.Conv2d(4, 5, 3), nn.ReLU())
    images = torch.randn(2, 3, 12, 12)
    assert project(net, images, "3", torch.tensor([0, 1])).pixels.isfinite().all()


def argsorted(_, x):
    return x.gather(1, x.mean((2, 3), keepdim=True).argsort(1).expand_as(x))


def squared_in_part(_, x):
    out = x.clone()
    out[:, :2].pow_(2)
    return out


def gated_in_part(_, x):
    out = x.clone()
    out[:, :2] *= x[:, 2:].sigmoid()
    return out


@pytest.mark.parametrize(
    "function",
    [
        lambda _, x: torch.where(x > 0.1, x, 0.5 * x),
        lambda _, x: x.masked_fill(x < 0.1, 0.0),
        lambda _, x: x * (x > 0.1),
        argsorted,
        squared_in_part,
        gated_in_part,
        lambda _, x: x[:, x.mean((0, 2, 3)).argsort()],
    ],
    ids=["where", "masked_fill", "mask", "argsort", "power of a slice", "gate of a slice", "an index"],
)
def test_what_the_image_chooses_by_is_refused(function):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Part(function), nn.Conv2d(4, 5, 3), nn.ReLU())
    with pytest.raises(UnsupportedOperationError, match=r"in module '1'.*rule='gradient'"):
        project(net, torch.randn(2, 3, 12, 12), "3", torch.tensor([0, 1]))
    assert project(net, torch.randn(2, 3, 12, 12), "3", torch.tensor([0, 1]), rule="gradient").pixels.isfinite().all()


class Branching(nn.Module):
    """Takes another way for bright images."""

    def __init__(self, read, gate=torch.relu):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(n, 4, 3, padding=1) for n in (3, 4, 4))
        self.read, self.gate = read, gate

    def forward(self, x):
        y = self.first(x).relu()
        if self.read(x):
            y = y + 0.5 * self.gate(self.second(y))
        return self.third(y).relu()


READINGS = {
    "a comparison": lambda x: x.mean() > 0,
    "item": lambda x: x.mean().item() > 0,
    "tolist": lambda x: x.mean((1, 2, 3)).tolist()[0] > 0,
    "numpy": lambda x: x.detach().numpy().mean() > 0,
    "nonzero": lambda x: len((x > 0).nonzero()) > x.numel() / 2,
    "a boolean index": lambda x: x[x > 0].numel() > x.numel() / 2,
}


@pytest.mark.parametrize("name", READINGS)
def test_each_image_takes_its_own_way(name):
    torch.manual_seed(0)
    net = nn.Sequential(Branching(READINGS[name])).double()
    bright = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    images, channels = torch.cat([bright, -bright, bright + 1]), torch.tensor([0, 1, 2])
    together = project(net, images, "0", channels)
    for i in range(3):
        alone = project(net, images[i : i + 1], "0", channels[i : i + 1])
        torch.testing.assert_close(together.full()[i], alone.full()[0])
        torch.testing.assert_close(together.activations[i], net(images[i : i + 1])[0, i].max())


def test_a_gate_on_the_way_of_one_image_is_refused():
    net = nn.Sequential(Branching(lambda x: x.mean() > 3, gate=torch.sigmoid))
    image = torch.rand(1, 3, 12, 12)
    assert project(net, image, "0", torch.tensor([0])).pixels.isfinite().all()
    with pytest.raises(UnsupportedOperationError, match="Sigmoid"):
        project(net, image + 5, "0", torch.tensor([0]))
