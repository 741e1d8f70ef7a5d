"""Training from the command line, from its arguments to the pictures."""

from __future__ import annotations

import sys

import pytest
import torch
import yaml
from PIL import Image

from lightning_cnnvis.cli import main
from lightning_cnnvis.models import ImageClassifier

SMALL = [
    "--model.width=0.05",
    "--data.image_size=32",
    "--data.train_size=44",
    "--data.val_size=22",
    "--data.batch_size=22",
    "--trainer.max_epochs=2",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.num_sanity_val_steps=0",
]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-cnnvis"])


def fails(capsys, *args: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", *args])
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_fit_writes_pictures_and_says_where(tmp_path, capsys):
    main(["fit", *SMALL])
    run = tmp_path / "cnnvis_runs" / "version_0"
    out = capsys.readouterr().out
    assert "Pictures:    cnnvis_runs/version_0/cnnvis" in out
    assert "TensorBoard: tensorboard --logdir cnnvis_runs/version_0 --samples_per_plugin images=1000\n" in out
    assert "ten epochs of each picture, drawn at random" in out
    assert "Report:      lightning-cnnvis report cnnvis_runs/version_0" in out
    pictures = list((run / "cnnvis").rglob("*.png"))
    assert pictures
    Image.open(pictures[0]).verify()
    (checkpoint,) = (run / "checkpoints").glob("*.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(checkpoint, weights_only=True)
    assert loaded.hparams.num_classes == 11
    data = torch.load(checkpoint, weights_only=True)["datamodule_hyper_parameters"]
    assert data["image_size"] == 32

    # the configuration that was saved runs again, to the same weights
    main(["fit", "--config", str(run / "config.yaml")])
    (again,) = (tmp_path / "cnnvis_runs" / "version_1" / "checkpoints").glob("*.ckpt")
    weights, weights_again = (torch.load(path, weights_only=True)["state_dict"] for path in (checkpoint, again))
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)

    # and the checkpoint can be validated with nothing more said
    main(["validate", *SMALL[:5], "--ckpt_path", str(checkpoint)])
    assert "val_accuracy" in capsys.readouterr().out


def test_yaml_configures_data_model_and_callbacks(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (40, 40), (60 * number, 0, 0)).save(tmp_path / "photos" / "train" / name / f"{number}.png")
    config = {
        "model": {"model": "alexnet", "width": 0.05, "recipe": "paper"},
        "data": {"class_path": "ImageFolder", "init_args": {"root": "photos", "image_size": 32, "val_fraction": 0.25}},
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "callbacks": [
                {
                    "class_path": "lightning_cnnvis.callbacks.DeconvNetProjection",
                    "init_args": {"layers": ["relu2"], "num_channels": 2, "every_n_epochs": 1},
                },
                {"class_path": "lightning_cnnvis.FilterRenormalization", "init_args": {"radius": 0.05}},
            ],
        },
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "run.yaml"])
    run = tmp_path / "cnnvis_runs" / "version_0"
    assert (run / "cnnvis" / "deconvnet" / "relu2").is_dir()
    assert not (run / "cnnvis" / "deconvnet" / "relu1").exists()
    (checkpoint,) = (run / "checkpoints").glob("*.ckpt")
    classifier = ImageClassifier.load_from_checkpoint(checkpoint, weights_only=True)
    assert type(classifier.model).__name__ == "AlexNet"
    assert classifier.hparams.num_classes == 2
    filters = classifier.model.conv1.weight.flatten(1)
    assert (filters.square().mean(1).sqrt() <= 0.05 + 1e-6).all()


def test_what_can_be_mended_is_one_sentence(capsys, tmp_path):
    unknown = fails(capsys, "--data=PhotoCorps")
    assert "'PhotoCorps' is not a data set. Did you mean 'PhotoCrops'? Choose one of PhotoCrops, CIFAR10" in unknown
    assert "usage:" not in unknown
    assert "There is no folder" in fails(capsys, "--data=ImageFolder", "--data.root=nowhere")
    assert "arguments are required: root" in fails(capsys, "--data=ImageFolder")
    assert "Did you mean 'zfnet'" in fails(capsys, "--model.model=zfnot")
    assert "--model.wdth" in fails(capsys, "--model.wdth=1")
    assert "image_size=5 is too small" in fails(capsys, "--data.image_size=5")
    assert "--data.download true" in fails(capsys, "--data=CIFAR10")
    assert "--trainer.max_epochs many: it must be an int." in fails(capsys, "--trainer.max_epochs=many")
    (tmp_path / "file").write_text("")
    unwritable = fails(capsys, "--trainer.logger.save_dir=file/runs")
    assert "file/runs cannot be written" in unwritable
    assert "Choose another with --trainer.logger.save_dir." in unwritable


