"""Every method shows the channels of layers whose channels are last, as if they were first."""

from __future__ import annotations

import pytest
import torch
from channels_last import make, twins

from lightning_cnnvis import InputSpec
from lightning_cnnvis.functional import (
    DreamOptions,
    FeatureMask,
    Harvest,
    InversionOptions,
    dream,
    invert,
    invert_layers,
    maximize_activation,
    project,
    top_activations,
)
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.layers import LayerError

SPEC = InputSpec(size=(16, 16))
IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))

LAYERS = [
    ("maps", "dense"),
    ("mixed", "wide"),
    ("swin", "features.1"),
    ("swin of timm", "layers.0"),
    ("convnext", "features.1.0.block.4"),
    ("tokens", "proj"),
    ("mixed", "tokens"),
    ("vit", "encoder.ln"),
    ("vit of timm", "blocks.1"),
    ("pvt", "stages.0.blocks.0.mlp.fc1"),
]


def both(run, name, layer, memory_format=torch.contiguous_format):
    """The results of a function of a network, and of the network's twin with maps."""
    return [run(net.to(memory_format=memory_format)) for net in twins(name, layer)]


def same(a, b, tolerance=1e-5):
    assert a.isfinite().all()
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def memory_format(request):
    return request.param


of_layers = pytest.mark.parametrize(("name", "layer"), LAYERS)


@of_layers
def test_project(name, layer, memory_format):
    channels = torch.tensor([1, 5, 0, 2, 5])
    a, b = both(lambda net: project(net, IMAGES, layer, channels, rule="gradient"), name, layer, memory_format)
    assert torch.equal(a.positions, b.positions)
    assert a.boxes.tolist() == [[0, 0, 16, 16]] * 5 or name == "maps"
    same(a.activations, b.activations)
    same(a.full(), b.full())
    assert a.pixels.abs().sum() > 0


@of_layers
def test_top_activations(name, layer, memory_format):
    def run(net):
        top = top_activations(net, [IMAGES[:2], IMAGES[2:]], [layer], k=3)[layer]
        return top, top.project(net, layer, rule="gradient")

    (a, shown), (b, expected) = both(run, name, layer, memory_format)
    same(a.values, b.values)
    assert torch.equal(a.sample_ids, b.sample_ids)
    assert torch.equal(a.positions, b.positions)
    same(shown.full(), expected.full())


@of_layers
def test_maximize(name, layer, memory_format):
    def run(net):
        return maximize_activation(net, layer, [5, 2], input_spec=SPEC, steps=3)

    a, b = both(run, name, layer, memory_format)
    same(a.images, b.images, 1e-3)
    same(a.peaks, b.peaks, 1e-3)


@of_layers
@pytest.mark.parametrize("channels", [None, [1, 5]])
def test_dream(name, layer, channels):
    options = DreamOptions(octaves=1, steps=2, jitter=0)
    photo = IMAGES[0].sigmoid()
    a, b = both(lambda net: dream(net, photo, layer, input_spec=SPEC, channels=channels, options=options), name, layer)
    same(a.images, b.images, 1e-3)
    assert not torch.allclose(a.images[0], photo, atol=1e-3)


@of_layers
@pytest.mark.parametrize("channels", [None, [1, 5]])
def test_invert(name, layer, channels):
    options = InversionOptions(mask=FeatureMask(channels=channels))
    a, b = both(lambda net: invert(net, IMAGES[:2], layer, input_spec=SPEC, steps=3, options=options), name, layer)
    same(a.images, b.images, 1e-3)
    same(a.errors, b.errors, 1e-3)


def test_the_gradient_of_a_unit_is_autograds():
    net, unit = make("swin").double(), (0, 3, 2, 7)
    leaf = IMAGES[:1].double().requires_grad_()
    outputs = []
    handle = net.features[1].register_forward_hook(lambda _, __, output: outputs.append(output))
    net(leaf)
    handle.remove()
    (expected,) = torch.autograd.grad(outputs[0][unit], leaf)
    shown = project(
        net, IMAGES[:1].double(), "features.1", torch.tensor([7]), torch.tensor([[3, 2]]), rule="gradient", start="one"
    )
    assert torch.allclose(shown.full(), expected, atol=1e-12)
    assert torch.allclose(shown.activations, outputs[0][unit])


def test_the_gradient_of_a_token_is_autograds():
    net, layer = make("vit of timm").double(), "blocks.0"
    leaf = IMAGES[:1].double().requires_grad_()
    tokens = net.blocks[0](net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(leaf)))))
    (expected,) = torch.autograd.grad(tokens[0, 3, 7], leaf)
    shown = project(
        net, IMAGES[:1].double(), layer, torch.tensor([7]), torch.tensor([[0, 3]]), rule="gradient", start="one"
    )
    assert torch.allclose(shown.full(), expected, atol=1e-12)


def test_a_deconvnet_passes_to_maps_with_channels_last():
    torch.manual_seed(0)
    swin = make("swin")
    a = project(swin, IMAGES[:1], "features.0.1", torch.tensor([5]))
    b = project(swin, IMAGES[:1], "features.0.0", torch.tensor([5]))
    assert torch.allclose(a.full(), b.full(), atol=1e-6)


def test_positions_in_maps_with_channels_last():
    layer = "features.1"
    a, b = both(
        lambda net: maximize_activation(net, layer, [7], positions=[(1, 2)], input_spec=SPEC, steps=2), "swin", layer
    )
    same(a.images, b.images, 1e-3)
    options = InversionOptions(mask=FeatureMask(positions=2))
    a, b = both(lambda net: invert(net, IMAGES[:1], layer, input_spec=SPEC, steps=2, options=options), "swin", layer)
    same(a.images, b.images, 1e-3)
    with pytest.raises(ValueError, match=r"outside the 4×4 map"):
        maximize_activation(make("swin"), layer, [7], positions=[(5, 2)], input_spec=SPEC)
    with pytest.raises(ValueError, match="channels 0 to 11"):
        maximize_activation(make("swin"), layer, [12], input_spec=SPEC)


def test_tokens_have_no_rows():
    with pytest.raises(LayerError, match="gives tokens, which have no row and no column"):
        maximize_activation(make("vit"), "encoder.ln", [1], positions="center", input_spec=SPEC)


def test_several_layers_are_inverted_at_once():
    net, layers = make("swin"), ["features.0.0", "features.1", "features.3"]
    together = invert_layers(net, IMAGES[:2], layers, input_spec=SPEC, steps=2)
    for layer, images in zip(layers, together.images, strict=True):
        same(images, invert(net, IMAGES[:2], layer, input_spec=SPEC, steps=2).images[0], 1e-3)


def test_a_harvest_goes_on_from_its_state():
    net = make("swin")
    with Harvest(net, {"features.1": [7, 2]}, k=2, rule="gradient") as harvest, torch.no_grad():
        net(IMAGES)
    top = TopActivations.from_state_dict(harvest.tops["features.1"].state_dict())
    assert top.geometry.channel_dim == 3
    top.update(make("swin").features[:2](IMAGES + 1), IMAGES + 1, torch.arange(5, 10))
    with torch.no_grad():
        maps = torch.cat([net.features[:2](IMAGES), net.features[:2](IMAGES + 1)])[..., [7, 2]]
    assert torch.allclose(top.values, maps.amax((1, 2)).topk(2, 0).values.T, atol=1e-5)
