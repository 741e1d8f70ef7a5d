"""Distances and probabilities are those of images transformed by hand, and bad input is refused in a sentence."""

import pytest
import torch
from torch import nn

from lightning_cnnvis import InputSpec
from lightning_cnnvis.functional import transformation_invariance
from lightning_cnnvis.functional.sensitivity.transformations import TRANSFORMATIONS, chosen_strengths, transformed
from lightning_cnnvis.layers import LayerError

SPEC = InputSpec((12, 16), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
PICTURES = torch.rand(3, 3, 12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IMAGES = SPEC.normalize(PICTURES)
NONE = {"translations": [], "scales": [], "rotations": [], "contrasts": [], "colors": []}


def network(*end: nn.Module, channels: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.Flatten(), nn.LazyLinear(6), nn.ReLU(), nn.Linear(6, 3), *end,
    ).double().eval()  # fmt: skip


def by_hand(name: str, picture: torch.Tensor, strength: float) -> torch.Tensor:
    """Of one picture ``(C, H, W)``, without resampling: multiples of a pixel and of a right angle."""
    fill = torch.tensor(SPEC.mean, dtype=picture.dtype).view(3, 1, 1).expand_as(picture)
    if name == "translation":
        moved = fill.clone()
        n = int(strength)
        moved[:, max(n, 0) : picture.shape[1] + min(n, 0)] = picture[:, max(-n, 0) : picture.shape[1] - max(n, 0)]
        return moved
    if name == "rotation":
        return picture.flip(1, 2) if strength == 180 else picture
    if name == "contrast":
        grey = picture.mean()
        return (grey + strength * (picture - grey)).clamp(0, 1)
    assert name == "color"
    return picture[[2, 0, 1]] if strength == 120 else picture  # a third of a turn changes red to green to blue


@pytest.mark.parametrize(
    ("name", "argument", "strengths"),
    [
        ("translation", "translations", [-3.0, 0.0, 2.0, 5.0]),
        ("rotation", "rotations", [0.0, 180.0]),
        ("contrast", "contrasts", [0.5, 1.0, 1.5]),
        ("color", "colors", [0.0, 120.0]),
    ],
)
def test_equals_images_transformed_by_hand(name, argument, strengths):
    net = network()
    net(IMAGES)
    layers = ["2", "5", "8"]
    found = transformation_invariance(net, IMAGES, layers, input_spec=SPEC, **{**NONE, argument: strengths})
    for n, picture in enumerate(PICTURES):
        for step, strength in enumerate(strengths):
            image = SPEC.normalize(by_hand(name, picture, strength))[None]
            with torch.no_grad():
                probability = net(image).softmax(1)[0, net(IMAGES[n : n + 1]).argmax()]
                assert abs(float(found.probabilities[name][n, step] - probability)) < 1e-6
                for layer in layers:
                    before, after = (net[: int(layer) + 1](x).flatten() for x in (IMAGES[n : n + 1], image))
                    expected = (after - before).norm() / before.norm()
                    assert abs(float(found.distances[layer][name][n, step] - expected)) < 1e-5


def test_what_changes_nothing_is_at_no_distance():
    net = network()
    net(IMAGES)
    found = transformation_invariance(net, IMAGES, ["2"], input_spec=SPEC)
    for name, neutral in {"translation": 0, "scale": 1, "rotation": 0, "contrast": 1, "color": 0}.items():
        step = found.strengths[name].tolist().index(neutral)
        assert (found.distances["2"][name][:, step] == 0).all()
        assert (found.distances["2"][name].sum(1) > 0).all()
        assert (found.area("2", name) > 0).all()
        assert (found.probability_area(name) <= 1).all()


def test_scales_are_about_the_centre_and_keep_the_outside_grey():
    image = SPEC.normalize(torch.zeros(1, 3, 12, 16, dtype=torch.float64))
    image[..., 5:7, 7:9] = 3.0
    larger = transformed(image, "scale", [2.0], SPEC)
    assert larger[0, 0, 4:8, 6:10].min() > image[0, 0].min()
    torch.testing.assert_close(larger, larger.flip(2, 3))
    smaller = transformed(image, "scale", [0.5], SPEC)
    torch.testing.assert_close(smaller[..., 0, 0], torch.zeros(1, 3, dtype=torch.float64), atol=1e-9, rtol=0)


def test_an_area_is_a_mean_height_whatever_the_order():
    net = network()
    net(IMAGES)
    some = transformation_invariance(net, IMAGES, ["2"], input_spec=SPEC, **{**NONE, "translations": [-2, 0, 4]})
    other = transformation_invariance(net, IMAGES, ["2"], input_spec=SPEC, **{**NONE, "translations": [4, -2, 0]})
    curve = some.distances["2"]["translation"]
    expected = (2 * (curve[:, 0] + curve[:, 1]) / 2 + 4 * (curve[:, 1] + curve[:, 2]) / 2) / 6
    torch.testing.assert_close(some.area("2", "translation"), expected)
    torch.testing.assert_close(other.area("2", "translation"), expected)


def test_a_layer_that_forgets_places_is_invariant_to_what_moves_them():
    # circular shifts of a periodic image move the map of a convolution, and leave its mean alone
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    image = torch.zeros(1, 1, 12, 12)
    image[..., 5:7, 3:9] = 1
    spec = InputSpec((12, 12), 1)
    found = transformation_invariance(net, image, ["1", "2"], input_spec=spec, **{**NONE, "translations": [-2, 2]})
    assert found.distances["2"]["translation"].max() < 1e-5
    assert found.distances["1"]["translation"].min() > 0.1


@pytest.mark.parametrize("end", [nn.Sigmoid(), nn.Softmax(1), nn.Identity()])
def test_probabilities_are_the_networks_own(end):
    net = network(end)
    net(IMAGES)
    found = transformation_invariance(net, IMAGES, ["2"], input_spec=SPEC, classes=[1], **{**NONE, "translations": [0]})
    values = net(IMAGES)
    expected = values.softmax(1) if isinstance(end, nn.Identity) else values
    torch.testing.assert_close(found.probabilities["translation"][:, 0], expected[:, 1].float())
    assert found.classes.tolist() == [1, 1, 1]


def test_grey_images_and_networks_without_classes():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    found = transformation_invariance(net, torch.rand(1, 1, 9, 7), ["1"], input_spec=InputSpec((9, 7), 1))
    assert found.probabilities is None
    assert found.classes is None
    assert found.probability_area("scale") is None
    assert sorted(found.strengths) == ["contrast", "rotation", "scale", "translation"]


def test_features_that_are_zero_have_no_distance():
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Threshold(1e9, 0.0))
    found = transformation_invariance(net, IMAGES.float(), ["1"], input_spec=SPEC, **{**NONE, "scales": [1, 1.5]})
    assert found.distances["1"]["scale"].isnan().all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": ["relu"]}, LayerError, "no layer 'relu'"),
        ({"layers": []}, ValueError, "layers is empty"),
        ({"scales": [0.0]}, ValueError, r"scale by \[0\.0\].*above 0"),
        ({"rotations": [float("nan")]}, ValueError, "finite numbers"),
        (NONE, ValueError, "All transformations are left out"),
        ({"images": torch.rand(2, 1, 12, 16)}, ValueError, r"images has shape \(2, 1, 12, 16\): give \(N, 3"),
        ({"images": torch.rand(0, 3, 12, 16)}, ValueError, "at least one"),
        ({"classes": [7]}, ValueError, "Class 7 is out of range"),
        ({"classes": [0, 1]}, ValueError, "There are 2 classes for 3 images"),
    ],
)
def test_bad_input_is_refused(options, error, message):
    net = network()
    net(IMAGES)
    given = {"images": IMAGES, "layers": ["2"], "input_spec": SPEC, **options}
    with pytest.raises(error, match=message):
        transformation_invariance(net, given.pop("images"), given.pop("layers"), **given)


def test_unknown_transformations_and_colours_that_are_not_there():
    with pytest.raises(ValueError, match=r"no transformation 'rotations'\. Did you mean 'rotation'"):
        chosen_strengths(SPEC, {"rotations": None})
    with pytest.raises(ValueError, match="hue of images of 1 channels cannot turn"):
        chosen_strengths(InputSpec((8, 8), 1), {"color": [90.0]})
    assert set(TRANSFORMATIONS) == {"translation", "scale", "rotation", "contrast", "color"}
