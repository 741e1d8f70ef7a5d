"""An image classifier to train with Lightning."""

from __future__ import annotations

import difflib
import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torchvision
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_cnnvis.models.alexnet import AlexNet
from lightning_cnnvis.models.zfnet import ZFNet

_NETWORKS = {"zfnet": ZFNet, "alexnet": AlexNet}


class ImageClassifier(LightningModule):
    """Trains a network to tell classes of images apart; the network is at ``model``.

    Two recipes:

    - ``"modern"`` trains fast on small data sets: AdamW, weight decay 0.05, learning rate 2e-3 after a warm-up
      over the first tenth of the steps and along a cosine to 0 at the end, labels smoothed by 0.1.
    - ``"paper"`` is the one of Zeiler & Fergus 2013 (arXiv 1311.2901, section 3): SGD, learning rate 1e-2,
      momentum 0.9. They lowered the rate by hand when the validation error plateaued; here it is divided by
      10 when the validation accuracy has not risen for 5 epochs. Dropout is 0.5.

    Logged once an epoch: ``train_loss``, ``val_loss``, ``val_accuracy`` and, where there are more than five
    classes, ``val_accuracy_top5``.

    Args:
        model: A network that turns images ``(N, C, H, W)`` into logits, or the name of one: ``"zfnet"``,
            ``"alexnet"`` (this package's), or any classifier of torchvision, such as ``"resnet18"``.
        num_classes: Number of classes.
        image_size: Height and width of the images in pixels, for which zfnet and alexnet are built.
        width: Factor on the numbers of feature maps of zfnet and alexnet.
        recipe: ``"modern"`` or ``"paper"``.
        lr: Learning rate; None takes the recipe's.
        dropout: Dropout probability in zfnet and alexnet; None takes the recipe's, 0.5 for ``"paper"`` and 0.25 for
            ``"modern"``, whose trainings are too short for more.

    Raises:
        ValueError: If the name, the recipe or a number is not a possible one.

    Examples:
        >>> classifier = ImageClassifier("zfnet", num_classes=10, image_size=64, width=0.25)
        >>> classifier(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 10])
        >>> ImageClassifier("zfnot", num_classes=10)
        Traceback (most recent call last):
        ...
        ValueError: model='zfnot' is not a network. Did you mean 'zfnet'?

    The hyperparameters are saved with every checkpoint, so ``ImageClassifier.load_from_checkpoint(path)`` needs
    nothing more. A network that was not built by name is not among them: give it again, as ``model=``.
    """

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int,
        image_size: int = 224,
        *,
        width: float = 1.0,
        recipe: Literal["modern", "paper"] = "modern",
        lr: float | None = None,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        if recipe not in ("modern", "paper"):
            raise ValueError(f"recipe={recipe!r} is unknown: use 'modern' or 'paper'.")
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes}: there is nothing to tell apart below 2 classes.")
        if lr is not None and lr <= 0:
            raise ValueError(f"lr={lr}: the learning rate must be positive.")
        self.save_hyperparameters(ignore=["model"] if isinstance(model, nn.Module) else None)
        self.recipe = recipe
        self.lr = lr if lr is not None else {"modern": 2e-3, "paper": 1e-2}[recipe]
        self.dropout = dropout if dropout is not None else {"modern": 0.25, "paper": 0.5}[recipe]
        self.label_smoothing = 0.1 if recipe == "modern" else 0.0
        if isinstance(model, str):
            model = build_network(model, num_classes, image_size, width, self.dropout)
        self.model = model
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.val_accuracy_top5 = MulticlassAccuracy(num_classes, average="micro", top_k=5) if num_classes > 5 else None

    def forward(self, images: Tensor) -> Tensor:
        """Computes the logits of a batch of images.

        Args:
            images: ``(N, C, H, W)``, normalised.

        Returns:
            Logits ``(N, num_classes)``.
        """
        logits: Tensor = self.model(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Computes the loss of a batch.

        Args:
            batch: Images ``(N, C, H, W)``, normalised, and labels ``(N,)``.
            batch_idx: Number of the batch.

        Returns:
            The loss, a scalar.
        """
        images, labels = batch
        loss = F.cross_entropy(self(images), labels, label_smoothing=self.label_smoothing)
        self.log("train_loss", loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Logs loss and accuracy.

        Args:
            batch: Images ``(N, C, H, W)``, normalised, and labels ``(N,)``.
            batch_idx: Number of the batch.
        """
        images, labels = batch
        logits = self(images)
        self.log("val_loss", F.cross_entropy(logits, labels), prog_bar=True, sync_dist=True)
        self.val_accuracy(logits, labels)
        self.log("val_accuracy", self.val_accuracy, prog_bar=True)
        if self.val_accuracy_top5 is not None:
            self.val_accuracy_top5(logits, labels)
            self.log("val_accuracy_top5", self.val_accuracy_top5)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Logs the same as `validation_step`, under the same names.

        Args:
            batch: Images ``(N, C, H, W)``, normalised, and labels ``(N,)``.
            batch_idx: Number of the batch.
        """
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Makes the optimiser and the schedule of the recipe.

        Returns:
            Both, as the Trainer takes them.
        """
        if self.recipe == "paper":
            sgd = torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, mode="max", factor=0.1, patience=5)
            return {"optimizer": sgd, "lr_scheduler": {"scheduler": plateau, "monitor": "val_accuracy"}}
        total = self.trainer.estimated_stepping_batches
        adamw = torch.optim.AdamW(self.parameters(), self.lr, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.LambdaLR(adamw, lambda step: warm_up_and_cosine(step, total))
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def warm_up_and_cosine(step: int, total: float, warm_up: float = 0.1) -> float:
    """Computes the factor on the learning rate: linear from 0 to 1, then half a cosine back to 0.

    Args:
        step: Number of optimiser steps taken so far.
        total: Number of optimiser steps of the whole training; infinite: the factor stays 1 after the warm-up.
        warm_up: Share of the steps in which the factor rises; at most 1000 steps.

    Returns:
        The factor, in [0, 1].

    Examples:
        >>> [round(warm_up_and_cosine(step, 100), 2) for step in (0, 4, 9, 10, 55, 100)]
        [0.1, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rising = max(1.0, min(warm_up * total, 1000.0))
    if step < rising:
        return min(1.0, (step + 1) / rising)
    if math.isinf(total):
        return 1.0
    done = min(1.0, (step - rising) / max(1.0, total - rising))
    return 0.5 * (1 + math.cos(math.pi * done))


def build_network(name: str, num_classes: int, image_size: int, width: float = 1.0, dropout: float = 0.5) -> nn.Module:
    """Builds a network by name, with fresh weights.

    Args:
        name: ``"zfnet"``, ``"alexnet"``, or a classifier of torchvision.
        num_classes: Number of logits.
        image_size: Height and width of the images in pixels.
        width: Factor on the numbers of feature maps of zfnet and alexnet.
        dropout: Dropout probability of zfnet and alexnet.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: If there is no network of that name; the message lists the near ones.
    """
    if name in _NETWORKS:
        return _NETWORKS[name](num_classes, image_size, width=width, dropout=dropout)
    known = [*_NETWORKS, *torchvision.models.list_models(module=torchvision.models)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"Did you mean {', '.join(map(repr, near))}?" if near else f"There are {', '.join(known)}."
        raise ValueError(f"model={name!r} is not a network. {hint}")
    options: dict[str, Any] = {"num_classes": num_classes}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return network
