"""Correspondence equals the paper's formula, written out by hand, and refuses bad input."""

from __future__ import annotations

import csv
import io
import statistics

import pytest
import torch
from kinds_of_network import images_of, network_of
from torch import nn

from lightning_cnnvis import InputSpec
from lightning_cnnvis.functional import OUTPUT, Correspondence, correspondence
from lightning_cnnvis.layers import LayerError, activations

PARTS = {
    "eye": [[0, 0, 5, 4], [2, 3, 6, 8], [9, 10, 14, 17], [1, 1, 2, 2]],
    "nose": torch.tensor([[8, 8, 17, 23]] * 4),
}
LAYERS = ["1", "4", "7"]


def by_hand(net, images, boxes, layer) -> list[float]:
    """The distances of all pairs."""

    def features(image):
        with torch.no_grad():
            return (net(image) if layer == OUTPUT else activations(net, image, [layer])[layer]).flatten()

    changes = []
    for image, (top, left, bottom, right) in zip(images, torch.as_tensor(boxes).tolist(), strict=True):
        covered = image[None].clone()
        covered[:, :, top:bottom, left:right] = 0
        changes.append(torch.sign(features(image[None]) - features(covered)))
    return [
        float((changes[i] != changes[j]).sum()) / len(changes[i])
        for i in range(len(changes))
        for j in range(len(changes))
        if i != j
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["batch norm", "residual", "excitation", "one at a time", "a decision"])
def test_equals_the_formula(name, dtype):
    net, images = network_of(name).to(dtype), images_of(3, 17, 23, 4).to(dtype)
    layers = ["1", "2", OUTPUT]
    found = correspondence(net, images, PARTS, layers, input_spec=InputSpec(size=(17, 23)), random_sets=3)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    for layer in layers:
        for part, boxes in PARTS.items():
            distances = by_hand(net, images, boxes, layer)
            assert found.deltas[layer][part] == pytest.approx(statistics.mean(distances), abs=tolerance)
            assert found.stds[layer][part] == pytest.approx(statistics.pstdev(distances), abs=tolerance)
        distances = [d for boxes in found.random for d in by_hand(net, images, boxes, layer)]
        assert found.deltas[layer]["random"] == pytest.approx(statistics.mean(distances), abs=tolerance)
        assert found.stds[layer]["random"] == pytest.approx(statistics.pstdev(distances), abs=tolerance)


def test_random_parts():
    net, images, spec = network_of("plain"), images_of(3, 17, 23, 4), InputSpec(size=(17, 23))
    first, again, other = (
        correspondence(net, images, PARTS, ["1"], input_spec=spec, random_sets=5, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first.random, again.random)
    assert first.deltas == again.deltas
    assert not torch.equal(first.random, other.random)
    assert first.random.shape == (5, 4, 4)
    sides = first.random[..., 2:] - first.random[..., :2]
    for n, part in enumerate(["eye", "nose", "eye", "nose", "eye"]):
        boxes = torch.as_tensor(PARTS[part])
        assert torch.equal(sides[n], boxes[:, 2:] - boxes[:, :2])
    assert (first.random[..., :2] >= 0).all()
    assert (first.random[..., 2:] <= torch.tensor([17, 23])).all()
    assert first.pairs == {"eye": 6, "nose": 6, "random": 30}


def test_random_parts_of_ones_own():
    net, images, spec = network_of("plain").double(), images_of(3, 17, 23, 2).double(), InputSpec(size=(17, 23))
    own = [[1, 2, 5, 6], [7, 8, 11, 12]]
    found = correspondence(net, images, {"eye": [[0, 0, 4, 4]] * 2, "random": own}, ["1"], input_spec=spec)
    assert list(found.parts) == ["eye"]
    assert found.random.tolist() == [own]
    assert found.deltas["1"]["random"] == pytest.approx(by_hand(net, images, own, "1")[0], abs=1e-10)
    assert found.stds["1"] == {"eye": 0, "random": 0}  # of one pair


def test_the_same_image_corresponds_to_itself():
    net, image = network_of("plain"), images_of(1, 17, 23, 1).expand(3, 3, 17, 23)
    found = correspondence(net, image, {"eye": [[3, 4, 8, 9]] * 3}, LAYERS, input_spec=InputSpec(size=(17, 23)))
    assert {layer: of["eye"] for layer, of in found.deltas.items()} == dict.fromkeys(LAYERS, 0)
    assert all(of["random"] > 0 for of in found.deltas.values())


def test_networks_in_grey():
    net, images = network_of("plain", channels=1), images_of(1, 12, 12, 2)
    found = correspondence(net, images, {"a": [[0, 0, 12, 12]] * 2}, ["1"], input_spec=InputSpec((12, 12), 1))
    assert 0 <= found.deltas["1"]["a"] <= 1


def test_the_table():
    table = Correspondence(
        {}, torch.zeros(0), {"relu,1": {'the "eye"': 0.5}}, {"relu,1": {'the "eye"': 0.25}}, {'the "eye"': 3}
    )
    rows = list(csv.reader(io.StringIO(table.to_csv())))
    assert rows == [["layer", "part", "delta", "std", "pairs"], ["relu,1", 'the "eye"', "0.500000", "0.250000", "3"]]


EYE = [[0, 0, 5, 4], [2, 3, 6, 8]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(1, 3, 17, 23)}, "there is only one. Give at least two"),
        ({"images": torch.zeros(3, 17, 23)}, "it must be"),
        ({"parts": {}}, "parts is empty"),
        ({"parts": {"eye": EYE[:1]}}, "Part 'eye' has 1 boxes for 2 images. Give one for each image"),
        ({"parts": {"eye": [*EYE, EYE[0]]}}, "Part 'eye' has 3 boxes for 2 images"),
        ({"parts": {"eye": []}}, "Part 'eye' must have boxes of 4 numbers"),
        ({"parts": {"eye": [[0, 0, 5], [0, 0, 5]]}}, "must have boxes of 4 numbers"),
        ({"parts": {"eye": [EYE[0], [-1, 0, 5, 5]]}}, "Box 1 of part 'eye', .* is empty or not within the image"),
        ({"parts": {"eye": [[0, 0, 18, 4], EYE[1]]}}, "not within the image of 17 × 23 pixels"),
        ({"parts": {"eye": [[0, 0, 5, 24], EYE[1]]}}, "not within the image of 17 × 23 pixels"),
        ({"parts": {"eye": [[5, 0, 5, 4], EYE[1]]}}, "is empty or not within"),
        ({"parts": {"eye": [[0.5, 0, 5, 4], EYE[1]]}}, "does not begin or end at whole pixels"),
        ({"layers": []}, "Give the names of at least one layer"),
        ({"layers": "1"}, "layers='1' is not a list"),
        ({"random_sets": 0}, "random_sets=0 must be at least 1"),
    ],
)
def test_bad_input(changes, message):
    given = {"images": images_of(3, 17, 23), "parts": {"eye": EYE}, "layers": ["1"], **changes}
    with pytest.raises(ValueError, match=message):
        correspondence(network_of("plain"), **given, input_spec=InputSpec(size=(17, 23)))


def test_unknown_layers():
    with pytest.raises(LayerError, match="no layer 'conv'"):
        correspondence(
            network_of("plain"), images_of(3, 17, 23), {"eye": EYE}, ["conv"], input_spec=InputSpec(size=(17, 23))
        )
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Pair())
    with pytest.raises(LayerError, match="not a tensor"):
        correspondence(net, images_of(3, 17, 23), {"eye": EYE}, ["1"], input_spec=InputSpec())


class Pair(nn.Module):
    def forward(self, x):
        return x, x
