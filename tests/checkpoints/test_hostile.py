"""Checkpoints that are damaged or made to do harm: each is a network, or an error in a sentence."""

from __future__ import annotations

import copy
import random
import zipfile
from collections import OrderedDict

import pytest
import torch

from lightning_cnnvis import InputSpec
from lightning_cnnvis.checkpoints import CheckpointError, Run, load
from lightning_cnnvis.checkpoints.facts import Facts
from lightning_cnnvis.models import ImageClassifier
from lightning_cnnvis.posthoc.reading import DataError
from lightning_cnnvis.posthoc.source import ImageSource

OPTIONS = {"model": "zfnet", "num_classes": 3, "image_size": 32, "width": 0.05, "recipe": "modern", "lr": 1e-3}
SPEC = {"size": (32, 32), "channels": 3, "mean": (0.5,), "std": (0.25,), "class_names": ("ant", "bee", "cow")}


@pytest.fixture(scope="module")
def content():
    torch.manual_seed(0)
    return {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": ImageClassifier(**OPTIONS).state_dict(),
        "loops": {"fit_loop": {"epoch_progress": {"current": {"ready": 4, "completed": 4}}}},
        "callbacks": {
            "ModelCheckpoint{}": {"monitor": "val_accuracy", "current_score": torch.tensor(0.5)},
            "DeconvNetProjection{}": {"input_spec": SPEC, "images": torch.zeros(2, 3, 4, 4)},
        },
        "hyper_parameters": OPTIONS,
        "datamodule_hyper_parameters": {"image_size": 32, "batch_size": 8, "train_size": 10, "val_size": 5, "seed": 0,
                                        "num_workers": None},
    }  # fmt: skip


OTHERS = [
    None, True, -1, 0, 2**31, 2**70, 10**300, 1.5, float("nan"), float("inf"), "", "text", "a\x1b[2Jb", b"bytes", [],
    [1], {}, {"a": 1}, {1: 2}, (), (3, 4), set(), torch.zeros(0), torch.zeros(2, 3), torch.tensor(float("nan")),
    torch.zeros(1).expand(3), [[[[]]]], OrderedDict(), torch.float16, torch.Size([1]), complex(1, 2),
]  # fmt: skip


def places(value, at=()):
    """Where values are in nested mappings."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))


def changed(content, at, other):
    content = copy.copy(content)
    if not at:
        return other
    content[at[0]] = changed(content[at[0]], at[1:], other)
    return content


def outcome(path) -> str:
    """The sentence that a file ends in; empty if it is a network."""
    try:
        loaded = load(path)
        _ = Run(path.parent).epochs, ImageSource(loaded, None).found
    except (CheckpointError, DataError) as error:
        return str(error)
    return ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
def test_values_of_any_type_at_any_place(tmp_path, content, seed):
    path = tmp_path / "some.ckpt"
    at_random = random.Random(seed)
    every = list(places(content))
    aside = [at for at in every if at[:1] != ("state_dict",)]
    for _ in range(100):
        at = at_random.choice(aside if at_random.random() < 0.8 else every)
        other = at_random.choice(OTHERS)
        torch.save(changed(content, at, other), path)
        assert outcome(path).replace("\n", "").isprintable(), f"{other!r} at {at}"


@pytest.mark.parametrize("key", ["state_dict", "callbacks", "loops", "hyper_parameters"])
def test_what_is_missing(tmp_path, content, key):
    torch.save({name: value for name, value in content.items() if name != key}, tmp_path / "some.ckpt")
    if key in {"state_dict", "hyper_parameters"}:
        with pytest.raises(CheckpointError):
            load(tmp_path / "some.ckpt")
    else:
        assert load(tmp_path / "some.ckpt").epoch == 4


@pytest.mark.parametrize(
    "options",
    [{"image_size": 10**9}, {"image_size": 8000}, {"num_classes": 10**8}, {"width": 1e6}, {"width": float("nan")},
     {"model": "vit_h_14", "num_classes": 3}, {"model": "/etc/passwd"}, {"model": ["zfnet"]}, {"lr": "fast"}],
)  # fmt: skip
def test_hyperparameters_of_a_network_that_fills_the_memory(tmp_path, content, options):
    torch.save({**content, "hyper_parameters": OPTIONS | options}, tmp_path / "some.ckpt")
    with pytest.raises(CheckpointError):
        load(tmp_path / "some.ckpt")


@pytest.mark.parametrize("spec", [{"size": (10**6, 10**6)}, {"channels": 10**9}, {"mean": 3}, {"size": "ab"}, {"x": 1}])
def test_an_input_that_is_none(spec):
    state = {"input_spec": SPEC | spec}
    assert Facts.of({"callbacks": {"a": state}}).input_spec is None
    assert Facts.of({"callbacks": {"a": state, "b": {"input_spec": SPEC}}}).input_spec == InputSpec(**SPEC)


def test_an_archive_that_inflates_is_refused_before(tmp_path, monkeypatch, content):
    path = tmp_path / "bomb.ckpt"
    torch.save({**content, "more": torch.zeros(2**25)}, tmp_path / "large.ckpt")
    with zipfile.ZipFile(tmp_path / "large.ckpt") as large, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in large.infolist():
            bomb.writestr(entry.filename, large.read(entry))
    assert path.stat().st_size < 2**20
    assert load(path, trust=True).epoch == 4
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match=r"bytes and would inflate to 13.*--trust"):
        load(path)
    with pytest.raises(CheckpointError, match="would inflate"):
        load(tmp_path)


@pytest.mark.parametrize("place", ["state_dict", "callbacks"])
def test_tensors_that_repeat_a_value_are_refused(tmp_path, content, place):
    repeated = {"weight": torch.zeros(1).expand(10**6, 10**6)}
    torch.save({**content, place: {"a": repeated} if place == "callbacks" else repeated}, tmp_path / "some.ckpt")
    with pytest.raises(CheckpointError, match=r"shape \(1000000, 1000000\) in 4 bytes.*--trust"):
        load(tmp_path / "some.ckpt")


@pytest.mark.parametrize("cut", [4, 30, 100, 2000])
@pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".safetensors"])
def test_bytes_that_are_damaged(tmp_path, content, cut, suffix):
    torch.save(content, tmp_path / "some.ckpt")
    data = bytearray((tmp_path / "some.ckpt").read_bytes())
    at_random = random.Random(cut)
    for _ in range(50):
        start = at_random.randrange(min(len(data), 4000))
        data[start : start + 4] = at_random.randbytes(4)
    data[-cut:] = at_random.randbytes(cut)
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        load(path)
