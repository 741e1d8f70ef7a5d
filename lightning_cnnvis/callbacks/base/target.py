"""Find the network, its layers and its input in a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.batches import images_of
from lightning_cnnvis.inputs.discovery import find_class_names, find_input_spec
from lightning_cnnvis.layers import LayerError, find_layer, find_network

_SHARDING = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}


def refuse_sharded_weights(trainer: pl.Trainer, who: str) -> None:
    """Refuses strategies that leave each process a part of the weights only."""
    for kind in type(trainer.strategy).__mro__:
        if kind.__name__ in _SHARDING:
            raise MisconfigurationException(
                f"{who} needs whole weights, but {kind.__name__} splits them over the devices. Use strategy='ddp', or "
                "take the callback out and visualise a checkpoint afterwards."
            )


def find_input(
    trainer: pl.Trainer, batch: Any, get_images: str | Callable[[Any], Tensor] | None, who: str
) -> InputSpec:
    """What the input looks like, read off the first training batch; the same on every rank."""
    # the batch in hand costs nothing: asking the loader or the data set for one would disturb the run
    try:
        spec = find_input_spec(trainer.train_dataloader, images_of(batch, get_images))
    except ValueError as error:
        raise MisconfigurationException(
            f"{who} could not find out what the input looks like: {error} Or give it an input_spec."
        ) from error
    spec = replace(spec, class_names=find_class_names(getattr(trainer, "datamodule", None)) or spec.class_names)
    # the ranks see different images and may guess differently
    return trainer.strategy.broadcast(spec)


def find_target(
    pl_module: pl.LightningModule, attribute: str | None, layers: Sequence[str] | None, who: str
) -> tuple[nn.Module, tuple[str, ...] | None]:
    """The network to visualise, and the names of the layers in it; None for layers that were left open."""
    try:
        path, network = find_network(pl_module, attribute)
    except LayerError as error:
        raise MisconfigurationException(str(error)) from error
    try:
        return network, None if layers is None else tuple(find_layer(network, name, path) for name in layers)
    except LayerError as error:
        raise MisconfigurationException(f"{who}(layers=...): {error}") from error


def builds_late(pl_module: pl.LightningModule) -> bool:
    """Whether the module may build its network in hooks that run after our setup."""
    own: set[str] = set()
    for kind in type(pl_module).__mro__:
        if kind.__name__ == "LightningModule":
            break
        own |= set(vars(kind))
    return not own.isdisjoint({"setup", "configure_model", "prepare_data"})
