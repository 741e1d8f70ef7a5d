"""A module that runs several times in a forward pass: its calls are layers, which are named ``relu@2``."""

import re

import pytest
import pytorch_lightning as pl
import torch
import torchvision
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional as F

from lightning_cnnvis import analyze
from lightning_cnnvis.callbacks import callback_class
from lightning_cnnvis.functional import (
    DreamOptions,
    InputSpec,
    correspondence,
    dream,
    invert,
    maximize_activation,
    occlusion,
    project,
    receptive_field,
)
from lightning_cnnvis.functional.network.forward import plain_forward, staged_forward
from lightning_cnnvis.layers import LayerError, activations, find_layer, get_layer, record, trace_layers
from lightning_cnnvis.posthoc.layer_table import layer_table

BOXES = torch.tensor([[0, 0, 4, 4]] * 3)
SPEC = InputSpec(size=(16, 16))


class Shared(nn.Module):
    """One ReLU and one convolution that run two and three times, as in ResNets and recurrent networks."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, x):
        first = self.relu(self.bn1(self.conv1(x)))
        x = self.conv2(self.conv2(first))
        x = self.conv2(x)
        x += first
        return self.head(self.relu(x))


class ByHand(nn.Module):
    """`Shared`, with a module of its own for each call."""

    def __init__(self, shared):
        super().__init__()
        self.shared = shared
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        net = self.shared
        first = self.relu1(net.bn1(net.conv1(x)))
        return net.head(self.relu2(net.conv2(net.conv2(net.conv2(first))) + first))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Shared().eval()


@pytest.fixture
def images():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def outputs(net, images):
    """What each call returns, written out."""
    first = F.relu(net.bn1(net.conv1(images)))
    one = net.conv2(first)
    two = net.conv2(one)
    three = net.conv2(two)
    return {
        "relu@1": first,
        "conv2@1": one,
        "conv2@2": two,
        "conv2@3": three,
        "relu@2": F.relu(three + first),
    }


def test_each_call_has_its_own_output(net, images):
    for layers in (["relu@2", "conv2@2"], ["relu@1", "conv2@3"], ["conv2@1"], list(outputs(net, images))):
        recorded = activations(net, images, layers)
        assert list(recorded) == layers
        for layer in layers:
            assert torch.equal(recorded[layer], outputs(net, images)[layer])


def test_calls_are_counted_in_every_pass_anew(net, images):
    with record(net, ["relu@2"], stop=False) as recorded:
        for part in images.split(1):
            recorded.clear()
            net(part)
            assert torch.equal(recorded["relu@2"], outputs(net, part)["relu@2"])
    # a pass that was stopped on its way does not count
    activations(net, images, ["relu@1"])
    assert torch.equal(activations(net, images, ["relu@2"])["relu@2"], outputs(net, images)["relu@2"])
    assert not [hook for module in net.modules() for hook in (module._forward_hooks, module._forward_pre_hooks) if hook]


def test_passes_that_samples_leave_at_a_call(net, images):
    forward = staged_forward(net, {"relu@1": 1, "conv2@2": 1, "relu@2": 1}, images[:1])
    for n, (layer, output) in enumerate(forward(images).items()):
        assert torch.allclose(output, outputs(net, images)[layer][n : n + 1], atol=1e-6)
    assert torch.equal(plain_forward(net, ["conv2@2", ""])(images)[""], net(images))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("relu", "runs 2 times in one forward pass. Name a call: 'relu@1' or 'relu@2'"),
        ("conv2", "runs 3 times in one forward pass. Name a call: 'conv2@1', 'conv2@2' or 'conv2@3'"),
        ("relu@9", "There is no 'relu@9': 'relu' runs 2 times in one forward pass. Name 'relu@1' or 'relu@2'"),
        ("bn1@2", "There is no 'bn1@2': 'bn1' runs once in one forward pass. Name 'bn1'"),
        ("relu@0", "'relu@0' does not name a call of 'relu'. Calls are counted from 1, such as 'relu@2'"),
        ("relu@x", "'relu@x' does not name a call of 'relu'"),
        ("relu@", "'relu@' does not name a call of 'relu'"),
        ("relu@-1", "'relu@-1' does not name a call"),
        ("relu@1.5", "'relu@1.5' does not name a call"),
        ("rellu@2", "no layer 'rellu@2'. Did you mean 'relu@2'"),
    ],
)
def test_names_that_are_refused_everywhere(net, images, layer, message):
    channel = torch.tensor([0, 0, 0])
    analysis = analyze(net, images, input_spec=SPEC)
    for look in (
        lambda: project(net, images, layer, channel),
        lambda: receptive_field(net, layer, (16, 16)),
        lambda: maximize_activation(net, layer, [0], input_spec=SPEC, steps=1),
        lambda: invert(net, images, layer, input_spec=SPEC, steps=1),
        lambda: occlusion(net, images, input_spec=SPEC, layer=layer, patch=8, stride=8),
        lambda: correspondence(net, images, {"a": BOXES}, [layer], input_spec=SPEC),
        lambda: analysis.deconv([layer]),
        lambda: analysis.dream([layer]),
        lambda: analysis.invert([layer]),
        lambda: analysis.maximize([layer]),
    ):
        with pytest.raises(LayerError, match=re.escape(message)):
            look()
    with pytest.raises(LayerError):
        dream(net, images[0], layer, input_spec=SPEC)


def test_many_calls_are_not_all_listed():
    relu = nn.ReLU()
    net = nn.Sequential(nn.Conv2d(3, 4, 1), *[relu] * 30)
    with pytest.raises(LayerError, match="'1@1', '1@2', … or '1@30'"):
        receptive_field(net, "1", (8, 8))


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
@pytest.mark.parametrize(("call", "layer"), [("relu@1", "relu1"), ("relu@2", "relu2")])
def test_projections_are_those_of_a_module_of_its_own(net, images, rule, call, layer):
    channels = torch.tensor([0, 1, 3])
    found = project(net, images, call, channels, rule=rule)
    expected = project(ByHand(net), images, layer, channels, rule=rule)
    assert torch.equal(found.pixels, expected.pixels)
    assert torch.equal(found.activations, expected.activations)
    assert torch.equal(found.boxes, expected.boxes)


def test_methods_take_calls(net, images):
    analysis = analyze(net, images, input_spec=SPEC)
    assert list(analysis.deconv(["relu@2"], k=2, num_channels=2).projections) == ["relu@2"]
    assert list(analysis.dream(["relu@1", "relu@2"], options=DreamOptions(octaves=1, steps=1)).dreams) == [
        "relu@1",
        "relu@2",
    ]
    assert analysis.invert(["conv2@2", "relu@1"], steps=2).inversions.layers == ("conv2@2", "relu@1")
    assert list(analysis.maximize(["conv2@3"], num_channels=1, steps=2).features) == ["conv2@3"]


def test_a_call_of_a_module_that_runs_once_is_that_module(net, images):
    channels = torch.tensor([0, 1, 3])
    assert torch.equal(project(net, images, "bn1@1", channels).pixels, project(net, images, "bn1", channels).pixels)


def test_a_module_whose_name_contains_the_sign():
    net = nn.ModuleDict({"relu@2": nn.ReLU(), "a": nn.ReLU()})
    assert get_layer(net, "relu@2") is net["relu@2"]
    assert find_layer(net, "relu@2", "") == "relu@2"
    assert get_layer(net, "relu@2@1") is net["relu@2"]


@pytest.mark.parametrize("name", ["relu@2", "net.relu@2", "net._orig_mod.relu@2"])
def test_names_in_the_lightning_module(net, name):
    assert find_layer(net, name, "net") == "relu@2"


def test_calls_are_in_the_table_and_among_the_default_layers(net, images):
    calls, rectified = trace_layers(net, images)
    assert calls["relu"].calls == 2
    assert calls["relu@2"].calls == 1
    assert rectified == ["relu@1", "conv2@1", "conv2@2", "relu@2"]
    rows = {row.name: row for row in layer_table(net, SPEC)}
    assert "relu" not in rows
    assert rows["relu@1"].field == (3, 3)
    assert rows["conv2@2"].field == (7, 7)
    assert rows["relu@2"].field == (9, 9)
    assert rows["relu@2"].default
    assert rows["relu@2"].passable


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_torchvisions_resnets_show_no_layer_before_its_rectifier(name):
    net = getattr(torchvision.models, name)(weights=None).eval()
    _, rectified = trace_layers(net, torch.zeros(1, 3, 64, 64))
    blocks = [n for n, m in net.named_modules() if type(m).__name__ in ("BasicBlock", "Bottleneck")]
    count = 2 if name == "resnet18" else 3
    assert [n for n in rectified if "downsample" not in n] == [
        "relu",
        *(f"{block}.relu@{call}" for block in blocks for call in range(1, count + 1)),
    ]


class Run(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Shared()

    def training_step(self, batch, _):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


@pytest.mark.parametrize("method", ["deconv", "maximize", "dream", "invert"])
def test_callbacks_take_calls(tmp_path, images, method):
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images.repeat(2, 1, 1, 1), torch.tensor([0, 1] * 3)), batch_size=2
    )
    options = {
        "deconv": {"k": 2, "num_channels": 2},
        "maximize": {"steps": 2, "num_channels": 2},
        "dream": {"options": DreamOptions(octaves=1, steps=1)},
        "invert": {"steps": 2},
    }[method]
    callback = callback_class(method)(layers=["net.relu@2", "relu@1"], input_spec=SPEC, on_error="raise", **options)
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        callbacks=[callback],
        max_epochs=1,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Run(), data, data)
    files = [path.name for path in tmp_path.rglob("*.png")] + [str(path) for path in tmp_path.rglob("*.png")]
    if method != "invert":  # one picture of all layers
        assert any("relu@2" in name for name in files)
        assert any("relu@1" in name for name in files)
    assert files


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("relu", "Name a call: 'relu@1' or 'relu@2'"),
        ("net.relu@9", "There is no 'relu@9'"),
        ("net.relu@0", "Calls are counted from 1"),
        ("relu@x", "does not name a call"),
    ],
)
@pytest.mark.parametrize("method", ["deconv", "maximize", "dream", "invert"])
def test_callbacks_refuse_before_the_training_starts(tmp_path, images, method, layer, message):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, torch.tensor([0, 1, 1])), batch_size=3)
    callback = callback_class(method)(layers=[layer], input_spec=SPEC)
    run = Run()
    before = {name: value.clone() for name, value in run.state_dict().items()}
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        callbacks=[callback],
        max_epochs=1,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    with pytest.raises(MisconfigurationException, match=re.escape(message)):
        trainer.fit(run, data, data)
    assert all(torch.equal(value, before[name]) for name, value in run.state_dict().items())
