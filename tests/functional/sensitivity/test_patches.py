"""Patches of units without a map equal brute force, and refuse bad input."""

from __future__ import annotations

import pytest
import torch
from kinds_of_network import images_of, network_of
from torch import nn

from lightning_cnnvis.functional import Patches, patches
from lightning_cnnvis.layers import LayerError, activations


def by_hand(net, layer, image, channel, boxes):
    """The drop of a unit's activation under each square."""
    values = []
    with torch.no_grad():
        untouched = activations(net, image[None].clone(), [layer])[layer].flatten(1)[0, channel]
        for top, left, bottom, right in boxes.tolist():
            copy = image[None].clone()
            copy[:, :, top:bottom, left:right] = 0
            values.append(activations(net, copy, [layer])[layer].flatten(1)[0, channel])
    return untouched, untouched - torch.stack(values)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", ["plain", "residual", "excitation", "batch norm"])
def test_equals_whole_copies(name, dtype, tolerance):
    net, images = network_of(name).to(dtype), images_of(3, 17, 23, 6).to(dtype)
    layer = str(len(net) - 1)
    found = patches(net, [images[:4], images[4:]], layer, [3, 1], k=4, patch=5, stride=3)
    with torch.no_grad():
        strongest = net(images)[:, [3, 1]].T.topk(4)
    assert found.channels.tolist() == [3] * 4 + [1] * 4
    assert found.sample_ids.tolist() == strongest.indices.flatten().tolist()
    torch.testing.assert_close(found.activations, strongest.values.flatten().to(found.activations))
    for n, sample in enumerate(found.sample_ids.tolist()):
        assert torch.equal(found.images[n], images[sample])
        _, expected = by_hand(net, layer, images[sample], int(found.channels[n]), found.boxes)
        torch.testing.assert_close(found.drops[n], expected, atol=tolerance, rtol=0)


def test_maps_of_one_place_are_units():
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).double()
    images = images_of(1, 9, 12, 3).double()
    found = patches(net, [images], "2", k=1, patch=4, stride=4)
    assert len(found) == 6
    _, expected = by_hand(net, "2", found.images[2], 2, found.boxes)
    torch.testing.assert_close(found.drops[2], expected, atol=1e-10, rtol=0)


class Spot(nn.Module):
    """Units that look at two places: the first at both, the second at none."""

    def forward(self, x):
        both = x[:, 0, 2:5, 2:5].sum((1, 2)) + 0.9 * x[:, 0, 12:15, 12:15].sum((1, 2))
        return torch.stack([both, 0 * both + 1], 1)


def test_regions_and_extents():
    net = nn.Sequential(Spot())
    found = patches(net, [torch.ones(1, 1, 16, 18)], "0", k=1, patch=3, stride=1)
    region, nothing = found.regions
    assert region[3, 3]
    assert region[13, 13]
    assert not region[8, 8]
    assert not nothing.any()
    (top, left, bottom, right), whole = found.extents.tolist()
    # the squares that cover at least half of the first place, and not the second one
    assert (top, left) == (1, 1)
    assert (bottom, right) == (6, 6)
    assert whole == [0, 0, 16, 18]


def test_units_of_shares_are_joined():
    net, images = network_of("plain"), images_of(3, 12, 12, 4)
    first, second, both = (patches(net, [images], "7", c, k=2, patch=4, stride=4) for c in ([0], [2], [0, 2]))
    joined = Patches.cat([first, second])
    assert torch.equal(joined.drops, both.drops)
    assert torch.equal(joined.channels, both.channels)
    assert joined.k == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 13}, "patch=13 is larger than the image of 12 × 12 pixels"),
        ({"patch": 0}, "patch=0 must be at least 1"),
        ({"stride": 0}, "stride=0 must be at least 1"),
        ({"k": 5}, "k=5 exceeds the 4 images"),
        ({"k": 0}, "k=0"),
        ({"channels": [9]}, "Unit 9 is not in layer '7': it has units 0 to 4"),
        ({"channels": [-1]}, "Unit -1 is not in layer"),
        ({"layer": "1"}, "Layer '1' has maps of 12 × 12: projections"),
        ({"layer": "dense"}, "no layer 'dense'"),
    ],
)
def test_bad_input(changes, message):
    given = {"layer": "7", "channels": [0], "k": 2, "patch": 4, "stride": 4, **changes}
    with pytest.raises((ValueError, LayerError), match=message):
        patches(network_of("plain"), [images_of(3, 12, 12, 4)], given.pop("layer"), given.pop("channels"), **given)
