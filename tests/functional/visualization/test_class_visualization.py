"""Class visualisation and activation maximisation on small networks."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_cnnvis import figures
from lightning_cnnvis.functional.network.forward import OUTPUT
from lightning_cnnvis.functional.network.output import ClassOutput
from lightning_cnnvis.functional.optimization.objectives import class_margin, directions_between
from lightning_cnnvis.functional.optimization.optimizers import Momentum
from lightning_cnnvis.functional.optimization.parameterizations import ImageStatistics, Pixels
from lightning_cnnvis.functional.optimization.recipes import Phase, Recipe, with_steps
from lightning_cnnvis.functional.visualization import classes
from lightning_cnnvis.functional.visualization.classes import visualize_classes
from lightning_cnnvis.functional.visualization.presets import PRESETS, check_preset, preset_recipe
from lightning_cnnvis.functional.visualization.results import VisualizationOptions
from lightning_cnnvis.functional.visualization.units import maximize_activation
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layers import LayerError

SPEC = InputSpec(size=(24, 20), mean=(0.5,), std=(0.25,), class_names=tuple("abcdefghij"))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 10),
    )


def test_same_image_alone_and_in_a_batch_of_nine(net):
    nine = visualize_classes(net, list(range(9)), input_spec=SPEC, steps=12)
    alone = visualize_classes(net, ["e"], input_spec=SPEC, steps=12)
    torch.testing.assert_close(alone.images[0], nine.images[4], atol=1e-4, rtol=0)
    other = visualize_classes(net, ["e"], input_spec=SPEC, steps=12, seed=1)
    assert not torch.allclose(other.images, alone.images, atol=0.05)


def test_scores_are_those_of_the_clean_image(net):
    shown = visualize_classes(net, [7, "b"], input_spec=SPEC, steps=8)
    net.eval()
    logits = net((shown.images - 0.5) / 0.25)
    torch.testing.assert_close(shown.scores, logits[[0, 1], [7, 1]].detach())
    torch.testing.assert_close(shown.probabilities, logits.softmax(1)[[0, 1], [7, 1]].detach())
    assert shown.labels == ("h", "b")
    assert shown.targets == (7, 1)
    assert shown.images.min() >= 0
    assert shown.images.max() <= 1


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_raises_the_score(net, preset):
    with torch.no_grad():
        net[7].weight *= 100  # logits of the size that trained networks have
    if preset == "deepinversion":
        net.insert(1, nn.BatchNorm2d(8))
    options = VisualizationOptions(frames=[0, 12], transparency=True)
    shown = visualize_classes(net, [2, 3], input_spec=SPEC, preset=preset, steps=12, options=options)
    assert shown.frames.shape == (2, 2, 3, 24, 20)
    with torch.no_grad():
        start = net.eval()((shown.frames[:, 0] - 0.5) / 0.25)[[0, 1], [2, 3]]
    assert (shown.scores > start).all()
    assert torch.equal(shown.frames[:, 1], shown.images)
    assert shown.with_alpha.shape == (2, 4, 24, 20)
    assert shown.transparency.amax((1, 2)).tolist() == [1, 1]
    assert torch.equal(shown.with_alpha[:, 3], shown.transparency)


def test_transparency_changes_nothing_else_and_is_not_there_unasked(net):
    asked = visualize_classes(net, [2], input_spec=SPEC, steps=3, options=VisualizationOptions(transparency=True))
    plain = visualize_classes(net, [2], input_spec=SPEC, steps=3)
    assert torch.equal(asked.images, plain.images)
    assert plain.transparency is None
    with pytest.raises(ValueError, match="transparency=True"):
        _ = plain.with_alpha


def test_deepinversion_needs_batchnorm(net):
    with pytest.raises(ValueError, match="no BatchNorm layer"):
        visualize_classes(net, [2], input_spec=SPEC, preset="deepinversion", steps=2)


def test_samples_of_a_class_differ_and_diversity_spreads_them(net):
    def similarity(weight):
        options = VisualizationOptions(diversity=weight, diversity_layer="4")
        shown = visualize_classes(
            net, [2, 5], input_spec=SPEC, samples_per_class=3, preset="none", steps=30, options=options
        )
        assert shown.targets == (2, 2, 2, 5, 5, 5)
        with torch.no_grad():
            maps = net[:5]((shown.images - 0.5) / 0.25).flatten(2)
        grams = nn.functional.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1)[:3]
        return (grams @ grams.T).triu(1).sum()

    assert similarity(5.0) < similarity(0.0)


def test_group_does_not_depend_on_other_classes(net):
    both = visualize_classes(net, [2, 5], input_spec=SPEC, samples_per_class=2, steps=8)
    one = visualize_classes(net, [5], input_spec=SPEC, samples_per_class=2, steps=8)
    torch.testing.assert_close(one.images, both.images[2:], atol=1e-4, rtol=0)


def test_states(net):
    with torch.no_grad():
        net[7].weight[3] = 0
        net[7].weight[4] *= 200
    shown = visualize_classes(net, [3, 4, 5], input_spec=SPEC, steps=40)
    assert shown.states == ("dead", "reached", "not converged")


def test_images_of_another_size(net):
    options = VisualizationOptions(size=(12, 14))
    assert visualize_classes(net, [3], input_spec=SPEC, steps=4, options=options).images.shape == (1, 3, 12, 14)


@pytest.mark.parametrize(("side", "enlarged"), [(120, [150] * 2 + [210] * 2), (224, [160] * 2 + [224] * 2)])
def test_other_sizes_only_where_the_network_takes_them(monkeypatch, side, enlarged):
    spec, sizes = InputSpec(size=(side, side)), []
    fixed = nn.Sequential(nn.Conv2d(3, 2, 8, stride=8), nn.Flatten(), nn.Linear(2 * (side // 8) ** 2, 4))
    free = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    forward = nn.Conv2d.forward
    # a hook would gather on the copy that the function works on
    monkeypatch.setattr(nn.Conv2d, "forward", lambda conv, x: sizes.append(x.shape[-1]) or forward(conv, x))
    monkeypatch.setattr(classes, "REACHED_PROBABILITY", 0.0)
    for net in (fixed, free):
        sizes.clear()
        assert visualize_classes(net, [1], input_spec=spec, steps=6).images.isfinite().all()
        steps = sizes[-8:-2]  # then the clean image, and its gradient
        assert steps == ([side] * 6 if net is fixed else [*enlarged, side, side])


class Sibling(nn.Module):
    """Two classes of which the second takes most of what the first one responds to, and more."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 5)
        self.scale = nn.Parameter(torch.tensor(8.0))

    def forward(self, images):
        own, other = self.conv(images).relu().mean((2, 3)).unbind(1)
        return self.scale * torch.stack([own, own + other], 1)


