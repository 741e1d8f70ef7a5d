"""Layers are found by name, and what they compute is recorded without a trace."""

import pytest
import pytorch_lightning as pl
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lightning_cnnvis.layers import LayerError, activations, check_takes_an_image, get_layer, record, trace_layers


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)  # runs twice
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.norm2 = nn.BatchNorm2d(4)
        self.conv3 = nn.Conv2d(4, 4, 3)
        self.drop3 = nn.Dropout2d()
        self.relu3 = nn.ReLU()
        self.lstm = nn.LSTM(4, 2)
        self.idle = nn.Linear(2, 2)

    def forward(self, x):
        x = self.relu(self.conv1(x))
        x = self.relu(self.norm2(self.conv2(x)))
        x = self.relu3(self.drop3(self.conv3(x)))
        return self.lstm(x.mean((2, 3)))[0]


def hooks_of(model):
    return [hook for module in model.modules() for hook in module._forward_hooks]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def test_get_layer(net):
    assert get_layer(net, "norm2") is net.norm2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conv_1", "no layer 'conv_1'. Did you mean 'conv1'"),
        ("zzz", "no layer 'zzz'. Its layers: 'conv1'"),
        ("", "no layer ''"),
    ],
)
def test_get_layer_names_what_is_there(net, name, message):
    with pytest.raises(LayerError, match=message):
        get_layer(net, name)


def test_a_long_list_of_layers_is_cut():
    with pytest.raises(LayerError, match="'19', …"):
        get_layer(nn.Sequential(*(nn.ReLU() for _ in range(30))), "absent")


def test_activations_are_those_of_the_layers(net, images):
    recorded = activations(net, images, ["conv2", "conv1"])
    assert list(recorded) == ["conv2", "conv1"]
    conv1 = net.conv1(images)
    assert torch.equal(recorded["conv1"], conv1)  # before the ReLU that works in place
    assert torch.equal(recorded["conv2"], net.conv2(F.relu(conv1)))
    assert not hooks_of(net)


def test_activations_have_gradients(net, images):
    images.requires_grad_()
    recorded = activations(net, images, ["conv1", "conv2"])
    for output in recorded.values():
        (gradient,) = torch.autograd.grad(output.sum(), images, retain_graph=True)
        assert gradient.any()


def test_what_lies_behind_the_deepest_layer_does_not_run(net, images):
    ran = []
    net.conv3.register_forward_hook(lambda *_: ran.append(True))
    activations(net, images, ["conv2"])
    assert not ran
    with record(net, ["conv2"], stop=False) as recorded:
        net(images)
    assert ran
    assert list(recorded) == ["conv2"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["idle", "conv1"], "'idle' does not run"),
        (["lstm"], "'lstm' returns a tuple"),
        (["absent"], "no layer 'absent'"),
        ([], "No layer was named"),
    ],
)
def test_activations_refuse(net, images, layers, message):
    with pytest.raises(LayerError, match=message):
        activations(net, images, layers)
    assert not hooks_of(net)


def test_no_hook_is_left_after_an_error(net):
    with pytest.raises(RuntimeError):
        activations(net, torch.rand(1, 7, 12, 12), ["conv2"])
    assert not hooks_of(net)
    with pytest.raises(RuntimeError):
        trace_layers(net, torch.rand(1, 7, 12, 12))
    assert not hooks_of(net)


def test_a_layer_named_twice_is_recorded_once(net, images):
    assert list(activations(net, images, ["conv1", "conv1"])) == ["conv1"]


def test_trace_layers(net, images):
    calls, rectified = trace_layers(net, images[:1])
    assert [call.name for call in calls.values()] == [
        "conv1",
        "relu",
        "relu@1",
        "conv2",
        "norm2",
        "relu@2",
        "conv3",
        "drop3",
        "relu3",
        "lstm",
    ]
    assert calls["relu"].calls == 2
    assert calls["conv1"].shape == (4, 10, 10)
    assert calls["conv1"].kind == "Conv2d"
    assert calls["lstm"].shape == ()
    assert rectified == ["relu@1", "relu@2", "relu3"]
    assert not hooks_of(net)


def test_rectified_outputs_of_a_plain_chain():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True))
    assert trace_layers(net, torch.rand(1, 3, 8, 8))[1] == ["1", "3"]


def test_rectified_output_behind_a_functional_relu():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.next = nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return F.relu(self.next(F.relu(self.conv(x))))

    assert trace_layers(Functional(), torch.rand(1, 3, 8, 8))[1] == ["conv", "next"]


class ImageAndAge(nn.Module):
    def __init__(self):
        super().__init__()
        self.cnn, self.head = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Linear(5, 2)

    def forward(self, image, age):
        return self.head(torch.cat([self.cnn(image).mean((2, 3)), age], 1))


class ByName(ImageAndAge):
    def forward(self, *, image):
        return self.cnn(image)


class WithOptions(ImageAndAge):
    def forward(self, image, labels=None, *others, return_dict=False, **more):
        return self.cnn(image)


class Training(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        (ImageAndAge(), "ImageAndAge needs 2 inputs (image, age)"),
        (ByName(), "ByName takes its inputs by name only"),
        (nn.ModuleDict({"cnn": nn.Conv2d(3, 4, 3), "head": nn.Linear(4, 2)}), "ModuleDict has no forward method"),
        (nn.ModuleList([nn.Linear(4, 2)]), "ModuleList has no forward method"),
        (Training(), "Training has no forward method"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_cannot_be_called_with_images(network, problem):
    with pytest.raises(LayerError) as error:
        check_takes_an_image(network, "net")
    assert problem in str(error.value)
    parts = [name for name, _ in network.named_children() if name in ("cnn", "encoder")]
    assert (f"network='net.{parts[0]}'" if parts else "network='...'") in str(error.value)


def test_what_can_be_called_with_images(net):
    for network in (net, WithOptions(), nn.Identity(), torchvision.models.googlenet(init_weights=False)):
        check_takes_an_image(network)
