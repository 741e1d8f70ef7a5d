"""The randomisation test tells pictures of the network from pictures of the image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cnnvis.functional import OUTPUT, Randomization, occlusion, randomization_test
from lightning_cnnvis.functional.randomization.cascade import weighted_layers
from lightning_cnnvis.functional.randomization.results import verdict
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 3),
    ).eval()  # fmt: skip


class OutOfOrder(nn.Module):
    """Defines its layers in another order than it runs them, uses a weight of a module that it does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 2)
        self.unused = nn.Linear(4, 4)
        self.second = nn.Conv2d(4, 4, 3)
        self.norm = nn.BatchNorm2d(4, affine=False)
        self.first = nn.Conv2d(3, 4, 3)
        self.offset = nn.Parameter(torch.zeros(1, 3, 16, 16))
        self.first.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x + self.offset).relu()
        x = self.norm(F.conv2d(x, self.second.weight, self.second.bias)).relu()
        return self.last(x.mean((2, 3)))


def edges(network: nn.Module, images: Tensor, layer: str, channels: Tensor) -> Tensor:
    """An edge detector: it does not look at the network."""
    return images - F.avg_pool2d(images, 3, 1, 1)


def test_a_linear_network_falls_to_chance_with_its_one_layer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    found = randomization_test(net, IMAGES, "1", [0, 1, 2], method="gradient")
    assert found.layers == ("1",)
    for measure in ("spearman", "spearman_absolute"):
        assert found.scores[measure].abs().max() < 3 / (3 * 16 * 16) ** 0.5, measure
    assert found.dependence.min() > 0.85
    assert "hardly" not in found.verdict


def test_a_picture_that_ignores_the_network_stays_as_it_is_and_the_label_says_so():
    found = randomization_test(network(), IMAGES, OUTPUT, [0, 1, 2], method=edges)
    assert found.layers == ("8", "4", "0")
    for measure, scores in found.scores.items():
        torch.testing.assert_close(scores, torch.ones(3), msg=measure)
    torch.testing.assert_close(found.dependence, torch.zeros(3))
    assert found.verdict == "depends on the weights: 0.00, so it hardly shows the network"
    assert found.complexity_rise.abs().max() == 0
    assert found.chance_scores["spearman"] < 0.1
    assert not found.controls


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_projections_change_from_the_layer_down(rule):
    net = network()
    found = randomization_test(net, IMAGES, "5", [0, 1, 2], method=rule)
    assert found.layers == ("4", "0")
    assert found.pictures.shape == (2, *found.originals.shape)
    assert (found.scores["spearman"].abs() < 0.8).all()
    assert set(found.controls) == {"random filters", "random switches"}


