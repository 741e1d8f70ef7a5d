"""Measures of kernels equal what they are defined as, on kernels whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_cnnvis.functional.diagnosis.kernels import (
    aliased_energy,
    nearest_kernels,
    noise_probability,
    nyquist,
    spectra,
)
from lightning_cnnvis.functional.noise import gaussian


def grating(frequency: float, angle: float, side: int = 11) -> torch.Tensor:
    """A grey grating under a bell, ``(3, side, side)``."""
    rows, columns = torch.meshgrid(torch.arange(side) - side / 2, torch.arange(side) - side / 2, indexing="ij")
    wave = torch.cos(2 * math.pi * frequency * (rows * math.sin(angle) + columns * math.cos(angle)))
    return (wave * torch.exp(-(rows**2 + columns**2) / (side / 2) ** 2)).expand(3, side, side)


@pytest.mark.parametrize("angle", [0, 0.5, 1.2])
def test_a_grating_is_aliased_from_the_nyquist_frequency_on(angle):
    kernels = torch.stack([grating(frequency, angle) for frequency in (0.03, 0.25, 0.4)])
    low, middle, high = aliased_energy(kernels, (4, 4)).tolist()
    assert low < 0.1
    assert middle > 0.9
    assert high > 0.98
    assert aliased_energy(kernels, (2, 2))[1] < 0.6  # a quarter of a cycle is just what a stride of 2 holds
    assert aliased_energy(kernels, (1, 1)).tolist() == [0, 0, 0]


def test_the_energy_is_that_of_parseval():
    kernels = gaussian((4, 3, 7, 5))
    power, frequency = spectra(kernels)
    torch.testing.assert_close(power.mean((1, 2)), kernels.square().sum((1, 2, 3)))
    for kernel, share in zip(kernels, aliased_energy(kernels, (2, 2)), strict=True):
        # the discrete Fourier transform, written out
        rows, columns = torch.arange(7) * 1.0, torch.arange(5) * 1.0
        above = whole = 0.0
        for down in torch.fft.fftfreq(64).tolist():
            for right in torch.fft.fftfreq(64).tolist():
                phase = -2 * math.pi * (down * rows[:, None] + right * columns)
                energy = float((kernel * torch.polar(torch.ones_like(phase), phase)).sum((1, 2)).abs().square().sum())
                whole += energy
                above += energy if math.hypot(down, right) > nyquist((2, 2)) else 0
        assert float(share) == pytest.approx(above / whole, abs=1e-4)
        break
    assert float(frequency.max()) == pytest.approx(math.hypot(0.5, 0.5))


def test_kernels_of_zeros_have_no_energy():
    assert aliased_energy(torch.zeros(2, 3, 5, 5), (2, 2)).tolist() == [0, 0]


@pytest.mark.parametrize("side", [3, 5, 7, 11])
def test_noise_among_formed_kernels(side):
    generator = torch.Generator().manual_seed(side)
    formed = [grating(0.05 + 0.1 * n / 24, n, side) * (1 + n / 24) for n in range(24)]
    formed[3] = formed[3] * torch.tensor([1.0, -1.0, 0.0])[:, None, None]  # a colour
    kernels = torch.stack(formed)
    assert not noise_probability(kernels).gt(0.9).any()
    kernels[7] = gaussian((3, side, side), generator)
    assert noise_probability(kernels).gt(0.9).nonzero().flatten().tolist() == [7]


def test_a_layer_that_never_formed_is_noise_as_a_whole():
    assert noise_probability(gaussian((32, 3, 7, 7))).tolist() == [1] * 32


def test_too_few_kernels_tell_nothing():
    assert noise_probability(gaussian((4, 3, 7, 7))).tolist() == [0] * 4
    assert noise_probability(gaussian((32, 3, 1, 1))).tolist() == [0] * 32


@pytest.mark.parametrize("change", ["copy", "sign", "roll", "shift", "scale"])
def test_duplicates_up_to_sign_and_shift(change):
    kernels = gaussian((12, 8, 5, 5))
    kernels[:, :, [0, -1]] *= 0.2  # as in kernels that fade out
    kernels[9] = {
        "copy": kernels[2],
        "sign": -kernels[2],
        "roll": kernels[2].roll((1, -2), (1, 2)),
        "shift": torch.nn.functional.pad(kernels[2], (0, 0, 1, 0))[:, :5],
        "scale": 30 * kernels[2],
    }[change]
    similarity, nearest = nearest_kernels(kernels)
    assert similarity.gt(0.95).nonzero().flatten().tolist() == [2, 9]
    assert nearest[[2, 9]].tolist() == [9, 2]


def test_kernels_of_different_groups_are_not_compared():
    kernels = torch.ones(4, 1, 3, 3)
    assert nearest_kernels(kernels, groups=4)[0].tolist() == [0] * 4
    similarity, nearest = nearest_kernels(kernels, groups=2)
    assert similarity.tolist() == pytest.approx([1] * 4)
    assert nearest.tolist() == [1, 0, 3, 2]
