"""A run's folder: which checkpoints it has, in which order, and how often each is read."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightning_cnnvis.checkpoints import CheckpointError, Run, find_checkpoints, load
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.posthoc.epochs import find_epochs


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"0.weight": torch.full((4, 3, 3, 3), value), "0.bias": torch.zeros(4)}


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())


def value_of(checkpoint) -> float:
    return float(checkpoint.model[0].weight.detach().flatten()[0])


def save_epochs(folder, *epochs: int, name: str = "{}.ckpt", **more) -> None:
    folder.mkdir(exist_ok=True)
    for epoch in epochs:
        torch.save({"epoch": epoch - 1, "state_dict": weights(epoch), **more}, folder / name.format(epoch))


def save_legacy(content, path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [torch.save, save_file, save_legacy])
@pytest.mark.parametrize("name", ["epoch_{}", "net-{}-of-12", "{}", "EPOCH={}"])
def test_numbers_in_names_count_by_their_value(tmp_path, save, name):
    suffix = ".safetensors" if save is save_file else ".pth"
    for epoch in (10, 2, 12, 1, *range(3, 10), 11):  # not the order in which they are written
        save(weights(epoch), tmp_path / f"{name.format(epoch)}{suffix}")
    assert [path.stem for path in find_epochs(tmp_path).values()] == [name.format(epoch) for epoch in range(1, 13)]
    assert list(find_epochs(tmp_path)) == list(range(1, 13))
    assert value_of(load(tmp_path, network())) == 12
    assert value_of(load(tmp_path, network(), epoch=2)) == 2


def test_epochs_in_names_are_taken(tmp_path):
    for epoch in (5, 10, 20):
        torch.save(weights(epoch), tmp_path / f"epoch_{epoch:04d}.pth")
    assert {epoch: path.name for epoch, path in Run(tmp_path).epochs.items()} == {
        5: "epoch_0005.pth", 10: "epoch_0010.pth", 20: "epoch_0020.pth"
    }  # fmt: skip
    torch.save(weights(3), tmp_path / "last.pth")  # has none: they are counted
    assert list(Run(tmp_path).epochs) == [1, 2, 3, 4]


def test_without_numbers_the_newest_was_trained_longest(tmp_path):
    for value, name in enumerate(("last", "best")):
        torch.save(weights(value), tmp_path / f"{name}.pth")
        os.utime(tmp_path / f"{name}.pth", (value, value))
    assert Run(tmp_path).longest.name == "best.pth"


def test_folders_in_their_order(tmp_path):
    for number in (10, 9):
        save_epochs(tmp_path / f"version_{number}", 1)
    assert [path.parent.name for path in find_checkpoints(tmp_path)] == ["version_9", "version_10"]


def test_weights_that_were_kept_come_first(tmp_path):
    save_epochs(tmp_path / "weights", 1, 4)
    save_epochs(tmp_path / "checkpoints", 3, 4, name="last-{}.ckpt")
    run = Run(tmp_path)
    assert {epoch: path.parent.name for epoch, path in run.epochs.items()} == {1: "weights", 4: "weights"}
    assert load(run, network(), epoch=4).epoch == 4
    with pytest.raises(CheckpointError, match=r"no checkpoint of epoch 3: there are those of 1, 4\."):
        load(run, network(), epoch=3)


def test_each_file_is_read_once(tmp_path, reads):
    save_epochs(tmp_path, 1, 2)
    save_file(weights(3), tmp_path / "some.safetensors")
    (tmp_path / "config.yaml").write_text("data: {class_path: Data}")
    with Run(tmp_path) as run:
        assert list(run.epochs) == [1, 2, 3]
        for epoch in (1, 2, 3, 1, None):
            loaded = load(run, network(), epoch=epoch)
            assert loaded.run.config == {"data": {"class_path": "Data"}}
        assert run.input_spec is None
    assert reads == dict.fromkeys([*run.files, tmp_path / "config.yaml"], 1)


def test_tensors_are_mapped_and_let_go(tmp_path, monkeypatch):
    options = []
    original = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: options.append(kwargs) or original(*args, **kwargs))
    save_epochs(tmp_path, 1, 2)
    with Run(tmp_path) as run:
        loaded = load(run, network())
        content = run.content(run.at(1))
        assert content is run.content(run.at(1))
    assert [call["mmap"] for call in options] == [True, True]
    assert run.content(run.at(1)) is not content
    # what was loaded does not depend on the files
    for path in run.files:
        path.write_bytes(bytes(path.stat().st_size))
    assert value_of(loaded) == 2


def test_the_state_of_callbacks_does_not_depend_on_the_file(tmp_path):
    save_epochs(tmp_path, 1, callbacks={"Shows": {"images": torch.ones(1000)}})
    loaded = load(tmp_path, network())
    path = tmp_path / "1.ckpt"
    path.write_bytes(bytes(path.stat().st_size))
    assert loaded.callbacks["Shows"]["images"].eq(1).all()


def test_old_files_are_held_one_at_a_time(tmp_path, reads):
    for epoch in (1, 2, 3):
        save_legacy({"epoch": epoch - 1, "state_dict": weights(epoch)}, tmp_path / f"{epoch}.pt")
    run = Run(tmp_path)
    assert list(run.epochs) == [1, 2, 3]
    assert run.longest.name == "3.pt"
    assert value_of(load(run, network())) == 3
    assert set(reads.values()) == {1}
    assert len(run._in_memory) == 1
    assert value_of(load(run, network(), epoch=1)) == 1


def test_archives_that_were_compressed_are_not_mapped(tmp_path):
    zipfile = pytest.importorskip("zipfile")
    save_epochs(tmp_path, 7)
    with zipfile.ZipFile(tmp_path / "7.ckpt") as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(tmp_path / "7.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in entries:
            archive.writestr(entry.filename, data)
    assert value_of(load(tmp_path, network())) == 7


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"a page of text"]
)
@pytest.mark.parametrize("name", ["2.ckpt", "2.safetensors", "2.pth"])
def test_what_cannot_be_read_is_named_and_passed_over(tmp_path, damage, name):
    save_epochs(tmp_path, 1, 3)
    path = tmp_path / name
    save_file(weights(2), path) if path.suffix == ".safetensors" else torch.save(weights(2), path)
    path.write_bytes(damage(path.read_bytes()))
    for find in (lambda: load(tmp_path, network()).epoch, lambda: max(Run(tmp_path).epochs)):
        with pytest.warns(UserWarning, match="passed over") as warned:
            assert find() == 3
        assert len(warned) == 1
        assert str(path) in str(warned[0].message)


@pytest.mark.filterwarnings("ignore:A checkpoint is passed over")
def test_where_nothing_can_be_read(tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.ckpt").write_bytes(b"")
    for find in (lambda: load(tmp_path, network()), lambda: Run(tmp_path).epochs):
        with pytest.raises(CheckpointError, match=r"None of the 2 checkpoints in .* can be read\. .*1\.ckpt is empty"):
            find()
    (tmp_path / "2.ckpt").unlink()
    with pytest.raises(CheckpointError, match=r"^\S*1\.ckpt is empty"):
        load(tmp_path, network())


class Own:
    pass


@pytest.mark.parametrize("suspect", [1, 2, 3])
def test_trust_counts_for_every_file(tmp_path, suspect):
    for epoch in (1, 2, 3):
        save_epochs(tmp_path, epoch, **({"hyper_parameters": {"data": Own}} if epoch == suspect else {}))
    for find in (lambda: load(tmp_path, network()), lambda: find_epochs(tmp_path)):
        with pytest.raises(CheckpointError, match=rf"{suspect}\.ckpt contains more than tensors.*Own.*--trust"):
            find()
    assert load(tmp_path, network(), trust=True).epoch == 3
    assert load(tmp_path, network(), epoch=suspect, trust=True).epoch == suspect
    assert list(find_epochs(tmp_path, trust=True)) == [1, 2, 3]


def test_the_input_that_a_callback_found(tmp_path):
    spec = {"size": (24, 32), "channels": 1, "mean": (0.5,), "std": (0.25,), "class_names": ("ant", "bee")}
    save_epochs(tmp_path, 1)
    save_epochs(tmp_path, 2, callbacks={"Shows": {"input_spec": spec}, "Others": None})
    assert Run(tmp_path).input_spec == InputSpec(**spec)


def test_the_configuration_lies_above_or_below(tmp_path):
    version = tmp_path / "logs" / "version_3"
    version.mkdir(parents=True)
    save_epochs(version / "checkpoints", 1)
    (version / "config.yaml").write_text("seed_everything: 3")
    # an experiment logger's own file is not a run
    (version / "wandb").mkdir()
    (version / "wandb" / "config.yaml").write_text("seed_everything: 4")
    for folder in (version, version / "checkpoints", tmp_path / "logs"):
        assert Run(folder).config == {"seed_everything": 3}
        assert load(folder, network()).run.config == {"seed_everything": 3}
    assert load(version / "checkpoints" / "1.ckpt", network()).run.config == {"seed_everything": 3}
    assert Run(tmp_path).epochs
    (version / "config.yaml").write_text("[: no yaml")
    with pytest.raises(CheckpointError, match=r"(?s)config\.yaml cannot be read .*Fix or delete it\."):
        _ = Run(version).config


def test_the_configuration_of_the_file_in_a_folder_of_several_runs(tmp_path):
    for number in (1, 2):
        folder = tmp_path / f"version_{number}"
        save_epochs(folder, number)
        (folder / "config.yaml").write_text(f"seed_everything: {number}")
    loaded = load(tmp_path, network())
    assert (loaded.epoch, loaded.run.config) == (2, {"seed_everything": 2})
    with pytest.raises(CheckpointError, match=r"contains 2 runs\. Name one of them, such as .*version_1"):
        _ = Run(tmp_path).epochs


@pytest.mark.parametrize(
    "malformed",
    [{"loops": []}, {"loops": {"fit_loop": None}}, {"callbacks": [1]}, {"hyper_parameters": None}, {"epoch": "three"}],
)
def test_malformed_facts_are_no_tracebacks(tmp_path, malformed):
    torch.save({"epoch": 1, "state_dict": weights(1), **malformed}, tmp_path / "some.ckpt")
    assert load(tmp_path, network()).epoch in {2, None}
    with pytest.raises(CheckpointError, match="is of another class"):
        load(tmp_path)
