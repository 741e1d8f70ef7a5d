"""Penalties against loops over pixels, constraints against their definitions."""

import pytest
import torch

from lightning_cnnvis.functional.optimization.regularizers import (
    AlphaNorm,
    ColorNormBound,
    TotalVariation,
    YosinskiPrior,
    alpha_norm,
    gaussian_blur,
    total_variation,
)


@pytest.fixture
def images():
    return torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_total_variation_is_the_formula(images, beta):
    expected = []
    for image in images.tolist():
        total = 0.0
        for plane in image:
            for i in range(4):
                for j in range(5):
                    dx = plane[i][j + 1] - plane[i][j] if j < 4 else 0.0
                    dy = plane[i + 1][j] - plane[i][j] if i < 3 else 0.0
                    total += (dx * dx + dy * dy) ** (beta / 2)
        expected.append(total)
    assert total_variation(images, beta).tolist() == pytest.approx(expected, rel=1e-9)


def test_total_variation_has_a_finite_gradient_where_the_image_is_flat():
    flat = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(total_variation(flat, 1.0).sum(), flat)
    assert gradient.isfinite().all()


def test_alpha_norm_is_the_formula(images):
    expected = [sum(abs(v) ** 6 for v in image.flatten().tolist()) for image in images]
    assert alpha_norm(images, 6).tolist() == pytest.approx(expected)
    colors = [sum(sum(c * c for c in p) ** 3 for p in image.flatten(1).T.tolist()) for image in images]
    assert alpha_norm(images, 6, vector=True).tolist() == pytest.approx(colors)
    assert alpha_norm(images, 2).tolist() == pytest.approx(images.square().sum((1, 2, 3)).tolist())


def test_weights_units_and_centres(images):
    grey = total_variation(images * 255)
    torch.testing.assert_close(TotalVariation(2.0, unit=1 / 255, mean=True)(images), 2 * grey / 20)
    center = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).view(3, 1, 1)
    expected = 3 * alpha_norm((images - center) * 10, 4)
    torch.testing.assert_close(AlphaNorm(3.0, 4.0, center=(0.1, 0.2, 0.3), unit=0.1)(images), expected)


def test_blur_keeps_constants_and_spreads_a_point():
    constant = torch.full((1, 2, 9, 9), 0.7)
    torch.testing.assert_close(gaussian_blur(constant, 1.5), constant)
    point = torch.zeros(1, 1, 21, 21)
    point[..., 10, 10] = 1
    blurred = gaussian_blur(point, 2.0)[0, 0]
    offsets = torch.arange(21.0) - 10
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    assert (blurred.sum(0) * offsets.square()).sum().sqrt() == pytest.approx(2.0, rel=0.03)
    assert gaussian_blur(point, 0.0) is point


def test_color_norm_bound(images):
    bounded = ColorNormBound(0.8)(images, images, 1)
    norms, before = bounded.square().sum(1).sqrt(), images.square().sum(1).sqrt()
    torch.testing.assert_close(norms, before.clamp_max(0.8))


def test_yosinski_prior(images):
    params = images - 0.5
    prior = YosinskiPrior(decay=0.1, blur_sigma=0.0, clip_norm=50)
    clipped = prior(params, params, 1)
    norm = params.square().sum(1)
    kept = norm > norm.flatten(1).sort(1).values[:, 9].view(-1, 1, 1)
    torch.testing.assert_close(clipped, 0.9 * params * kept[:, None])
    blurring = YosinskiPrior(decay=0.0, blur_sigma=1.0, blur_every=4)
    assert torch.equal(blurring(params, params, 3), params)
    torch.testing.assert_close(blurring(params, params, 4), gaussian_blur(params, 1.0))
    gradient = torch.zeros_like(params)
    gradient[:, :, 0, 0] = -params[:, :, 0, 0]  # the only pixel that raises the score
    contribution = YosinskiPrior(decay=0.0, blur_sigma=0.0, clip_contribution=90)(params, gradient, 1)
    assert contribution[:, :, 0, 0].equal(params[:, :, 0, 0])
    assert (contribution != 0).any(1).sum() == 2
