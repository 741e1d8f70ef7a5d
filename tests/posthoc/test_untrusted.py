"""Runs from somebody else: what their files ask for is done only if they are trusted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_cnnvis import analyze, evolve
from lightning_cnnvis.callbacks import DeconvNetProjection
from lightning_cnnvis.checkpoints import CheckpointError, Run, load
from lightning_cnnvis.cli import main
from lightning_cnnvis.models import ImageClassifier
from lightning_cnnvis.posthoc import runs
from lightning_cnnvis.posthoc.reading import DataError
from lightning_cnnvis.posthoc.untrusted import UntrustedError

OPTIONS = {"model": "zfnet", "num_classes": 3, "image_size": 32, "width": 0.05, "recipe": "modern"}
CANARY = """
from pathlib import Path
(Path(__file__).parent / "ran").write_text(__name__)
import pytorch_lightning as pl
import torch
from torch import nn
from lightning_cnnvis import DeconvNetProjection

class Data(pl.LightningDataModule):
    def val_dataloader(self):
        return [torch.rand(4, 3, 32, 32)]

class Shows(DeconvNetProjection):
    pass

class Options:
    pass

class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

def images(batch):
    return batch
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder with a checkpoint, and a module that notes when it is imported; it is the current one."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    torch.manual_seed(0)
    save(folder, ImageClassifier(**OPTIONS).state_dict())
    (folder / "canary.py").write_text(CANARY)
    monkeypatch.chdir(folder)
    # imported in the tests, where an import must be the code's own doing
    monkeypatch.delitem(sys.modules, "canary", raising=False)
    yield folder
    sys.modules.pop("canary", None)


def save(folder: Path, weights, **more) -> None:
    content = {"epoch": 1, "state_dict": weights, "hyper_parameters": OPTIONS, **more}
    torch.save(content, folder / "last.ckpt")


def configure(folder: Path, **config) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def callbacks(**init_args) -> dict:
    entry = {"class_path": "lightning_cnnvis.DeepDream", "init_args": init_args}
    return {"trainer": {"callbacks": [entry]}}


def ran(folder: Path) -> bool:
    return (folder / "ran").exists() or "canary" in sys.modules


FOREIGN = {
    "data": {"data": {"class_path": "canary.Data"}},
    "callback": {"trainer": {"callbacks": [{"class_path": "canary.Shows"}]}},
    "one callback, not a list": {"trainer": {"callbacks": {"class_path": "canary.Shows"}}},
    "options": callbacks(options={"class_path": "canary.Options"}),
    "options, by their name": callbacks(options="canary.Options"),
    "nested options": callbacks(options={"class_path": "lightning_cnnvis.functional.DreamOptions", "init_args": {"a": [
        {"b": {"class_path": "canary.Options"}}]}}),
    "a preset in text": callbacks(options='{"class_path": "canary.Options"}'),
    "function": callbacks(get_images="canary.images"),
    "function of Python": callbacks(get_images="os.system"),
    "input": callbacks(input_spec={"class_path": "canary.Options"}),
    "argument of the data": {
        "data": {"class_path": "PhotoCrops", "init_args": {"image_size": {"class_path": "canary.Options"}}}
    },
    "surplus arguments": {"data": {"class_path": "PhotoCrops", "dict_kwargs": {"a": {"class_path": "canary.Options"}}}},
}  # fmt: skip


@pytest.mark.parametrize("config", FOREIGN.values(), ids=FOREIGN)
def test_nothing_that_a_configuration_names_is_imported(run, config, monkeypatch):
    configure(run, **config)
    monkeypatch.syspath_prepend(run)  # even where it could be
    assert runs.needs_trust(Run(run))
    asked = "data" if "data" in config else "callback"
    if asked == "data":
        analysis = analyze(run)
        assert analysis.layers().rows
        with pytest.warns(UserWarning, match=r"--data.*--trust"), pytest.raises(DataError, match="no images"):
            analysis.deconv()
        with pytest.raises(UntrustedError, match=r"--data.*--trust"):
            runs.data_module(load(run))
    else:
        with pytest.warns(UserWarning, match=r"left out, unless you trust the run: --trust"):
            assert runs.visualizations(Run(run)) == []
    assert not ran(run)


