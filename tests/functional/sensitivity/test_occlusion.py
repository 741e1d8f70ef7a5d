"""Occlusion gives what a network gives for whole copies of an image, whatever the network, and refuses bad input."""

from __future__ import annotations

import pytest
import torch
from kinds_of_network import PARTS, images_of, network_of
from torch import nn

from lightning_cnnvis import InputSpec
from lightning_cnnvis.functional import Occlusion, occlusion
from lightning_cnnvis.functional.network.forward import OUTPUT
from lightning_cnnvis.functional.sensitivity.greyed_forward import plan_greyed, squares
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError, activations


def brute_force(net, images, found: Occlusion, probabilities=lambda logits: logits.softmax(1)):
    """Probabilities, top classes, channels and activities, each copy by itself."""
    result: dict[str, list] = {"probabilities": [], "top_classes": [], "channels": [], "activities": []}
    with torch.no_grad():
        for n, image in enumerate(images):
            untouched = activations(net, image[None].clone(), [found.layer])[found.layer]
            channel = untouched.flatten(2).sum(2).argmax(1)
            result["channels"].append(channel[0])
            for top, left, bottom, right in found.boxes.tolist():
                copy = image[None].clone()
                copy[:, :, top:bottom, left:right] = 0
                of_classes = probabilities(net(copy.clone()))
                result["probabilities"].append(of_classes[0, found.classes[n]])
                result["top_classes"].append(of_classes.argmax(1)[0])
                maps = activations(net, copy, [found.layer])[found.layer]
                result["activities"].append(maps.flatten(2).sum(2)[0, channel[0]])
    return {name: torch.stack(values).view(len(images), -1) for name, values in result.items()}


def check(net, images, tolerance: float, probabilities=lambda logits: logits.softmax(1), **options) -> Occlusion:
    found = occlusion(net, images, input_spec=InputSpec(size=images.shape[2:], channels=images.shape[1]), **options)
    expected = brute_force(net, images, found, probabilities)
    for name in ("probabilities", "activities"):
        torch.testing.assert_close(getattr(found, name), expected[name], atol=tolerance, rtol=tolerance)
    assert torch.equal(found.channels, expected["channels"].flatten())
    if tolerance < 1e-6:
        assert torch.equal(found.top_classes, expected["top_classes"])
    return found


@pytest.mark.parametrize("name", PARTS)
def test_equals_whole_copies(name):
    net, images = network_of(name).double(), images_of(3, 17, 23).double()
    check(net, images, 1e-10, patch=5, stride=3)


@pytest.mark.parametrize("name", ["batch norm", "residual", "stride and padding"])
def test_equals_whole_copies_in_single_precision(name):
    check(network_of(name), images_of(3, 24, 18), 1e-4, patch=6, stride=4)


LOCAL = [
    "plain", "stride and padding", "a stride larger than the kernel", "groups", "even kernel, same", "rectangular",
    "zeros around", "max-pooling", "max-pooling, ceil", "average pooling", "residual", "branches", "batch norm",
    "response norm",
]  # fmt: skip
WHOLE = {"one at a time": "one by one", "a decision": "one by one", "batch norm without statistics": "one by one"}


@pytest.mark.parametrize("name", [*LOCAL, *WHOLE, "writes into the map"])
def test_the_way_is_the_cheapest_that_is_exact(name):
    image = images_of(3, 40, 40, 1).double()
    with isolated(network_of(name).double()) as net:
        planned = plan_greyed(net, [OUTPUT], image, squares((40, 40), 6, 4))
    expected = {**dict.fromkeys(LOCAL, "changes"), **WHOLE, "writes into the map": "copies"}
    assert planned.way == expected[name]