def test_siblings_do_not_win():
    torch.manual_seed(0)
    net = Sibling()
    recipe = preset_recipe("fourier", SPEC, any_size=True, steps=48)
    shown = {
        score: visualize_classes(net, [0], input_spec=SPEC, preset=replace(recipe, class_score=score, otherwise=None))
        for score in ("logit", "margin")
    }
    assert shown["margin"].probabilities > shown["logit"].probabilities + 0.02


def test_what_was_not_reached_is_tried_by_other_means(net):
    lame = Recipe((Phase(6, 1e-6),), otherwise=Recipe((Phase(40, 0.12),), class_score="margin", means="real steps"))
    shown = visualize_classes(net, [1, 3], input_spec=SPEC, preset=lame, options=VisualizationOptions(frames=[0, 6]))
    assert shown.means == ("real steps", "real steps")
    assert shown.losses.shape == (2, 6)
    assert shown.frames.shape[:2] == (2, 2)
    first = visualize_classes(net, [1, 3], input_spec=SPEC, preset=replace(lame, otherwise=None))
    assert first.means == ("", "")
    assert (shown.probabilities > first.probabilities).all()
    alone = visualize_classes(net, [3], input_spec=SPEC, preset=lame)
    torch.testing.assert_close(alone.images[0], shown.images[1], atol=1e-4, rtol=0)
    # the worse one is not taken
    worse = replace(lame.otherwise, otherwise=replace(lame, otherwise=None, means="no steps"))
    kept = visualize_classes(net, [1], input_spec=SPEC, preset=worse, steps=6)
    assert kept.means == ("",)
    assert figures.state_of(shown, 0).endswith(" (real steps)")


