"""The graph between an image and a layer, and what keeps it from being there."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from lightning_cnnvis import InputSpec
from lightning_cnnvis.functional import DreamOptions, dream, project, receptive_field
from lightning_cnnvis.functional.network.forward import is_about_shapes
from lightning_cnnvis.layers import LayerError


class Transfer(nn.Module):
    """A head on a backbone that gets no gradient, one way or another."""

    def __init__(self, cut):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU())
        self.head = nn.Linear(5, 2)
        self.cut = cut

    def forward(self, x):
        return self.head(self.cut(self.backbone, x).mean((2, 3)))


def without_gradient(backbone, x):
    with torch.no_grad():
        return backbone(x)


@pytest.mark.parametrize(
    ("cut", "layer", "cause", "remedy"),
    [
        (without_gradient, "backbone.3", "runs 'backbone' under torch.no_grad()", "network='backbone'"),
        (lambda net, x: net(x.detach()), "backbone.1", "detaches or quantises the input of 'backbone'", "'backbone'"),
        (lambda net, x: net((255 * x).byte() / 255), "backbone.1", "quantises the input of 'backbone'", "'backbone'"),
        (lambda net, x: net(x).detach(), "head", "detaches or quantises the input of 'head'", "network='...'"),
    ],
    ids=["no_grad", "detach", "byte", "a detached feature"],
)
@pytest.mark.parametrize(
    "images",
    [torch.rand(2, 3, 12, 12), torch.zeros(2, 3, 12, 12), torch.full((2, 3, 12, 12), 0.5)],
    ids=["random", "blank", "grey"],
)
def test_a_gradient_that_is_cut_off_is_named(cut, layer, cause, remedy, images):
    net = Transfer(cut)
    with pytest.raises(LayerError) as error:
        project(net, images, layer, torch.tensor([0, 1]))
    assert cause in str(error.value)
    assert remedy in str(error.value)
    # the remedy is one
    project(net.backbone, images, "3", torch.tensor([0, 1]))


def test_a_layer_that_the_image_does_not_reach():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(torch.ones_like(x)) + x.mean()

    with pytest.raises(LayerError, match="'conv' does not depend on the image"):
        project(Constant(), torch.rand(1, 3, 8, 8), "conv", torch.tensor([0]))


class Checkpointed(nn.Module):
    """A network with parts that are computed again in the backward pass."""

    def __init__(self, call):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        )
        self.top = nn.Sequential(nn.Conv2d(4, 5, 3), nn.ReLU())
        self.call = call

    def forward(self, x):
        return self.top(self.call(self.block, self.stem(x)))


CHECKPOINTING = {
    "reentrant": lambda block, x: checkpoint(block, x, use_reentrant=True),
    "without reentry": lambda block, x: checkpoint(block, x, use_reentrant=False),
    "of a method": lambda block, x: checkpoint(block.forward, x, use_reentrant=False),
    "sequential": lambda block, x: checkpoint_sequential(block, 2, x, use_reentrant=False),
}


@pytest.mark.parametrize("name", CHECKPOINTING)
@pytest.mark.parametrize("layer", ["stem.1", "block.2", "block.3", "top.1"])
def test_checkpointing_changes_nothing(name, layer):
    torch.manual_seed(0)
    plain = Checkpointed(lambda block, x: block(x)).eval()
    net = Checkpointed(CHECKPOINTING[name]).eval()
    net.load_state_dict(plain.state_dict())
    images, channels = torch.randn(3, 3, 20, 24), torch.tensor([0, 1, 2])
    assert receptive_field(net, layer, (20, 24)) == receptive_field(plain, layer, (20, 24))
    for rule in ("deconvnet", "gradient"):
        expected = project(plain, images, layer, channels, rule=rule)
        torch.testing.assert_close(project(net, images, layer, channels, rule=rule).pixels, expected.pixels)
    # it is on again
    x = torch.rand(1, 4, 8, 8, requires_grad=True)
    assert "Checkpoint" in checkpoint(nn.Sequential(nn.ReLU()), x, use_reentrant=True).grad_fn.name()


class Strict(nn.Module):
    """Takes images of 32 pixels only, and says so in a way of its own."""

    def __init__(self, refuse):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU())
        self.refuse = refuse

    def forward(self, x):
        if x.shape[-2:] != (32, 32):
            self.refuse(x)
        return self.features(x).mean((2, 3))


class WrongSizeError(Exception):
    """An error of somebody's own."""


def assert_size(x):
    assert x.shape[-1] == 32


def raise_one(error):
    def refuse(x):
        raise error

    return refuse


REFUSALS = {
    "a bare assertion": assert_size,
    "an assertion": raise_one(AssertionError("Input height (8) doesn't match model (32).")),
    "ValueError": raise_one(ValueError("input resolution must be 32")),
    "RuntimeError": raise_one(RuntimeError("mat1 and mat2 shapes cannot be multiplied")),
    "IndexError": raise_one(IndexError("index 32 is out of bounds for dimension 2 with size 8")),
    "KeyError": raise_one(KeyError(8)),
    "an own error": raise_one(WrongSizeError("only 32")),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_networks_that_take_one_size_get_whole_images(name):
    torch.manual_seed(0)
    net, free = Strict(REFUSALS[name]).eval(), Strict(lambda _: None).eval()
    free.load_state_dict(net.state_dict())
    images, channels = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    expected = project(free, images, "features.4", channels).full()
    torch.testing.assert_close(project(net, images, "features.4", channels).full(), expected)
    spec = InputSpec(size=(32, 32))
    options = DreamOptions(octaves=3, steps=1)
    assert dream(net, torch.rand(3, 32, 32), "features.4", input_spec=spec, options=options).images.shape[-1] == 32


@pytest.mark.parametrize("name", ["a bare assertion", "an assertion", "ValueError", "RuntimeError", "IndexError"])
def test_a_wrong_size_is_said(name):
    with pytest.raises(LayerError, match="An image of 3 × 24 × 24"):
        project(Strict(REFUSALS[name]), torch.rand(1, 3, 24, 24), "features.1", torch.tensor([0]))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the learning rate is negative"),
        AssertionError("loss is NaN"),
        torch.OutOfMemoryError("Tried to allocate a size of 2 GiB"),
        KeyError("size"),
        LayerError("a layer of this size"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_not_about_shapes(error):
    assert not is_about_shapes(error)