@pytest.mark.parametrize(
    ("channels", "size", "patch", "stride"),
    [
        (1, (12, 12), 4, 2),  # grey
        (4, (12, 20), 3, 3),
        (3, (20, 9), 9, 1),  # as wide as the image
        (3, (16, 16), 16, 4),  # as large
        (3, (15, 14), 2, 7),  # with gaps
        (3, (13, 13), 1, 5),
    ],
)
def test_sizes(channels, size, patch, stride):
    net = network_of("stride and padding", channels).double()
    found = check(net, images_of(channels, *size).double(), 1e-10, patch=patch, stride=stride)
    boxes = found.boxes
    assert len(boxes) == found.grid[0] * found.grid[1]
    assert ((boxes[:, 2:] - boxes[:, :2]) == patch).all()
    assert boxes[:, :2].amin() == 0
    assert boxes[:, 2].amax() == size[0]
    assert boxes[:, 3].amax() == size[1]
    covered = torch.zeros(size, dtype=torch.bool)
    for top, left, bottom, right in boxes.tolist():
        covered[top:bottom, left:right] = True
    assert covered.all() or stride > patch


def test_one_image_and_one_class():
    net, images = network_of("plain", classes=1).double(), images_of(3, 14, 14, 1).double()
    found = check(net, images, 1e-10, lambda logits: logits.sigmoid(), patch=5, stride=4)
    assert found.classes.tolist() == [0]
    with torch.no_grad():
        sure = occlusion(nn.Sequential(net, nn.Sigmoid()), images, input_spec=InputSpec(size=(14, 14)), patch=5)
        assert torch.equal(sure.probabilities, occlusion(net, images, input_spec=InputSpec(), patch=5).probabilities)
    more_probable = occlusion(net, images, input_spec=InputSpec(), patch=5, stride=4).probabilities > 0.5
    assert torch.equal(found.top_classes, more_probable.long())


def test_two_names_for_one_output_are_two_classes():
    spec = InputSpec(size=(14, 14), class_names=("cat", "dog"))
    net, images = network_of("plain", classes=1).double(), images_of(3, 14, 14, 3).double()
    cat, dog = (occlusion(net, images, input_spec=spec, classes=[name], patch=5) for name in ("cat", "dog"))
    torch.testing.assert_close(cat.probabilities, 1 - dog.probabilities)
    assert torch.equal(cat.top_classes, (dog.probabilities > 0.5).long())


def test_several_labels():
    spec = InputSpec(size=(14, 14), output_kind="sigmoid")
    net, images = network_of("plain").double(), images_of(3, 14, 14).double()
    found = occlusion(net, images, input_spec=spec, patch=5, stride=4, classes=torch.tensor([3, 1]))
    expected = brute_force(net, images, found, torch.sigmoid)
    torch.testing.assert_close(found.probabilities, expected["probabilities"], atol=1e-10, rtol=0)


def test_classes_by_name_and_by_number():
    spec = InputSpec(size=(14, 14), class_names=("ant", "bee", "cat", "dog", "emu"))
    net, images = network_of("plain").double(), images_of(3, 14, 14).double()
    named = occlusion(net, images, input_spec=spec, patch=5, classes=["dog", 0])
    assert named.classes.tolist() == [3, 0]
    for one in ("dog", 3, [3], torch.tensor(3)):
        of_one = occlusion(net, images, input_spec=spec, patch=5, classes=one)
        assert of_one.classes.tolist() == [3, 3]
    top = occlusion(net, images, input_spec=spec, patch=5)
    with torch.no_grad():
        logits = net(images)
    assert torch.equal(top.classes, logits.argmax(1))
    torch.testing.assert_close(top.untouched_probabilities, logits.softmax(1).amax(1))


def test_an_image_does_not_depend_on_those_beside_it():
    net, images, spec = network_of("residual"), images_of(3, 20, 20, 3), InputSpec(size=(20, 20))
    together = occlusion(net, images, input_spec=spec, patch=6, stride=3)
    alone = [occlusion(net, image[None], input_spec=spec, patch=6, stride=3) for image in images]
    joined = Occlusion.cat(alone)
    assert torch.equal(together.probabilities, joined.probabilities)
    assert torch.equal(together.activities, joined.activities)
    assert torch.equal(together.boxes, joined.boxes)


