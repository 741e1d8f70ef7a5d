"""Parameterisations: round trips, a fit to a photograph, measured statistics."""

import pytest
import torch

from lightning_cnnvis.functional.optimization.parameterizations import Fourier, ImageStatistics, Pixels


def natural_images(count, size, decay=1.1, seed=0):
    """Gaussian images with the spectrum and colours asked for, made without the code under test."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None]
    amplitude = (fy**2 + fx**2).clamp_min((1 / max(size)) ** 2) ** (-decay / 2)
    amplitude[0, 0] = 0
    noise = torch.fft.fft2(torch.randn(count, 3, *size, generator=generator))
    waves = torch.fft.ifft2(noise * amplitude).real
    waves = waves / waves.std((-2, -1), keepdim=True)
    mix = torch.tensor([[0.15, 0.05, 0.02], [0.15, 0.0, -0.03], [0.15, -0.05, 0.02]])
    return (0.5 + torch.einsum("dc,nchw->ndhw", mix, waves)).clamp(0, 1), mix


@pytest.mark.parametrize("size", [(16, 16), (15, 20), (9, 13), (12, 7)])
def test_fourier_encode_inverts_decode(size):
    fourier = Fourier(init_std=0.5)
    images = fourier.decode(fourier.init([torch.Generator().manual_seed(0)], (3, *size)).double(), size)
    assert images.shape == (1, 3, *size)
    assert images.min() > 0
    assert images.max() < 1
    torch.testing.assert_close(fourier.decode(fourier.encode(images), size), images, atol=2e-3, rtol=0)


def test_fourier_fits_a_photograph():
    image = natural_images(1, (32, 40))[0]
    fourier = Fourier()
    params = fourier.init([torch.Generator().manual_seed(0)], (3, 32, 40)).requires_grad_()
    optimizer = torch.optim.Adam([params], 0.05)
    for _ in range(1000):
        loss = (fourier.decode(params, (32, 40)) - image).square().mean()
        (params.grad,) = torch.autograd.grad(loss, params)
        optimizer.step()
    assert (fourier.decode(params, (32, 40)) - image).abs().mean() < 0.01


def test_unit_parameters_have_the_statistics():
    """The linear part: small noise, so that the sigmoid does not bend it."""
    images, _ = natural_images(8, (64, 64))
    statistics = ImageStatistics.measure(images)
    fourier = Fourier(statistics, init_std=0.1)
    generators = [torch.Generator().manual_seed(i) for i in range(64)]
    drawn = fourier.decode(fourier.init(generators, (3, 64, 64)), (64, 64))
    again = ImageStatistics.measure(drawn)
    assert again.decay == pytest.approx(statistics.decay, abs=0.1)
    covariance, expected = torch.tensor(again.covariance), 0.01 * torch.tensor(statistics.covariance)
    assert (covariance - expected).abs().max() < 0.15 * expected.abs().max()
    assert again.mean == pytest.approx(statistics.mean, abs=0.02)


def test_statistics_of_known_images():
    images, mix = natural_images(16, (64, 64), decay=1.1)
    statistics = ImageStatistics.measure(images)
    assert statistics.decay == pytest.approx(1.1, abs=0.12)
    assert torch.allclose(torch.tensor(statistics.covariance), mix @ mix.T, atol=0.004)
    assert hash(statistics) == hash(ImageStatistics.measure(images))


def test_each_row_is_drawn_from_its_own_generator():
    for parameterization in (Fourier(), Pixels()):
        both = parameterization.init([torch.Generator().manual_seed(s) for s in (1, 2)], (1, 8, 8))
        alone = parameterization.init([torch.Generator().manual_seed(2)], (1, 8, 8))
        assert torch.equal(both[1:], alone)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channel_counts(channels):
    images = torch.rand(2, channels, 8, 8)
    fourier = Fourier()
    torch.testing.assert_close(fourier.decode(fourier.encode(images), (8, 8)), images, atol=2e-3, rtol=0)


def test_one_colour_images_still_span_all_colours():
    grey = torch.rand(4, 1, 16, 16).expand(4, 3, 16, 16)
    fourier = Fourier(ImageStatistics.measure(grey))
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(fourier.decode(fourier.encode(images), (16, 16)), images, atol=2e-3, rtol=0)


def test_pixels_units():
    pixels = Pixels(unit=1 / 255, center=(0.2, 0.4, 0.6))
    images = torch.rand(2, 3, 4, 4)
    params = pixels.encode(images)
    torch.testing.assert_close(params[:, 1], (images[:, 1] - 0.4) * 255)
    torch.testing.assert_close(pixels.decode(params, (4, 4)), images)


def test_bad_images():
    with pytest.raises(ValueError, match="shape"):
        ImageStatistics.measure(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="NaN"):
        ImageStatistics.measure(torch.full((1, 3, 8, 8), float("nan")))
