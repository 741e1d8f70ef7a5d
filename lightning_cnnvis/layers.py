"""Find the layers of a network by name and record what they compute."""

from __future__ import annotations

import difflib
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from lightning_cnnvis.channel_dim import FIRST, FollowChannels, channels_first
from lightning_cnnvis.rectified_outputs import ConvolutionOutputs


class LayerError(ValueError):
    """A layer that is not there, or that cannot be used as asked."""


def get_layer(model: nn.Module, name: str) -> nn.Module:
    """Finds a module by its dotted name.

    Args:
        model: The network.
        name: A name as ``model.named_modules()`` gives it; after it there may be the number of a call, from 1:
            ``"relu@2"`` is ``relu`` where it runs for the second time in a forward pass.

    Returns:
        The module.

    Raises:
        LayerError: If there is no such module, and the message lists the names nearest to it; if the call is not a
            number from 1; or if the network is TorchScript.

    Examples:
        >>> get_layer(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "1")
        ReLU()
        >>> get_layer(nn.ModuleDict({"conv1": nn.Conv2d(3, 8, 3)}), "conv_1")
        Traceback (most recent call last):
        ...
        lightning_cnnvis.layers.LayerError: The model has no layer 'conv_1'. Did you mean 'conv1'?
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise LayerError("The network is TorchScript, which calls no hooks. Give the Python module it was made from.")
    modules: dict[str, nn.Module] = dict(model.named_modules())
    base, call = split_call(name, modules)
    if base and base in modules:
        return modules[base]
    names = [other for other in modules if other]
    near = difflib.get_close_matches(base, names, n=5, cutoff=0.5)
    if near:
        hint = "Did you mean " + ", ".join(repr(other + call_suffix(call)) for other in near) + "?"
    else:
        shown = ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
        hint = f"Its layers: {shown}. model.named_modules() lists them all."
    raise LayerError(f"The model has no layer {name!r}. {hint}")


def split_call(name: str, modules: Iterable[str]) -> tuple[str, int | None]:
    """Splits the name of a layer into that of its module and the number of the call.

    Args:
        name: Name of a layer, such as ``"layer1.0.relu@2"``.
        modules: The names of the network's modules. A module whose own name contains an ``@`` keeps it.

    Returns:
        The name of the module; and the number of the call, from 1, or None if the name gives none.

    Raises:
        LayerError: If what follows the ``@`` is not a number from 1.

    Examples:
        >>> split_call("layer1.0.relu@2", ["layer1.0.relu"])
        ('layer1.0.relu', 2)
        >>> split_call("layer1.0.relu", ["layer1.0.relu"])
        ('layer1.0.relu', None)
    """
    base, at, call = name.rpartition("@")
    if not at or name in modules:
        return name, None
    if not (call.isascii() and call.isdecimal() and int(call) > 0):
        raise LayerError(f"{name!r} does not name a call of {base!r}. Calls are counted from 1, such as '{base}@2'.")
    return base, int(call)


def call_suffix(call: int | None) -> str:
    """Returns what follows a module's name in the name of one of its calls.

    Args:
        call: Number of the call, from 1; None for a module that runs once.

    Returns:
        The suffix; empty for None.
    """
    return "" if call is None else f"@{call}"


def hook_layer(model: nn.Module, name: str, hook: Callable[..., Any]) -> list[RemovableHandle]:
    """Registers a forward hook on a layer, which may be one of several calls of a module.

    Args:
        model: The network whose forward pass the calls are counted in.
        name: Name of the layer; with ``@2`` after it, the hook is called only when the module runs for the second time.
        hook: The forward hook.

    Returns:
        The handles that remove it.

    Raises:
        LayerError: If there is no such layer.

    Examples:
        >>> relu, seen = nn.ReLU(), []
        >>> net = nn.Sequential(relu, nn.Conv2d(3, 8, 3), relu)
        >>> handles = hook_layer(net, "0@2", lambda module, inputs, output: seen.append(output.shape[1]))
        >>> _ = net(torch.zeros(1, 3, 8, 8))
        >>> seen
        [8]
    """
    module = get_layer(model, name)
    _, call = split_call(name, dict(model.named_modules()))
    if call is None:
        return [module.register_forward_hook(hook)]
    ended = 0

    def begin(*_: object) -> None:
        nonlocal ended
        ended = 0  # a pass before may have been stopped on its way

    def on_call(*args: object) -> Any:
        nonlocal ended
        ended += 1
        return hook(*args) if ended == call else None

    return [model.register_forward_pre_hook(begin), module.register_forward_hook(on_call)]


def check_call(model: nn.Module, name: str, runs: int) -> None:
    """Checks that the name of a layer stands for one call of its module.

    Args:
        model: The network.
        name: Name of the layer.
        runs: Number of times that its module runs in a forward pass.

    Raises:
        LayerError: If the module runs more than once and the name does not say which call is meant, or names one
            that there is not.

    Examples:
        >>> check_call(nn.Sequential(nn.ReLU()), "0", 2)
        Traceback (most recent call last):
        ...
        lightning_cnnvis.layers.LayerError: Layer '0' runs 2 times in one forward pass. Name a call: '0@1' or '0@2'.
    """
    base, call = split_call(name, dict(model.named_modules()))
    if call is None and runs > 1:
        raise LayerError(f"Layer {base!r} runs {runs} times in one forward pass. Name a call: {_calls(base, runs)}.")
    if call is not None and call > runs:
        times = "does not run" if not runs else "runs once" if runs == 1 else f"runs {runs} times"
        remedy = f"Name {_calls(base, runs)}." if runs else "Name a layer that does."
        raise LayerError(f"There is no {name!r}: {base!r} {times} in one forward pass. {remedy}")


def _calls(name: str, runs: int) -> str:
    if runs == 1:
        return repr(name)
    shown = [repr(f"{name}@{call}") for call in range(1, runs + 1)]
    if runs > 5:
        return f"{shown[0]}, {shown[1]}, … or {shown[-1]}"
    return ", ".join(shown[:-1]) + f" or {shown[-1]}"


class _Stop(Exception):  # noqa: N818 - a signal, not an error
    """Raised by a hook once every wanted layer has run."""


@contextmanager
def record(model: nn.Module, layers: Sequence[str], *, stop: bool = True) -> Iterator[dict[str, Tensor]]:
    """Records the outputs of layers during the forward passes inside the context.

    Prefer `activations` for a single forward pass. The hooks are removed when the context ends, however it
    ends. Outputs keep their autograd graph. An output that a later in-place operation may overwrite is cloned.

    Args:
        model: The network.
        layers: Dotted module names, each with the number of the call if there are several; see `get_layer`.
        stop: Whether to end the forward pass, by an exception which `activations` catches, as soon as every layer
            has run: the layers after the deepest one cost nothing.

    Yields:
        A dict that each forward pass fills: name -> output, ``(N, …)`` as the layer returns it. Clear it between two
        passes.

    Raises:
        LayerError: If a layer is not there, or if its output is not a tensor.
    """
    recorded: dict[str, Tensor] = {}
    wanted = dict.fromkeys(layers)
    for name in wanted:
        get_layer(model, name)  # before there is a hook

    def hook_of(name: str):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if not isinstance(output, Tensor):
                raise LayerError(
                    f"Layer {name!r} returns a {type(output).__name__}, not a tensor: "
                    "name a layer inside it whose output is one."
                )
            last = stop and len(recorded) + (name not in recorded) == len(wanted)
            recorded[name] = output if last else output.clone()
            if last:
                raise _Stop

        return hook

    handles = [handle for name in wanted for handle in hook_layer(model, name, hook_of(name))]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def activations(model: nn.Module, inputs: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Runs the network up to the deepest of the layers and returns what the layers computed.

    Gradients flow through the result if they are enabled. The model's modes are left as they are.

    Args:
        model: The network.
        inputs: ``(N, C, H, W)``.
        layers: Dotted module names.

    Returns:
        The outputs ``(N, C, ...)``, channels first, name -> tensor, in the order of ``layers``.

    Raises:
        LayerError: If a layer is not there, does not run in ``forward``, does not return a tensor, or returns one that
            is not a batch of the images' features.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Flatten())
        >>> recorded = activations(net, torch.zeros(1, 3, 8, 8), ["0", "1"])
        >>> recorded["1"].shape
        torch.Size([1, 8, 6, 6])
    """
    if not layers:
        raise LayerError("No layer was named.")
    with record(model, layers) as recorded, bringing_channels_first(model, inputs, layers, recorded):
        with suppress(_Stop):
            model(inputs)
        missing = [name for name in layers if name not in recorded]
        if missing:
            raise LayerError(f"Layer {missing[0]!r} does not run in the model's forward pass: name one that does.")
    return {name: recorded[name] for name in layers}


