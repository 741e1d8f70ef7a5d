"""Passes that stop early, and passes that samples leave one after the other."""

import pytest
import torch
from torch import nn

from lightning_cnnvis.functional.network.forward import OUTPUT, plain_forward, staged_forward
from lightning_cnnvis.functional.optimization.gradients import model_gradient
from lightning_cnnvis.functional.optimization.objectives import Objective
from lightning_cnnvis.layers import LayerError


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(4, 2, 3)

    def forward(self, inputs):
        first = self.relu(self.first(inputs))
        return self.last(first + self.relu(self.inner(first)))


@pytest.fixture
def inputs():
    return torch.rand(5, 3, 8, 8)


def sequential():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(96, 5))


def test_plain_forward_records_layers_and_output(inputs):
    net = sequential()
    recorded = plain_forward(net, ["0", OUTPUT])(inputs)
    torch.testing.assert_close(recorded["0"], net[0](inputs))
    torch.testing.assert_close(recorded[OUTPUT], net(inputs))
    assert list(plain_forward(net, ["0"])(inputs)) == ["0"]
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("net", "layers"),
    [(sequential(), ["0", "2", "4"]), (sequential(), ["1", "3", OUTPUT]), (Residual(), ["first", "inner", "last"])],
)
def test_staged_forward_equals_a_pass_for_each_layer(net, layers, inputs):
    counts = dict(zip(layers, (2, 1, 2), strict=True))
    recorded = staged_forward(net, counts, inputs[:1])(inputs)
    start = 0
    for layer, count in counts.items():
        expected = plain_forward(net, [layer])(inputs)[layer][start : start + count]
        torch.testing.assert_close(recorded[layer], expected)
        start += count


def test_samples_do_not_pay_for_deeper_layers(inputs):
    net, sizes = sequential(), []
    net[2].register_forward_pre_hook(lambda _module, args: sizes.append(len(args[0])))
    forward = staged_forward(net, {"0": 3, "4": 2}, inputs[:1])
    sizes.clear()
    forward(inputs)
    assert sizes == [2]


def test_gradient_of_a_staged_pass(inputs):
    net = sequential()
    counts = {"0": 2, "2": 3}
    objective = Objective(
        tuple(counts),
        lambda _part, _device: lambda recorded: torch.cat([recorded[n].flatten(1).square().sum(1) for n in counts]),
    )
    forward = staged_forward(net, counts, inputs[:1])
    loss, slope = model_gradient(net, objective, slice(0, 5), forward=forward)(inputs, torch.zeros(5).bool())
    leaf = inputs.clone().requires_grad_()
    expected = torch.cat([net[0](leaf[:2]).flatten(1).square().sum(1), net[:3](leaf[2:]).flatten(1).square().sum(1)])
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), leaf)[0])


def test_bad_layers(inputs):
    net = sequential()
    with pytest.raises(LayerError, match="order"):
        staged_forward(net, {"2": 1, "0": 1}, inputs[:1])
    with pytest.raises(LayerError, match="no layer"):
        staged_forward(net, {"nothing": 1}, inputs[:1])
