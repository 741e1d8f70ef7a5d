"""The channels of a layer are found wherever they are."""

from __future__ import annotations

import pytest
import timm
import torch
from channels_last import NETWORKS, make
from torch import nn
from torch.nn import functional as F

from lightning_cnnvis.channel_dim import FollowChannels
from lightning_cnnvis.layers import LayerError, activations, channel_dim, record, trace_layers

MODES = {"no_grad": torch.no_grad, "inference": torch.inference_mode, "grad": torch.enable_grad}


def image(count=2, side=16):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [1, 2])
def test_layers_of_networks(name, mode, count):
    net, expected = make(name), NETWORKS[name][1]
    with MODES[mode](), record(net, list(expected), stop=False) as recorded:
        net(image(count))
        found = activations(net, image(count), list(expected))
    assert {layer: channel_dim(net, layer) for layer in expected} == expected
    for layer, dim in expected.items():
        assert torch.allclose(found[layer], recorded[layer].movedim(dim, 1), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_last_in_memory(name):
    net, expected = make(name).to(memory_format=torch.channels_last), NETWORKS[name][1]
    activations(net, image().contiguous(memory_format=torch.channels_last), list(expected))
    assert {layer: channel_dim(net, layer) for layer in expected} == expected


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_of_a_trace_are_channels_first(name):
    net, expected = make(name), NETWORKS[name][1]
    calls, _ = trace_layers(net, image(1))
    found = activations(make(name), image(1), list(expected))
    assert {layer: calls[layer].shape for layer in expected} == {layer: x.shape[1:] for layer, x in found.items()}


@pytest.mark.parametrize(
    "name", ["pvt_v2_b0", "edgenext_xx_small", "levit_128s", "efficientformer_l1", "resnet18", "mixnet_s"]
)
def test_dense_layers_and_convolutions_of_timm(name):
    net = timm.create_model(name, pretrained=False).eval()
    calls, _ = trace_layers(net, image(1, net.default_cfg["input_size"][1]))
    checked = 0
    for layer, module in net.named_modules():
        if layer in calls and len(calls[layer].shape) > 1:
            first = isinstance(module, nn.Conv2d | nn.BatchNorm2d)
            last = isinstance(module, nn.Linear) or type(module) is nn.LayerNorm
            checked += first or last
            if first or last:
                assert channel_dim(net, layer) == (1 if first else len(calls[layer].shape)), layer
    assert checked > 15


WEIGHT = torch.randn(5, 6)
OPERATIONS = {
    # from (2, 6, 4, 8) with its channels at 1
    "view": (lambda x: x.view(2, 6, 32), 1),
    "split into groups and shuffled": (lambda x: x.view(2, 2, 3, 4, 8).transpose(1, 2).reshape(2, 6, 4, 8), 1),
    "tokens": (lambda x: x.flatten(2).transpose(1, 2), 2),
    "tokens to maps": (lambda x: x.flatten(2).mT.unflatten(1, (4, 8)), 3),
    "windows and back": (
        lambda x: (
            x.permute(0, 2, 3, 1).reshape(2, 2, 2, 4, 2, 6).transpose(2, 3).reshape(16, 4, 6)
            .reshape(2, 2, 4, 2, 2, 6).transpose(2, 3).reshape(2, 4, 8, 6)
        ),
        3,
    ),
    "space to depth": (lambda x: F.pixel_unshuffle(x, 2).permute(0, 2, 3, 1), 3),
    "permuted in place": (lambda x: x.permute(0, 2, 3, 1).contiguous().add_(1).relu_(), 3),
    "moved": (lambda x: x.movedim(1, -1), 3),
    "swapped": (lambda x: x.swapaxes(1, 2), 2),
    "pooled": (lambda x: F.avg_pool2d(x, 2).permute(0, 3, 2, 1), 3),
    "padded and rolled": (lambda x: F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1)).roll(1, 2), 3),
    "sliced and joined": (lambda x: torch.cat([x.permute(0, 2, 3, 1)[:, ::2], x.permute(0, 2, 3, 1)[:, ::2]], -1), 3),
    "mean over columns": (lambda x: x.mean(3).transpose(1, 2), 2),
    "mean over maps": (lambda x: x.mean((2, 3)), 1),
    "kept mean": (lambda x: x.permute(0, 2, 3, 1).mean((1, 2), keepdim=True), 3),
    "gate": (lambda x: (x.permute(0, 2, 3, 1) * x.mean((2, 3))[:, None, None]), 3),
    "mask": (lambda x: x.mean(1, keepdim=True).sigmoid() * x, 1),
    "stacked": (lambda x: torch.stack([x, x]).select(0, 1).transpose(1, 3), 3),
    "chosen": (lambda x: x.transpose(1, 3)[:, 0], 2),
    "squeezed": (lambda x: x[:, :, :1].squeeze(2).unsqueeze(1), 2),
    "expanded": (lambda x: x.mean((2, 3))[:, None].expand(2, 7, 6), 2),
    "dense": (lambda x: F.linear(x.permute(0, 2, 3, 1), WEIGHT), 3),
    "dense along columns": (lambda x: F.linear(x, torch.ones(8, 8)), 1),
    "product from the left": (lambda x: torch.matmul(WEIGHT, x.flatten(2)), 1),
    "einsum": (lambda x: torch.einsum("nchw,dc->nhwd", x, WEIGHT), 3),
    "layer norm": (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (6,)), 3),
    "layer norm of maps": (lambda x: F.layer_norm(x, (6, 4, 8)), 1),
    "group norm": (lambda x: F.group_norm(x, 2), 1),
    "batch norm of tokens": (lambda x: nn.BatchNorm1d(6)(x.flatten(2).mT.flatten(0, 1)).view(2, 32, 6), 2),
    "instance norm": (nn.InstanceNorm2d(6), 1),
    "attention": (lambda x: F.scaled_dot_product_attention(*[x.flatten(2).mT.unflatten(2, (2, 3)).transpose(1, 2)] * 3)
                  .transpose(1, 2).flatten(2), 2),
    "attention by hand": (lambda x: (x.flatten(2).mT @ x.flatten(2)).softmax(-1) @ x.flatten(2).mT, 2),
    "unfold": (lambda x: F.unfold(x, 2), 1),
    "broadcast maximum": (lambda x: torch.max(x.mean(0), x).transpose(1, 3), 3),
    "grouped by image": (
        lambda x: F.conv2d(x.reshape(1, 12, 4, 8), torch.ones(12, 1, 1, 1), groups=12).view(2, 6, 4, 8).movedim(1, 3),
        3,
    ),
    "written to": (lambda x: torch.zeros_like(x.transpose(1, 3)).copy_(x.transpose(1, 3)), 3),
    "one channel": (lambda x: F.conv2d(x, torch.ones(1, 6, 1, 1)).permute(0, 2, 3, 1), 3),
    "vectors": (lambda x: x.permute(0, 2, 3, 1).flatten(1), 1),
    "not known": (lambda x: x.permute(0, 2, 3, 1).flatten().as_strided((2, 4, 8), (32, 8, 1)), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("mode", MODES)
def test_operations(name, mode):
    torch.manual_seed(0)
    operation, expected = OPERATIONS[name]
    inputs = torch.randn(2, 6, 4, 8)
    with MODES[mode](), FollowChannels(inputs) as followed:
        output = operation(inputs)
    assert followed.dim_of(output) == expected
    assert torch.allclose(output, operation(inputs), atol=1e-5)


def test_a_result_that_does_not_depend_on_the_image_has_no_channels():
    with FollowChannels(image()) as followed:
        table = nn.Linear(2, 4)(torch.randn(3, 5, 2))
    assert followed.dim_of(table) == 1


@pytest.mark.parametrize("traced", [False, True])
def test_windows_are_refused(traced):
    net = make("swin of timm")
    if traced:
        trace_layers(net, image(1))
    with pytest.raises(LayerError, match=r"'layers.0.blocks.0.attn.qkv' gives \(8, 16, 36\) for 2 images: its rows"):
        activations(net, image(), ["layers.0.blocks.0.attn.qkv"])
    assert activations(net, image(), ["layers.0.blocks.0"])["layers.0.blocks.0"].shape == (2, 12, 8, 8)


def test_later_passes_are_not_followed(monkeypatch):
    net = make("swin")
    first = activations(net, image(), ["features.1"])["features.1"]
    monkeypatch.setattr("lightning_cnnvis.layers.FollowChannels", None)
    assert torch.equal(activations(net, image(), ["features.1"])["features.1"], first)
