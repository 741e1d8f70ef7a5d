"""The way down through a first convolution is that of torch, whatever its geometry."""

from __future__ import annotations

import pytest
import torch

from lightning_cnnvis.functional import RectifiedBackward
from lightning_cnnvis.functional.deconvnet import rules
from lightning_cnnvis.functional.deconvnet.strided_backward import backward_by_phases, is_slow

CASES = [
    # channels, kernel, stride, padding, size
    (3, (7, 7), 2, (1, 1), (23, 30)),
    (3, (11, 11), 4, (2, 2), (40, 33)),
    (1, (3, 5), 2, (0, 2), (12, 15)),
    (4, (1, 1), 2, (0, 0), (9, 8)),  # pixels between the strides, which nothing reaches
    (3, (2, 3), 5, (1, 0), (24, 19)),
    (2, (4, 4), 2, (3, 3), (8, 8)),
]


def convolved(channels, kernel, stride, padding, size, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, channels, *size, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(6, channels, *kernel, generator=generator, dtype=dtype)
    return image, weight, torch.conv2d(image, weight, stride=stride, padding=padding)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_backward_pass_of_torch(case):
    image, weight, output = convolved(*case, dtype=torch.float64)
    signal = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (expected,) = torch.autograd.grad(output, image, signal)
    torch.testing.assert_close(backward_by_phases(signal, image, weight, case[2], case[3]), expected)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rule", ["deconvnet", "gradient"])
def test_projections_take_it(monkeypatch, case, rule):
    taken = []
    monkeypatch.setattr(rules, "backward_by_phases", lambda *args: taken.append(1) or backward_by_phases(*args))
    image, _, output = convolved(*case)
    signal = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (expected,) = torch.autograd.grad(output, image, signal, retain_graph=True)
    with RectifiedBackward(rule):
        (found,) = torch.autograd.grad(output, image, signal)
    torch.testing.assert_close(found, expected, rtol=0, atol=4e-6 * expected.abs().max().item())
    assert taken


def arguments(**changed):
    image, signal = torch.randn(1, 3, 9, 9), torch.randn(1, 6, 4, 4)
    named = {
        "signal": signal, "image": image, "weight": torch.randn(6, 3, 3, 3), "bias": None, "stride": [2, 2],
        "padding": [0, 0], "dilation": [1, 1], "transposed": False, "output_padding": [0, 0], "groups": 1,
        "wanted": [True, False, False],
    }  # fmt: skip
    return list({**named, **changed}.values())


@pytest.mark.parametrize(
    "changed",
    [
        {"image": torch.randn(1, 3, 9, 9, dtype=torch.float64)},
        {"image": torch.randn(1, 5, 9, 9)},
        {"image": torch.randn(1, 3, 9, 9, device="meta")},
        {"image": torch.randn(1, 3, 9)},
        {"signal": torch.randn(0, 6, 4, 4)},
        {"stride": [1, 1]},
        {"stride": [2, 3]},
        {"dilation": [2, 2]},
        {"transposed": True},
        {"groups": 3},
        {"wanted": [True, True, False]},
    ],
    ids=str,
)
def test_anything_else_is_left_to_torch(changed):
    assert is_slow(arguments())
    assert not is_slow(arguments(**changed))
