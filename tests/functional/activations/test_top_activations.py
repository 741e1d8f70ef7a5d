"""Streaming top activations against a sort of everything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_cnnvis.functional.activations.harvest import Harvest, top_activations
from lightning_cnnvis.functional.activations.top_k import NO_SAMPLE, TopActivations
from lightning_cnnvis.functional.deconvnet.projection import plan_windows, project
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(6, 5, 3),
        nn.ReLU(),
    )


def brute_force(maps: torch.Tensor, k: int) -> tuple[list, list, list]:
    """Values, sample ids and positions by a Python sort."""
    values, ids, positions = [], [], []
    for channel in range(maps.shape[1]):
        rows = []
        for sample in range(len(maps)):
            flat = maps[sample, channel].flatten().tolist()
            best = flat.index(max(flat))
            rows.append((-flat[best], sample, [best // maps.shape[3], best % maps.shape[3]]))
        rows = sorted(rows, key=lambda row: row[:2])[:k]
        values.append([-row[0] for row in rows])
        ids.append([row[1] for row in rows])
        positions.append([row[2] for row in rows])
    return values, ids, positions


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=3, max_size=6),
    k=st.integers(1, 6),
    levels=st.integers(2, 50),
    seed=st.integers(0, 100),
)
def test_equals_sorting_everything_with_ties_for_any_batch_split(sizes, k, levels, seed):
    generator = torch.Generator().manual_seed(seed)
    # few different pixel values and weights, so that there are many ties
    images = torch.randint(0, levels, (sum(sizes), 3, 13, 11), generator=generator).float()
    net = make_net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((parameter * 4).round())
        maps = net(images)
    k = min(k, len(images))
    top = top_activations(net, images.split(sizes), ["4"], k=k)["4"]
    values, ids, positions = brute_force(maps, k)
    assert top.values.tolist() == values
    assert top.sample_ids.tolist() == ids
    assert top.positions.tolist() == positions


def test_patches_and_projections_are_those_of_the_images():
    net, images = make_net(), torch.randn(7, 3, 30, 26, generator=torch.Generator().manual_seed(1))
    for layer in ("1", "4"):
        top = top_activations(net, images.split(3), [layer], k=2)[layer]
        projections = top.project(net, layer)
        expected = project(
            net, images[top.sample_ids.flatten()], layer, projections.channels, top.positions.flatten(0, 1)
        )
        torch.testing.assert_close(top.patches.flatten(0, 1), expected.patches, rtol=0, atol=0)
        torch.testing.assert_close(projections.patches, expected.patches, rtol=0, atol=0)
        torch.testing.assert_close(projections.pixels, expected.pixels)
        assert projections.boxes.tolist() == expected.boxes.tolist()
        torch.testing.assert_close(top.values.flatten(), expected.activations)


def test_merging_the_halves_of_the_data_gives_the_whole():
    net, images = make_net(), torch.randn(9, 3, 30, 26, generator=torch.Generator().manual_seed(1))
    whole = top_activations(net, images.split(4), ["4"], k=4)["4"]
    parts = []
    # two processes see every second image, and the second one a duplicate at its end
    for rank, seen in enumerate(([0, 2, 4, 6, 8], [1, 3, 5, 7, 0])):
        with Harvest(net, {"4": None}, 4) as harvest, torch.no_grad():
            harvest.number(first=rank, step=2, stop=9)
            for part in images[seen].split(2):
                net(part)
        parts.append(harvest.tops["4"])
    parts[0].merge(parts[1])
    parts[0].merge(parts[1])  # what is known already changes nothing
    for name in ("values", "sample_ids", "positions", "patches"):
        torch.testing.assert_close(getattr(parts[0], name), getattr(whole, name), rtol=0, atol=0)


def test_a_vector_layer_keeps_whole_images():
    net = nn.Sequential(make_net(), nn.Flatten(), nn.Linear(5 * 2 * 2, 4))
    images = torch.randn(5, 3, 17, 17, generator=torch.Generator().manual_seed(1))
    top = top_activations(net, [images], ["2"], k=3)["2"]
    assert torch.equal(top.patches, images[top.sample_ids])
    assert top.project(net, "2").pixels.shape == (12, 3, 17, 17)


def test_fewer_images_than_k_leave_empty_places():
    net, images = make_net(), torch.randn(2, 3, 30, 26)
    with Harvest(net, {"4": [1, 3]}, 9) as harvest, torch.no_grad():
        net(images)
    top = harvest.tops["4"]
    assert (top.sample_ids[:, 2:] == NO_SAMPLE).all()
    assert (top.sample_ids[:, :2] != NO_SAMPLE).all()
    projections = top.project(net, "4")
    assert not projections.pixels.unflatten(0, (2, 9))[:, 2:].any()
    assert not projections.patches.unflatten(0, (2, 9))[:, 2:].any()


def test_bad_input_is_named_and_leaves_no_hook():
    net, images = make_net(), torch.randn(4, 3, 30, 26)
    bad = images.clone()
    bad[2, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="k=9 exceeds the 4 images"):
        top_activations(net, [images], ["4"])
    with pytest.raises(ValueError, match="'4' has activations that are NaN"):
        top_activations(net, [bad], ["4"], k=2)
    with pytest.raises(LayerError, match="no layer 'conv4'"):
        top_activations(net, [images], ["conv4"], k=2)
    with pytest.raises(ValueError, match="not a tensor of images"):
        top_activations(net, [{"images": images}], ["4"], k=2)
    with pytest.raises(ValueError, match="images of one size"):
        top_activations(net, [images, images[:, :, :20]], ["4"], k=2)
    with pytest.raises(ValueError, match="k=0"):
        top_activations(net, [images], ["4"], k=0)
    for module in net.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_plans_that_are_given_are_not_made_again(monkeypatch):
    net, images = make_net(), torch.randn(6, 3, 30, 26, generator=torch.Generator().manual_seed(1))
    with isolated(net):
        windows = {layer: plan_windows(net, layer, images[:1]) for layer in ("1", "4")}
    whole = top_activations(net, images.split(4), ["1", "4"], k=2)
    planned = []
    monkeypatch.setattr(
        "lightning_cnnvis.functional.activations.harvest.plan_windows",
        lambda _net, layer, *_, **__: planned.append(layer) or windows[layer],
    )
    with Harvest(net, dict.fromkeys(whole), 2, windows=windows) as harvest, torch.no_grad():
        for batch in images.split(4):
            net(batch)
    assert not planned
    for layer, top in harvest.tops.items():
        for name in ("values", "sample_ids", "positions", "windows"):
            assert torch.equal(getattr(top, name), getattr(whole[layer], name))
    # images of another size than the plan's need another plan
    with (
        Harvest(net, {"4": None}, 2, windows=windows) as harvest,
        torch.no_grad(),
        pytest.raises(ValueError, match="size"),
    ):
        net(images[..., :20])
    assert planned == ["4"]


def test_planning_is_counted_by_no_harvest_of_the_network_and_stops_no_other(monkeypatch):
    # a network that cannot be copied is planned on itself
    monkeypatch.setattr("lightning_cnnvis.isolation.working_copy", lambda _: None)
    net, other = make_net(), make_net()
    images = torch.randn(4, 3, 30, 26, generator=torch.Generator().manual_seed(1))
    alone = top_activations(net, [images], ["1", "4"], k=2)
    runs = []

    def run_other_once(*_):
        if not runs:
            runs.append(Harvest._planned >= set(net.modules()))
            other(images)

    with (
        Harvest(net, {"1": None}, 2) as first,
        Harvest(net, {"4": None}, 2) as second,
        Harvest(other, {"4": None}, 2) as elsewhere,
        torch.no_grad(),
    ):
        handle = net[3].register_forward_hook(run_other_once)
        net(images)
        handle.remove()
    assert runs == [True]  # the other network ran in the middle of a plan
    for top, layer in ((first.tops["1"], "1"), (second.tops["4"], "4"), (elsewhere.tops["4"], "4")):
        assert torch.equal(top.values, alone[layer].values)
        assert torch.equal(top.sample_ids, alone[layer].sample_ids)
    assert not Harvest._planned


def test_rows_by_slice_numbers_and_mask():
    net, images = make_net(), torch.randn(4, 3, 30, 26, generator=torch.Generator().manual_seed(1))
    top = top_activations(net, [images], ["4"], k=2)["4"]
    mask = torch.tensor([False, True, False, True, False])
    for rows, expected in (
        ([3, 1], [3, 1]),
        (torch.tensor([3, 1]), [3, 1]),
        (mask, [1, 3]),
        (slice(1, 4, 2), [1, 3]),
    ):
        part = top[rows]
        for name in ("values", "sample_ids", "positions", "windows", "channels"):
            assert torch.equal(getattr(part, name), getattr(top, name)[expected])
    assert len(top[[]]) == len(top[:0]) == 0
    assert len(TopActivations(top.geometry, torch.arange(5), 2)[[0, 4]]) == 2


def test_other_channels_are_not_merged():
    net, images = make_net(), torch.randn(4, 3, 30, 26)
    one, other = (top_activations(net, [images], ["4"], 2, channels=[c])["4"] for c in (0, 1))
    with pytest.raises(ValueError, match="same channels"):
        one.merge(other)
    assert isinstance(one, TopActivations)
