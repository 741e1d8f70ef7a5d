"""Checkpoints: what is accepted, and what is said of what is not."""

from __future__ import annotations

import os
import pickle

import pytest
import pytorch_lightning as pl
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from lightning_cnnvis.checkpoints import CheckpointError, ModelNameError, find_checkpoints, load
from lightning_cnnvis.checkpoints.zoo import NamedModel
from lightning_cnnvis.inputs import IMAGENET_MEAN
from lightning_cnnvis.models import ImageClassifier


def trained(tmp_path, module, **options) -> str:
    """The path of a checkpoint as the Trainer saves it."""
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.strategy.connect(module)
    path = tmp_path / "some.ckpt"
    trainer.save_checkpoint(path, **options)
    return path


@pytest.fixture
def classifier():
    return ImageClassifier("zfnet", num_classes=3, image_size=32, width=0.05)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("weights_only", [False, True])
def test_a_checkpoint_of_image_classifier_needs_nothing_more(tmp_path, classifier, weights_only):
    loaded = load(trained(tmp_path, classifier, weights_only=weights_only))
    assert same_weights(loaded.model, classifier.model)
    assert not loaded.model.training
    assert loaded.input_spec.size == (32, 32)
    assert loaded.input_spec.mean == IMAGENET_MEAN
    assert loaded.epoch == 1
    assert isinstance(loaded.module, ImageClassifier)


class Own(pl.LightningModule):
    def __init__(self, width: int):
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU())


class Unsaved(pl.LightningModule):
    def __init__(self, width: int):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU())


def test_another_lightning_module_needs_its_class_path(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "own_modules", __import__("types").SimpleNamespace(Own=Own))
    path = trained(tmp_path, Own(5))
    loaded = load(path, "own_modules.Own")
    assert loaded.model[0].out_channels == 5
    with pytest.raises(CheckpointError, match=r"another class than ImageClassifier.*--model package\.module\.Class"):
        load(path)
    with pytest.raises(CheckpointError, match="cannot be imported"):
        load(path, "own_modules.Other")
    with pytest.raises(CheckpointError, match="is not a Module"):
        load(path, "pathlib.Path")


def test_hyperparameters_that_were_not_saved(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "own_modules", __import__("types").SimpleNamespace(Unsaved=Unsaved))
    with pytest.raises(CheckpointError, match=r"save_hyperparameters\(\)"):
        load(trained(tmp_path, Unsaved(5)), "own_modules.Unsaved")