def test_the_control_keeps_the_switches_and_draws_the_filters():
    """Without pooling and with the deconvnet's rule nothing of the way up is left: random filters alone decide."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    found = randomization_test(net, IMAGES, "3", [0, 1, 2])
    torch.testing.assert_close(found.controls["random filters"], found.pictures[-1])
    torch.testing.assert_close(found.controls["random switches"], found.originals)
    pooled = nn.Sequential(net[:2], nn.MaxPool2d(2), net[2:])
    found = randomization_test(pooled, IMAGES, "2.3", [0, 1, 2])
    assert not torch.allclose(found.controls["random filters"], found.pictures[-1])
    assert not torch.allclose(found.controls["random switches"], found.originals)


def test_layers_come_in_the_order_in_which_they_run():
    with isolated(OutOfOrder()) as net:
        layers = weighted_layers(net, OUTPUT, IMAGES[:1])
        assert not net.first.weight.requires_grad
    assert [layer.name for layer in layers] == ["last", "second", "first", "offset"]
    assert layers[1].tensors == ("second.weight", "second.bias", "norm.running_mean", "norm.running_var")


def test_a_layer_shared_by_two_calls_is_drawn_once():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    found = randomization_test(nn.Sequential(conv, nn.ReLU(), conv, nn.ReLU()), IMAGES, "3", [0, 1, 2])
    assert found.layers == ("0",)


def test_stages_can_be_few():
    net = network()
    every = randomization_test(net, IMAGES, OUTPUT, [0, 1, 2], method=logits)
    some = randomization_test(net, IMAGES, OUTPUT, [0, 1, 2], method=logits, steps=2)
    assert every.layers == ("8", "4", "0")
    assert some.layers == ("4", "0")
    torch.testing.assert_close(some.pictures, every.pictures[1:])


def logits(network: nn.Module, images: Tensor, layer: str, channels: Tensor) -> Tensor:
    with torch.no_grad():
        return network(images)[:, :, None, None]


def test_random_weights_do_not_depend_on_the_other_images_or_stages():
    net = network()
    together = randomization_test(net, IMAGES, "5", [0, 1, 2], samples=3)
    alone = randomization_test(net, IMAGES[1:2], "5", [1], samples=3)
    torch.testing.assert_close(together.pictures[:, 1:2], alone.pictures)
    torch.testing.assert_close(together.similarities["ssim"][:, 1:2], alone.similarities["ssim"], equal_nan=True)
    joined = Randomization.cat([randomization_test(net, IMAGES[n : n + 1], "5", [n], samples=3) for n in range(3)])
    torch.testing.assert_close(joined.pictures, together.pictures)
    assert joined.scores.keys() == together.scores.keys()


def test_noise_without_strength_is_no_noise():
    net = network()
    plain, smooth = (randomization_test(net, IMAGES, "5", [0, 1, 2], samples=s, noise=0) for s in (1, 2))
    torch.testing.assert_close(smooth.pictures, plain.pictures)


def test_another_seed_draws_other_weights():
    first, second = (randomization_test(network(), IMAGES, "5", [0, 1, 2], seed=seed) for seed in (0, 1))
    assert not torch.allclose(first.pictures, second.pictures)
    torch.testing.assert_close(first.originals, second.originals)


def test_methods_of_ours_can_be_tested():
    def harm(network: nn.Module, images: Tensor, layer: str, channels: Tensor) -> Tensor:
        return occlusion(network, images, input_spec=InputSpec(size=(16, 16)), patch=6, stride=5).harm[:, None]

    found = randomization_test(network(), IMAGES, OUTPUT, [0, 1, 2], method=harm, steps=1)
    assert found.pictures.shape == (1, 3, 1, 16, 16)


def test_what_has_no_picture_has_no_number():
    found = randomization_test(network(), IMAGES, OUTPUT, [0, 1, 2], method=lambda n, x, *_: torch.zeros_like(x))
    assert found.dependence.isnan().all()
    assert found.verdict == verdict(float("nan")) == "depends on the weights: unknown, there is no picture"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps=0 must be at least 1"),
        ({"samples": 0}, ValueError, "samples=0 must be at least 1"),
        ({"noise": -1.0}, ValueError, "noise=-1.0 must not be negative"),
        ({"noise": float("nan")}, ValueError, "noise=nan must not be negative"),
        ({"channels": [0]}, ValueError, r"channels has shape \(1,\)"),
        ({"channels": [0, 1, 9]}, ValueError, "channel 9 is not in layer"),
        ({"images": IMAGES[0]}, ValueError, "images has shape"),
        ({"images": IMAGES[:0]}, ValueError, "at least one image"),
        ({"images": (IMAGES * 255).byte()}, ValueError, "floating-point"),
        ({"layer": "conv"}, LayerError, "no layer 'conv'"),
        ({"method": "deconvnt"}, ValueError, "deconvnt"),
        ({"method": lambda *_: None}, ValueError, "returned NoneType, not pictures"),
        ({"method": lambda n, x, *_: x[0]}, ValueError, r"returned \(3, 16, 16\), not pictures"),
    ],
)
def test_what_cannot_be_tested_is_refused(change, error, message):
    given = {"images": IMAGES, "layer": "5", "channels": [0, 1, 2], **change}
    images, layer, channels = (given.pop(name) for name in ("images", "layer", "channels"))
    with pytest.raises(error, match=message):
        randomization_test(network(), images, layer, channels, **given)


def test_a_layer_without_weights_before_it_is_refused():
    net = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 3, 3))
    with pytest.raises(LayerError, match="does not depend on any weight"):
        randomization_test(net, IMAGES, "0", [0, 1, 2], method="gradient")


def test_chance_is_what_the_place_of_the_unit_gives():
    """The unit is seen in the centre of its field, whatever the weights are: that is not counted."""
    torch.manual_seed(0)
    net = nn.Sequential(*(layer for n in range(4) for layer in (nn.Conv2d(3 if n == 0 else 8, 8, 5), nn.ReLU())))
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = randomization_test(net, images, "7", [0, 1, 2, 3], method="gradient", steps=1)
    assert found.scores["spearman_absolute"][0] > 0.4
    assert abs(found.scores["spearman_absolute"][0] - found.chance_scores["spearman_absolute"]) < 0.1
    assert found.dependence.min() > 0.8
