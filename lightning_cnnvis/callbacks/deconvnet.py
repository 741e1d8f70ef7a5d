"""Deconvnet projections of the top activations, while the network trains."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DistributedSampler

from lightning_cnnvis import figures
from lightning_cnnvis.callbacks.base import VisualizationCallback, VisualizationContext
from lightning_cnnvis.distributed import gather, own_share
from lightning_cnnvis.functional.deconvnet import Projections, plan_windows
from lightning_cnnvis.functional.harvest import Harvest
from lightning_cnnvis.functional.rectification import LRNRule, Rule, check_choice
from lightning_cnnvis.functional.top_activations import TopActivations
from lightning_cnnvis.inputs import images_of
from lightning_cnnvis.layers import LayerError, trace_layers


class DeconvNetProjection(VisualizationCallback):
    """Shows what excites the feature maps: their top activations, projected back to pixels by a deconvnet.

    For a seeded random choice of feature maps of each layer, the strongest activations over the validation set are
    projected to pixels, with the image patches that caused them beside (Zeiler & Fergus 2013, Fig. 2, arXiv 1311.2901).
    The activations are picked up from the forward passes that the validation makes anyway. Where there is no
    validation, the images of the training batches are kept, ``max_images`` of them, and seen once more.

    Pictures: ``deconvnet/<layer>``.

    Args:
        layers: Dotted module names; the rectified output of every convolution if None.
        features: How many feature maps of each layer are shown; every one if None.
        k: How many activations of each are shown, at most one from an image.
        rule: ``"deconvnet"``, ``"guided"`` or ``"gradient"``; see `RectifiedBackward`.
        lrn: ``"identity"`` or ``"gradient"``; see `ResponseNormMode`.
        max_images: How many images to go through where there is no validation to pick activations up from.
        **options: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range; before training starts, if a layer is not there, has
            no map, or lies behind something that a deconvnet cannot pass.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> callback = DeconvNetProjection(features=4, every_n_epochs=5)
        >>> trainer = Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)
    """

    name = "deconvnet"

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        features: int | None = 16,
        k: int = 9,
        rule: Rule = "deconvnet",
        lrn: LRNRule = "identity",
        max_images: int = 1024,
        **options: Any,
    ) -> None:
        super().__init__(layers=layers, **options)
        for argument, value in (("features", features), ("k", k), ("max_images", max_images)):
            if value is not None and value < 1:
                raise MisconfigurationException(f"{argument}={value} must be at least 1.")
        try:
            check_choice("rule", rule, Rule)
            check_choice("lrn", lrn, LRNRule)
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error
        self.features = features
        self.k = k
        self.rule: Rule = rule
        self.lrn: LRNRule = lrn
        self.max_images = max_images
        self._channels: dict[str, list[int]] = {}
        self._harvest: Harvest | None = None
        self._harvested: int | None = None  # the epoch that the harvest is of
        self._images: list[Tensor] = []
        self._images_epoch: int | None = None

    def check(self, context: VisualizationContext) -> None:
        """Refuses layers that cannot be projected, and chooses the feature maps."""
        blank = context.to_network(torch.zeros(1, *context.input_spec.shape))
        calls, rectified = trace_layers(context.network, blank)
        layers = rectified if context.layers is None else context.layers
        if not layers:
            raise MisconfigurationException(
                f"{type(self).__name__} found no convolution in {type(context.network).__name__}: name the layers."
            )
        self._channels = {}
        for layer in layers:
            shape = calls[layer].shape if layer in calls else None
            if shape is not None and len(shape) != 3:
                maps = ", ".join(repr(name) for name in rectified[:12])
                raise LayerError(
                    f"Layer {layer!r} has no feature map: its output for one image has shape {shape}. "
                    f"Name one that has, such as {maps}."
                )
            windows = plan_windows(context.network, layer, blank, rule=self.rule)
            self._channels[layer] = self._choose(layer, windows.field.map_shape[0])

    def visualize(self, context: VisualizationContext) -> None:
        """Projects the top activations of the epoch and draws them."""
        tops = self._take_tops(context)
        for layer in self._channels:
            with self.guarded(context.epoch, layer):
                top = _merged(gather(tops[layer].to("cpu") if layer in tops else None), context.device)
                if top is not None:
                    self._show_layer(context, layer, top)

    def _show_layer(self, context: VisualizationContext, layer: str, top: TopActivations) -> None:
        projections = self._project(context, layer, top)
        title = f"{layer} · epoch {context.epoch}"
        picture = figures.top_features(projections, self.k, context.input_spec, title)
        context.sinks.picture(f"{self.label}/{layer}", picture, context.epoch)

    def _project(self, context: VisualizationContext, layer: str, top: TopActivations) -> Projections:
        """Projects, each process its share of the feature maps."""
        share = top[own_share(len(top))]
        own = share.project(context.network, layer, rule=self.rule, lrn=self.lrn) if len(share) else None
        return Projections.cat([part for part in gather(own and own.to("cpu")) if part is not None])

    def _choose(self, layer: str, maps: int) -> list[int]:
        if self.features is None or self.features >= maps:
            return list(range(maps))
        # of the layer's name, so that a layer's choice does not depend on which others are shown
        generator = torch.Generator().manual_seed(self.seed + zlib.crc32(layer.encode()))
        return sorted(torch.randperm(maps, generator=generator)[: self.features].tolist())

    # Picking up activations from the validation.

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins to follow the network if the epoch is scheduled."""
        epoch = trainer.current_epoch + 1
        self._end_harvest()
        if not self._channels or not self.scheduled(epoch, trainer):
            return
        self._images, self._images_epoch = [], epoch
        if _is_compiled(pl_module):
            return  # a compiled network calls no hooks: its images are kept, and seen once more
        with self.guarded(epoch):
            assert self._target is not None
            network, _ = self._target
            guard = partial(self.guarded, epoch)
            self._harvest = Harvest(network, self._channels, self.k, rule=self.rule, guard=guard).__enter__()
            self._harvested = epoch

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Numbers the images, or keeps them where the network cannot be followed."""
        if self._harvest is None:
            self._keep(batch, trainer)
        elif batch_idx == 0:
            self._harvest.number(*_sample_ids(trainer.val_dataloaders, dataloader_idx))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets go of the network."""
        if self._harvest is not None:
            self._harvest.__exit__()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the images where no validation is sure to come in this epoch."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        every = trainer.check_val_every_n_epoch
        epoch = trainer.current_epoch + 1
        if epoch != self._images_epoch:
            self._images, self._images_epoch = [], epoch
        if not trainer.enable_validation or every is None or epoch % every:
            self._keep(batch, trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leaves no hook behind."""
        self._end_harvest()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leaves no hook behind, and keeps no image."""
        self._end_harvest()
        self._images = []

    def _end_harvest(self) -> None:
        if self._harvest is not None:
            self._harvest.__exit__()
        self._harvest, self._harvested = None, None

    def _keep(self, batch: Any, trainer: pl.Trainer) -> None:
        """Keeps the images of a batch for a pass of our own."""
        epoch = trainer.current_epoch + 1
        room = self.max_images - sum(map(len, self._images))
        if room > 0 and self.scheduled(epoch, trainer):
            with self.guarded(epoch):
                self._images.append(images_of(batch, self.images)[:room].detach().clone())

    def _take_tops(self, context: VisualizationContext) -> dict[str, TopActivations]:
        """The top activations of the epoch: picked up, or else found in a pass over kept images."""
        with self.guarded(context.epoch):
            if self._harvest is None or self._harvested != context.epoch:
                self._harvest = self._own_pass(context)
        harvest, self._images = self._harvest, []
        self._end_harvest()
        return {} if harvest is None else harvest.tops

    def _own_pass(self, context: VisualizationContext) -> Harvest:
        kept = self._images if self._images_epoch == context.epoch else []
        batches = kept or self._loaded_images(context)
        with Harvest(context.network, self._channels, self.k, rule=self.rule) as harvest, torch.no_grad():
            # the processes have different images
            harvest.number(context.trainer.global_rank, context.trainer.world_size)
            for images in batches:
                context.network(context.to_network(images))
        return harvest

    def _loaded_images(self, context: VisualizationContext) -> Iterator[Tensor]:
        """Images from the loaders, for the end of a training that stopped early, when nobody else reads them."""
        trainer, room = context.trainer, self.max_images
        loaders = trainer.val_dataloaders or trainer.train_dataloader
        for loader in loaders if isinstance(loaders, list | tuple) else [loaders]:
            for batch in loader or ():
                images = images_of(trainer.strategy.batch_to_device(batch, context.device), self.images)[:room]
                room -= len(images)
                yield images
                if room <= 0:
                    return


def _merged(parts: Sequence[TopActivations | None], device: torch.device) -> TopActivations | None:
    """What all processes found; None where one of them failed, so that all of them pass the layer over."""
    tops = [part.to(device) for part in parts if part is not None]
    if len(tops) < len(parts):
        return None
    for other in tops[1:]:
        tops[0].merge(other)
    return tops[0]


def _sample_ids(loaders: Any, index: int) -> tuple[int, int, int | None]:
    """First id, step and end of the ids of a loader's images; equal ids mean the same image, on every process."""
    first = index << 32  # an image of one loader is not one of another's
    loader = loaders[index] if isinstance(loaders, list | tuple) else loaders
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        return first, 1, None
    return first + sampler.rank, sampler.num_replicas, first + len(sampler.dataset)  # type: ignore[arg-type]


def _is_compiled(pl_module: pl.LightningModule) -> bool:
    return getattr(pl_module, "_compiler_ctx", None) is not None or any(
        hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in pl_module.modules()
    )
