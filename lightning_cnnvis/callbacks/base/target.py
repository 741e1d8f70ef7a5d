"""Finds the network of a run, its layers and the format of its input."""

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
from lightning_cnnvis.layer_patterns import check_patterns, is_pattern
from lightning_cnnvis.layers import LayerError, check_takes_an_image, find_layer, find_network

_SHARDING = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}


def refuse_sharded_weights(trainer: pl.Trainer, who: str) -> None:
    """Refuses strategies under which each process holds only a part of the weights.

    Args:
        trainer: The trainer.
        who: Name of the callback, for the error.

    Raises:
        MisconfigurationException: If the trainer's strategy shards the weights.
    """
    for kind in type(trainer.strategy).__mro__:
        if kind.__name__ in _SHARDING:
            raise MisconfigurationException(
                f"{who} needs whole weights, but {kind.__name__} splits them over the devices. Use strategy='ddp', or "
                "remove the callback and visualise a checkpoint after training."
            )


def find_input(
    trainer: pl.Trainer, batch: Any, get_images: str | Callable[[Any], Tensor] | None, who: str
) -> InputSpec:
    """Infers the format of the network's input from the first training batch; the same result on every rank.

    Args:
        trainer: The trainer, with its training loader.
        batch: The first training batch.
        get_images: Function, or its dotted name, that returns the images ``(N, C, H, W)`` of a batch; None finds them.
        who: Name of the callback, for the error.

    Returns:
        The format, with the class names of the data module where it has some.

    Raises:
        MisconfigurationException: If the batch holds no images, or their format cannot be inferred.
    """
    # the batch at hand costs nothing: requesting one from the loader or the data set would disturb the run
    try:
        spec = find_input_spec(trainer.train_dataloader, images_of(batch, get_images))
    except ValueError as error:
        raise MisconfigurationException(
            f"{who} could not infer the format of the input: {error} Or pass an input_spec."
        ) from error
    spec = replace(spec, class_names=find_class_names(getattr(trainer, "datamodule", None)) or spec.class_names)
    # the ranks see different images and may guess differently
    return trainer.strategy.broadcast(spec)


def find_target(
    pl_module: pl.LightningModule, attribute: str | None, layers: Sequence[str] | None, who: str
) -> tuple[nn.Module, tuple[str, ...] | None]:
    """Finds the network to visualise, and its layers.

    Args:
        pl_module: The LightningModule.
        attribute: Dotted name of the network in it; None finds the network.
        layers: Names of layers, and patterns, with or without the path of the network; None if the choice is left open.
        who: Name of the callback, for the error.

    Returns:
        The network, and the layers as ``network.named_modules()`` names them, with patterns as they are; None for
        layers that were left open.

    Raises:
        MisconfigurationException: If the network or a layer does not exist, or the network does not take images.
    """
    try:
        path, network = find_network(pl_module, attribute)
        check_takes_an_image(network, path)
    except LayerError as error:
        raise MisconfigurationException(f"{who}: {error}") from error
    try:
        return network, None if layers is None else _found_layers(network, layers, path)
    except LayerError as error:
        raise MisconfigurationException(f"{who}(layers=...): {error}") from error


def _found_layers(network: nn.Module, layers: Sequence[str], path: str) -> tuple[str, ...]:
    modules = [name for name, _ in network.named_modules() if name]
    plain = [name.removeprefix(f"{path}.") if path and is_pattern(name, modules) else name for name in layers]
    check_patterns(plain, modules)
    return tuple(name if is_pattern(name, modules) else find_layer(network, name, path) for name in plain)


def builds_late(pl_module: pl.LightningModule) -> bool:
    """Whether the module may build its network in hooks that run after the callback's ``setup``."""
    own: set[str] = set()
    for kind in type(pl_module).__mro__:
        if kind.__name__ == "LightningModule":
            break
        own |= set(vars(kind))
    return not own.isdisjoint({"setup", "configure_model", "prepare_data"})


def is_compiled(pl_module: pl.LightningModule) -> bool:
    """Tells whether ``torch.compile`` was applied to a module or a part of it, which then calls no hooks.

    Args:
        pl_module: The module.

    Returns:
        Whether it was.
    """
    return getattr(pl_module, "_compiler_ctx", None) is not None or any(
        hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in pl_module.modules()
    )
