"""Photographs in the style of other pictures."""

from __future__ import annotations

import pytest
import torch
from runs import IMAGES, SPEC, network
from torch import nn

from lightning_cnnvis.functional import Style, stylize
from lightning_cnnvis.functional.style.gram import default_layers, gram
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layers import LayerError

PHOTO, OTHERS = IMAGES[0], IMAGES[1:3].sqrt()


def restyled(photo=PHOTO, style=OTHERS, *, net=None, spec=SPEC, **options):
    options = {"style_layers": ["2"], "content_layer": "5", "steps": 3, **options}
    return stylize(network().eval() if net is None else net, photo, style, input_spec=spec, **options)


def test_the_gram_matrix_knows_no_places():
    maps = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    shuffled = maps.flatten(2)[:, :, torch.randperm(20, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(gram(shuffled), gram(maps))
    torch.testing.assert_close(gram(maps)[1, 0, 2], (maps[1, 0] * maps[1, 2]).mean())


def test_the_distance_falls():
    found = restyled(steps=60, content_weight=0.0)
    assert found.fall > 0.8
    assert found.losses[0, 0] == pytest.approx(1, abs=1e-2)  # the distance of the photograph itself
    torch.testing.assert_close(found.fall, 1 - (found.after / found.before).mean(1))
    assert found.images.min() >= 0
    assert found.images.max() <= 1


def test_a_weight_on_the_content_keeps_it():
    free, held = (restyled(steps=30, content_weight=weight) for weight in (0.0, 10.0))
    assert held.content_errors < 0.5 * free.content_errors
    assert held.fall < free.fall


def test_distances_by_hand():
    net = network().eval()
    found = restyled(net=net, steps=1)
    with torch.no_grad():
        maps = net[:3](SPEC.normalize(torch.stack([PHOTO, *OTHERS, found.images[0]]))).flatten(2)
        matrices = maps @ maps.transpose(1, 2) / maps.shape[2]
        wanted = matrices[1:3].mean(0)
        before, after = ((matrices[n] - wanted).square().sum() / wanted.square().sum() for n in (0, 3))
    torch.testing.assert_close(found.before, before.view(1, 1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.after, after.view(1, 1), rtol=1e-4, atol=1e-6)


def test_a_photograph_keeps_its_own_style():
    found = restyled(style=PHOTO, steps=30)
    assert found.before.max() < 1e-10
    assert found.after.max() < 1e-3


def test_photographs_do_not_depend_on_each_other():
    both = restyled(IMAGES[:2])
    torch.testing.assert_close(both.images[1:], restyled(IMAGES[1]).images)
    assert Style.cat([restyled(IMAGES[:1]), restyled(IMAGES[1:2])]).images.equal(both.images)


def test_any_sizes_and_classes():
    photo = torch.rand(3, 20, 31, generator=torch.Generator().manual_seed(0))
    found = restyled(photo, [OTHERS[0, :, :12], OTHERS])
    assert found.images.shape == (1, 3, 20, 31)
    assert found.labels.shape == (1, 2)
    assert found.kept.tolist() == [bool(found.labels[0, 0] == found.labels[0, 1])]


def test_grey_images_and_networks_that_are_not_classifiers():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    spec = InputSpec(size=(16, 16), channels=1)
    found = stylize(net, IMAGES[:1, :1], IMAGES[1:2, :1], input_spec=spec, steps=2)
    assert found.labels is None
    assert found.kept is None
    assert (found.layers, found.content_layer) == (("1",), "1")


def test_default_layers():
    blocks = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.MaxPool2d(2))]
    net = nn.Sequential(*(blocks * 6)[:1], *[nn.Sequential(*block) for block in blocks * 5]).eval()
    layers, content = default_layers(net, InputSpec(size=(64, 64)))
    assert len(layers) == 5
    assert content == "0.3@6"  # the shared layer, called for the sixth time
    with pytest.raises(LayerError, match="has no convolution"):
        default_layers(nn.Flatten(), SPEC)


BAD = {
    "channels": ({"photo": torch.rand(1, 16, 16)}, "content of shape"),
    "style of other channels": ({"style": torch.rand(2, 1, 16, 16)}, "style of shape"),
    "range": ({"photo": 255 * PHOTO}, "content must hold finite"),
    "not a number": ({"style": OTHERS * torch.nan}, "style must hold finite"),
    "no style": ({"style": []}, "at least one picture of each"),
    "no photograph": ({"photo": IMAGES[:0]}, "at least one picture of each"),
    "too small": ({"style": OTHERS[:, :, :2, :2]}, "style picture of 2×2 pixels does not go through"),
    "weight": ({"content_weight": -1.0}, "content_weight=-1"),
    "infinite": ({"content_weight": float("inf")}, "content_weight=inf"),
    "steps": ({"steps": 0}, "steps=0"),
    "no layers": ({"style_layers": []}, r"style_layers=\[\]"),
    "one name": ({"style_layers": "2"}, "style_layers='2'"),
    "unknown": ({"style_layers": ["22"]}, "'22'"),
    "no map": ({"content_layer": "8"}, "layers with maps"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_refused(name):
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        restyled(**options)
