"""The state of evolution strips, and the measures of convergence."""

from __future__ import annotations

import math

import torch
from torch import nn

from lightning_cnnvis.evolution.features import Convergence, LayerEvolution, overlap, similarity
from lightning_cnnvis.evolution.strips import MAX_COLUMNS, PictureColumn, PictureStrip
from lightning_cnnvis.functional import top_activations


def test_similarity_is_the_cosine():
    a, b = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    expected = [float(torch.dot(x, y) / (x.norm() * y.norm())) for x, y in zip(a.flatten(1), b.flatten(1), strict=True)]
    torch.testing.assert_close(similarity(a, b), torch.tensor(expected))
    nothing = torch.zeros(1, 3, 5, 5)
    assert similarity(nothing, a[:1]).item() == 0
    assert math.isnan(similarity(nothing, nothing).item())


def test_overlap_is_that_of_the_sets():
    a = torch.tensor([[4, 2, 9], [1, 2, -1], [-1, -1, -1]])
    b = torch.tensor([[9, 4, 1], [2, 1, -1], [-1, -1, -1]])
    expected = []
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        one, other = set(x) - {-1}, set(y) - {-1}
        expected.append(len(one & other) / len(one | other) if one | other else 1.0)
    assert overlap(a, b).tolist() == expected


def test_scalars_leave_out_what_is_unknown():
    nan = torch.tensor(torch.nan)
    first = Convergence(1, nan.expand(2), nan.expand(3), torch.tensor([True, False, False, False]))
    assert first.scalars() == {"dead_maps": 0.25}
    second = Convergence(2, torch.tensor([0.5, torch.nan]), torch.tensor([1.0, 0.5]), torch.tensor([False, False]))
    assert second.scalars() == {"projection_similarity": 0.5, "top_overlap": 0.75, "dead_maps": 0.0}


def test_a_map_that_was_dead_is_fixed_when_it_wakes_and_others_stay():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(torch.stack([torch.ones(1, 3, 3), -torch.ones(1, 3, 3)]))
        net[0].bias.zero_()
    evolution = LayerEvolution()
    bright, brighter = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8) + 1
    fixed = evolution.fix(top_activations(net, [bright], ["1"], k=2)["1"])
    assert (fixed.values[:, 0] > 0).tolist() == [True, False]
    again = evolution.fix(top_activations(net, [torch.cat([-brighter, brighter])], ["1"], k=2)["1"])
    assert (again.values[:, 0] > 0).tolist() == [True, True]
    assert torch.equal(again.windows[0], fixed.windows[0])


def test_state_survives_a_round_trip(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    top = top_activations(net, [torch.rand(5, 3, 9, 9)], ["1"], k=2)["1"]
    evolution = LayerEvolution()
    fixed = evolution.fix(top)
    evolution.advance(1, top, torch.rand(4, 3, 3, 3))
    torch.save(evolution.state_dict(), tmp_path / "state.pt")
    copy = LayerEvolution.from_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for name in ("values", "sample_ids", "positions", "windows", "patches"):
        assert torch.equal(getattr(copy.fixed, name), getattr(fixed, name))
    assert torch.equal(copy.projections, evolution.projections)
    assert copy.advance(2, top, evolution.projections).similarity.tolist() == [1.0] * 4


def column(epoch: int, rows: int = 2) -> PictureColumn:
    return PictureColumn(epoch, torch.zeros(rows, 3, 4, 4, dtype=torch.uint8), ("",) * rows)


def test_a_strip_replaces_repeated_epochs_and_stays_short():
    strip = PictureStrip()
    for epoch in (1, 2, 3, 2):
        strip.add(column(epoch))
    assert [c.epoch for c in strip.columns] == [1, 2]
    for epoch in range(3, 200):
        strip.add(column(epoch))
    epochs = [c.epoch for c in strip.columns]
    assert len(epochs) <= MAX_COLUMNS
    assert epochs[0] == 1
    assert epochs[-2:] == [198, 199]
    assert PictureStrip.from_state_dict(strip.state_dict()).columns[0].epoch == 1
    strip.add(column(200, rows=3))
    assert [c.epoch for c in strip.columns] == [200]
