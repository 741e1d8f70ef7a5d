"""The tables of docs/redesign.md are those of the kept figures, and its two networks differ in the first layer only."""

from __future__ import annotations

import pytest
import torch
from benchmarks import first_layer
from benchmarks import first_layer_page as page

from lightning_cnnvis.models.convnet import Stage


def test_the_networks_differ_in_the_first_layer_only():
    old, new = (first_layer.network(arm, seed=0) for arm in first_layer.ARMS)
    old_weights, new_weights = old.state_dict(), new.state_dict()
    assert old_weights.keys() == new_weights.keys()
    for name, weight in old_weights.items():
        assert name == "conv1.weight" or torch.equal(weight, new_weights[name])


@pytest.mark.parametrize("arm", first_layer.GEOMETRIES)
def test_every_geometry_leaves_maps_of_one_size(arm):
    first, stride, padding = first_layer.GEOMETRIES[arm]
    second = Stage(64, 5, stride, padding=padding)
    assert second.map_sizes(first.map_sizes(first_layer.SIZE)[-1]) == [15]


def test_intervals_are_those_of_the_textbook():
    assert page.interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    assert page.wilson(0, 100) == pytest.approx((0, 0.037), abs=1e-3)


def test_tables_are_those_of_the_figures():
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.rendered(text) == text, "python -m tests.benchmarks.first_layer_page"
    for name in page.TABLES:
        assert text.count(f"<!-- redesign: {name} -->") == 1