_channel_dims: WeakKeyDictionary[nn.Module, dict[str, int]] = WeakKeyDictionary()


def channel_dim(model: nn.Module, layer: str) -> int:
    """Tells which dimension of a layer's output holds its channels.

    Args:
        model: The network.
        layer: Dotted name of a layer that has been recorded before, by `activations` or `trace_layers`.

    Returns:
        The dimension; 1 if the layer has not been recorded.

    Examples:
        >>> class ChannelsLast(nn.Module):
        ...     def forward(self, x):
        ...         return x.permute(0, 2, 3, 1)
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), ChannelsLast())
        >>> activations(net, torch.zeros(1, 3, 6, 6), ["1"])["1"].shape, channel_dim(net, "1")
        (torch.Size([1, 8, 4, 4]), 3)
    """
    return _channel_dims.get(model, {}).get(layer, FIRST)


def has_units(model: nn.Module, layer: str, output: Tensor) -> bool:
    """Tells whether a layer's output is made of the values of channels: a map, a vector or tokens.

    Args:
        model: The network.
        layer: Dotted name of the layer.
        output: Its output, channels first, as `activations` returns it.

    Returns:
        Whether it is ``(N, C, H, W)``, ``(N, C)``, or ``(N, C, T)`` of a layer that gives tokens ``(N, T, C)``.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(2))
        >>> [has_units(net, layer, activations(net, torch.zeros(1, 3, 6, 6), [layer])[layer]) for layer in "01"]
        [True, False]
    """
    return output.ndim in (2, 4) or (output.ndim == 3 and channel_dim(model, layer) == 2)


