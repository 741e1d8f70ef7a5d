"""Invariance of units as a method of `analyze`, where some do not respond."""

from __future__ import annotations

import math

import torch
from runs import IMAGES, SPEC, network

from lightning_cnnvis import analyze
from lightning_cnnvis.methods import get_method

METHOD = get_method("unit_invariance")
QUICK = {"steps": 2, "num_directions": 2, "frequencies": 1}


def analysis(*dead: int):
    net = network()
    with torch.no_grad():
        for channel in range(net[0].out_channels):
            net[0].bias[channel] = -100 if channel in dead else 1
    return analyze(net, IMAGES, input_spec=SPEC)


def test_a_unit_that_does_not_respond_is_one_row_and_in_no_mean():
    both = analysis(1).unit_invariance(["2"], channels=[1, 2], **QUICK)
    alone = analysis(1).unit_invariance(["2"], channels=[2], **QUICK)
    assert both.units["2"].responds.tolist() == [False, True]
    assert both.scalars == alone.scalars
    assert all(math.isfinite(value) for value in both.scalars.values())
    (picture,), (shorter,) = both.pictures.values(), alone.pictures.values()
    rows = (len(picture) - len(shorter)) / len(shorter)
    assert rows < 0.75  # a head and one row beside a head and four
    strip = METHOD.strip(METHOD.options(), "2", both.units["2"])
    assert strip.captions[0] == "does not respond"


def test_no_unit_responds():
    found = analysis(1, 2).unit_invariance(["2"], channels=[1, 2], **QUICK)
    assert not found.units["2"].responds.any()
    assert found.scalars == {}
    assert list(found.pictures) == ["unit_invariance/2"]


def test_of_a_real_image():
    found = analysis(1).unit_invariance(["2"], channels=[1, 2], real=True, **QUICK)
    assert found.units["2"].responds.tolist() == [False, True]
