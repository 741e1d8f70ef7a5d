"""Saves everything that a visualisation may disturb in a training run, and restores it at the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import checkpoint as checkpointing

from lightning_cnnvis.accelerators import devices_in_use
from lightning_cnnvis.working_copy import own_classes, working_copy

_at_work: set[int] = set()  # identities of the modules of all copies whose context is open


@contextmanager
def isolated(model: nn.Module, *, eval_mode: bool = True, within: nn.Module | None = None) -> Iterator[nn.Module]:
    """Yields a copy of the model that the body can use without leaving a trace on the model or on the process.

    The copy shares the weights' memory with the model, and nothing that a forward pass may change: see
    `working_copy`. Inside the body, a call with the copy, or a part of it, yields what it was given.

    A model that cannot be copied is yielded itself. For it, and for bodies that use the model in spite of the copy, the
    following is restored at the end, whatever happens in the body: the global random generators of Python, NumPy, torch
    and every accelerator; each module's own ``training`` flag (a frozen BatchNorm stays frozen); its class, and the
    attributes of that; its own attributes and, where they are lists, dicts or sets, their contents (features that a
    network collects); hooks of every kind; parameters and buffers as objects; the values of buffers and of other
    tensors that modules hold; ``requires_grad`` and ``.grad``; cuDNN's flags, the deterministic-algorithms switch and
    the default dtype.

    Inside the body, gradients are enabled; inference mode, autocast and cuDNN's benchmark are off; ``torch.compile``
    is bypassed, because a compiled module would not call hooks; parts under gradient checkpointing run as they would
    without it, because their graph would hide what is recomputed; operations without a deterministic form (such as the
    gradient of max-pooling on a GPU) warn where ``Trainer(deterministic=True)`` would make them raise. Every ``.grad``
    is None, so that a backward pass adds nothing to the gradients that training has accumulated.

    The weights are neither copied nor checked: the body must not write to them.

    Args:
        model: The network.
        eval_mode: Whether to put every module into evaluation mode inside the body.
        within: The LightningModule, or another module, that the network is a part of: all of it is restored.

    Yields:
        The copy of the model.

    Raises:
        ValueError: If the model is on the meta device.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> with isolated(net) as copy:
        ...     copy.training
        False
        >>> net.training
        True
    """
    check_has_values(model)
    owner = model if within is None else within
    modules = list(owner.modules())
    with ExitStack() as stack:
        stack.enter_context(isolated_rng())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in {"cpu", _device_type(owner)}:
            if torch.amp.is_autocast_available(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_switches())
        stack.enter_context(_checkpointing_off())
        # the last to be entered is the first to be restored: modules hold the parameters and buffers
        stack.enter_context(_values(modules))
        stack.enter_context(_gradients(owner))
        stack.enter_context(_attributes(modules))
        stack.enter_context(_class_attributes({kind for module in modules for kind in own_classes(module)}))
        if eval_mode:
            for module in modules:
                module.training = False
        yield stack.enter_context(_copied(model))


@contextmanager
def _copied(model: nn.Module) -> Iterator[nn.Module]:
    """Yields a working copy of the model; the model itself if it is one, or cannot be copied."""
    twin = None if id(model) in _at_work else working_copy(model)
    if twin is None:
        yield model
        return
    identities = {id(module) for module in twin.modules()}
    _at_work.update(identities)
    try:
        yield twin
    finally:
        _at_work.difference_update(identities)


@contextmanager
def isolated_rng() -> Iterator[None]:
    """Restores the global random generators of Python, NumPy, torch and the accelerator at the end of the body.

    Yields:
        None, once the states are saved.

    Examples:
        >>> with isolated_rng():
        ...     inside = torch.rand(3)
        >>> torch.equal(inside, torch.rand(3))
        True
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one
    kind, devices = devices_in_use()
    with torch.random.fork_rng(devices, device_type=kind):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def _switches() -> Iterator[None]:
    """Restores torch's process-wide switches at the end; sets those that a visualisation needs."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    flags: list[tuple[Any, str]] = [(cudnn, "enabled"), (cudnn, "benchmark"), (cudnn, "deterministic")]
    flags += [(owner, "fp32_precision") for owner in (matmul, cudnn.conv, cudnn.rnn)]  # type: ignore[attr-defined]
    saved = [(owner, name, getattr(owner, name)) for owner, name in flags]
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    dtype = torch.get_default_dtype()
    try:
        cudnn.benchmark = False  # it would time every algorithm for each new window size
        if deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
        yield
    finally:
        for owner, name, value in saved:
            if getattr(owner, name) != value:
                setattr(owner, name, value)
        if torch.are_deterministic_algorithms_enabled() != deterministic or deterministic:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_default_dtype(dtype)


@contextmanager
def _checkpointing_off() -> Iterator[None]:
    """Runs parts under gradient checkpointing plainly, with the memory that this takes."""

    class Plain:
        @staticmethod
        def apply(function: Callable[..., Any], _preserve_rng_state: bool, *args: Any) -> Any:
            return function(*args)

    def without_recomputation(*_: Any, **__: Any) -> Iterator[None]:
        yield

    # a network may have imported `checkpoint` by name, so that only what this looks up can be replaced
    replacements: dict[str, Any] = {
        "CheckpointFunction": Plain,
        "_checkpoint_without_reentrant_generator": without_recomputation,
        "_checkpoint_without_reentrant_generator_impl": without_recomputation,  # in later versions of torch
    }
    saved = {name: getattr(checkpointing, name) for name in replacements if hasattr(checkpointing, name)}
    for name in saved:
        setattr(checkpointing, name, replacements[name])
    try:
        yield
    finally:
        for name, original in saved.items():
            setattr(checkpointing, name, original)


@contextmanager
def _values(modules: list[nn.Module]) -> Iterator[None]:
    """Restores the values of tensors that are not learnt: buffers, and those that a module holds as attributes."""
    held = [held for module in modules for table in (module._buffers, vars(module)) for held in table.values()]
    saved = [(tensor, tensor.detach().clone()) for tensor in filter(_is_plain_memory, held)]
    try:
        yield
    finally:
        # writing only what changed keeps the version counters that autograd checks
        for (tensor, value), same in zip(saved, _are_same(saved), strict=True):
            if not same:
                with torch.no_grad(), torch.inference_mode(tensor.is_inference()):
                    tensor.copy_(value)


def _is_plain_memory(held: object) -> TypeGuard[Tensor]:
    """Whether the value is a tensor that can be copied back; others (sparse, lazy) are kept only as objects."""
    return isinstance(held, Tensor) and not is_lazy(held) and held.layout is torch.strided and not held.is_meta


@contextmanager
def _gradients(model: nn.Module) -> Iterator[None]:
    """Sets every ``.grad`` to None; restores it and ``requires_grad`` at the end."""
    saved = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        # removed, not copied: nothing can be added to a gradient that does not exist
        for parameter, _, _ in saved:
            parameter.grad = None
        yield
    finally:
        for parameter, requires_grad, grad in saved:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)
            parameter.grad = grad


@contextmanager
def _attributes(modules: list[nn.Module]) -> Iterator[None]:
    """Restores the attributes of modules, and the contents of those that are containers."""
    classes = [type(module) for module in modules]  # which a lazy module changes
    attributes = [dict(vars(module)) for module in modules]
    training = [module.training for module in modules]  # which a ScriptModule does not keep in its vars
    # parameters, buffers, children, every kind of hook and its options, and containers of the user's own; other
    # objects refer to them, as the handles of hooks do, so their contents must be restored, not the containers
    containers = [
        (held, _contents(held))
        for module in modules
        for held in vars(module).values()
        if isinstance(held, dict | list | set)
    ]
    try:
        yield
    finally:
        for module, kind, saved, flag in zip(modules, classes, attributes, training, strict=True):
            if type(module) is not kind:
                module.__class__ = kind
            if _identities(vars(module)) != _identities(saved):
                vars(module).clear()
                vars(module).update(saved)
            if module.training != flag:
                module.training = flag
        for container, contents in containers:
            if _identities(container) != _identities(contents):
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(contents)


@contextmanager
def _class_attributes(kinds: set[type]) -> Iterator[None]:
    """Restores the attributes of classes, such as a number of passes that all instances count together."""
    saved = [(kind, dict(vars(kind))) for kind in kinds]
    try:
        yield
    finally:
        for kind, attributes in saved:
            for name in [name for name in vars(kind) if not name.startswith("__")]:
                if name not in attributes:
                    delattr(kind, name)
                elif vars(kind)[name] is not attributes[name]:
                    setattr(kind, name, attributes[name])


def _contents(container: dict[Any, Any] | list[Any] | set[Any]) -> dict[Any, Any] | list[Any] | set[Any]:
    """A copy as a builtin container: a subclass of the user's may do anything when it is copied."""
    return next(kind(container) for kind in (dict, list, set) if isinstance(container, kind))


