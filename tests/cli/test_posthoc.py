"""The commands that look at what was trained, from their arguments to files and messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from lightning_cnnvis.cli import POSTHOC, TRAINING, main
from lightning_cnnvis.cli.posthoc import _home
from lightning_cnnvis.methods import method_names
from lightning_cnnvis.models import ImageClassifier


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"photos/{number}.png")
    return "photos"


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    options = {"model": "zfnet", "num_classes": 3, "image_size": 32, "width": 0.05, "recipe": "modern"}
    module = ImageClassifier(**options)
    content = {
        "epoch": 4,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": module.state_dict(),
        "hyper_parameters": options,
    }
    torch.save(content, tmp_path / "some.ckpt")
    return "some.ckpt"


def fails(capsys, *args: str) -> str:
    """What is said when a command ends with status 2; never a traceback."""
    with pytest.raises(SystemExit) as exit_:
        main(list(args))
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert printed.out == ""
    return printed.err


@pytest.mark.parametrize(
    ("command", "options", "files"),
    [
        ("deconv", ["--layers", "relu1", "relu3", "--num_channels=2", "--k=2"], ["deconvnet/relu1", "deconvnet/relu3"]),
        ("deconv", ["--layers=relu1", "--channels", "3", "1", "--rule=guided"], ["deconvnet_guided/relu1"]),
        (
            "classes",
            ["--classes", "2", "0", "--steps=2"],
            ["class_visualization/classes", "class_visualization/forming"],
        ),
        ("maximize", ["--layers=relu5", "--channels", "1", "--steps=2"], ["activation_maximization/relu5"]),
        ("dream", ["--layers=relu2", "--octaves=1", "--steps=2"], ["deepdream/relu2"]),
        ("invert", ["--layers=relu2", "--steps=2", "--restarts=2"], ["inversion/layers", "inversion/restarts"]),
    ],
)
def test_every_method_writes_its_pictures(checkpoint, photos, capsys, command, options, files):
    data = [] if command == "classes" else ["--data", photos]
    main([command, checkpoint, *data, "--output=out", "--device=cpu", *options])
    assert capsys.readouterr().out.split() == [f"out/{file}.png" for file in files]
    for file in files:
        Image.open(f"out/{file}.png").verify()


def test_layers_as_a_table_and_as_json(checkpoint, capsys):
    main(["layers", checkpoint])
    assert "\nrelu5 " in capsys.readouterr().out
    main(["layers", checkpoint, "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert next(row for row in rows if row["name"] == "conv1")["shape"] == [4, 28, 28]


def test_weights_by_the_name_of_their_network(tmp_path, photos, capsys):
    torch.save(torchvision.models.alexnet().features.state_dict(), tmp_path / "features.pth")
    named = ["features.pth", "--model=torchvision:alexnet"]
    main(["deconv", *named, "--data", photos, "--layers=features.1", "--num_channels=2"])
    assert "The weights lack classifier: the network ends before it." in capsys.readouterr().err
    assert "weights of the whole network" in fails(capsys, "classes", *named)
    (tmp_path / "run").mkdir()
    torch.save(torch.load("features.pth"), tmp_path / "run" / "1.pth")
    evolved = ["evolve", "run", "--model=torchvision:alexnet", "--data", photos, "--show=classes"]
    assert "weights of the whole network" in fails(capsys, *evolved)
    assert "no layer 'classifier.6'" in fails(capsys, "deconv", *named, "--data", photos, "--layers=classifier.6")


def test_help_of_every_command(capsys):
    for command in (*POSTHOC, *method_names()):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        printed = capsys.readouterr().out
        assert f"usage: lightning-cnnvis {command}" in printed
        assert "Examples:" in printed
        # nothing of how Python writes it
        assert not any(
            internal in printed for internal in ("``", "<class", "Literal", "(type:", "None", "default: null")
        )
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr().out
    assert all(command in printed for command in (*TRAINING, *POSTHOC, *method_names()))


def test_the_overview_is_quick():
    code = "import sys\nfrom lightning_cnnvis.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_bad_input_is_one_sentence(checkpoint, photos, capsys, tmp_path):
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / checkpoint).read_bytes()[:5000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign.ckpt").write_bytes(b"")
    torch.save(torch.load(checkpoint, weights_only=True) | {"hyper_parameters": {}}, "foreign.ckpt")
    torch.save(torchvision.models.squeezenet1_1().state_dict(), "squeezenet.pth")

    data = ["--data", photos]
    assert "text.ckpt is not a checkpoint" in fails(capsys, "deconv", "text.ckpt", *data)
    assert "cut.ckpt is damaged" in fails(capsys, "deconv", "cut.ckpt", *data)
    assert "There is no file nowhere.ckpt" in fails(capsys, "deconv", "nowhere.ckpt", *data)
    assert "empty has no checkpoint in it" in fails(capsys, "deconv", "empty", *data)
    assert "empty has no images in it" in fails(capsys, "deconv", checkpoint, "--data", "empty")
    assert "--model package.module.Class" in fails(capsys, "deconv", "foreign.ckpt", *data)
    wrong = fails(capsys, "deconv", "squeezenet.pth", "--model=torchvision:alexnet", *data)
    assert "do not fit AlexNet (missing: features.3.weight" in wrong
    assert "Did you mean 'alexnet'" in fails(capsys, "deconv", "squeezenet.pth", "--model=torchvision:alexnot")
    assert "There are no weights" in fails(capsys, "layers")
    assert "Did you mean 'relu1'" in fails(capsys, "deconv", checkpoint, *data, "--layers=relu11")
    assert "channels 0 to 3" in fails(capsys, "deconv", checkpoint, *data, "--layers=relu1", "--channels=99")
    assert "classes 0 to 2" in fails(capsys, "classes", checkpoint, "--classes=3")
    assert "no class named 'tabby'" in fails(capsys, "classes", checkpoint, "--classes=tabby")
    assert "--device abacus cannot be used" in fails(capsys, "layers", checkpoint, "--device=abacus")
    assert "channels 0 to 3" in fails(capsys, "dream", checkpoint, *data, "--layers=relu1", "--channels=-1")
    assert "--k many: it must be an int." in fails(capsys, "deconv", checkpoint, "--k=many")
    assert "rule='up': there is no such rule. There are 'deconvnet', " in fails(
        capsys, "deconv", checkpoint, "--rule=up"
    )
    assert "torchvision:resnet18 or timm:resnet18" in fails(capsys, "layers", checkpoint, "--model=resnet18")
    assert "This package has CIFAR10, " in fails(capsys, "deconv", checkpoint, "--data=Photos")
    assert "--kk" in fails(capsys, "deconv", checkpoint, "--kk=3")
    assert "undream" in fails(capsys, "undream")
    assert not (tmp_path / "cnnvis_pictures").exists()


def test_an_output_folder_that_cannot_be_written_is_found_before_any_work(checkpoint, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    message = fails(capsys, "deconv", "this is not looked at", "--output", "file/out")
    assert "The output folder file/out cannot be written (Not a directory" in message


def test_unreadable_images_are_named_skipped_and_counted(checkpoint, photos, capsys, tmp_path):
    (tmp_path / "photos" / "broken.jpg").write_text("no picture")
    main(["deconv", checkpoint, "--data", photos, "--layers=relu1", "--num_channels=1", "--output=out"])
    printed = capsys.readouterr().err
    assert "photos/broken.jpg was skipped" in printed
    assert "1 image(s) skipped" in printed
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "one.png").write_text("no picture")
    assert "None of the 1 image(s) can be read" in fails(capsys, "deconv", checkpoint, "--data", "broken")


def test_a_part_of_the_images_read_ahead(checkpoint, photos, capsys, tmp_path):
    common = [checkpoint, "--data", photos, "--layers=relu1", "--num_channels=1"]
    main(["deconv", *common, "--max-images=2", "--workers=1", "--output=out"])
    assert capsys.readouterr().out.split() == ["out/deconvnet/relu1.png"]
    assert "max_images=0 leaves no image to look at" in fails(capsys, "deconv", *common, "--max_images=0")
    assert "workers=-1 is negative" in fails(capsys, "report", checkpoint, "--data", photos, "--workers=-1")


def test_a_class_of_ones_own_from_the_folder_of_the_command(checkpoint, photos, tmp_path, capsys):
    (tmp_path / "my_own_model.py").write_text("from lightning_cnnvis import ImageClassifier as Mine\n")
    main(["layers", checkpoint, "--model=my_own_model.Mine"])
    assert "\nrelu5 " in capsys.readouterr().out


def test_the_input_of_a_class_of_ones_own_is_said_in_arguments(tmp_path, capsys):
    (tmp_path / "my_small_model.py").write_text(
        "import pytorch_lightning as pl\nfrom torch import nn\n"
        "class Small(pl.LightningModule):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 6 * 8, 3))\n"
        "    def forward(self, images):\n"
        "        return self.net(images)\n"
    )
    weights = {"net.0.weight": torch.rand(2, 1, 3, 3), "net.0.bias": torch.rand(2)}
    weights |= {"net.3.weight": torch.rand(3, 96), "net.3.bias": torch.rand(3)}
    torch.save(weights, "small.pth")
    small = ["small.pth", "--model=my_small_model.Small"]
    assert "on the command line --input_size" in fails(capsys, "classes", *small)
    assert "say its size, too, --input_size" in fails(capsys, "classes", *small, "--std=0.5")
    assert "height and width" in fails(capsys, "classes", *small, "--input_size", "1", "2", "3")
    assert "does not run on an image of shape (1, 9, 9)" in fails(
        capsys, "classes", *small, "--input_size=9", "--mean=0.5"
    )
    sized = [*small, "--input_size", "8", "10", "--mean=0.5", "--std=0.25"]
    main(["classes", *sized, "--steps=2", "--output=out"])
    assert "out/class_visualization/classes.png" in capsys.readouterr().out.split()
    main(["classes", *sized, "--output_kind=sigmoid", "--network=net", "--steps=2", "--output=out"])
    assert "out/class_visualization/classes.png" in capsys.readouterr().out.split()
    assert "sigmoid" in fails(capsys, "classes", *sized, "--output_kind=tanh")
    assert "network='body' is not a module of Small" in fails(capsys, "layers", *sized, "--network=body")


def test_one_call_of_a_layer_that_runs_several_times(tmp_path, photos, capsys):
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), tmp_path / "weights.pth")
    command = ["weights.pth", "--model=torchvision:resnet18", f"--data={photos}", "--output=pictures", "--layers"]
    main(["deconv", *command, "layer1.0.relu@2", "--num_channels=1", "--k=1"])
    assert (tmp_path / "pictures/deconvnet/layer1.0.relu@2.png").is_file()
    capsys.readouterr()
    for layer, message in (
        ("layer1.0.relu", "runs 2 times in one forward pass. Name a call: 'layer1.0.relu@1' or 'layer1.0.relu@2'."),
        ("layer1.0.relu@9", "There is no 'layer1.0.relu@9': 'layer1.0.relu' runs 2 times in one forward pass."),
        ("layer1.0.relu@0", "'layer1.0.relu@0' does not name a call of 'layer1.0.relu'."),
        ("layer1.0.relu@x", "'layer1.0.relu@x' does not name a call of 'layer1.0.relu'."),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["maximize", *command, layer])
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err


def test_pictures_are_kept_with_the_run(photos, capsys, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), run / "checkpoints" / "epoch=3.pth")
    common = [
        "--model=torchvision:squeezenet1_1",
        f"--data={photos}",
        "--layers=features.1",
        "--num_channels=1",
        "--k=1",
    ]
    for checkpoint in (run, run / "checkpoints" / "epoch=3.pth"):
        main(["deconv", str(checkpoint), *common])
        assert capsys.readouterr().out.strip() == f"{run}/cnnvis_pictures/epoch=3/deconvnet/features.1.png"


@pytest.mark.parametrize(
    ("file", "home"),
    [
        ("run/checkpoints/epoch=3.ckpt", "run"),
        ("run/cnnvis/weights/epoch_0003.ckpt", "run"),
        ("project/weights/net.pth", "."),  # a folder of one's own
        ("net.pth", "."),
    ],
)
def test_the_folder_of_the_run_is_found(tmp_path, monkeypatch, file, home):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert (tmp_path / _home(path)).resolve() == (tmp_path / home).resolve()
    assert _home(None) == _home(tmp_path / "nowhere") == Path()
