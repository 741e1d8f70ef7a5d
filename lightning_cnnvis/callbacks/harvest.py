"""Top activations of an epoch: collected during the validation, or in a pass of their own over kept images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

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
    """Collects the top activations of one epoch after another, wherever the images come from.

    Where possible, they are collected in the forward passes of the validation. Otherwise images are kept, from the
    training batches if there is no validation, and pass through the network once more.

    Args:
        k: Number of activations to keep for each feature map.
        rule: The projection rule that the layers must support.
        max_images: Greatest number of images to keep.
        get_images: Function, or its dotted name, that returns the images of a batch; see `images_of`.
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
        self._tops: tuple[int, dict[str, TopActivations]] | None = None  # with their epoch
        self._kept: list[Tensor] = []
        self._kept_of: int | None = None  # the epoch that they are from

    def follow(
        self,
        network: nn.Module,
        channels: Mapping[str, Sequence[int]],
        windows: Mapping[str, Windows],
        epoch: int,
        guard: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        """Follows the network until `release`, and forgets what an earlier validation of the epoch brought.

        Args:
            network: The network.
            channels: The feature maps to collect, by layer.
            windows: The windows that units are computed on, by layer.
            epoch: The epoch, counted from 1.
            guard: Context, by layer, in which activations are collected; it may swallow exceptions.
        """
        self.release()
        self._following = Harvest(network, channels, self.k, rule=self.rule, windows=windows, guard=guard).__enter__()
        self._followed_weights = None
        self._tops = epoch, self._following.tops

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
        self._tops, self._kept, self._kept_of = None, [], None

    def take(
        self, context: VisualizationContext, channels: Mapping[str, Sequence[int]], windows: Mapping[str, Windows]
    ) -> dict[str, TopActivations]:
        """Takes the top activations of an epoch, and forgets them.

        Args:
            context: The context, with the epoch and the network.
            channels: The feature maps to collect, by layer.
            windows: The windows that units are computed on, by layer.

        Returns:
            The top activations by layer, on the CPU where processes exchange them; a layer that failed is missing.
        """
        epoch, tops = self._tops or (None, {})
        if epoch != context.epoch or not self._followed(context.network):
            kept = self._kept if self._kept_of == context.epoch else []
            tops = self._pass(context, channels, windows, kept)
        self.clear()
        return {layer: top.to("cpu") for layer, top in tops.items()} if context.trainer.world_size > 1 else dict(tops)

    def _followed(self, network: nn.Module) -> bool:
        """Whether the validation ran on the weights that are to be shown, and not on averaged ones in their place."""
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
                context.network(context.feed(images))
            room = 0 if kept else self.max_images
            for first, images in images_of_run(context.trainer, context.device, self.get_images) if room else ():
                harvest.number(first, context.trainer.world_size)
                context.network(context.feed(images[:room]))
                room -= len(images)
                if room <= 0:
                    break
        return harvest.tops


def _fingerprint(network: nn.Module) -> Tensor:
    """A few numbers that differ for other weights."""
    return torch.stack([parameter.detach().float().sum() for parameter in network.parameters()]).cpu()
