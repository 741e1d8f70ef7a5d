"""Accentuation on small networks: what it raises, what it keeps, and bad input."""

import math

import pytest
import torch
from torch import nn

from lightning_cnnvis import figures
from lightning_cnnvis.functional import accentuate
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layers import LayerError

SPEC = InputSpec(size=(24, 20), mean=(0.5,), std=(0.25,), class_names=tuple("abcdefghij"))
PHOTOGRAPH = torch.rand(3, 24, 20, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 10),
    ).eval()


def accentuated(net, **options):
    return accentuate(net, PHOTOGRAPH, **{"input_spec": SPEC, "steps": 12, **options})


@torch.no_grad()
def test_what_is_asked_for_rises(net):
    found = accentuated(net, classes=["b", 5])
    assert found.labels == ("b", "f")
    logits = net(SPEC.normalize(found.images))
    torch.testing.assert_close(found.after, logits[[0, 1], [1, 5]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.probabilities[:, 1], logits.softmax(1)[[0, 1], [1, 5]], rtol=1e-4, atol=1e-5)
    before = net(SPEC.normalize(PHOTOGRAPH[None]))[0]
    torch.testing.assert_close(found.before, before[[1, 5]], rtol=1e-4, atol=1e-5)
    assert (found.probabilities[:, 1] > found.probabilities[:, 0]).all()
    units = accentuated(net, layer="4", channels=[3, 7])
    maps = net[:5](SPEC.normalize(units.images))
    torch.testing.assert_close(units.after, maps.mean((2, 3))[[0, 1], [3, 7]], rtol=1e-4, atol=1e-5)
    assert (units.after > units.before).all()
    assert units.probabilities.isnan().all()
    whole = accentuated(net, layer="4")
    assert whole.labels == ("4",)
    assert whole.after > whole.before
    joined = type(found).cat([found, units, whole])
    assert len(joined.labels) == len(joined.images) == 5


def test_more_weight_keeps_more_whatever_the_scale_of_the_score(net):
    distances = {}
    for scale in (1, 1000):
        with torch.no_grad():
            net[7].weight *= scale
        for weight in (0, 1, 100):
            distances[scale, weight] = float(accentuated(net, classes=[1], weight=weight, steps=24).distances)
    for scale in (1, 1000):
        assert distances[scale, 0] > distances[scale, 100]
        assert distances[scale, 1] > distances[scale, 100]


def test_the_distance_is_that_of_the_layer(net):
    found = accentuated(net, classes=[1], keep="4")
    assert found.kept_at == ("4",)
    with torch.no_grad():
        kept, now = net[:5](SPEC.normalize(torch.stack([PHOTOGRAPH, found.images[0]])))
    assert float(found.distances) == pytest.approx(float((now - kept).norm() / kept.norm()), rel=1e-4)
    assert accentuated(net, classes=[1]).kept_at == ("1",)


def test_an_image_does_not_depend_on_the_other_targets(net):
    both, alone = accentuated(net, classes=[1, 5]), accentuated(net, classes=[5])
    torch.testing.assert_close(both.images[1:], alone.images, atol=1e-4, rtol=0)
    other = accentuated(net, classes=[5], seed=1)
    assert not torch.allclose(other.images, alone.images, atol=1e-3)


def test_a_unit_without_a_gradient_leaves_the_photograph(net):
    with torch.no_grad():
        net[3].bias[3] = -100
    found = accentuated(net, layer="4", channels=[3, 7])
    assert torch.equal(found.images[0], PHOTOGRAPH)
    assert figures.accentuation_caption(found, 0) == "no gradient"
    assert not torch.equal(found.images[1], PHOTOGRAPH)


def test_a_photograph_of_another_size_keeps_it(net):
    photograph = torch.rand(3, 40, 33, generator=torch.Generator().manual_seed(0))
    found = accentuate(net, photograph, input_spec=SPEC, classes=[1], steps=3)
    assert found.images.shape == found.changes.shape == (1, 3, 40, 33)
    assert figures.accentuation_figure(found, "title").shape[2] == 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "give one of the two"),
        ({"classes": [1], "layer": "4"}, ValueError, "give one of the two"),
        ({"classes": []}, ValueError, "at least one class"),
        ({"classes": [10]}, ValueError, "Class 10 is out of range"),
        ({"classes": ["z"]}, ValueError, "no class named 'z'"),
        ({"layer": "relu"}, LayerError, "no layer 'relu'"),
        ({"layer": "4", "channels": [12]}, ValueError, "channels 0 to 11"),
        ({"layer": "4", "channels": []}, ValueError, "channels is empty"),
        ({"classes": [1], "channels": [1]}, ValueError, "requires layer"),
        ({"classes": [1], "keep": "relu"}, LayerError, "no layer 'relu'"),
        ({"classes": [1], "weight": -1.0}, ValueError, "weight=-1.0"),
        ({"classes": [1], "weight": math.nan}, ValueError, "weight=nan"),
        ({"classes": [1], "steps": 0}, ValueError, "steps=0"),
    ],
)
def test_bad_input(net, options, error, message):
    with pytest.raises(error, match=message):
        accentuated(net, **options)


@pytest.mark.parametrize(
    ("photograph", "message"),
    [
        (PHOTOGRAPH[None], r"of shape \(1, 3, 24, 20\): give one"),
        (PHOTOGRAPH[:1], "with 3 channels"),
        (PHOTOGRAPH * 255, r"outside of \[0, 1\]"),
        (PHOTOGRAPH * math.nan, r"outside of \[0, 1\]"),
    ],
)
def test_bad_photographs(net, photograph, message):
    with pytest.raises(ValueError, match=message):
        accentuate(net, photograph, input_spec=SPEC, classes=[1])


def test_networks_that_are_no_classifiers(net):
    with pytest.raises(ValueError, match=r"a classifier's output is \(N, classes\). Name a layer"):
        accentuate(net[:5], PHOTOGRAPH, input_spec=SPEC, classes=[1])
    assert accentuate(net[:5], PHOTOGRAPH, input_spec=SPEC, layer="4", steps=2).labels == ("4",)