def _identities(container: dict[Any, Any] | list[Any] | set[Any]) -> Any:
    """A value that is equal if the same objects are held in the same order; tensors themselves cannot be compared."""
    if isinstance(container, dict):
        return [(key, id(value)) for key, value in container.items()]
    return [id(value) for value in container] if isinstance(container, list) else container


def _are_same(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[bool]:
    """Compares tensors with their copies byte by byte, so that a NaN equals itself; waits once for each device."""
    same = [True] * len(pairs)
    of_device: dict[torch.device, list[int]] = {}
    for number, (tensor, _) in enumerate(pairs):
        if tensor.numel():
            of_device.setdefault(tensor.device, []).append(number)
    for numbers in of_device.values():
        bytes_of = [[part.reshape(-1).view(torch.uint8) for part in pairs[number]] for number in numbers]
        found = torch.stack([(tensor == copy).all() for tensor, copy in bytes_of]).tolist()
        for number, is_same in zip(numbers, found, strict=True):
            same[number] = is_same
    return same


def check_has_values(model: nn.Module) -> None:
    """Refuses a network that has shapes and no values.

    Args:
        model: The network.

    Raises:
        ValueError: If a parameter or a buffer is on the meta device.
    """
    empty = next((name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta), None)
    if empty is not None:
        raise ValueError(
            f"{type(model).__name__} is on the meta device: {empty} has a shape and no values. Make the network on a "
            "real device, or call to_empty(device=...) and load its weights."
        )


def _device_type(model: nn.Module) -> str:
    parameter = next(model.parameters(), None)
    return parameter.device.type if parameter is not None else "cpu"
