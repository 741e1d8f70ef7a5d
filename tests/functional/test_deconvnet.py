"""`project` against deconvnets written out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_cnnvis.functional.deconvnet import project
from lightning_cnnvis.functional.rectification import UnrectifiableError
from lightning_cnnvis.layers import LayerError


def explicit_deconvnet(layers: list[nn.Module], images: Tensor, channels: Tensor, positions: Tensor) -> Tensor:
    """A deconvnet of its own for a plain stack of convolutions, ReLUs and max-poolings; shares no code."""
    inputs, switches, x = [], [], images
    for layer in layers:
        inputs.append(x)
        if isinstance(layer, nn.MaxPool2d):
            x, where = F.max_pool2d(
                x, layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode, return_indices=True
            )
            switches.append(where)
        else:
            x = layer(x)
            switches.append(None)
    signal = torch.zeros_like(x)
    for n, (channel, (row, column)) in enumerate(zip(channels.tolist(), positions.tolist(), strict=True)):
        signal[n, channel, row, column] = x[n, channel, row, column]
    for layer, below, where in zip(reversed(layers), reversed(inputs), reversed(switches), strict=True):
        if isinstance(layer, nn.ReLU):
            signal = signal.clamp(min=0)
        elif where is not None:
            flat = torch.zeros(*below.shape[:2], below.shape[2] * below.shape[3], dtype=below.dtype)
            flat.scatter_add_(2, where.flatten(2), signal.flatten(2))
            signal = flat.view_as(below)
        else:
            rest = [
                size - ((out - 1) * s - 2 * p + d * (k - 1) + 1)
                for size, out, s, p, d, k in zip(
                    below.shape[2:],
                    signal.shape[2:],
                    layer.stride,
                    layer.padding,
                    layer.dilation,
                    layer.kernel_size,
                    strict=True,
                )
            ]
            signal = F.conv_transpose2d(
                signal,
                layer.weight,
                stride=layer.stride,
                padding=layer.padding,
                output_padding=rest,
                groups=layer.groups,
                dilation=layer.dilation,
            )
    return signal


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("layer", ["1", "4", "7", "9", "11", "12"])
def test_imagenet_alexnet_equals_explicit_deconvnet(shared_data, layer):
    net = torchvision.models.alexnet(weights=None).features
    net.load_state_dict(load_file(shared_data / "alexnet_features_imagenet.safetensors"))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 224, 224, generator=generator)
    stack = [nn.ReLU() if isinstance(m, nn.ReLU) else m for m in net[: int(layer) + 1]]
    with torch.no_grad():
        maps = net[: int(layer) + 1](images)
        channels = maps.amax((2, 3)).argsort(dim=1)[torch.arange(4), torch.tensor([-1, -5, -20, -30])]
        flat = maps[torch.arange(4), channels].flatten(1).argmax(1)
        positions = torch.stack([flat // maps.shape[3], flat % maps.shape[3]], 1)
        # one unit at a corner, where the padding matters
        positions[0] = torch.tensor([0, maps.shape[3] - 1])
        expected = explicit_deconvnet(stack, images, channels, positions)
    result = project(net, images, layer, channels, positions)
    assert relative_error(result.full(), expected) < 1e-5
    whole = project(net, images, layer, channels, positions, windowed=False)
    assert relative_error(whole.full(), expected) < 1e-5
