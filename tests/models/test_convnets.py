"""The geometry of ZFNet and AlexNet, size by size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_cnnvis.functional.network.receptive_field import receptive_field
from lightning_cnnvis.models import AlexNet, ZFNet

LAYERS = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"]


def map_sizes(net: nn.Module, size: int) -> list[int]:
    sizes, images = [], torch.zeros(1, 3, size, size)
    for name, layer in net.named_children():
        images = layer(images)
        if name in LAYERS:
            assert images.shape[2] == images.shape[3]
            sizes.append(images.shape[2])
    return sizes


@pytest.mark.parametrize(
    ("network", "image_size", "sizes"),
    [
        (ZFNet, 224, [110, 55, 26, 13, 13, 13, 13, 6]),
        (ZFNet, 64, [30, 15, 15, 7, 7, 7, 7, 3]),
        (ZFNet, 32, [28, 14, 14, 7, 7, 7, 7, 3]),
        (AlexNet, 224, [55, 27, 27, 13, 13, 13, 13, 6]),
        (AlexNet, 64, [29, 14, 14, 6, 6, 6, 6, 2]),
        (AlexNet, 32, [26, 12, 12, 5, 5, 5, 5, 2]),
    ],
)
def test_map_sizes(network, image_size, sizes):
    assert map_sizes(network(10, image_size, width=0.05), image_size) == sizes


def test_zfnet_receptive_fields_at_224():
    net = ZFNet(10, width=0.05).eval()
    sizes = [receptive_field(net, f"conv{n}", (224, 224)).size for n in range(1, 6)]
    assert sizes == [(7, 7), (27, 27), (75, 75), (107, 107), (139, 139)]


@pytest.mark.parametrize(
    ("network", "shapes", "total"),
    [
        # the two groups of AlexNet halve the input channels of conv2, conv4 and conv5
        (ZFNet, [(96, 3, 7, 7), (256, 96, 5, 5), (384, 256, 3, 3), (384, 384, 3, 3), (256, 384, 3, 3)], 62_357_608),
        (AlexNet, [(96, 3, 11, 11), (256, 48, 5, 5), (384, 256, 3, 3), (384, 192, 3, 3), (256, 192, 3, 3)], 60_965_224),
    ],
)
def test_parameters_at_224(network, shapes, total):
    with torch.device("meta"):
        net = network(1000)
    assert [tuple(getattr(net, f"conv{n}").weight.shape) for n in range(1, 6)] == shapes
    assert tuple(net.fc6.weight.shape) == (4096, 9216)
    assert tuple(net.fc7.weight.shape) == (4096, 4096)
    assert sum(parameter.numel() for parameter in net.parameters()) == total


def test_layers_read_as_in_the_papers():
    convolutions = "conv3 relu3 conv4 relu4 conv5 relu5 pool5 flatten"
    connected = "fc6 relu6 dropout6 fc7 relu7 dropout7 fc8"
    names = [name for name, _ in ZFNet(10, 32, width=0.05).named_children()]
    assert names == f"conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2 {convolutions} {connected}".split()
    names = [name for name, _ in AlexNet(10, 32, width=0.05).named_children()]
    assert names == f"conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 {convolutions} {connected}".split()


def test_without_local_response_norm():
    net = ZFNet(10, 32, width=0.05, local_response_norm=False)
    assert not any(isinstance(module, nn.LocalResponseNorm) for module in net.modules())


@pytest.mark.parametrize("network", [ZFNet, AlexNet])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("in_channels", [1, 4])
def test_channels_and_dtypes(network, dtype, in_channels):
    net = network(7, 32, in_channels, width=0.05).to(dtype)
    logits = net(torch.zeros(2, in_channels, 32, 32, dtype=dtype))
    assert logits.shape == (2, 7)
    assert logits.dtype == dtype


@pytest.mark.parametrize(("network", "smallest"), [(ZFNet, 12), (AlexNet, 21)])
def test_smallest_image(network, smallest):
    with pytest.raises(ValueError, match=f"too small for {network.__name__}.*at least {smallest}×{smallest} pixels"):
        network(10, smallest - 1)
    net = network(10, smallest, width=0.05).eval()
    assert net(torch.zeros(1, 3, smallest, smallest)).shape == (1, 10)


@pytest.mark.parametrize("network", [ZFNet, AlexNet])
@pytest.mark.parametrize("image_size", [48, 96, 127, 128, 160, 256])
def test_other_sizes(network, image_size):
    net = network(3, image_size, width=0.02).eval()
    assert net(torch.zeros(1, 3, image_size, image_size)).shape == (1, 3)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="built for images of 64×64 pixels"):
        ZFNet(10, 64, width=0.05)(torch.zeros(1, 3, 96, 96))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes=0"),
        ({"in_channels": -1}, "in_channels=-1"),
        ({"width": 0.0}, r"width=0\.0"),
        ({"init": "xavier"}, "'he' or 'paper'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ZFNet(**{"num_classes": 10, "image_size": 64, **options})


def test_paper_init():
    torch.manual_seed(0)
    net = ZFNet(10, 64, width=0.25, init="paper")
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            assert parameter.eq(0).all()
        elif parameter.numel() > 10_000:
            assert parameter.std().item() == pytest.approx(1e-2, rel=0.05)


def test_he_init():
    torch.manual_seed(0)
    net = ZFNet(10, 64, width=0.25)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            assert parameter.eq(0).all()
        elif parameter.numel() > 3_000:
            scale = 0.02 if name == "conv1.weight" else 1
            assert parameter.std().item() == pytest.approx(scale * (2 / parameter[0].numel()) ** 0.5, rel=0.05)
