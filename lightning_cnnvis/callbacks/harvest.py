"""Top activations of an epoch: picked up from the validation, or found in a pass over images that were kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_cnnvis.callbacks.base import VisualizationContext
from lightning_cnnvis.callbacks.base.run_images import images_of_run, sample_ids
from lightning_cnnvis.functional.activations.harvest import Harvest
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.functional.deconvnet.rules import Rule
from lightning_cnnvis.functional.deconvnet.windows import Windows
from lightning_cnnvis.inputs.batches import images_of


class EpochHarvest:
    """Gets the top activations of one epoch after the other, wherever the images come from.

    The forward passes of the validation are followed where they can be. Otherwise images are kept, of the training
    batches if there is no validation, and go through the network once more.

    Args:
        k: How many activations to keep of each feature map.
        rule: The projection rule that the layers must allow.
        max_images: How many images to keep.
        get_images: How to get the images out of a batch; see `images_of`.
    """

    def __init__(
        self, k: int, rule: str | Rule, max_images: int, get_images: str | Callable[[Any], Tensor] | None = None
    ) -> None:
        self.k = k
        self.rule = rule
        self.max_images = max_images
        self.get_images = get_images
        self._following: Harvest | None = None
        self._followed_weights: Tensor | None = None
        self._tops: tuple[int, dict[str, TopActivations]] | None = None  # of which epoch
        self._kept: list[Tensor] = []
        self._kept_of: int | None = None  # of which epoch

    def follow(
        self,
        network: nn.Module,
        channels: Mapping[str, Sequence[int]],
        windows: Mapping[str, Windows],
        epoch: int,
        guard: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        """Follows the network until `release`; what an earlier validation of the epoch gave is forgotten."""
        self.release()
        self._following = Harvest(network, channels, self.k, rule=self.rule, windows=windows, guard=guard).__enter__()
        self._followed_weights = None
        self._tops = epoch, self._following.tops

    def take_in(self, batch: Any, epoch: int, loaders: Any, index: int, *, first: bool) -> None:
        """Prepares for the validation's forward pass on a batch; keeps its images if the network is not followed.

        Args:
            batch: The batch.
            epoch: The epoch, counted from 1.
            loaders: The loaders of the validation.
            index: Which of them the batch is from.
            first: Whether it is the first from there.
        """
        if self._following is None:
            self.keep(batch, epoch)
        elif first:
            self._following.number(*sample_ids(loaders, index))
            if self._followed_weights is None:
                self._followed_weights = _fingerprint(self._following.model)

    def release(self) -> None:
        """Leaves the network alone."""
        if self._following is not None:
            self._following.__exit__()
            self._following = None

    def keep(self, batch: Any, epoch: int) -> None:
        """Keeps the images of a batch, as long as there is room."""
        if epoch != self._kept_of:
            self._kept, self._kept_of = [], epoch
        room = self.max_images - sum(map(len, self._kept))
        if room > 0:
            self._kept.append(images_of(batch, self.get_images)[:room].detach().clone())

    def clear(self) -> None:
        """Leaves the network alone and forgets everything."""
        self.release()
        self._tops, self._kept, self._kept_of = None, [], None

    def take(
        self, context: VisualizationContext, channels: Mapping[str, Sequence[int]], windows: Mapping[str, Windows]
    ) -> dict[str, TopActivations]:
        """The top activations of an epoch, by layer; a layer that failed is missing.

        Where there are several processes, they are on the CPU, to be sent from one to the other.
        """
        epoch, tops = self._tops or (None, {})
        if epoch != context.epoch or not self._followed(context.network):
            kept = self._kept if self._kept_of == context.epoch else []
            tops = self._pass(context, channels, windows, kept)
        self.clear()
        return {layer: top.to("cpu") for layer, top in tops.items()} if context.trainer.world_size > 1 else dict(tops)

    def _followed(self, network: nn.Module) -> bool:
        """Whether the validation ran on the weights that are to be shown: averaged ones may have stood in for them."""
        return self._followed_weights is None or torch.equal(self._followed_weights, _fingerprint(network))

    def _pass(
        self,
        context: VisualizationContext,
        channels: Mapping[str, Sequence[int]],
        windows: Mapping[str, Windows],
        kept: Sequence[Tensor],
    ) -> dict[str, TopActivations]:
        following = Harvest(context.network, channels, self.k, rule=self.rule, windows=windows)
        with following as harvest, torch.no_grad():
            # the processes have different images
            harvest.number(context.trainer.global_rank, context.trainer.world_size)
            for images in kept:
                context.network(context.to_network(images))
            room = 0 if kept else self.max_images
            for first, images in images_of_run(context.trainer, context.device, self.get_images) if room else ():
                harvest.number(first, context.trainer.world_size)
                context.network(context.to_network(images[:room]))
                room -= len(images)
                if room <= 0:
                    break
        return harvest.tops


def _fingerprint(network: nn.Module) -> Tensor:
    """A few numbers that other weights would not give."""
    return torch.stack([parameter.detach().float().sum() for parameter in network.parameters()]).cpu()


def is_compiled(pl_module: pl.LightningModule) -> bool:
    """Whether ``torch.compile`` was applied to the module or a part of it, which then calls no hooks."""
    return getattr(pl_module, "_compiler_ctx", None) is not None or any(
        hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in pl_module.modules()
    )