@contextmanager
def bringing_channels_first(
    model: nn.Module, inputs: Tensor, layers: Sequence[str], recorded: dict[str, Tensor]
) -> Iterator[None]:
    """Brings the outputs that one forward pass records into the order ``(N, C, ...)``.

    The first pass to a layer finds out which dimension holds its channels; later ones cost nothing more.

    Args:
        model: The network.
        inputs: Its inputs, ``(N, C, H, W)``.
        layers: Dotted names of the layers that the pass records.
        recorded: Their outputs, name -> tensor, which the pass in this context fills, and whose entries are replaced at
            its end.

    Raises:
        LayerError: If a layer does not give one output for each input.
    """
    dims = _channel_dims.setdefault(model, {})
    followed = None if all(layer in dims for layer in layers) else FollowChannels(inputs)
    with followed or nullcontext():
        yield
    for layer, output in recorded.items():
        if followed is not None and layer not in dims:
            if output.ndim == 0 or len(output) != len(inputs):
                raise LayerError(
                    f"Layer {layer!r} gives {tuple(output.shape)} for {len(inputs)} images: its rows are not those of "
                    "the images, as where it works on windows of them. Name a layer around it."
                )
            dims[layer] = followed.dim_of(output)
        recorded[layer] = channels_first(output, dims[layer])


