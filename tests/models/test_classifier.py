"""ImageClassifier: recipes, logging, checkpoints."""

from __future__ import annotations

import math

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis.models import AlexNet, ImageClassifier, ZFNet
from lightning_cnnvis.models.classifier import build_network, warm_up_and_cosine


def loader(classes: int = 6, size: int = 32) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % classes
    images = torch.randn(classes, 3, 1, 1, generator=generator)[labels].expand(-1, -1, size, size)
    noise = torch.randn(24, 3, size, size, generator=generator)
    return DataLoader(TensorDataset(images + 0.1 * noise, labels), batch_size=8)


def trainer(folder, **options) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(default_root_dir=folder, accelerator="cpu", **{"max_epochs": 1, **quiet, **options})


def classifier(**options) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier("zfnet", num_classes=6, image_size=32, width=0.05, **options)


def test_paper_recipe(tmp_path):
    model = classifier(recipe="paper")
    fit = trainer(tmp_path)
    fit.fit(model, loader(), loader())
    (optimizer,) = fit.optimizers
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["lr"] == 1e-2
    assert optimizer.defaults["momentum"] == 0.9
    scheduler = fit.lr_scheduler_configs[0]
    assert isinstance(scheduler.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    assert scheduler.monitor == "val_accuracy"
    assert scheduler.scheduler.mode == "max"
    assert model.model.dropout6.p == model.model.dropout7.p == 0.5


def test_modern_recipe_ends_at_rate_zero(tmp_path):
    model = classifier()
    fit = trainer(tmp_path, max_epochs=2)
    fit.fit(model, loader(), loader())
    (optimizer,) = fit.optimizers
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_learning_rate_is_taken(tmp_path):
    fit = trainer(tmp_path, max_steps=1)
    fit.fit(classifier(recipe="paper", lr=0.05), loader(), loader())
    assert fit.optimizers[0].defaults["lr"] == 0.05


def test_warm_up_and_cosine_without_an_end():
    assert warm_up_and_cosine(0, math.inf) == pytest.approx(1e-3)
    assert warm_up_and_cosine(5000, math.inf) == 1


def test_metrics_equal_an_independent_computation(tmp_path):
    model = classifier()
    metrics = trainer(tmp_path).validate(model, loader(), verbose=False)[0]
    images, labels = (torch.cat(parts) for parts in zip(*loader(), strict=True))
    with torch.no_grad():
        logits = model.eval()(images)
    assert metrics["val_loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert metrics["val_accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    top5 = (logits.topk(5).indices == labels[:, None]).any(1).float().mean().item()
    assert metrics["val_accuracy_top5"] == pytest.approx(top5)


def test_no_top5_for_five_classes(tmp_path):
    model = ImageClassifier("zfnet", num_classes=5, image_size=32, width=0.05)
    assert set(trainer(tmp_path).validate(model, loader(5), verbose=False)[0]) == {"val_loss", "val_accuracy"}


def test_checkpoint_needs_nothing_more(tmp_path):
    model = classifier(recipe="paper")
    fit = trainer(tmp_path)
    fit.fit(model, loader(), loader())
    path = tmp_path / "model.ckpt"
    fit.save_checkpoint(path)
    loaded = ImageClassifier.load_from_checkpoint(path, weights_only=True)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.eval()(images), model.eval()(images))
    assert loaded.recipe == "paper"


def test_checkpoint_of_ones_own_network(tmp_path):
    def net() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 6))

    model = ImageClassifier(net(), num_classes=6, image_size=32)
    fit = trainer(tmp_path)
    fit.fit(model, loader(), loader())
    path = tmp_path / "model.ckpt"
    fit.save_checkpoint(path)
    loaded = ImageClassifier.load_from_checkpoint(path, model=net(), weights_only=True)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), model(images))


def test_training_lowers_the_loss(tmp_path):
    model = classifier(lr=2e-3)
    before = trainer(tmp_path).validate(model, loader(), verbose=False)[0]["val_loss"]
    trainer(tmp_path, max_epochs=25, enable_checkpointing=False).fit(model, loader())
    after = trainer(tmp_path).validate(model, loader(), verbose=False)[0]["val_loss"]
    assert after < 0.8 * before


def test_networks_by_name():
    assert isinstance(build_network("zfnet", 3, 32, 0.05), ZFNet)
    assert isinstance(build_network("alexnet", 3, 32, 0.05), AlexNet)
    assert build_network("squeezenet1_1", 3, 64)(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "zfnot"}, r"model='zfnot' is not a network\. Did you mean 'zfnet'"),
        ({"model": "☃"}, "There are zfnet, alexnet"),
        ({"recipe": "ancient"}, "'modern' or 'paper'"),
        ({"num_classes": 1}, "num_classes=1"),
        ({"lr": 0.0}, r"lr=0\.0"),
        ({"image_size": 4}, "image_size=4 is too small"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ImageClassifier(**{"model": "zfnet", "num_classes": 3, **options})
