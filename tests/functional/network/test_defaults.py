"""What a network is asked where nothing is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_cnnvis.functional.network.defaults import choose_channels, choose_depths, number_of_classes
from lightning_cnnvis.inputs import InputSpec

SPEC = InputSpec(size=(8, 8), channels=1)


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.flatten(1), x


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 7).double()), 7),
        (nn.Conv2d(1, 5, 3), 0),
        (nn.Flatten(), 64),
        (Pair(), 64),
        (nn.Sequential(nn.Conv2d(1, 5, 8)), 5),
    ],
)
def test_number_of_classes(net, count):
    net.train()
    before = torch.get_rng_state()
    assert number_of_classes(net.double(), SPEC) == count
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in net.modules())


def test_a_choice_of_channels_is_the_layers_own():
    chosen = choose_channels("relu1", 96, 5, seed=3)
    assert chosen == sorted(set(chosen)) == choose_channels("relu1", 96, 5, seed=3)
    assert chosen != choose_channels("relu2", 96, 5, seed=3)
    assert choose_channels("relu1", 4, 5, seed=3) == choose_channels("relu1", 4, None, seed=3) == [0, 1, 2, 3]


def test_a_choice_of_depths_of_few_layers():
    assert choose_depths(["only"]) == ["only"]
    assert choose_depths(["low", "high"]) == ["low", "high"]
