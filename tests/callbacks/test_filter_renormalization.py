"""FilterRenormalization: the rule, and when it is applied."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis.callbacks.filter_renormalization import FilterRenormalization, renormalize
from lightning_cnnvis.models import ImageClassifier


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.deep = nn.Conv2d(8, 4, 3)
        self.fc = nn.Linear(4, 2)

    def training_step(self, batch, batch_idx):
        return self.fc(self.deep(self.conv(batch[0])).mean((2, 3))).square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def fit(net, callback, folder, **options):
    loader = DataLoader(TensorDataset(torch.ones(4, 3, 8, 8)), batch_size=2)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    pl.Trainer(
        max_epochs=1, callbacks=[callback], enable_checkpointing=False, default_root_dir=folder, **quiet, **options
    ).fit(net, loader)


def rms(weight):
    return weight.detach().flatten(1).square().mean(1).sqrt()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 3, 7, 7), (5, 4, 3), (5, 2, 3, 3, 3)])
def test_filters_come_to_the_radius_and_no_others_move(shape, dtype):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    weight *= torch.tensor([0.01, 0.05, 1.0, 2.0, 3.0], dtype=dtype).view(-1, *[1] * (len(shape) - 1))
    result = renormalize(weight, 0.1)
    assert torch.equal(result[:2], weight[:2])
    for before, after in zip(weight[2:], result[2:], strict=True):
        expected = before * (0.1 / before.square().mean().sqrt())
        torch.testing.assert_close(after, expected)


def test_a_filter_of_zeros_stays():
    assert torch.equal(renormalize(torch.zeros(2, 3, 3, 3), 0.1), torch.zeros(2, 3, 3, 3))


def test_every_convolution_after_the_last_step(tmp_path):
    net = Net()
    with torch.no_grad():
        net.conv.weight.mul_(10)
        net.deep.weight.mul_(10)
        net.fc.weight.mul_(10)
    before = net.fc.weight.abs().max().item()
    fit(net, FilterRenormalization(radius=0.1), tmp_path)
    assert (rms(net.conv.weight) <= 0.1 + 1e-6).all()
    assert (rms(net.deep.weight) <= 0.1 + 1e-6).all()
    assert net.fc.weight.abs().max().item() > 0.5 * before


def test_named_layers_only(tmp_path):
    net = Net()
    with torch.no_grad():
        net.conv.weight.mul_(10)
        net.deep.weight.mul_(10)
    fit(net, FilterRenormalization(radius=0.1, layers=["conv"]), tmp_path)
    assert (rms(net.conv.weight) <= 0.1 + 1e-6).all()
    assert (rms(net.deep.weight) > 0.1).any()


def test_gradient_accumulation(tmp_path):
    net = Net()
    with torch.no_grad():
        net.conv.weight.mul_(10)
    fit(net, FilterRenormalization(radius=0.1), tmp_path, accumulate_grad_batches=2)
    assert (rms(net.conv.weight) <= 0.1 + 1e-6).all()


@pytest.mark.parametrize(
    ("layers", "message"),
    [(["conf"], "Did you mean 'conv'"), (["fc"], "'fc' is a Linear, not a convolution. Name convolutions only")],
)
def test_bad_layers_before_training(layers, message, tmp_path):
    with pytest.raises(MisconfigurationException, match=message):
        fit(Net(), FilterRenormalization(layers=layers), tmp_path)


@pytest.mark.parametrize("radius", [0, -1.0, float("nan")])
def test_bad_radius(radius):
    with pytest.raises(MisconfigurationException, match=r"is not positive\. Pass a positive number"):
        FilterRenormalization(radius=radius)


def test_finds_the_layers_of_an_image_classifier(tmp_path):
    model = ImageClassifier("zfnet", num_classes=2, image_size=32, width=0.05)
    callback = FilterRenormalization(layers=["model.conv1"])
    callback.setup(pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"), model, "fit")
