import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_cnnvis.callbacks.base.target import find_target
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layer_patterns import is_pattern, matching
from lightning_cnnvis.layers import LayerError
from lightning_cnnvis.methods.deconv import DeconvOptions
from lightning_cnnvis.methods.subject import Subject


class Block(nn.Module):
    def __init__(self, channels, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.relu = nn.ReLU()
        self.shortcut = nn.Conv2d(channels, channels, 1, stride)

    def forward(self, x):
        out = self.conv2(self.relu(self.conv1(x)))
        out += self.shortcut(x)
        return self.relu(out)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.layer1 = nn.Sequential(Block(4), Block(4))
        self.layer2 = nn.Sequential(Block(4, 2), Block(4))
        self.unused = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

    def forward(self, x):
        return self.layer2(self.layer1(self.stem(x)))


@pytest.fixture
def subject():
    return Subject(network=Network().eval(), input_spec=InputSpec(size=(18, 18)))


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        (["layer*.1"], ["layer1.1", "layer2.1"]),
        (["layer?"], ["layer1", "layer2"]),
        (["layer[!1].0", "stem.1"], ["layer2.0", "stem.1"]),
        (["layer2.*.relu"], ["layer2.0.relu@1", "layer2.0.relu@2", "layer2.1.relu@1", "layer2.1.relu@2"]),
        (["layer*.1.relu@2"], ["layer1.1.relu@2", "layer2.1.relu@2"]),
        (["stem.**", "stem.1"], ["stem.0", "stem.1"]),
    ],
)
def test_patterns(subject, layers, found):
    assert subject.known_layers(layers) == found


def test_a_star_stays_within_a_part_of_a_name():
    assert matching("layer*.1", ["layer1.1", "layer2.0.downsample.1", "layer"]) == ["layer1.1"]
    assert matching("a.c*", ["a.c", "abc", "a.conv"]) == ["a.c", "a.conv"]


def test_all(subject):
    rectified = subject.rectified_layers()
    assert subject.known_layers("all") == subject.known_layers(["all"]) == rectified
    assert len(rectified) > len(subject.default_layers())


def test_a_layer_whose_name_looks_like_a_pattern_is_that_layer():
    network = nn.Sequential()
    network.add_module("all", nn.Conv2d(3, 4, 3))
    network.add_module("conv*", nn.ReLU())
    subject = Subject(network=network, input_spec=InputSpec(size=(8, 8)))
    assert subject.known_layers(["all", "conv*"]) == ["all", "conv*"]
    assert not is_pattern("all", ["all"])


@pytest.mark.parametrize("pattern", ["laier*", "layer*.7", "unused.*", "layer2.0.relu@9*", "stem.[0]x"])
def test_a_pattern_without_a_match_is_named_with_the_nearest_names(subject, pattern):
    with pytest.raises(LayerError, match=r"No layer .*matches '.*' *. The nearest are '"):
        subject.known_layers([pattern])


def test_the_default_layers_leave_shortcuts_out_and_have_both_ends(subject):
    shown = subject.default_layers()
    assert len(shown) == 6
    assert (shown[0], shown[-1]) == ("stem.1", "layer2.1.relu@2")
    assert not any("shortcut" in layer for layer in shown)
    assert any(layer.startswith("layer1") for layer in shown)


def test_patterns_in_a_callback_may_start_with_the_path_of_the_network(subject):
    module = nn.ModuleDict({"network": subject.network})
    assert find_target(module, "network", ["network.layer*.1", "stem.1"], "It")[1] == ("layer*.1", "stem.1")
    with pytest.raises(MisconfigurationException, match=r"It\(layers=...\): No layer matches 'laier\*'"):
        find_target(module, "network", ["laier*"], "It")


def test_the_options_take_all_and_no_other_name():
    assert DeconvOptions(layers="all").layers == "all"
    with pytest.raises(ValueError, match="one name, not a list"):
        DeconvOptions(layers="relu1")


def test_six_layers_at_most_spread_over_the_sizes():
    blocks = [nn.Sequential(nn.Conv2d(3 if not n else 4, 4, 3, 2, 1), nn.ReLU()) for n in range(9)]
    subject = Subject(network=nn.Sequential(*blocks), input_spec=InputSpec(size=(600, 600)))
    with torch.no_grad():
        shown = subject.default_layers()
    assert len(shown) == 6
    assert (shown[0], shown[-1]) == ("0.1", "8.1")