@dataclass(frozen=True)
class LayerCalls:
    """Part that one module, or one call of it, takes in a forward pass.

    Attributes:
        name: Dotted module name, with the number of the call if it is one of several.
        kind: Class name of the module.
        calls: Number of times that the module runs in one forward pass; 1 for a call of it.
        shape: Shape of its output for one image, channels first, without the batch dimension; empty if that is not a
            tensor.
        rectified: Whether it is the rectified output of a convolution.
    """

    name: str
    kind: str
    calls: int
    shape: tuple[int, ...]
    rectified: bool = False


def trace_layers(model: nn.Module, inputs: Tensor) -> tuple[dict[str, LayerCalls], list[str]]:
    """Runs the network once and reports every module that took part, and each convolution's rectified output.

    Args:
        model: The network, in the mode in which it is to be looked at (eval, as a rule).
        inputs: ``(N, C, H, W)``; one image is enough.

    Returns:
        The calls by layer name, in the order of their first run; those of a module that runs several times also one by
        one, as ``relu@1``, ``relu@2``. And for each convolution the name of the layer that holds its rectified output:
        the rectifier that is applied to it, after a normalisation or Dropout if there is one, or the innermost module
        around that rectifier, if it is a function. Where no module holds it, it is the last module before the
        rectifier. See `ConvolutionOutputs`.
    """
    ended: list[LayerCalls] = []
    followed, channels = ConvolutionOutputs(inputs), FollowChannels(inputs)
    dims = _channel_dims.setdefault(model, {})
    runs: Counter[str] = Counter()

    def hook_of(name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, _: tuple[object, ...], output: object) -> None:
            runs[name] += 1
            shape: tuple[int, ...] = ()
            if isinstance(output, Tensor):
                dim = channels.dim_of(output)
                shape = tuple(channels_first(output, dim).shape[1:])
                if len(output.shape) and len(output) == len(inputs):  # else it is refused where it is recorded
                    dims[name] = dims[name + call_suffix(runs[name])] = dim
            ended.append(LayerCalls(name, _kind(module), 1, shape))
            followed.ends(name, module, output)

        return hook

    modules = {name: module for name, module in model.named_modules() if name}
    handles = [m.register_forward_pre_hook(lambda *_, name=n: followed.begins(name)) for n, m in modules.items()]
    handles += [m.register_forward_hook(hook_of(n)) for n, m in modules.items()]
    try:
        with torch.no_grad(), channels, followed:
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    calls, rectified = _numbered(ended, runs), followed.names(runs)
    for name in followed.names(runs, rectified_only=True):
        calls[name] = replace(calls[name], rectified=True)
    return calls, rectified


def _numbered(ended: Iterable[LayerCalls], runs: Mapping[str, int]) -> dict[str, LayerCalls]:
    """Gives calls of one forward pass their names, and puts modules that run several times before their first call."""
    calls: dict[str, LayerCalls] = {}
    before: Counter[str] = Counter()
    for call in ended:
        name, before[call.name] = call.name, before[call.name] + 1
        calls[name] = replace(call, calls=runs[name])
        if runs[name] > 1:
            numbered = name + call_suffix(before[name])
            calls[numbered] = replace(call, name=numbered)
    return calls


def _kind(module: nn.Module) -> str:
    """The name of a module's class; a parametrised module has a class of its own."""
    return parametrize.type_before_parametrizations(module).__name__