@pytest.mark.parametrize("config", [FOREIGN["data"], FOREIGN["callback"]])
def test_trust_imports_it(run, config, monkeypatch):
    configure(run, **config)
    monkeypatch.syspath_prepend(run)
    if "data" in config:
        assert type(runs.data_module(load(run, trust=True))).__name__ == "Data"
    else:
        assert [type(show).__name__ for show in runs.visualizations(Run(run, trust=True))] == ["Shows"]
    assert ran(run)


PLACES = {
    "root": {"data": {"class_path": "lightning_cnnvis.data.ImageFolder", "init_args": {"root": "/home/you/private"}}},
    "download": {"data": {"class_path": "CIFAR10", "init_args": {"download": True}}},
    "image": callbacks(image="/home/you/private.jpg"),
    "image of a mapping": {"trainer": {"callbacks": [{"class_path": "lightning_cnnvis.callbacks.MethodCallback",
        "init_args": {"method": "dream", "options": {"image": "https://tracker.example/1.png"}}}]}},
}  # fmt: skip


@pytest.mark.parametrize("config", PLACES.values(), ids=PLACES)
def test_places_are_not_followed_silently(run, config):
    configure(run, **config)
    if "data" in config:
        with pytest.raises(UntrustedError, match=r"(root|download)=.*which was not followed.*--data.*--trust"):
            runs.data_module(load(run))
    else:
        with pytest.warns(UserWarning, match=r"which was not followed.*--trust"):
            assert runs.visualizations(Run(run)) == []


def test_what_is_as_in_every_run_is_made(run):
    configure(
        run,
        data={"class_path": "PhotoCrops", "init_args": {"image_size": 32, "seed": 5, "num_workers": None}},
        trainer={
            "callbacks": [
                {
                    "class_path": "lightning_cnnvis.callbacks.DeconvNetProjection",
                    "init_args": {
                        "layers": ["layer1.0.relu", "model.relu1"],
                        "rule": "guided",
                        "seed": 2**40,
                        "input_spec": {"size": [32, 32], "class_names": ["St. Bernard", "R&D"]},
                    },
                },
                {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint"},
                "LearningRateMonitor",
            ]
        },
    )
    assert not runs.needs_trust(Run(run))
    assert type(runs.data_module(load(run))).__name__ == "PhotoCrops"
    (show,) = runs.visualizations(Run(run))
    assert type(show) is DeconvNetProjection
    assert show.input_spec.class_names == ("St. Bernard", "R&D")


def test_the_data_of_a_checkpoint_are_held_to_the_same(run):
    for root in ("data", "private"):
        (run / root / "cifar-10-batches-py").mkdir(parents=True)
    options = {"root": "private", "image_size": 32, "batch_size": 8, "download": False, "num_workers": 0}
    save(run, ImageClassifier(**OPTIONS).state_dict(), datamodule_hyper_parameters=options)
    with pytest.raises(UntrustedError, match="which was not followed"):
        runs.data_module(load(run))
    with pytest.warns(UserWarning, match=r"The checkpoint's root was not followed: --trust"):
        named = runs.data_module(load(run), "CIFAR10")
    assert (str(named.root), named.batch_size) == ("data", 8)
    assert str(runs.data_module(load(run, trust=True)).root) == "private"


@pytest.mark.parametrize("value", [2**40, 10**500, "a" * 100, {"b": {"c": [[[]]]}}, [1], b"bytes", -5], ids=type)
def test_sizes_that_no_run_has(run, value):
    options = {"image_size": value, "batch_size": 8, "train_size": 10, "val_size": 5, "seed": 0, "num_workers": 0}
    save(run, ImageClassifier(**OPTIONS).state_dict(), datamodule_hyper_parameters=options)
    with pytest.raises(DataError):
        runs.data_module(load(run))


def command(run: Path, *args: str, module: bool = False) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "lightning_cnnvis"] if module else [sys.executable, "-c", PROGRAM]
    package = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([*program, *args], cwd=run, env=environment, capture_output=True, text=True, check=False)


PROGRAM = "import sys; sys.path.remove(''); from lightning_cnnvis.cli import main; main()"
"""As the installed command: the current folder is no import path."""


@pytest.mark.slow  # six processes
@pytest.mark.parametrize("module", [False, True])
def test_the_current_folder_is_searched_only_for_classes_that_the_user_names(run, module):
    configure(run, **FOREIGN["data"])
    (run / "timm.py").write_text("open('ran', 'w').write('timm')")
    for args in (["deconv", ".", "--num_channels", "1"], ["layers", "timm", "--model", "timm:resnet18"]):
        ended = command(run, *args, module=module)
        assert (ended.returncode, ran(run)) == (2, False)
        assert "Traceback" not in ended.stderr
    save(run, {"model.0.weight": torch.zeros(4, 3, 3, 3), "model.0.bias": torch.zeros(4)})
    named = command(run, "layers", ".", "--model", "canary.Classifier", "--input_size", "16", module=module)
    assert named.returncode == 0, named.stderr
    assert ran(run)


