"""Similarities agree with those of SciPy and scikit-image."""

from __future__ import annotations

import pytest
import torch

from lightning_cnnvis.functional.similarity import oriented_gradients, pearson, signal_to_noise, spearman


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    return first, first + noise


def test_correlations_are_those_of_scipy_also_with_ties():
    stats = pytest.importorskip("scipy.stats")
    first, second = pair(3, 40)
    first, second = first.round(), second.relu()
    for ours, theirs in ((spearman, stats.spearmanr), (pearson, stats.pearsonr)):
        expected = [theirs(a, b).statistic for a, b in zip(first, second, strict=True)]
        torch.testing.assert_close(ours(first, second), torch.tensor(expected, dtype=torch.float32))


def test_a_row_of_one_value_has_no_correlation():
    first, second = pair(2, 10)
    first[0] = 0.1
    assert spearman(first, second).isnan().tolist() == [True, False]
    assert pearson(second, first).isnan().tolist() == [True, False]


def test_the_rank_correlation_does_not_change_with_the_scale():
    first, second = pair(2, 30)
    torch.testing.assert_close(spearman(first * 1e-20, second), spearman(first, second))


@pytest.mark.parametrize("size", [(64, 80), (20, 21), (9, 40)])
def test_oriented_gradients_are_those_of_scikit_image(size):
    feature = pytest.importorskip("skimage.feature")
    pictures = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(1))
    cell = min(16, min(size) // 4)
    block = min(3, size[0] // cell, size[1] // cell)
    expected = [
        feature.hog(picture[0].numpy(), 9, (cell, cell), (block, block), block_norm="L2-Hys") for picture in pictures
    ]
    found = oriented_gradients(pictures)
    torch.testing.assert_close(found, torch.stack([torch.from_numpy(e) for e in expected]).float(), atol=1e-4, rtol=0)


def test_what_is_too_small_has_no_oriented_gradients():
    assert oriented_gradients(torch.rand(2, 3, 7, 50)).shape == (2, 0)


def test_equal_rows_have_no_noise():
    first, _ = pair(2, 5)
    assert signal_to_noise(first, first).tolist() == [float("inf")] * 2