@pytest.mark.parametrize("kind", [None, "softmax", "sigmoid"])
def test_the_margin(kind):
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, 4.0]])
    output = None if kind is None else ClassOutput(kind, 3)
    loss = class_margin([1, 0], output).bind(slice(None), torch.device("cpu"))({OUTPUT: logits})
    others = torch.stack([logits[0, [0, 2]].exp().sum().log(), logits[1, [1, 2]].exp().sum().log()])
    expected = torch.tensor([3.0, 0.0]) - (0 if kind == "sigmoid" else 0.5) * others
    torch.testing.assert_close(-loss, expected)


def test_the_margin_of_a_single_class():
    loss = class_margin([0], ClassOutput("sigmoid", 1)).bind(slice(None), torch.device("cpu"))
    assert loss({OUTPUT: torch.tensor([[2.5]])}).tolist() == [-2.5]


def test_greyscale_and_single_precision_names():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    shown = visualize_classes(net, [1], input_spec=InputSpec(size=(16, 16), channels=1), steps=4)
    assert shown.images.shape == (1, 1, 16, 16)


def test_channels_neurons_layers_and_directions(net):
    kwargs = {"input_spec": SPEC, "steps": 8}
    channels = maximize_activation(net, "4", [2, 7], **kwargs)
    assert channels.labels == ("4 #2", "4 #7")
    with torch.no_grad():
        maps = net.eval()[:5]((channels.images - 0.5) / 0.25)
    torch.testing.assert_close(channels.scores, maps.mean((2, 3))[[0, 1], [2, 7]])
    torch.testing.assert_close(channels.peaks, maps.amax((2, 3))[[0, 1], [2, 7]])
    neurons = maximize_activation(net, "4", [2, 2], positions=[(0, 0), (8, 6)], **kwargs)
    assert neurons.labels == ("4 #2 at 0, 0", "4 #2 at 8, 6")
    assert torch.equal(neurons.peaks, neurons.scores)
    assert maximize_activation(net, "4", [2], positions="center", **kwargs).labels == ("4 #2 centre",)
    assert maximize_activation(net, "4", None, **kwargs).images.shape[0] == 1
    way = directions_between(torch.eye(12)[2], torch.eye(12)[7], 3)
    directions = maximize_activation(net, "4", way, **kwargs)
    assert directions.probabilities is directions.peaks is None
    assert directions.images.shape[0] == 3
    units = maximize_activation(net, "7", [1], **kwargs)
    assert units.scores.shape == (1,)
    assert torch.equal(units.peaks, units.scores)