def test_evolve_shows_what_it_can_without_it(run):
    configure(run, data={"class_path": "canary.Data"}, trainer={"callbacks": [{"class_path": "canary.Shows"}]})
    with pytest.warns(UserWarning, match=r"callback 'canary\.Shows' is not of this package"):
        evolution = evolve(run, torch.rand(4, 3, 32, 32))
    assert evolution.pictures
    assert not ran(run)


YAML = {
    "laughs": "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "a circle": "a: &a [*a]",
    "depth": "[" * 20000,
    "nested mappings": "a: " + "{a: " * 5000 + "1" + "}" * 5000,
    "a tag of Python": "a: !!python/object/apply:os.system ['touch ran']",
    "a date": "a: 2020-99-99",
    "digits": "a: " + "1" * 10000,
    "size": "a: " + "x" * 2**21,
    "unhashable": "{[1]: 2}",
    "bytes": "a: \x00",
}


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
def test_hostile_yaml_is_refused_in_a_sentence(run, text):
    (run / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.yaml cannot be read"):
        _ = Run(run).config
    assert not ran(run)


def test_aliases_of_ordinary_size_are_read(run):
    (run / "config.yaml").write_text("a: &layers [relu1, relu2]\nb: *layers\nc: *layers")
    assert Run(run).config["c"] == ["relu1", "relu2"]


@pytest.mark.parametrize(
    "config",
    [
        [],
        "text",
        {"trainer": []},
        {"trainer": {"callbacks": 3}},
        {"trainer": {"callbacks": [None, 1, {"class_path": [1]}]}},
        {"trainer": {"precision": [], "limit_val_batches": "many"}},
        {"data": [1]},
        {"data": {"class_path": 3}},
        {"data": {"class_path": [1]}},
        {"data": {"class_path": "PhotoCrops", "init_args": 3}},
    ],
)
def test_malformed_configurations_are_no_tracebacks(run, config, capsys):
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as ended:
        main(["evolve", ".", "--show", "deconv", "--output", "out", "--device", "cpu"])
    assert ended.value.code == 2
    assert "There are no images" in capsys.readouterr().err


def test_links_out_of_the_folder_are_named_and_passed_over(run, tmp_path):
    weights = ImageClassifier(**OPTIONS).state_dict()
    torch.save({"epoch": 9, "state_dict": weights, "hyper_parameters": OPTIONS}, tmp_path / "private.ckpt")
    (run / "epoch=9.ckpt").symlink_to(tmp_path / "private.ckpt")
    (run / "inside.ckpt").symlink_to(run / "last.ckpt")
    (run / "circle.ckpt").symlink_to(run / "circle.ckpt")
    with pytest.warns(UserWarning, match=r"is a link to .*private\.ckpt, outside of the folder.*--trust") as warned:
        assert [path.name for path in Run(run).files] == ["inside.ckpt", "last.ckpt"]
    assert len(warned) == 1
    assert "epoch=9.ckpt" in [path.name for path in Run(run, trust=True).files]
    assert load(run / "epoch=9.ckpt").epoch == 10


def test_names_command_no_terminal(run, capsys):
    hostile = "evil\x1b[2J\x1b]0;owned\x07\u202e"
    configure(run, data={"class_path": hostile}, trainer={"callbacks": [{"class_path": f"{hostile}.Shows"}]})
    for args in (["deconv", "."], ["evolve", "."], ["report", "."]):
        with pytest.raises(SystemExit):
            main([*args, "--device", "cpu", "--output", "out"])
        printed = "".join(capsys.readouterr())
        assert r"evil\x1b[2J" in printed
        assert not any(character in printed for character in "\x1b\x07\u202e")
    for file in (f"{hostile}.ckpt", "weights.pth"):
        torch.save({hostile: torch.zeros(2)}, run / file)
        with pytest.raises(SystemExit):
            main(["layers", file, "--model", "torchvision:alexnet", "--device", "cpu"])
        assert "\x1b" not in "".join(capsys.readouterr())
