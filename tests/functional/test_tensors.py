"""Results moved as a whole, and put together from shares of the work."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, fields

import pytest
import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.activations.harvest import top_activations
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.functional.deconvnet.projection import Projections, project
from lightning_cnnvis.functional.deepdream.octaves import Dream, DreamOptions, dream
from lightning_cnnvis.functional.inversion.reconstruction import invert_layers
from lightning_cnnvis.functional.inversion.results import Inversions
from lightning_cnnvis.functional.tensors import cat_fields, to_cpu
from lightning_cnnvis.functional.visualization.classes import visualize_classes
from lightning_cnnvis.functional.visualization.results import VisualizationOptions, Visualizations
from lightning_cnnvis.functional.visualization.units import maximize_activation
from lightning_cnnvis.inputs import InputSpec

SPEC = InputSpec(size=(16, 20))
IMAGES = torch.rand(4, 3, 16, 20, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


@dataclass(frozen=True)
class Numbers:
    values: Tensor
    name: str = "some"
    inner: object = None


def test_to_cpu_reaches_every_tensor_and_keeps_the_kinds():
    pair = namedtuple("pair", "left right")
    # there is no other device to come from than the one without values, whose tensors cannot be moved
    moved = []

    class Elsewhere:
        def to(self, device):
            moved.append(device)
            return "here"

    result = Numbers(Elsewhere(), inner={"a": [Elsewhere(), 1], "b": pair(Elsewhere(), (Elsewhere(), None))})
    assert to_cpu(result) == Numbers("here", inner={"a": ["here", 1], "b": pair("here", ("here", None))})
    assert isinstance(to_cpu(result).inner["b"], pair)
    assert moved == ["cpu"] * 8
    value = torch.ones(2)
    assert to_cpu(value) is value
    assert to_cpu("text") == "text"


def test_to_cpu_takes_every_result(net):
    top = top_activations(net, [IMAGES], ["1"], k=2)
    moved = to_cpu(top)
    assert isinstance(moved["1"], TopActivations)
    assert torch.equal(moved["1"].values, top["1"].values)
    assert_equal(to_cpu(project(net, IMAGES, "1", torch.arange(4))), project(net, IMAGES, "1", torch.arange(4)))


def assert_equal(result, expected):
    assert type(result) is type(expected)
    for field in fields(expected):
        one, other = getattr(result, field.name), getattr(expected, field.name)
        if isinstance(other, Tensor):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5, equal_nan=True)
        else:
            assert one == other


def test_projections_of_shares_are_those_of_the_whole(net):
    parts = [project(net, IMAGES[part], "1", torch.arange(4)[part]) for part in (slice(0, 1), slice(1, 4))]
    assert_equal(Projections.cat(parts), project(net, IMAGES, "1", torch.arange(4)))


def test_visualizations_of_shares_are_those_of_the_whole(net):
    options = {"input_spec": SPEC, "steps": 4, "options": VisualizationOptions(frames=[0, 2])}
    parts = [visualize_classes(net, classes, **options) for classes in ([0], [2, 3])]
    assert_equal(Visualizations.cat(parts), visualize_classes(net, [0, 2, 3], **options))
    parts = [maximize_activation(net, "1", channels, **options) for channels in ([0, 1], [5])]
    assert_equal(Visualizations.cat(parts), maximize_activation(net, "1", [0, 1, 5], **options))
    whole = maximize_activation(net, "1", None, **options)
    assert Visualizations.cat([*parts, whole]).peaks is None


def test_inversions_of_shares_are_those_of_the_whole(net):
    options = {"input_spec": SPEC, "steps": 4, "restarts": 2}
    parts = [invert_layers(net, IMAGES[:2], layers, **options) for layers in (["0"], ["4", "1"])]
    assert_equal(Inversions.cat(parts), invert_layers(net, IMAGES[:2], ["0", "4", "1"], **options))


def test_dreams_of_shares_are_those_of_the_whole(net):
    options = {"input_spec": SPEC, "options": DreamOptions(octaves=2, steps=2)}
    parts = [dream(net, IMAGES[part], "1", **options) for part in (slice(0, 2), slice(2, 3))]
    assert_equal(Dream.cat(parts), dream(net, IMAGES[:3], "1", **options))


def test_nothing_to_join_is_named():
    with pytest.raises(ValueError, match="no results to join"):
        cat_fields([])
