"""What the forward passes of an epoch show: picked up during the validation, or in a pass over kept images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_cnnvis.callbacks.base import VisualizationContext
from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.callbacks.base.run_images import images_of_run, sample_ids, validation_is_sure
from lightning_cnnvis.callbacks.base.target import is_compiled
from lightning_cnnvis.inputs.batches import images_of

Guard = Callable[[str], AbstractContextManager[Any]]
"""Makes the context, by layer, in which a layer's work is done; it may swallow exceptions."""


class Follower(Protocol):
    """Whatever follows the forward passes of a network inside its context, such as a `Harvest`."""

    model: nn.Module

    def number(self, first: int = 0, step: int = 1, stop: int | None = None) -> None:
        """Sets the sample ids of the coming images."""

    def expect(self, images: Tensor) -> None:
        """Tells which tensor of the coming call the images are."""

    def __enter__(self) -> Any:
        """Begins to follow the network."""

    def __exit__(self, *_: object) -> None:
        """Leaves the network alone."""


F = TypeVar("F", bound=Follower)


class EpochHarvest(Generic[F]):
    """Lets a follower see the images of one epoch after another, wherever they come from.

    Where possible, it follows the forward passes of the validation. Otherwise images are kept, from the training
    batches if there is no validation, and pass through the network once more.

    Args:
        max_images: Greatest number of images to keep.
        get_images: Function, or its dotted name, that returns the images of a batch; see `images_of`.
    """

    def __init__(self, max_images: int, get_images: str | Callable[[Any], Tensor] | None = None) -> None:
        self.max_images = max_images
        self.get_images = get_images
        self._following: F | None = None
        self._followed_weights: Tensor | None = None
        self._found: tuple[int, F] | None = None  # with its epoch
        self._kept: list[Tensor] = []
        self._kept_of: int | None = None  # the epoch that they are from

    def follow(self, follower: F, epoch: int) -> None:
        """Follows the network until `release`, and forgets what an earlier validation of the epoch brought.

        Args:
            follower: What follows it.
            epoch: The epoch, counted from 1.
        """
        self.release()
        follower.__enter__()
        self._following = follower
        self._followed_weights = None
        self._found = epoch, follower

    def take_in(self, batch: Any, epoch: int, loaders: Any, index: int, *, first: bool) -> None:
        """Prepares for the validation's forward pass on a batch; keeps its images if the network is not followed.

        Args:
            batch: The batch.
            epoch: The epoch, counted from 1.
            loaders: The validation loaders.
            index: Index of the batch's loader.
            first: Whether the batch is the first of its loader.
        """
        if self._following is None:
            self.keep(batch, epoch)
            return
        if first:
            self._following.number(*sample_ids(loaders, index))
            if self._followed_weights is None:
                self._followed_weights = _fingerprint(self._following.model)
        if self.get_images is not None:
            self._following.expect(images_of(batch, self.get_images))

    def release(self) -> None:
        """Stops following the network."""
        if self._following is not None:
            self._following.__exit__()
            self._following = None

    def keep(self, batch: Any, epoch: int) -> None:
        """Keeps the images of a batch, up to the greatest number in all.

        Args:
            batch: The batch, with images ``(N, C, H, W)``.
            epoch: The epoch, counted from 1; images of an earlier one are dropped.
        """
        if epoch != self._kept_of:
            self._kept, self._kept_of = [], epoch
        room = self.max_images - sum(map(len, self._kept))
        if room > 0:
            self._kept.append(images_of(batch, self.get_images)[:room].detach().clone())

    def clear(self) -> None:
        """Stops following the network and forgets everything."""
        self.release()
        self._found, self._kept, self._kept_of = None, [], None

    def take(self, context: VisualizationContext, make: Callable[[nn.Module], F]) -> F:
        """Takes what an epoch brought, and forgets it.

        Args:
            context: The context, with the epoch and the network.
            make: Makes a follower of a network, for images that have to pass through it once more.

        Returns:
            A follower that has seen the images of the epoch.
        """
        epoch, found = self._found or (None, None)
        if found is None or epoch != context.epoch or not self._followed(context.network):
            kept = self._kept if self._kept_of == context.epoch else []
            found = make(context.network)
            self._pass(context, found, kept)
        self.clear()
        return found

    def _followed(self, network: nn.Module) -> bool:
        """Whether the validation ran on the weights that are to be shown, and not on averaged ones in their place."""
        return self._followed_weights is None or torch.equal(self._followed_weights, _fingerprint(network))

    def _pass(self, context: VisualizationContext, follower: F, kept: list[Tensor]) -> None:
        with follower, torch.no_grad():
            # the processes have different images
            follower.number(context.trainer.global_rank, context.trainer.world_size)
            for images in kept:
                context.network(context.feed(images))
            room = 0 if kept else self.max_images
            for first, images in images_of_run(context.trainer, context.device, self.get_images) if room else ():
                follower.number(first, context.trainer.world_size)
                context.network(context.feed(images[:room]))
                room -= len(images)
                if room <= 0:
                    break


class FollowingCallback(MethodCallback, Generic[F]):
    """Shows a method for which the network is followed through the validation; what it sees is in `_harvest`."""

    _harvest: EpochHarvest[F]
    _followed: nn.Module | None = None  # the network, once it is known what to follow

    def follower(self, network: nn.Module, guard: Guard | None = None) -> F:
        """Makes what follows a network.

        Args:
            network: The network.
            guard: Context, by layer, in which the layer's work is done; None lets exceptions pass.

        Returns:
            The follower.
        """
        raise NotImplementedError

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begins anew."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._followed = None

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins to follow the network if the epoch is scheduled."""
        epoch = trainer.current_epoch + 1
        if self._followed is not None and self.scheduled(epoch, trainer) and not is_compiled(pl_module):
            with self.guarded(epoch):
                self._harvest.follow(self.follower(self._followed, partial(self.guarded, epoch)), epoch)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Numbers the images, or keeps them if the network cannot be followed."""
        super().on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        epoch = trainer.current_epoch + 1
        if self.scheduled(epoch, trainer):
            with self.guarded(epoch):
                self._harvest.take_in(batch, epoch, trainer.val_dataloaders, dataloader_idx, first=batch_idx == 0)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the network alone."""
        self._harvest.release()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the images if no validation is sure to come in this epoch."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        epoch = trainer.current_epoch + 1
        if not validation_is_sure(trainer) and self.scheduled(epoch, trainer):
            with self.guarded(epoch):
                self._harvest.keep(batch, epoch)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leaves no hook behind."""
        super().on_exception(trainer, pl_module, exception)
        self._harvest.clear()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leaves no hook behind, and keeps no image."""
        super().teardown(trainer, pl_module, stage)
        self._harvest.clear()


def _fingerprint(network: nn.Module) -> Tensor:
    """A few numbers that differ for other weights."""
    return torch.stack([parameter.detach().float().sum() for parameter in network.parameters()]).cpu()
