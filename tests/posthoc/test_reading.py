"""Photographs read ahead by processes are those that are read one by one; a part of them is spread over all."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis import InputSpec, analyze
from lightning_cnnvis.posthoc import reading
from lightning_cnnvis.posthoc.images import ImageFiles
from lightning_cnnvis.posthoc.loaders import Batches
from lightning_cnnvis.posthoc.reading import DataError, Reading

SPEC = InputSpec(size=(12, 12), mean=(0.2,) * 3, std=(0.5,) * 3)
needs_fork = pytest.mark.skipif(torch.multiprocessing.get_start_method() != "fork", reason="a patch must be inherited")


@pytest.fixture
def folder(tmp_path):
    """Five photographs; the third is broken."""
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 255, (20, 16, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    return tmp_path


def read(folder, workers=0, max_images=None, batch_size=2):
    files = ImageFiles.find(folder, reading=Reading(workers, max_images))
    files.batch_size = batch_size
    return files, list(files.batches(SPEC))


@pytest.mark.filterwarnings("ignore:.*was skipped")
@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_those_that_are_read_one_by_one(folder, workers):
    files, batches = read(folder, workers)
    expected = SPEC.normalize(ImageFiles.find(folder).first(5, SPEC))
    assert [len(batch) for batch in batches] == [2, 1, 1]
    assert torch.equal(torch.cat(batches), expected)
    assert [path.name for path in files.skipped] == ["2.png"]


@pytest.mark.filterwarnings("ignore:.*was skipped")
@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_is_drawn_from_the_generator_of_the_program(folder, workers):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    read(folder, workers)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:.*was skipped")
def test_the_default_device_is_not_asked(folder):
    torch.set_default_device("meta")
    try:
        _, batches = read(folder, 1)
    finally:
        torch.set_default_device(None)
    assert {batch.device.type for batch in batches} == {"cpu"}


def test_a_part_of_the_files_is_spread_over_all(folder):
    (folder / "2.png").unlink()
    files, (batch,) = read(folder, max_images=2)
    assert files.number == 2
    expected = ImageFiles([folder / "0.png", folder / "3.png"]).first(2, SPEC)
    assert torch.equal(batch, SPEC.normalize(expected))
    assert Reading(max_images=9).chosen("abc") == ["a", "b", "c"]


def test_files_none_of_which_can_be_read(folder):
    with pytest.raises(DataError, match=r"None of the 1 image\(s\) can be read"), pytest.warns(match="was skipped"):
        read(folder / "2.png")


@pytest.mark.parametrize("known", [True, False])
def test_a_part_of_a_loader_is_its_beginning(known):
    images = torch.arange(10.0).reshape(10, 1, 1, 1).expand(10, 3, 2, 2)
    loader = DataLoader(TensorDataset(images), 4)
    shown = Batches(loader if known else iter(loader), reading=Reading(max_images=6))
    assert torch.equal(torch.cat(list(shown.batches(SPEC))), images[:6])
    assert shown.number == (6 if known else 0)


def test_processes_are_started_for_many_files_only():
    assert Reading(None).workers_for(reading.MANY - 1) == 0
    assert 1 <= Reading(None).workers_for(reading.MANY) <= reading.MOST_WORKERS
    assert Reading().workers_for(10**6) == 0
    assert Reading(3).workers_for(1) == 3


@needs_fork
def test_a_process_that_is_killed(folder, monkeypatch):
    monkeypatch.setattr(reading, "read_fitted", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DataError, match=r"has ended.*--workers 0"):
        read(folder, 1)


@needs_fork
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])  # torch waits 5 s for its process
def test_other_errors_pass(folder, monkeypatch, workers):
    def fails(*_, **__):
        raise RuntimeError("no luck")

    monkeypatch.setattr(reading, "read_fitted", fails)
    with pytest.raises(RuntimeError, match="no luck"):
        read(folder, workers)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"workers": -1}, "workers=-1 is negative"), ({"max_images": 0}, "max_images=0 leaves no image")],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        analyze("nowhere.ckpt", **options)


@pytest.mark.filterwarnings("ignore:.*was skipped")
def test_methods_go_through_a_part(folder):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    options = {"k": 1, "num_channels": None}
    few = analyze(net, folder, input_spec=SPEC, max_images=1, workers=1).deconv(["1"], **options)
    first = analyze(net, folder / "0.png", input_spec=SPEC).deconv(["1"], **options)
    assert torch.equal(few.projections["1"].pixels, first.projections["1"].pixels)