def test_a_network_in_hand(tmp_path):
    path = trained(tmp_path, Own(5))
    module = Own(5)
    loaded = load(path, module)
    assert same_weights(loaded.model, torch.load(path, weights_only=True) and module.network)
    assert torch.equal(loaded.model[0].weight, torch.load(path, weights_only=True)["state_dict"]["network.0.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_plain_weights_of_torchvision(tmp_path, suffix):
    network = torchvision.models.squeezenet1_1(num_classes=7)
    path = tmp_path / f"weights{suffix}"
    save_file(network.state_dict(), path) if suffix == ".safetensors" else torch.save(network.state_dict(), path)
    loaded = load(path, "torchvision:squeezenet1_1")
    assert same_weights(loaded.model, network)
    assert (loaded.input_spec.size, loaded.resize) == ((224, 224), 256)
    assert loaded.input_spec.class_names == ()  # seven classes are not ImageNet's


def test_names_of_imagenet_classes(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(torchvision.models.squeezenet1_1().state_dict(), path)
    assert load(path, "torchvision:squeezenet1_1").input_spec.class_name(281) == "tabby"


def test_plain_weights_of_timm(tmp_path):
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t", num_classes=4)
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": network.state_dict()}, path)
    loaded = load(path, "timm:resnet10t")
    assert same_weights(loaded.model, network)
    assert loaded.input_spec.size == (176, 176)
    resize, *_ = timm.data.create_transform(**timm.data.resolve_model_data_config(network)).transforms
    assert loaded.resize == resize.size


@pytest.mark.parametrize("prefix", ["", "features.", "model.features.", "module."])
def test_weights_that_end_before_the_network_does(tmp_path, prefix):
    network = torchvision.models.alexnet()
    state = network.state_dict() if prefix == "module." else network.features.state_dict()
    kept = {f"{prefix}{key}": value for key, value in state.items() if "classifier" not in key}
    torch.save(kept, tmp_path / "features.pth")
    loaded = load(tmp_path / "features.pth", "torchvision:alexnet")
    assert loaded.absent == ("classifier",)
    assert same_weights(loaded.model.features, network.features)
    assert loaded.model(torch.zeros(1, 3, 224, 224)).shape == (1, 9216)
    assert loaded.input_spec.class_names == ()


def test_weights_that_do_not_fit_are_named(tmp_path):
    state = torchvision.models.alexnet().state_dict()
    path = tmp_path / "weights.pth"

    torch.save({key: value for key, value in state.items() if key != "features.3.bias"}, path)
    with pytest.raises(CheckpointError, match=r"do not fit AlexNet \(missing: features\.3\.bias\)"):
        load(path, "torchvision:alexnet")
    torch.save(state | {"more.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"unexpected: more\.weight"):
        load(path, "torchvision:alexnet")
    torch.save(state | {"features.0.weight": torch.zeros(8, 3, 11, 11)}, path)
    with pytest.raises(CheckpointError, match=r"features\.0\.weight \(8, 3, 11, 11\) in place of \(64, 3, 11, 11\)"):
        load(path, "torchvision:alexnet")
    with pytest.raises(CheckpointError, match=r"missing: .* and \d+ more; unexpected: .* and \d+ more"):
        load(path, "torchvision:resnet18")


def test_plain_weights_need_the_name_of_their_network(tmp_path):
    torch.save(nn.Conv2d(3, 3, 3).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"contains only weights.*torchvision:NAME"):
        load(tmp_path / "weights.pth")


def test_a_name_that_no_network_has():
    with pytest.raises(ModelNameError, match="Did you mean 'alexnet'"):
        load(None, "torchvision:alexnett")
    with pytest.raises(CheckpointError, match="no weights to look at"):
        load(None, None)


def test_published_weights_without_a_connection(monkeypatch):
    def unreachable(*_, **__):
        raise __import__("urllib.error").error.URLError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model", unreachable)
    with pytest.raises(ModelNameError, match=r"could not be downloaded.*give a file"):
        NamedModel("torchvision", "alexnet").build_pretrained()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_bomb_does_not_go_off(tmp_path, save):
    save({"state_dict": {}, "bomb": Bomb(tmp_path / "ran")}, tmp_path / "bomb.ckpt")
    with pytest.raises(CheckpointError, match=r"(mkdir|a pickle).*would run code.*--trust"):
        load(tmp_path / "bomb.ckpt")
    assert not (tmp_path / "ran").exists()


def test_a_whole_network_is_unpickled_only_if_trusted(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    torch.save(network, tmp_path / "network.pt")
    with pytest.raises(CheckpointError, match="--trust"):
        load(tmp_path / "network.pt")
    assert same_weights(load(tmp_path / "network.pt", trust=True).model, network)


def test_files_that_are_no_checkpoint(tmp_path, classifier):
    path = tmp_path / "file.ckpt"
    with pytest.raises(CheckpointError, match=r"There is no file .*file\.ckpt"):
        load(path)
    path.write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty"):
        load(path)
    whole = trained(tmp_path, classifier).read_bytes()
    for part in (0.2, 0.9, 0.999):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(CheckpointError, match="is damaged"):
            load(path)
    torch.save([1, 2, 3], path)
    with pytest.raises(CheckpointError, match="contains no weights, but a list"):
        load(path, "torchvision:alexnet")
    with pytest.raises(CheckpointError, match="contains no weights, but a list"):
        load(path)
    (tmp_path / "file.safetensors").write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load(tmp_path / "file.safetensors")


def test_folders(tmp_path, classifier):
    with pytest.raises(CheckpointError, match="has no checkpoint in it"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="There is no folder"):
        find_checkpoints(tmp_path / "nowhere")
    content = torch.load(trained(tmp_path, classifier), weights_only=True)
    for epoch in (11, 3):
        torch.save(content | {"epoch": epoch}, tmp_path / f"{epoch}.ckpt")
    assert load(tmp_path).epoch == 12
