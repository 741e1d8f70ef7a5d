"""Windows: their geometry, and that nothing but the network's own doing decides when they are used."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.deconvnet.projection import plan_windows, project
from lightning_cnnvis.functional.deconvnet.windows import Windows, cut
from lightning_cnnvis.functional.network.receptive_field import ReceptiveField
from lightning_cnnvis.isolation import isolated


def field_of(size: int, stride: int, offset: int, image: int) -> ReceptiveField:
    units = (image - size - 2 * offset) // stride + 1
    return ReceptiveField((size,) * 2, (stride,) * 2, (offset,) * 2, (1, units, units), (image,) * 2)


@pytest.mark.parametrize("field", [field_of(7, 2, -1, 224), field_of(139, 16, -58, 224), field_of(5, 8, 1, 30)])
def test_windows_hold_the_fields_and_share_the_images_borders(field):
    windows = Windows(field)
    height, width = windows.size
    _, rows, columns = field.map_shape
    positions = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    for corner, box, (row, column) in zip(
        windows.corners(positions).tolist(), windows.boxes(positions).tolist(), positions.tolist(), strict=True
    ):
        assert tuple(box) == field.box(row, column)
        for first, length, start, stop, offset, stride, size, p, image in zip(
            corner,
            (height, width),
            box[:2],
            box[2:],
            field.offset,
            field.stride,
            field.size,
            (row, column),
            field.input_size,
            strict=True,
        ):
            assert first % stride == 0
            assert first >= 0
            assert first + length <= image
            assert first <= start
            assert stop <= first + length
            if offset + stride * p < 0:
                assert first == 0
            if offset + stride * p + size > image:
                assert first + length == image


def test_cut():
    images = torch.randn(3, 2, 9, 8)
    corners, indices = torch.tensor([[0, 0], [5, 3], [2, 4], [5, 3]]), torch.tensor([2, 0, 0, 1])
    parts = cut(images, corners, (4, 3), indices)
    for part, (top, left), index in zip(parts, corners.tolist(), indices.tolist(), strict=True):
        assert torch.equal(part, images[index, :, top : top + 4, left : left + 3])
    assert torch.equal(cut(images, torch.zeros(3, 2, dtype=torch.long), (9, 8)), images)


class Coordinates(nn.Module):
    """Knows where it looks, without a trace of it in the graph."""

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(0, 5, x.shape[2], dtype=x.dtype)[:, None].expand_as(x[:, :1])
        return torch.cat([x, ramp], 1)


class Embedding(nn.Module):
    """Takes one size of image only."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(4, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.embedding


class Head(nn.Module):
    """Runs a branch that leads nowhere, and cannot run on less than the whole image, before the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.conv = nn.Linear(4 * 32 * 32, 2), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.head(x.flatten(1))
        return self.conv(x)


@pytest.mark.parametrize("middle", [Coordinates(), Embedding(), Head()])
def test_a_network_that_knows_the_place_gets_whole_images(middle):
    torch.manual_seed(0)
    width = 5 if isinstance(middle, Coordinates) else 4
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), middle, nn.Conv2d(width, 4, 3, padding=1), nn.ReLU()).double()
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    with isolated(net):
        assert plan_windows(net, "3", images).field.whole_image
    units = torch.arange(3), torch.tensor([[0, 3], [11, 9], [29, 29]])
    result = project(net, images, "3", *units)
    assert torch.equal(result.pixels, project(net, images, "3", *units, windowed=False).pixels)


def test_what_cropping_cannot_do_is_done_on_windows():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.ReLU())
    with isolated(net):
        windows = plan_windows(net, "2", torch.zeros(1, 3, 32, 32))
    assert not windows.cropped
    assert not windows.field.whole_image