def test_a_checkpoint_that_cannot_be_used_is_one_sentence(capsys, tmp_path):
    def says(*args: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            main([*args, "--trainer.accelerator=cpu"])
        assert exit_.value.code == 2
        return capsys.readouterr().err

    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": torch.nn.Linear(2, 3).state_dict()}, tmp_path / "foreign.ckpt")
    # not the untrained network, silently
    assert "There are no weights to validate. Pass a checkpoint, --ckpt_path FILE" in says("validate")
    assert "There is no file nowhere.ckpt" in says("test", "--ckpt_path=nowhere.ckpt")
    assert "text.ckpt is not a checkpoint" in says("fit", "--ckpt_path=text.ckpt")
    assert "do not fit ImageClassifier (missing: model.conv1.weight" in says("validate", "--ckpt_path=foreign.ckpt")
    assert not (tmp_path / "cnnvis_runs").exists()


def test_unknown_layer_before_training(capsys, tmp_path):
    callback = '[{"class_path": "lightning_cnnvis.callbacks.DeconvNetProjection", "init_args": {"layers": ["relu9"]}}]'
    assert "no layer 'relu9'" in fails(capsys, *SMALL, f"--trainer.callbacks={callback}")


def test_corrupt_image_before_training(capsys, tmp_path):
    for name in ("cat", "dog"):
        folder = tmp_path / "photos" / "train" / name
        folder.mkdir(parents=True)
        (folder / "broken.png").write_text("no image")
    args = ["--data=ImageFolder", "--data.root=photos", "--trainer.accelerator=cpu"]
    assert "broken.png is not a readable image" in fails(capsys, *args)


def test_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    printed = capsys.readouterr().out
    assert "--model.recipe {modern,paper}" in printed
    assert printed.index("Common options:") < 200
    assert len(printed.splitlines()) < 400  # without the subclasses of torch.nn.Module


def test_without_jsonargparse(monkeypatch, capsys):
    monkeypatch.setattr("lightning_cnnvis.cli.module_available", lambda name: False)
    assert "pip install 'lightning-cnnvis[examples]'" in fails(capsys)


def shown_in(run) -> dict:
    """The arguments of the callbacks that a run's configuration names, by class."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert not {"show", "epochs_shown"} & set(config)
    return {
        entry["class_path"].rpartition(".")[2]: entry.get("init_args") or {} for entry in config["trainer"]["callbacks"]
    }


def test_fit_shows_the_methods_and_the_epochs_that_are_named(tmp_path):
    main(["fit", *SMALL, "--trainer.max_epochs=1", "--show", "diagnose", "inversion", "--epochs_shown", "1,3"])
    run = tmp_path / "cnnvis_runs" / "version_0"
    shown = shown_in(run)
    assert list(shown)[:2] == ["Diagnosis", "FeatureInversion"]
    assert {"VisualizationCheckpoint", "ModelCheckpoint"} <= set(shown)
    assert shown["Diagnosis"]["epochs"] == shown["FeatureInversion"]["epochs"] == [1, 3]
    assert {path.name for path in (run / "cnnvis").iterdir()} >= {"diagnosis", "inversion"}
    assert not (run / "cnnvis" / "deconvnet").exists()


def test_an_unknown_method_or_epoch_is_one_sentence(capsys):
    assert "no method 'dreams'. Did you mean 'dream'? There are deconv, classes," in fails(capsys, "--show", "dreams")
    assert "epochs are whole numbers from 1" in fails(capsys, "--epochs_shown", "0,2")
    assert "epochs are whole numbers from 1" in fails(capsys, "--epochs_shown", "first")
