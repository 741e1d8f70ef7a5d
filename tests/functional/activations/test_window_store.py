"""Windows cut late against windows cut at once."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_cnnvis.functional.activations.harvest import Harvest
from lightning_cnnvis.functional.activations.window_store import WindowStore
from lightning_cnnvis.functional.deconvnet.batching import plan_windows
from lightning_cnnvis.isolation import isolated

NET = nn.Sequential(nn.Conv2d(2, 4, 5, stride=2, padding=1), nn.ReLU())
SIZE = (13, 11)


def make_store(places: int) -> tuple[WindowStore, tuple[int, int]]:
    with isolated(NET):
        geometry = plan_windows(NET, "1", torch.zeros(1, 2, *SIZE))
    return WindowStore(geometry, places, torch.device("cpu")), geometry.size


@settings(max_examples=40, deadline=None, derandomize=True)
@given(places=st.integers(1, 40), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_every_place_has_the_window_that_was_put_last(places, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    store, (height, width) = make_store(places)
    expected = torch.zeros(places, 2, height, width)
    for n, size in enumerate(sizes):
        images = torch.rand(size, 2, *SIZE, generator=generator)
        chosen = torch.randperm(places, generator=generator)[: 1 + places // 2]
        samples = torch.randint(0, size, (len(chosen),), generator=generator)
        limits = torch.tensor([SIZE[0] - height + 1, SIZE[1] - width + 1])
        corners = (torch.rand(len(chosen), 2, generator=generator) * limits).long()
        store.put(chosen, images, samples, corners, keep=n % 4 != 3)
        for place, sample, (top, left) in zip(chosen.tolist(), samples.tolist(), corners.tolist(), strict=True):
            expected[place] = images[sample, :, top : top + height, left : left + width]
        # what is kept never takes more than all windows would
        assert sum(batch.nbytes for batch in store.batches) <= expected.nbytes
    assert torch.equal(store.windows(), expected)
    assert not store.batches


def test_batches_are_kept_while_they_take_less_than_the_windows_and_may_be_written_over():
    net = nn.Sequential(nn.Conv2d(3, 16, 7), nn.ReLU())
    images = torch.rand(24, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    held, tops = [], []
    for split in (2, 24):
        buffer = torch.empty(split, 3, 24, 24)
        with Harvest(net, {"1": None}, k=9) as harvest, torch.no_grad():
            for batch in images.split(split):
                net(buffer.copy_(batch))
                held.append(len(harvest.tops["1"].batches))
            buffer.fill_(torch.nan)
        tops.append(harvest.tops["1"])
    # 144 windows of 7 × 7 pixels take what 12.25 images take
    assert held == [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0]
    assert torch.equal(tops[0].windows, tops[1].windows)
    assert torch.equal(tops[0].positions, tops[1].positions)
