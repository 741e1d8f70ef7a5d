"""Weights in the forms that other trainings leave behind: what Lightning, torchvision or timm load is loaded."""

from __future__ import annotations

import argparse
import re
import sys
import types
import warnings

import pytest
import pytorch_lightning as pl
import torch
import torchvision
from torch import nn
from torch.optim import swa_utils

from lightning_cnnvis.checkpoints import CheckpointError, load
from lightning_cnnvis.checkpoints.files import state_dict_of
from lightning_cnnvis.checkpoints.fitting import fit_weights
from lightning_cnnvis.checkpoints.zoo import NamedModel
from lightning_cnnvis.layers import LayerError, get_layer

NAME = "torchvision:squeezenet1_1"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.squeezenet1_1(num_classes=5).eval()


def saved(content, tmp_path, name="weights.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def same(a: nn.Module, b: nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


WRAPPED = {
    "net": lambda w: {"net": w, "acc": 91.2, "epoch": 79},
    "params": lambda w: {"params": w},
    "twice": lambda w: {"checkpoint": {"weights": w}},
    "beside an optimizer": lambda w: {"network": w, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
    "beside an average": lambda w: {"model": w, "model_ema": {key: value * 0 for key, value in w.items()}},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrappings(tmp_path, network, wrap):
    assert same(load(saved(wrap(network.state_dict()), tmp_path), NAME).model, network)


def test_several_state_dicts_are_named(tmp_path, network):
    path = saved({"generator": network.state_dict(), "critic": {"0.weight": torch.ones(1)}}, tmp_path)
    with pytest.raises(CheckpointError, match=r"under several keys: 'generator', 'critic'\. Save those that you mean"):
        load(path, NAME)


RENAMED = {
    "compiled": lambda key: f"_orig_mod.{key}",
    "compiled inside of a module": lambda key: f"model._orig_mod.{key}",
    "parallel": lambda key: f"module.{key}",
    "parallel inside": lambda key: f"model.module.{key}",
    "compiled in part": lambda key: key.replace("features.", "features._orig_mod."),
    "parallel in part": lambda key: key.replace("features.", "features.module."),
    "both": lambda key: f"_orig_mod.module.{key.replace('features.3.', 'features.3._orig_mod.')}",
    "deep": lambda key: f"system.learner.network.{key}",
}


@pytest.mark.parametrize("strangers", [False, True])
@pytest.mark.parametrize("rename", RENAMED.values(), ids=RENAMED)
def test_names_of_what_was_around_the_network(tmp_path, network, rename, strangers):
    weights = {rename(key): value for key, value in network.state_dict().items()}
    around = all(not key.startswith(("features", "classifier")) for key in weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if strangers and around and "model" in next(iter(weights)):
            weights |= {"criterion.weight": torch.ones(5), "val_accuracy.tp": torch.zeros(5)}
            warnings.simplefilter("always")
            with pytest.warns(UserWarning, match=r"which is passed over: criterion\.weight, val_accuracy\.tp"):
                loaded = load(saved({"state_dict": weights}, tmp_path), NAME)
        else:
            loaded = load(saved({"state_dict": weights}, tmp_path), NAME)
    assert same(loaded.model, network)


@pytest.mark.parametrize("wrapper", [swa_utils.AveragedModel, nn.DataParallel], ids=lambda wrapper: wrapper.__name__)
@pytest.mark.parametrize(
    "beside", [{}, {"criterion.weight": torch.ones(5), "queue": torch.zeros(2)}], ids=["", "beside"]
)
def test_what_lies_beside_a_wrapped_network(tmp_path, network, wrapper, beside):
    weights = {**wrapper(network).state_dict(), **beside}
    strangers = [key for key in weights if not key.startswith("module.")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load(saved(weights, tmp_path), NAME)
    assert same(loaded.model, network)
    assert [key for key in strangers if key in str(caught[0].message)] == strangers if strangers else not caught


def test_weights_of_another_network_in_a_wrapper_are_refused(tmp_path):
    weights = nn.DataParallel(nn.Sequential(nn.Conv2d(3, 4, 3))).state_dict()
    with pytest.raises(CheckpointError, match="do not fit"):
        load(saved(weights | {"queue": torch.zeros(2)}, tmp_path), NAME)


class Module(nn.Module):
    """A network with a part that is called as wrappers are."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Conv2d(3, 2, 3)
        self.conv = nn.Conv2d(3, 2, 3)


def test_a_part_that_is_called_module():
    module = Module()
    other = Module()
    fit_weights(module, other.state_dict(), "test")
    assert same(module, other)


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.seen = 0

    def get_extra_state(self):
        return {"seen": self.seen}

    def set_extra_state(self, state):
        self.seen = state["seen"]


def test_extra_state(tmp_path):
    trained, fresh = Counts(), Counts()
    trained.seen = 7
    assert same(load(saved({"state_dict": trained.state_dict()}, tmp_path), fresh).model.conv, trained.conv)
    assert fresh.seen == 7
    weights = {key: value for key, value in trained.state_dict().items() if "extra" not in key}
    assert load(saved(weights, tmp_path), Counts()).model.seen == 0
    with pytest.raises(CheckpointError, match=r"does not take the weights of .*\(TypeError"):
        load(saved({**weights, "_extra_state": 3}, tmp_path), Counts())


def test_counts_of_batches_may_be_missing():
    norm = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    weights = {key: value for key, value in norm.state_dict().items() if "num_batches" not in key}
    fit_weights(norm, weights, "test")


def without_counts(weights):
    """As networks were saved before batch normalisation counted batches."""
    kept = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    assert len(kept) < len(weights)
    return kept


ROUTES = {
    "torchvision": ("torchvision:resnet18", lambda w: w),
    "timm": ("timm:resnet18", lambda w: w),
    "under a key": ("torchvision:resnet18", lambda w: {"state_dict": w, "epoch": 3}),
    "compiled and parallel": ("torchvision:resnet18", lambda w: {f"module._orig_mod.{k}": v for k, v in w.items()}),
    "in a module": ("torchvision:resnet18", lambda w: {f"model.{k}": v for k, v in w.items()}),
}


@pytest.mark.parametrize(("name", "wrap"), ROUTES.values(), ids=ROUTES)
def test_counts_of_batches_may_be_missing_in_files(tmp_path, name, wrap):
    library, _, architecture = name.partition(":")
    make = torchvision.models.get_model if library == "torchvision" else pytest.importorskip("timm").create_model
    network = make(architecture, num_classes=3)
    loaded = load(saved(wrap(without_counts(network.state_dict())), tmp_path), name)
    assert same(loaded.model, network)
    assert loaded.absent == ()


class Normalised(pl.LightningModule):
    def __init__(self, classes: int = 3):
        super().__init__()
        self.network = torchvision.models.resnet18(num_classes=classes)


@pytest.mark.parametrize("classes", [3, 5])
def test_counts_of_batches_may_be_missing_in_modules(tmp_path, classes):
    trained, fresh = Normalised(classes), Normalised()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the head that was replaced
        loaded = load(saved({"state_dict": without_counts(trained.state_dict())}, tmp_path), fresh)
    assert loaded.absent == (() if classes == 3 else ("fc",))
    assert torch.equal(fresh.network.layer4[1].bn2.running_var, trained.network.layer4[1].bn2.running_var)


def test_what_the_network_itself_renames():
    old = nn.utils.weight_norm(nn.Conv2d(3, 2, 3))
    new = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 2, 3))
    fit_weights(new, old.state_dict(), "test")
    assert torch.equal(new.weight, old.weight)


def test_a_network_is_as_before_if_weights_do_not_fit():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"missing: 2\.bias"):
        fit_weights(
            network,
            {"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.ones(4), "2.weight": torch.ones(4, 4, 3, 3)},
            "test",
        )
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_lazy_modules_take_their_shapes():
    network = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU())
    fit_weights(network, nn.Sequential(nn.Conv2d(5, 4, 3)).state_dict(), "test")
    assert network[0].weight.shape == (4, 5, 3, 3)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_and_without_their_auxiliary_heads(tmp_path, name):
    with_heads = torchvision.models.get_model(name, weights=None, num_classes=4, init_weights=False)
    weights = with_heads.state_dict()
    assert same(load(saved(weights, tmp_path), f"torchvision:{name}").model, with_heads)
    without = {key: value for key, value in weights.items() if not key.lower().startswith("aux")}
    assert len(without) < len(weights)
    loaded = load(saved(without, tmp_path), f"torchvision:{name}")
    assert (loaded.absent, set(loaded.model.state_dict())) == ((), set(without))


HEADS = {
    "of another form": ("resnet18", lambda net: setattr(net, "fc", nn.Sequential(nn.Dropout(), nn.Linear(512, 3)))),
    "of another width": ("resnet18", lambda net: setattr(net, "fc", nn.Linear(100, 7))),
    "in part": ("alexnet", lambda net: net.classifier.__setitem__(6, nn.Sequential(nn.Linear(4096, 3)))),
}
ABSENT = {"resnet18": "fc", "alexnet": "classifier.6"}


@pytest.mark.parametrize(("name", "replace"), HEADS.values(), ids=HEADS)
def test_of_a_network_with_a_replaced_head_the_rest_is_shown(tmp_path, name, replace):
    network = torchvision.models.get_model(name)
    replace(network)
    what = ABSENT[name]
    with pytest.warns(UserWarning, match=rf"has more than (ResNet|AlexNet), which is passed over: {what}\."):
        loaded = load(saved(network.state_dict(), tmp_path), f"torchvision:{name}")
    assert loaded.absent == (what,)
    kept = loaded.model.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in network.state_dict().items() if what not in key)
    with pytest.raises(CheckpointError, match=f"weights lack {what},"):
        loaded.require_output()


class FineTuned(pl.LightningModule):
    def __init__(self, head: nn.Module | None = None):
        super().__init__()
        self.network = torchvision.models.squeezenet1_1(num_classes=5)
        self.loss = nn.CrossEntropyLoss()
        if head is not None:
            self.network.classifier[1] = head


@pytest.mark.parametrize(
    "head", [nn.Conv2d(512, 9, 1), nn.Sequential(nn.Conv2d(512, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1)), nn.Identity()]
)
def test_a_head_that_was_replaced_in_a_module(tmp_path, head):
    trained = FineTuned(head)
    path = saved({"state_dict": trained.state_dict()}, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load(path, FineTuned())
    assert loaded.absent == ("classifier",)
    assert torch.equal(next(loaded.model.parameters()), next(trained.parameters()))


def test_weights_of_a_loss_are_not_those_of_the_end(tmp_path):
    trained, fresh = FineTuned(), FineTuned()
    trained.loss = nn.CrossEntropyLoss(weight=torch.ones(5))
    with pytest.warns(UserWarning, match=r"passed over: loss\.weight"):
        assert load(saved(trained.state_dict(), tmp_path), fresh).absent == ()


def test_names_in_the_files_of_densenets(tmp_path):
    network = torchvision.models.DenseNet(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=8)
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", key): value
        for key, value in network.state_dict().items()
    }
    assert old.keys() != network.state_dict().keys()
    renamed = NamedModel("torchvision", "densenet121").renamed(old, torchvision.models.DenseNet())
    assert list(renamed) == list(network.state_dict())


@pytest.mark.parametrize("published", ["convnext", "vision transformer"])
def test_names_that_timm_changes(tmp_path, published):
    timm = pytest.importorskip("timm")
    if published == "convnext":  # as Meta published it
        name = "convnext_atto"
        network = timm.create_model(name, num_classes=3)
        old = {
            key.replace("stem.", "downsample_layers.0.")
            .replace("mlp.fc1", "pwconv1")
            .replace("mlp.fc2", "pwconv2")
            .replace("conv_dw", "dwconv")
            .replace("head.norm", "norm")
            .replace("head.fc", "head"): value
            for key, value in network.state_dict().items()
        }
        old = {re.sub(r"stages\.(\d)\.blocks", r"stages.\1", key): value for key, value in old.items()}
        old = {re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", key): value for key, value in old.items()}
    else:  # as OpenAI's CLIP names its parts
        name = "vit_tiny_patch16_224"
        network = timm.create_model(name, num_classes=3)
        old = {f"module.{key}": value for key, value in network.state_dict().items()}
    loaded = load(saved({"model": old}, tmp_path), f"timm:{name}")
    assert same(loaded.model, network)


def test_googlenet_transforms_its_input(tmp_path):
    weights = torchvision.models.googlenet(weights=None, num_classes=4, init_weights=False).state_dict()
    assert load(saved(weights, tmp_path), "torchvision:googlenet").model.transform_input


class Base(pl.LightningModule):
    def make(self, width):
        self.net = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU())


class WithNamespace(Base):
    def __init__(self, hparams):
        super().__init__()
        self.save_hyperparameters(hparams)
        self.make(hparams.width)


class WithDict(Base):
    def __init__(self, cfg):
        super().__init__()
        self.save_hyperparameters(cfg)
        self.make(cfg["width"])


class WithKwargs(Base):
    def __init__(self, **kwargs):
        super().__init__()
        self.save_hyperparameters()
        self.make(kwargs["width"])


class Asserts(Base):
    def __init__(self, width):
        super().__init__()
        self.save_hyperparameters()
        assert width == 5, "no other width"
        self.make(width)


class Nested(Base):
    def __init__(self, backbone: nn.Module, classes: int = 3):
        super().__init__()
        self.save_hyperparameters(ignore="backbone")
        self.net = backbone


@pytest.fixture
def own(monkeypatch):
    """The classes of this module under a name that can be imported."""
    module = types.ModuleType("own_classes")
    for kind in (WithNamespace, WithDict, WithKwargs, Asserts, Nested):
        setattr(module, kind.__name__, kind)
    module.sigmoid = nn.Sigmoid
    monkeypatch.setitem(sys.modules, "own_classes", module)
    return "own_classes"


def checkpoint(module: pl.LightningModule, tmp_path, **more):
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", barebones=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    content = torch.load(tmp_path / "some.ckpt", weights_only=True)
    return saved({**content, **more}, tmp_path, "some.ckpt")


@pytest.mark.parametrize("old", [False, True])
def test_hyperparameters_as_lightning_stores_them(tmp_path, own, old):
    for made in (WithNamespace(argparse.Namespace(width=6, lr=1)), WithDict({"width": 6}), WithKwargs(width=6, lr=1)):
        path = checkpoint(made, tmp_path)
        if old:
            content = torch.load(path, weights_only=True)
            content["hparams"] = content.pop("hyper_parameters")
            torch.save(content, path)
        assert load(path, f"{own}.{type(made).__name__}").model[0].out_channels == 6


@pytest.mark.parametrize("error", [AssertionError, KeyError, RuntimeError, AttributeError, ZeroDivisionError])
def test_whatever_a_class_raises_is_named(tmp_path, own, monkeypatch, error):
    path = checkpoint(Asserts(5), tmp_path)

    def fails(*_, **__):
        raise error("no luck")

    monkeypatch.setattr(Asserts, "make", fails)
    with pytest.raises(
        CheckpointError,
        match=rf"Asserts could not be made .*\({error.__name__}: .*no luck.*analyze\(path, model=module",
    ):
        load(path, f"{own}.Asserts")


def test_classes_of_lightning_cli_need_trust(tmp_path, own):
    nested = {"class_path": "torch.nn.Conv2d", "init_args": {"in_channels": 3, "out_channels": 4, "kernel_size": 3}}
    by_cli = {"_instantiator": "pytorch_lightning.cli.instantiate_module", "classes": 3, "backbone": nested}
    path = checkpoint(Nested(nn.Conv2d(3, 4, 3)), tmp_path, hyper_parameters=by_cli)
    with pytest.raises(CheckpointError, match=r"names classes to make Nested of \(torch\.nn\.Conv2d\).*--trust"):
        load(path, f"{own}.Nested")
    assert load(path, f"{own}.Nested", trust=True).model.out_channels == 4
    deep = {"_instantiator": by_cli["_instantiator"], "backbone": [{"a": {"class_path": "evil.Class"}}]}
    with pytest.raises(CheckpointError, match=r"evil\.Class.*--trust"):
        load(checkpoint(Nested(nn.Conv2d(3, 4, 3)), tmp_path, hyper_parameters=deep), f"{own}.Nested")


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, torch.rand(1, 3, 9, 9))])
def test_torchscript_is_called_so(tmp_path, make):
    network = make(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval())
    network.save(str(tmp_path / "model.pt"))
    for trust in (False, True):
        with pytest.raises(CheckpointError, match=r"is a TorchScript archive.*state_dict\(\)"):
            load(tmp_path / "model.pt", NAME, trust=trust)
    with pytest.raises(CheckpointError, match="is TorchScript, which calls no hooks"):
        load(network)
    with pytest.raises(LayerError, match="is TorchScript, which calls no hooks"):
        get_layer(network, "0")


def test_a_network_in_a_mapping(network):
    assert state_dict_of({"model": network, "epoch": 3}, "some.pt").keys() == network.state_dict().keys()
