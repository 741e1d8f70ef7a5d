"""A GPU that really runs out of memory: chunks are halved, and the results are those of a GPU with enough."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import pytest
import torch
from gpu.cases import assert_close
from torch import nn

from lightning_cnnvis import InputSpec
from lightning_cnnvis.functional import (
    InversionOptions,
    VisualizationOptions,
    invert,
    maximize_activation,
    project,
    visualize_classes,
)
from lightning_cnnvis.functional.network.chunks import in_chunks, is_out_of_memory

pytestmark = pytest.mark.gpu

SPEC = InputSpec(size=(96, 96))
COUNT = 32


@contextmanager
def at_most(room: int):
    """Leaves this process so many bytes of the device, and no more."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + room) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_a_real_shortage_is_recognised(cuda):
    with at_most(64 * 2**20), pytest.raises(RuntimeError) as caught:
        torch.empty(2**30, dtype=torch.uint8, device=cuda)
    assert is_out_of_memory(caught.value)


def test_chunks_are_halved_until_they_fit(cuda):
    sizes = []

    def work(part):
        held = torch.ones((part.stop - part.start) * 32 * 2**20, dtype=torch.uint8, device=cuda)
        value = held[-1].item()
        sizes.append(part.stop - part.start)
        return value

    with at_most(160 * 2**20):
        assert list(in_chunks(work, total=11, chunk_size=11)) == [1] * len(sizes)
    assert sum(sizes) == 11
    assert 2 <= max(sizes) <= 5


def wide() -> nn.Sequential:
    """Its activations take 2 MB an image and layer in float64."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 8, 3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 24 * 24, COUNT),
    ).eval().double()  # fmt: skip


IMAGES = torch.rand(COUNT, 3, 96, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

RUNS = {
    "visualize_classes": lambda net, chunk: visualize_classes(
        net, list(range(COUNT)), input_spec=SPEC, steps=2, options=VisualizationOptions(chunk=chunk)
    ),
    "maximize_activation": lambda net, chunk: maximize_activation(
        net, "3", list(range(COUNT)), input_spec=SPEC, steps=2, options=VisualizationOptions(chunk=chunk)
    ),
    "invert": lambda net, chunk: invert(
        net, IMAGES.to(net[0].weight.device), "3", input_spec=SPEC, steps=2, options=InversionOptions(chunk=chunk)
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_function_recovers(cuda, monkeypatch, name):
    net = wide().to(cuda)
    run = RUNS[name]
    run(net, 1)  # workspaces
    peaks = {}
    for chunk in (2, COUNT):
        torch.cuda.reset_peak_memory_stats()
        expected = run(net, chunk)
        peaks[chunk] = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    assert peaks[COUNT] > 2 * peaks[2]
    emptied, empty = [], torch.cuda.empty_cache
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: (emptied.append(1), empty())[1])
    with at_most((peaks[2] + peaks[COUNT]) // 2):
        emptied.clear()
        result = run(net, COUNT)
    assert emptied
    assert_close(result, expected)


def test_projections_recover(cuda, monkeypatch):
    net, images = wide().to(cuda), IMAGES.repeat(8, 1, 1, 1).to(cuda)
    channels = torch.arange(len(images), device=cuda) % 8

    def run():
        return project(net, images, "5", channels, windowed=False)

    expected = run()
    del expected
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    expected = run()
    peak = torch.cuda.max_memory_allocated() - before
    emptied, empty = [], torch.cuda.empty_cache
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: (emptied.append(1), empty())[1])
    with at_most(2 * peak // 3):
        emptied.clear()
        result = run()
    assert emptied
    assert_close(result, expected)


def test_a_single_image_that_does_not_fit_raises(cuda):
    net = wide().to(cuda)
    # each activation takes 38 MB, more than the blocks that the allocator keeps
    with at_most(8 * 2**20), pytest.raises(RuntimeError) as caught:
        maximize_activation(net[:6], "3", [0], input_spec=InputSpec(size=(384, 384)), steps=2)
    assert is_out_of_memory(caught.value)
    with torch.no_grad():
        assert net(IMAGES[:1].to(cuda)).isfinite().all()