def test_model_is_left_as_it_was(net):
    net.train()
    before = copy.deepcopy(net.state_dict())
    visualize_classes(net, [1], input_spec=SPEC, steps=2, samples_per_class=2)
    with pytest.raises(ValueError, match="Class 10"):
        visualize_classes(net, [10], input_spec=SPEC)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_bad_input(net):
    def made(wanted, **kwargs):
        return visualize_classes(net, wanted, **{"input_spec": SPEC, "steps": 2, **kwargs})

    with pytest.raises(ValueError, match="Class -1 is out of range: the model has classes 0 to 9"):
        made([-1])
    with pytest.raises(ValueError, match=r"no class named 'z'.*'a'"):
        made(["z"])
    with pytest.raises(ValueError, match=r"give input_spec.class_names"):
        made(["z"], input_spec=InputSpec(size=(24, 20)))
    with pytest.raises(ValueError, match="classes=\\[\\]"):
        made([])
    with pytest.raises(ValueError, match="steps=0"):
        made([1], steps=0)
    with pytest.raises(ValueError, match="samples_per_class=0"):
        made([1], samples_per_class=0)
    with pytest.raises(ValueError, match=r"Class 1\.5: give the index"):
        made([1.5])
    with pytest.raises(ValueError, match="size=\\(0, 8\\)"):
        VisualizationOptions(size=(0, 8))
    with pytest.raises(ValueError, match="images with 1 channels, and the network's input has 3"):
        made([1], options=VisualizationOptions(statistics=ImageStatistics.natural(1)))
    with pytest.raises(ValueError, match="class_score='probability'"):
        Recipe((Phase(1, 0.1),), class_score="probability")
    with pytest.raises(ValueError, match="precision='fp8'"):
        made([1], options=VisualizationOptions(precision="fp8"))
    with pytest.raises(LayerError, match="diversity needs one with maps"):
        made([1], samples_per_class=2, options=VisualizationOptions(diversity_layer="7"))
    with pytest.raises(ValueError, match="positions='centre'"):
        maximize_activation(net, "4", [1], positions="centre", input_spec=SPEC)
    with pytest.raises(ValueError, match="preset='lucid'"):
        made([1], preset="lucid")
    with pytest.raises(ValueError, match=r"classifier's output"):
        visualize_classes(net[:5], [1], input_spec=SPEC)
    with pytest.raises(LayerError, match="no layer 'conv'"):
        maximize_activation(net, "conv", [1], input_spec=SPEC)
    with pytest.raises(ValueError, match="channels 0 to 11"):
        maximize_activation(net, "4", [12], input_spec=SPEC)
    with pytest.raises(LayerError, match=r"gives \(1, 12, 63\) for one image"):
        maximize_activation(nn.Sequential(*net[:5], nn.Flatten(2)), "5", [1], input_spec=SPEC, steps=2)
    with pytest.raises(ValueError, match="outside the 9×7 map"):
        maximize_activation(net, "4", [1], positions=[(9, 0)], input_spec=SPEC)
    with pytest.raises(ValueError, match=r"give \(N, 12\)"):
        maximize_activation(net, "4", torch.rand(2, 5), input_spec=SPEC)
    with pytest.raises(ValueError, match="count=1"):
        directions_between(torch.ones(2), torch.ones(2), 1)


def test_a_preset_can_be_registered(net, monkeypatch):
    monkeypatch.setattr(PRESETS, "_entries", dict(PRESETS._entries))
    asked = []

    @PRESETS.register("short")
    def short(input_spec, *, statistics, any_size):
        asked.append((input_spec, statistics, any_size))
        return Recipe((Phase(3, 0.1),), Pixels(center=input_spec.mean), Momentum(normalize=True))

    statistics = ImageStatistics.natural()
    options = VisualizationOptions(statistics=statistics)
    shown = visualize_classes(net, [1], input_spec=SPEC, preset="short", options=options)
    assert asked == [(SPEC, statistics, True)]
    own = Recipe((Phase(3, 0.1),), Pixels(center=SPEC.mean), Momentum(normalize=True))
    assert torch.equal(shown.images, visualize_classes(net, [1], input_spec=SPEC, preset=own).images)
    assert maximize_activation(net, "4", [1], input_spec=SPEC, preset="short", steps=2).losses.shape == (1, 2)
    check_preset("short")
    check_preset(own)
    with pytest.raises(ValueError, match=r"preset='shrt': there is no such preset\. Did you mean 'short'\?"):
        check_preset("shrt")


def test_every_preset_may_ask_for_smaller_inputs(monkeypatch):
    monkeypatch.setattr(PRESETS, "_entries", dict(PRESETS._entries))
    asked = []
    PRESETS.register("watch", lambda spec, *, statistics, any_size: asked.append(any_size) or Recipe((Phase(1, 0.1),)))
    spec = InputSpec(size=(120, 120))
    fixed = nn.Sequential(nn.Conv2d(3, 2, 8, stride=8), nn.Flatten(), nn.Linear(450, 4))
    free = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for net in (fixed, free):
        visualize_classes(net, [1], input_spec=spec, preset="watch")
    assert asked == [False, True]


def test_steps_are_shared_among_phases():
    recipe = preset_recipe("fourier", SPEC, any_size=True)
    assert [p.steps for p in with_steps(recipe, 48).phases] == [16, 16, 16]
    for steps in (1, 2, 3, 5, 1000):
        assert with_steps(recipe, steps).steps == steps
    assert with_steps(Recipe((Phase(3, 0.1),)), 7).steps == 7
