"""Everything that a visualisation may disturb in a training run, saved and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


@contextmanager
def isolated(model: nn.Module, *, eval_mode: bool = True) -> Iterator[None]:
    """Lets the body use the model without leaving a trace on it or on the process.

    Put back at the end, whatever happens in the body: the global random generators of Python, NumPy, torch and
    every CUDA device; each module's own ``training`` flag (a frozen BatchNorm stays frozen), plain attributes,
    hooks of every kind, parameters and buffers as objects; the buffers' values; ``requires_grad`` and
    ``.grad``; cuDNN's flags, the deterministic-algorithms switch and the default dtype.

    Inside, gradients are enabled; inference mode, autocast and cuDNN's benchmark are off; ``torch.compile`` is
    bypassed, because a compiled module would not call hooks; operations that have no deterministic form (the
    gradient of max pooling on CUDA) warn where ``Trainer(deterministic=True)`` lets them raise. Every ``.grad``
    is None, so that a backward pass adds nothing to the gradients that training has gathered.

    The weights are neither copied nor checked: the body must not write to them.

    Args:
        model: The network. Pass the whole LightningModule to protect all of it.
        eval_mode: Puts every module into evaluation mode inside.

    Yields:
        Nothing.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout())
        >>> with isolated(net):
        ...     _ = torch.rand(3)
        ...     net.training
        False
        >>> net.training
        True
    """
    modules = list(model.modules())
    with ExitStack() as stack:
        stack.enter_context(isolated_rng())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in {"cpu", _device_type(model)}:
            stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_switches())
        # the last to be entered is the first to be put back: modules hold the parameters and buffers
        stack.enter_context(_buffer_values(model))
        stack.enter_context(_gradients(model))
        stack.enter_context(_attributes(modules))
        if eval_mode:
            for module in modules:
                module.training = False
        yield


@contextmanager
def isolated_rng() -> Iterator[None]:
    """Puts the global random generators of Python, NumPy, torch and every CUDA device back at the end.

    Example:
        >>> with isolated_rng():
        ...     inside = torch.rand(3)
        >>> torch.equal(inside, torch.rand(3))
        True
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one
    with torch.random.fork_rng(_cuda_devices()):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def _switches() -> Iterator[None]:
    """The process-wide switches of torch."""
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
def _buffer_values(model: nn.Module) -> Iterator[None]:
    # what is no plain memory (sparse, not yet initialised) is kept as an object only
    buffers = [b for b in model.buffers() if not is_lazy(b) and b.layout is torch.strided]
    saved = [buffer.detach().clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, saved, strict=True):
            # writing only what changed keeps the version counters that autograd checks
            if not _same(buffer, value):
                with torch.no_grad(), torch.inference_mode(buffer.is_inference()):
                    buffer.copy_(value)


@contextmanager
def _gradients(model: nn.Module) -> Iterator[None]:
    saved = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        # taken away, not copied: nothing can be added to a gradient that is not there
        for parameter, _, _ in saved:
            parameter.grad = None
        yield
    finally:
        for parameter, requires_grad, grad in saved:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)
            parameter.grad = grad


# nn.Module's own dicts and sets: parameters, buffers, children, every kind of hook and their options
_TABLES = tuple(name for name, value in vars(nn.Module()).items() if isinstance(value, dict | set))


@contextmanager
def _attributes(modules: list[nn.Module]) -> Iterator[None]:
    attributes = [dict(vars(module)) for module in modules]
    training = [module.training for module in modules]  # which a ScriptModule does not keep in its vars
    # hook handles refer to these tables, so it is their contents that must be put back
    tables = [
        (table, table.copy())
        for module in modules
        for table in map(vars(module).get, _TABLES)
        if isinstance(table, dict | set)
    ]
    try:
        yield
    finally:
        for module, saved, flag in zip(modules, attributes, training, strict=True):
            if _identities(vars(module)) != _identities(saved):
                vars(module).clear()
                vars(module).update(saved)
            if module.training != flag:
                module.training = flag
        for table, contents in tables:
            if _identities(table) != _identities(contents):
                table.clear()
                table.update(contents)


def _identities(table: dict[Any, Any] | set[Any]) -> list[Any]:
    """Keys and the identities of values, in order: tensors have no truth value to compare by."""
    return [(key, id(value)) for key, value in table.items()] if isinstance(table, dict) else sorted(table)


def _same(a: Tensor, b: Tensor) -> bool:
    # bytes, so that a NaN equals itself
    return a.numel() == 0 or torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def _cuda_devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


def _device_type(model: nn.Module) -> str:
    parameter = next(model.parameters(), None)
    return parameter.device.type if parameter is not None else "cpu"
