"""Receptive fields against what a change of each pixel changes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from lightning_cnnvis.functional.network.receptive_field import ReceptiveField, receptive_field
from lightning_cnnvis.layers import LayerError


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def seen(net: nn.Module, size: tuple[int, int], row: int, column: int) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the pixels that a unit's derivative reaches."""
    torch.manual_seed(0)
    net = net.double().eval()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.1, 1)
    images = torch.rand(8, 3, *size, dtype=torch.float64, requires_grad=True)
    output = net(images)
    (gradient,) = torch.autograd.grad(output[:, :, row, column].sum(), images)
    reached = gradient.abs().sum((0, 1)) > 0
    rows, columns = reached.any(1).nonzero(), reached.any(0).nonzero()
    return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1


PLAIN = nn.Sequential(
    nn.Conv2d(3, 4, (5, 3), (2, 1), (2, 0), bias=False), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)
)
BRANCHES = nn.Sequential(
    nn.Conv2d(3, 4, 3, 2, 1), Apply(lambda x: torch.cat([F.avg_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 1)], 1) * 2)
)
DILATED = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=3, groups=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 2, 3, groups=4))


@pytest.mark.parametrize("net", [PLAIN, BRANCHES, DILATED])
@pytest.mark.parametrize("place", [(0, 0), (1, 2), (-1, -1)])
def test_equals_what_the_derivative_reaches(net, place):
    size = (25, 21)
    field = receptive_field(net, str(len(net) - 1), size)
    assert not field.whole_image
    row, column = (p % n for p, n in zip(place, field.map_shape[1:], strict=True))
    assert field.box(row, column) == seen(net, size, row, column)


def test_zfnet():
    net = nn.Sequential(
        nn.Conv2d(3, 96, 7, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5),
        nn.Conv2d(96, 256, 5, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5),
        nn.Conv2d(256, 384, 3, 1, 1), nn.ReLU(), nn.Conv2d(384, 384, 3, 1, 1), nn.ReLU(), nn.Conv2d(384, 256, 3, 1, 1),
    )  # fmt: skip
    fields = [receptive_field(net, layer, (224, 224)) for layer in ("0", "4", "8", "10", "12")]
    assert [field.size[0] for field in fields] == [7, 27, 75, 107, 139]
    assert [field.stride[0] for field in fields] == [2, 8, 16, 16, 16]
    assert [field.map_shape[1] for field in fields] == [110, 26, 13, 13, 13]


WHOLE = {
    "crop": lambda x: x[:, :, 1:-1],
    "negative padding": lambda x: F.pad(x, (0, -1, 0, 0)),
    "stride of a slice": lambda x: x[:, :, ::2, ::2],
    "resizing": lambda x: F.interpolate(x, scale_factor=2),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "adaptive pooling": lambda x: F.adaptive_avg_pool2d(x, 5),
    "global mean": lambda x: x + x.mean(),
    "global mean of none": lambda x: x - x.mean([]),
    "gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "softmax over places": lambda x: x.flatten(2).softmax(2).view_as(x),
    "transposition": lambda x: x.mT,
    "flip": lambda x: x.flip(2),
    "reflection": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "split along rows": lambda x: torch.cat(x.split(8, 2)[::-1], 2),
    "batch statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "weights from the image": lambda x: F.conv2d(x, x.mean((0, 2, 3)).view(4, 1, 1, 1).expand(4, 4, 3, 3), padding=1),
    "attention": lambda x: (x.flatten(2) @ x.flatten(2).mT @ x.flatten(2)).view_as(x),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_cannot_be_read_is_the_whole_image(name):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Apply(WHOLE[name]), nn.ReLU())
    field = receptive_field(net, "2", (16, 16))
    assert field.whole_image
    assert field.box(0, 0) == (0, 0, 16, 16)


LOCAL = {
    "chunks": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "uneven split": lambda x: sum(part.sum(1, keepdim=True) for part in x.split([1, 3], 1)),
    "unbind and stack": lambda x: torch.stack(x.unbind(1)[:2], -3),
    "groups": lambda x: x.view(-1, 2, 2, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
    "mean of channels": lambda x: x - x.mean(1, keepdim=True),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "a vector for each channel": lambda x: x * torch.ones(4, 1, 1) + torch.ones(1),
}


@pytest.mark.parametrize("name", LOCAL)
def test_what_keeps_places_is_read(name):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Apply(LOCAL[name]), nn.ReLU())
    field = receptive_field(net, "2", (16, 16))
    assert (field.size, field.stride, field.offset) == ((3, 3), (1, 1), (-1, -1))


def test_a_node_with_several_consumers():
    field = receptive_field(torchvision.models.resnet18(weights=None), "layer2.0.bn2", (64, 96))
    # conv1 7/2, pool 3/2, four 3×3 convolutions at a stride of 4, one 3×3/2 and one 3×3 at a stride of 8
    assert (field.size, field.stride) == ((7 + 4 + 32 + 8 + 16,) * 2, (8, 8))


def test_a_field_in_the_padding_is_empty():
    field = receptive_field(nn.Sequential(nn.Conv2d(1, 1, 3, padding=6)), "0", (8, 8))
    assert field.box(0, 0) == (0, 0, 0, 0)
    assert field.box(17, 17) == (8, 8, 8, 8)


def test_dense_layers_see_everything():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 5))
    assert receptive_field(net, "2", (8, 8)) == ReceptiveField((8, 8), (0, 0), (0, 0), (5, 1, 1), (8, 8))


def test_errors():
    net = nn.Sequential(nn.Conv2d(3, 4, 7, 2), nn.Conv2d(4, 4, 7, 2))
    with pytest.raises(LayerError, match=r"3 × 16 × 16 .* does not get through the network to layer '1'"):
        receptive_field(net, "1", (16, 16))
    with pytest.raises(LayerError, match="does not depend on the image"):
        receptive_field(nn.Sequential(Apply(torch.zeros_like), nn.ReLU()), "1", (16, 16))
