"""The report of a run and of a checkpoint, and what is said where there can be none."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from report_contents import embedded

from lightning_cnnvis.cli import main
from lightning_cnnvis.models import ImageClassifier
from lightning_cnnvis.report import changes
from lightning_cnnvis.report.plots import plots_of

QUICK = ["--device=cpu", "--num_channels=3", "--k=2", "--steps=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["lightning-cnnvis"])
        small = ["--model.width=0.05", "--data.image_size=32", "--data.train_size=44", "--data.val_size=22"]
        main(["fit", *small, "--data.batch_size=22", "--trainer.max_epochs=2", "--trainer.accelerator=cpu"])
    return folder / "cnnvis_runs" / "version_0"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    options = {"model": "zfnet", "num_classes": 3, "image_size": 32, "width": 0.05, "recipe": "modern"}
    module = ImageClassifier(**options)
    torch.save({"epoch": 4, "state_dict": module.state_dict(), "hyper_parameters": options}, tmp_path / "some.ckpt")
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"photos/{number}.png")
    return "some.ckpt"


def test_of_a_run_with_its_epochs_and_curves(run, tmp_path, capsys):
    main(["report", str(run), "--output", "new/folder/report.html", *QUICK])
    assert capsys.readouterr().out.strip() == "new/folder/report.html"
    html = (tmp_path / "new/folder/report.html").read_text(encoding="utf-8")
    parts = embedded(html)
    index = parts["index"]
    (run_,) = index["runs"]
    heads = [entry["head"] for entry in run_["entries"]]
    layers = {(head["title"], head["epoch"]) for head in heads if head.get("layer")}
    assert layers == {(f"relu{n}", epoch) for n in range(1, 6) for epoch in (1, 2)}
    bodies = [parts[entry["body"]]["blocks"] for entry in run_["entries"] if entry["head"].get("layer")]
    maps = [len(block["maps"]) for blocks in bodies for block in blocks if block["kind"] == "features"]
    assert maps == [3] * 5
    last = next(head for head in heads if head.get("title") == "relu2" and head["epoch"] == 2)
    assert set(last["numbers"]) >= {"projection_similarity/relu2", "dead_maps/relu2", "inversion_error/relu2"}
    assert "val_accuracy" in dict(index["facts"])
    (training,) = (parts[entry["body"]] for entry in run_["entries"] if entry["head"].get("title") == "Training")
    titles = {plot["title"] for plot in training["blocks"][0]["plots"]}
    assert titles >= {
        *("Accuracy", "Similarity of projections to the epoch before", "Share of dead feature maps"),
        "Inversion error and accuracy",
    }
    labels = {tile["label"] for body in parts.values() if isinstance(body, dict) for tile in tiles(body)}
    assert "astronaut" in labels


def tiles(body: dict) -> list[dict]:
    return [tile for block in body.get("blocks", ()) for tile in block.get("tiles", ())]


def test_every_file_of_a_run_is_read_once(run, tmp_path, reads):
    main(["report", str(run), *QUICK, "--layers", "relu1", "--show", "deconv"])
    kept = [run / "cnnvis" / "weights" / f"epoch_000{epoch}.ckpt" for epoch in (1, 2)]
    assert reads == dict.fromkeys([*kept, *(run / "checkpoints").iterdir(), run / "config.yaml"], 1)
    reads.clear()
    main(["evolve", str(run), "--output", "again", "--device=cpu"])
    assert reads == dict.fromkeys([*kept, *(path for path in reads if path not in kept)], 1)
    assert set(kept) | {run / "config.yaml"} <= set(reads)


def test_of_a_checkpoint_and_some_layers(checkpoint, tmp_path):
    main(["report", checkpoint, "--data", "photos", "--layers", "relu2", *QUICK])
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    heads = [entry["head"] for entry in embedded(html)["index"]["runs"][0]["entries"]]
    assert [head["title"] for head in heads if head.get("layer")] == ["relu2"]
    assert {head["epoch"] for head in heads if "epoch" in head} == {0}
    assert "Training" not in {head.get("title") for head in heads}


def test_a_folder_gets_the_report(checkpoint, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    for folder in ("there", "new"):
        main(["report", checkpoint, "--data", "photos", "--layers", "relu2", *QUICK, "--output", folder])
        assert capsys.readouterr().out.strip() == f"{folder}/report.html"
        assert (tmp_path / folder / "report.html").is_file()


def fails(capsys, *args: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["report", *args, *QUICK])
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert printed.out == ""
    return printed.err


def test_bad_input_is_one_sentence_and_nothing_is_written(checkpoint, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "some.ckpt").read_bytes()[:2000])
    before = sorted(tmp_path.rglob("*"))
    assert "nowhere.ckpt" in fails(capsys, "nowhere.ckpt")
    assert "has no checkpoint in it" in fails(capsys, "empty")
    assert "cut.ckpt" in fails(capsys, "cut.ckpt", "--data", "photos")
    assert "no images" in fails(capsys, checkpoint, "--data", "empty")
    assert "'relu9'" in fails(capsys, checkpoint, "--data", "photos", "--layers", "relu9")
    assert "cannot be written" in fails(capsys, checkpoint, "--data", "photos", "--output", "some.ckpt/report.html")
    assert sorted(tmp_path.rglob("*")) == before


def test_without_scipy(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr("lightning_cnnvis.evolution.accuracy.module_available", lambda name: name != "scipy")
    assert "pip install 'lightning-cnnvis[posthoc]'" in fails(capsys, checkpoint, "--data", "photos")


def test_watch_writes_it_anew_until_it_is_interrupted(checkpoint, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"

    def changes(path):
        assert path == folder
        yield  # there is no checkpoint yet
        folder.mkdir()
        (tmp_path / checkpoint).rename(folder / "epoch=4.ckpt")
        yield
        yield
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_cnnvis.cli.posthoc.changes", changes)
    main(["report", str(folder), "--watch", "--data", "photos", "--layers", "relu2", "--show", "deconv", *QUICK])
    printed = capsys.readouterr()
    assert printed.out.split() == [f"{folder}/report.html"] * 2
    assert "is written with the next checkpoint" in printed.err
    assert (folder / "report.html").is_file()


def test_only_a_folder_can_be_watched(checkpoint, capsys):
    assert "--watch follows the folder of a run" in fails(capsys, checkpoint, "--watch")
    assert "--watch follows the folder of a run" in fails(capsys, "--watch")


def test_changes_wait_until_files_are_written(tmp_path):
    looks = iter(range(100))
    file = tmp_path / "checkpoints" / "epoch=1.ckpt"

    def meanwhile(_):
        look = next(looks)
        if look in (1, 2, 3):  # it grows
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"x" * look)
        if look == 6:
            (tmp_path / "other.txt").write_text("of no interest")
        if look == 9:
            file.unlink()

    found = changes(tmp_path, sleep=meanwhile)
    assert [(path.name, size) for path, (_, size) in next(found).items()] == [("epoch=1.ckpt", 3)]
    assert next(looks) == 5
    assert next(found) == {}
    with pytest.raises(ValueError, match="every=0 must be"):
        next(changes(tmp_path, every=0))


def test_inversion_errors_are_set_against_the_accuracy():
    curves = {
        "val_accuracy": {1: 0.25, 2: 0.5, 3: 0.625, 4: 0.75},
        "inversion_error/relu1": {1: 0.5, 2: 0.25, 3: 0.125, 4: 0.0625},
        "projection_similarity/relu1": {1: float("nan"), 2: 0.5},
    }
    *plots, against = plots_of(curves)
    assert plots[0].title == "Accuracy"
    similarity = next(plot for plot in plots if plot.title.startswith("Similarity"))
    assert similarity.lines == {"relu1": ((2.0, 0.5),)}
    assert against.log
    ((name, points),) = against.lines.items()
    assert name.startswith("relu1: ρ -1.00")
    assert points == ((0.5, 0.25), (0.25, 0.5), (0.125, 0.625), (0.0625, 0.75))


def test_metrics_of_other_names_have_their_plots():
    curves = {
        "val/acc": {1: 0.25, 2: 0.5, 3: 0.625},
        "val/loss": {1: 2.0, 2: 1.5, 3: 1.0},
        "inversion_error/relu1": {1: 0.5, 2: 0.25, 3: 0.125},
    }
    accuracy, loss, *_, against = plots_of(curves)
    assert (accuracy.title, loss.title) == ("Accuracy", "Validation loss")
    assert list(accuracy.lines) == ["val/acc"]
    assert [point for points in against.lines.values() for point in points] == [
        (0.5, 0.25),
        (0.25, 0.5),
        (0.125, 0.625),
    ]
