"""Statistics of feature maps add up, and are those of all images."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_cnnvis.functional.diagnosis.statistics import MapStatistics, similarity
from lightning_cnnvis.functional.noise import gaussian


def of(batches, starts, step=1) -> MapStatistics:
    found = MapStatistics(batches[0].shape[1], torch.device("cpu"))
    for batch, start in zip(batches, starts, strict=True):
        found.update(batch, range(start, start + step * len(batch), step))
    return found


MAPS = gaussian((24, 5, 9, 7)).relu()
MAPS[:, 1] = 0
MAPS[:, 3] += 2


def assert_same(one: MapStatistics, other: MapStatistics) -> None:
    for name in ("images", "samples", "pairs"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("positive", "wins", "total", "squares", "covariance", "vectors", "vector_ids", "is_dead"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-5, rtol=1e-5)
    assert one.is_always_on.tolist() == other.is_always_on.tolist()
    assert one.saturation() == other.saturation()


@pytest.mark.parametrize("size", [1, 5, 24])
def test_batches_of_any_size_add_up(size):
    batches = MAPS.split(size)
    assert_same(of(batches, [size * n for n in range(len(batches))]), of([MAPS], [0]))


def test_processes_add_up():
    first, second = of([MAPS[::2]], [0], step=2), of([MAPS[1::2][:5], MAPS[1::2][5:]], [1, 11], step=2)
    first.merge(second)
    assert_same(first, of([MAPS], [0]))
    empty = MapStatistics(5, torch.device("cpu"))
    empty.merge(of([MAPS], [0]))
    assert_same(empty, of([MAPS], [0]))


def test_images_that_a_sampler_adds_do_not_count():
    found = MapStatistics(5, torch.device("cpu"))
    found.update(torch.cat([MAPS, MAPS + 100]), range(24))
    assert_same(found, of([MAPS], [0]))


def test_numbers_are_those_of_the_definition():
    found, sampled = of([MAPS], [0]), MAPS[::4]
    # one position of two, of the rows and columns
    grid = sampled[:, :, 1:8:2, :7:1][:, :, :4, [1, 2, 3, 4]].double()
    assert found.samples == grid[:, 0].numel() == 6 * 16
    assert found.is_dead.tolist() == [False, True, False, False, False]
    assert found.is_always_on.tolist() == [False, False, False, True, False]
    assert bool((found.mean > 0).tolist() == [True, False, True, True, True])
    centred = grid.movedim(1, 0).flatten(1)
    torch.testing.assert_close(found.mean, centred.mean(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.covariance.double(), torch.cov(centred, correction=0), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.rms, centred.square().mean(1).sqrt(), atol=1e-5, rtol=0)


def test_dead_means_on_no_image_at_no_position():
    maps = torch.zeros(40, 3, 13, 13)
    maps[39, 1, 12, 12] = 0.1  # where no sample is taken, in the last batch
    found = of(maps.split(4), range(0, 40, 4))
    assert found.is_dead.tolist() == [True, False, True]


def test_numbers_that_are_none_are_dead():
    maps = MAPS.clone()
    maps[20, 2, 3, 3] = torch.nan
    assert of(maps.split(8), [0, 8, 16]).is_dead.tolist() == [False, True, True, False, False]


def test_saturation_counts_directions():
    directions = gaussian((2, 8))
    maps = gaussian((400, 2)) @ directions
    assert of([maps], [0]).saturation() == 2 / 8
    assert math.isnan(of([maps[:8]], [0]).saturation())


def test_working_share_counts_maps():
    maps = torch.ones(4, 10, 2, 2) * 1e-3
    maps[:, :2] = 1
    assert of([maps], [0]).working_share() == 0.2


def test_similarity_is_linear_cka():
    one, other = gaussian((96, 6), seed=1), gaussian((96, 4), seed=2)
    first, second = of([one], [0]), of([other], [0])
    x, y = (values[::4] - values[::4].mean(0) for values in (one, other))
    expected = (x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert similarity(first, second) == pytest.approx(float(expected), rel=1e-5)
    rotation = torch.linalg.qr(gaussian((6, 6), seed=3))[0]
    assert similarity(first, of([2 * one @ rotation + 1], [0])) == pytest.approx(1)
    assert math.isnan(similarity(of([one[:8]], [0]), of([one[:8]], [0])))


def test_what_has_no_maps_is_refused():
    found = MapStatistics(5, torch.device("cpu"))
    with pytest.raises(ValueError, match="has no feature maps"):
        found.update(torch.zeros(2, 3, 4, 4), range(2))