def test_networks_that_are_not_classifiers_and_those_without_a_convolution():
    images = images_of(3, 12, 12)
    features = network_of("plain")[:4]
    found = occlusion(features, images, input_spec=InputSpec(size=(12, 12)), patch=4)
    assert found.probabilities is None
    assert found.classes is None
    torch.testing.assert_close(found.drops, found.untouched_activities[:, None] - found.activities)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(432, 3))
    found = occlusion(dense, images, input_spec=InputSpec(size=(12, 12)), patch=4)
    assert found.layer == ""
    assert found.activities is None
    assert found.probabilities.shape == (2, 4)
    with pytest.raises(ValueError, match="Upsample is not a classifier and has no convolution: name the layer"):
        occlusion(nn.Upsample(scale_factor=2), images, input_spec=InputSpec(size=(12, 12)), patch=4)


def test_a_unit_of_a_dense_layer():
    net, images = network_of("plain").double(), images_of(3, 12, 12, 1).double()
    found = occlusion(net, images, input_spec=InputSpec(size=(12, 12)), patch=4, layer="7")
    copy = images.clone()
    top, left, bottom, right = found.boxes[3].tolist()
    copy[:, :, top:bottom, left:right] = 0
    with torch.no_grad():
        assert found.channels[0] == net(images).argmax()
        torch.testing.assert_close(found.activities[0, 3], net(copy)[0, found.channels[0]])


def test_what_is_read_off_the_result():
    net, images = network_of("plain").double(), images_of(3, 11, 13).double()
    found = occlusion(net, images, input_spec=InputSpec(size=(11, 13)), patch=4, stride=3)
    assert found.on_grid(found.drops).shape == (2, *found.grid)
    for n in range(2):
        sums, counts = torch.zeros(11, 13).double(), torch.zeros(11, 13)
        for drop, (top, left, bottom, right) in zip(found.drops[n], found.boxes.tolist(), strict=True):
            sums[top:bottom, left:right] += drop
            counts[top:bottom, left:right] += 1
        torch.testing.assert_close(found.harm[n], sums / counts)
        assert found.most_harmful[n].tolist() == found.boxes[found.probabilities[n].argmin()].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 13}, r"patch=13 is larger than the image of 12 × 16 pixels\. Give at most 12\."),
        ({"patch": 0}, "patch=0 must be at least 1 pixel"),
        ({"stride": 0}, "stride=0 must be at least 1 pixel"),
        ({"stride": -2}, "stride=-2 must be at least 1 pixel"),
        ({"classes": [5]}, "Class 5 is out of range: the model has classes 0 to 4"),
        ({"classes": ["cat"]}, "There is no class named 'cat'"),
        ({"classes": [0, 1, 2]}, "There are 3 classes for 2 images"),
        ({"classes": []}, "classes="),
        ({"images": torch.zeros(2, 1, 12, 16)}, "images has 1 channels, and the network's input 3"),
        ({"images": torch.zeros(3, 12, 16)}, r"images has shape \(3, 12, 16\)"),
        ({"images": torch.zeros(0, 3, 12, 16)}, r"images has shape \(0, 3, 12, 16\)"),
        ({"images": torch.zeros(2, 3, 12, 16, dtype=torch.uint8)}, "images is torch.uint8"),
    ],
)
def test_bad_input(changes, message):
    options = {"images": images_of(3, 12, 16), "patch": 4, **changes}
    with pytest.raises(ValueError, match=message):
        occlusion(network_of("plain"), options.pop("images"), input_spec=InputSpec(size=(12, 16)), **options)


def test_unknown_layers():
    net, images, spec = network_of("plain"), images_of(3, 12, 12), InputSpec(size=(12, 12))
    with pytest.raises(LayerError, match="The model has no layer '11'"):
        occlusion(net, images, input_spec=spec, patch=4, layer="11")
    with pytest.raises(LayerError, match="name a layer that gives"):
        occlusion(nn.Sequential(nn.Flatten(2), nn.Flatten()), images, input_spec=spec, patch=4, layer="0")
