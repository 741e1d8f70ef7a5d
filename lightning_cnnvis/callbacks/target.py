"""Find the network, and its layers, inside a LightningModule."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_cnnvis.layers import get_layer


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