def _without_compile(name: str) -> str:
    """Restores the name that a layer had before ``torch.compile`` wrapped modules."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def find_network(module: nn.Module, attribute: str | None) -> tuple[str, nn.Module]:
    """Finds the network to visualise.

    Args:
        module: A LightningModule, or the network itself.
        attribute: Dotted name of the network in it; None for the only child with all parameters, or the module itself
            where there is no such child.

    Returns:
        The dotted name in the module, empty for the module itself, and the network, as it was before
        ``torch.compile`` wrapped it.

    Raises:
        LayerError: If there is no module of that name; the message lists the children.

    Examples:
        >>> find_network(nn.ModuleDict({"net": nn.Linear(2, 1), "loss": nn.MSELoss()}), None)
        ('net', Linear(in_features=2, out_features=1, bias=True))
    """
    if attribute is not None:
        network: Any = module
        for part in attribute.split("."):
            network = getattr(network, part, None)
        if not isinstance(network, nn.Module):
            children = ", ".join(repr(name) for name, _ in module.named_children())
            raise LayerError(f"network={attribute!r} is not a module of {type(module).__name__}. It has {children}.")
        return attribute, _uncompiled(network)
    every = {id(parameter) for parameter in module.parameters()}
    holders = [
        (name, child)
        for name, child in module.named_children()
        if every and {id(parameter) for parameter in child.parameters()} == every
    ]
    path, network = holders[0] if len(holders) == 1 else ("", module)
    return path, _uncompiled(network)


def check_takes_an_image(network: nn.Module, path: str = "") -> None:
    """Checks that a network can be called with a batch of images and nothing else.

    Args:
        network: The network.
        path: Dotted name of the network in what the user named; empty if that is the network.

    Raises:
        LayerError: If its class has no ``forward`` method, or one that does not take exactly one input; the message
            names parts of it that may be meant.

    Examples:
        >>> check_takes_an_image(nn.ModuleDict({"encoder": nn.Conv2d(3, 8, 3), "head": nn.Linear(8, 2)}))
        Traceback (most recent call last):
        ...
        lightning_cnnvis.layers.LayerError: ModuleDict has no forward method. Name the part of it that takes the images: network='encoder'.
    """  # noqa: E501
    problem = _call_problem(network)
    if not problem:
        return
    convolutional = [
        f"{path}.{name}" if path else name
        for name, child in network.named_children()
        if any(isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) for module in child.modules())
    ]
    named = " or ".join(f"network={name!r}" for name in convolutional) or "network='...'"
    raise LayerError(f"{type(network).__name__} {problem}. Name the part of it that takes the images: {named}.")


def _call_problem(network: nn.Module) -> str:
    """Says what keeps a network from being called with images and nothing else, if anything does."""
    if isinstance(network, torch.jit.ScriptModule):
        return ""
    forward = network.forward
    owner = getattr(forward, "__module__", None) or ""
    if getattr(forward, "__name__", "") == "_forward_unimplemented" or owner.endswith("lightning.core.module"):
        # a LightningModule's own passes whatever it is given on to torch's, which is not implemented
        return "has no forward method"
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):  # such as that of a function written in C
        return ""
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1:
        return f"needs {len(needed)} inputs ({', '.join(needed)}), and a picture is made from one image"
    return "" if by_place else "takes its inputs by name only"


def _uncompiled(network: nn.Module) -> nn.Module:
    inner = getattr(network, "_orig_mod", network)
    assert isinstance(inner, nn.Module)
    return inner


def find_layer(network: nn.Module, name: str, path: str) -> str:
    """Finds the name of a layer in the network.

    Args:
        network: The network.
        name: Name of the layer in the network or in the LightningModule, with or without ``_orig_mod``; and with the
            number of the call if there are several, see `get_layer`.
        path: Dotted name of the network in the LightningModule; empty if it is the module itself.

    Returns:
        The name, as ``network.named_modules()`` gives it.

    Raises:
        LayerError: If there is no such layer; the message lists near names.

    Examples:
        >>> find_layer(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "model.1", "model")
        '1'
    """
    names: dict[str, str] = {_without_compile(known): known for known, _ in network.named_modules()}
    plain = _without_compile(name)
    inside = plain.removeprefix(f"{path}.") if path else plain
    for candidate in (plain, inside):
        base, call = split_call(candidate, names)
        if base in names and base:
            return names[base] + call_suffix(call)
    get_layer(network, inside)  # raises, with the near names
    return inside


@contextmanager
def naming_layer(layer: str) -> Iterator[None]:
    """Notes on an exception that passes which layer was worked on."""
    try:
        yield
    except Exception as error:
        error.cnnvis_layer = layer  # type: ignore[attr-defined]
        raise
