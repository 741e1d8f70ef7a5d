"""Layers with weights in the order in which they run, and their re-initialisation one after the other."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules.conv import _ConvTransposeNd

from lightning_cnnvis.functional.network.forward import plain_forward
from lightning_cnnvis.functional.network.graph import children
from lightning_cnnvis.functional.noise import gaussian
from lightning_cnnvis.layers import LayerError

_STATISTICS = {"running_mean": 0.0, "running_var": 1.0}


@dataclass(frozen=True)
class WeightedLayer:
    """A layer with weights, and what is re-initialised with it.

    Attributes:
        name: Dotted name of the module; of a weight that the network itself holds, the name of that weight.
        tensors: Names of parameters and buffers: the layer's own, and those of the normalisations, slopes and scales
            that follow before the next layer with weights.
    """

    name: str
    tensors: tuple[str, ...]


def weighted_layers(network: nn.Module, layer: str, image: Tensor) -> list[WeightedLayer]:
    """Finds the layers whose weights a layer depends on, the last one to run first.

    The order is that of the operations in the autograd graph, so that it does not matter in which order modules are
    defined, nor which module calls an operation on a weight. A layer that runs several times counts where it runs last.

    Args:
        network: The network, isolated and in evaluation mode.
        layer: Dotted name of the layer, or ``OUTPUT``.
        image: ``(N, C, H, W)``.

    Returns:
        The layers.

    Raises:
        LayerError: If the layer is not there, or does not depend on any weight.

    Examples:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
        >>> [found.name for found in weighted_layers(net, "3", torch.rand(1, 3, 8, 8))]
        ['3', '0']
    """
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    with _all_trained(network):
        output = plain_forward(network, [layer])(image)[layer]
        uses = {names[one]: (when, one) for one, when in _last_uses(output).items() if one in names}
    if not uses:
        raise LayerError(f"Layer {layer!r} does not depend on any weight. Name one that comes after weights.")
    found: dict[str, list[str]] = {}
    following: list[str] = []  # what runs after the layer with weights that comes next on the way down
    for name in sorted(uses, key=lambda one: (uses[one][0], one), reverse=True):
        owner = name.rpartition(".")[0] or name
        if is_weight(network, name):
            found.setdefault(owner, []).extend([*following, name])
            following = []
        elif owner in found:
            found[owner].append(name)
        else:
            following.append(name)
    if following:
        last = next(reversed(found), following[0].rpartition(".")[0] or following[0])
        found.setdefault(last, []).extend(following)
    _add_statistics(network, found)
    return [WeightedLayer(name, tuple(tensors)) for name, tensors in found.items()]


def is_weight(network: nn.Module, name: str) -> bool:
    """Whether a parameter holds weights, rather than an offset, a slope or a scale for each channel.

    Args:
        network: The network.
        name: Name of the parameter.

    Returns:
        True for weights.
    """
    tensor = _tensor(network, name)
    owner = network.get_submodule(name.rpartition(".")[0])
    return tensor.ndim > 1 and (tensor[0].numel() > 1 or isinstance(owner, nn.Linear | nn.modules.conv._ConvNd))


def initial_values(network: nn.Module, layer: WeightedLayer, seed: int) -> dict[str, Tensor]:
    """Draws new values for a layer, each tensor from a generator of its own.

    Weights are normal with a variance of 2 over the number of values that each output sums up (He et al. 2015,
    arXiv 1502.01852), offsets are 0, normalisations as they begin a training; slopes and scales stay.

    Args:
        network: The network.
        layer: The layer.
        seed: Seed.

    Returns:
        The values by name, in the shape, dtype and memory format of the old ones.
    """
    values = {}
    for name in layer.tensors:
        old, leaf = _tensor(network, name).detach(), name.rpartition(".")[2]
        module = network.get_submodule(name.rpartition(".")[0])
        new = old.clone()
        if leaf in _STATISTICS:
            new.fill_(_STATISTICS[leaf])
        elif is_weight(network, name):
            fan_in = old[0].numel()
            if isinstance(module, _ConvTransposeNd):
                fan_in = old.numel() // old.shape[1] // module.groups
            new.copy_(gaussian(old.shape, seed + zlib.crc32(name.encode())) * math.sqrt(2 / fan_in))
        elif "bias" in leaf:
            new.zero_()
        elif "Norm" in type(module).__name__:
            new.fill_(1)
        values[name] = new
    return values


def replace_tensors(network: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Puts tensors in the place of parameters and buffers; the old ones are not written to.

    Args:
        network: A working copy of a network.
        values: The tensors by name.
    """
    modules = list(network.modules())
    for name, value in values.items():
        old = _tensor(network, name)
        new = nn.Parameter(value, requires_grad=False) if isinstance(old, nn.Parameter) else value
        for module in modules:
            for leaf in [key for key, held in (*module._parameters.items(), *module._buffers.items()) if held is old]:
                setattr(module, leaf, new)


def tensors_of(network: nn.Module, layers: list[WeightedLayer]) -> dict[str, Tensor]:
    """The present values of layers.

    Args:
        network: The network.
        layers: The layers.

    Returns:
        Detached tensors by name, which share the network's memory.
    """
    return {name: _tensor(network, name).detach() for layer in layers for name in layer.tensors}


def _tensor(network: nn.Module, name: str) -> Tensor:
    owner, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(network.get_submodule(owner), leaf)
    return tensor


def _last_uses(output: Tensor) -> dict[int, int]:
    """For each parameter by its identity, the number of the last operation that it takes part in."""
    uses: dict[int, int] = {}
    seen: set[Node] = set()
    waiting = [] if output.grad_fn is None else [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for child in children(node):
            parameter = getattr(child, "variable", None)
            if isinstance(parameter, Tensor):
                uses[id(parameter)] = max(uses.get(id(parameter), -1), node._sequence_nr())
            else:
                waiting.append(child)
    return uses


def _add_statistics(network: nn.Module, found: dict[str, list[str]]) -> None:
    """Adds the statistics of normalisations; of those without parameters, to the layer that is defined before."""
    layer_of = {name.rpartition(".")[0]: layer for layer, tensors in found.items() for name in tensors}
    layer: str | None = None
    for name, module in network.named_modules():
        layer = layer_of.get(name, layer)
        if layer is not None and (name in layer_of or not any(True for _ in module.parameters(recurse=False))):
            prefix = f"{name}." if name else ""
            held = [leaf for leaf, buffer in module._buffers.items() if buffer is not None and leaf in _STATISTICS]
            found[layer].extend(prefix + leaf for leaf in held)


@contextmanager
def _all_trained(network: nn.Module) -> Iterator[None]:
    """Lets gradients reach every parameter, also of a network that is frozen."""
    flags = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        for parameter, _ in flags:
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
