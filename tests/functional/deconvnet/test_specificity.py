"""Whether the projections of a map tell it from the others."""

import math

import pytest
import torch

from lightning_cnnvis.functional.deconvnet.specificity import Specificity, specificity

IDS = torch.arange(6)
CHANNELS = torch.tensor([0, 0, 0, 1, 1, 1])


def test_orthogonal_maps_are_told_apart():
    pictures = torch.eye(4).view(4, 1, 2, 2)[[0, 0, 0, 1, 1, 1]] * torch.arange(1, 7).view(-1, 1, 1, 1)
    found = specificity(pictures, CHANNELS, IDS)
    assert (found.within, found.between) == (1, 0)
    assert not found.fails


def test_one_picture_for_all_maps_says_nothing():
    found = specificity(torch.ones(6, 1, 2, 2), CHANNELS, IDS)
    assert found.within == pytest.approx(1)
    assert found.fails


def test_pairs_from_one_image_do_not_count():
    pictures = torch.eye(4).view(4, 1, 2, 2)[[0, 1, 2, 0, 1, 2]]
    found = specificity(pictures, CHANNELS, torch.tensor([0, 1, 2, 0, 1, 2]))
    assert (found.within, found.between) == (0, 0)


def test_pictures_are_aligned_by_their_fields():
    spot = torch.zeros(2, 1, 3, 3)
    spot[0, 0, 0, 0] = spot[1, 0, 2, 2] = 1
    shifts = torch.tensor([[2, 2], [0, 0]])
    assert specificity(spot, torch.tensor([0, 0]), torch.tensor([0, 1]), shifts).within == 1
    assert specificity(spot, torch.tensor([0, 0]), torch.tensor([0, 1])).within == 0


@pytest.mark.parametrize("scale", [1e-40, 1e30])
def test_scale_does_not_matter(scale):
    pictures = torch.full((2, 1, 40, 64), scale)
    assert specificity(pictures, torch.tensor([0, 0]), torch.tensor([0, 1])).within == pytest.approx(1)


def test_nothing_to_compare():
    found = specificity(torch.zeros(0, 3, 8, 8), *[torch.zeros(0).long()] * 2, torch.zeros(0, 2).long())
    assert math.isnan(found.within)
    assert math.isnan(found.between)
    assert not found.fails


def test_small_cosines_fail_nothing():
    assert not Specificity(0.02, 0.02).fails
    assert Specificity(0.68, 0.66).fails


def test_counts_must_agree():
    with pytest.raises(ValueError, match="give one of each"):
        specificity(torch.ones(2, 1, 2, 2), CHANNELS, IDS)
