"""Find the network, its layers and its input in a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_cnnvis.input_discovery import find_class_names, find_input_spec
from lightning_cnnvis.inputs import InputSpec, images_of
from lightning_cnnvis.layers import LayerError, get_layer

_SHARDING = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}


def refuse_sharded_weights(trainer: pl.Trainer, who: str) -> None:
    """Refuses strategies that leave each process a part of the weights only."""
    for kind in type(trainer.strategy).__mro__:
        if kind.__name__ in _SHARDING:
            raise MisconfigurationException(
                f"{who} needs whole weights, but {kind.__name__} splits them over the devices. Use strategy='ddp', or "
                "take the callback out and visualise a checkpoint afterwards."
            )


def find_input(trainer: pl.Trainer, batch: Any, images: str | Callable[[Any], Tensor] | None, who: str) -> InputSpec:
    """What the input looks like, read off the first training batch; the same on every rank."""
    # the batch in hand costs nothing: asking the loader or the data set for one would disturb the run
    try:
        spec = find_input_spec(trainer.train_dataloader, images_of(batch, images))
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
    path, network = find_network(pl_module, attribute)
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


def _without_compile(name: str) -> str:
    """The name of a layer as it was before ``torch.compile`` wrapped modules."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def find_network(pl_module: pl.LightningModule, attribute: str | None) -> tuple[str, nn.Module]:
    """The network to visualise, and its dotted name in the LightningModule."""
    if attribute is not None:
        network: Any = pl_module
        for part in attribute.split("."):
            network = getattr(network, part, None)
        if not isinstance(network, nn.Module):
            children = ", ".join(repr(name) for name, _ in pl_module.named_children())
            raise MisconfigurationException(
                f"network={attribute!r} is not a module of {type(pl_module).__name__}. It has {children}."
            )
        return attribute, _uncompiled(network)
    every = {id(parameter) for parameter in pl_module.parameters()}
    holders = [
        (name, child)
        for name, child in pl_module.named_children()
        if every and {id(parameter) for parameter in child.parameters()} == every
    ]
    path, network = holders[0] if len(holders) == 1 else ("", pl_module)
    return path, _uncompiled(network)


def _uncompiled(network: nn.Module) -> nn.Module:
    inner = getattr(network, "_orig_mod", network)
    assert isinstance(inner, nn.Module)
    return inner


def find_layer(network: nn.Module, name: str, path: str) -> str:
    """The layer's name in the network, given its name there or in the LightningModule."""
    names: dict[str, str] = {_without_compile(known): known for known, _ in network.named_modules()}
    plain = _without_compile(name)
    inside = plain.removeprefix(f"{path}.") if path else plain
    for candidate in (plain, inside):
        if candidate in names and candidate:
            return names[candidate]
    get_layer(network, inside)  # raises, with the near names
    return inside
