"""Everything that a visualisation may disturb in a training run, saved and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def isolated(model: nn.Module, *, eval_mode: bool = True) -> Iterator[None]:
    """Lets the body use the model without leaving a trace on it or on the process.

    Put back at the end, whatever happens in the body: the global random generators of Python, NumPy, torch and
    every CUDA device; each module's own ``training`` flag (a frozen BatchNorm stays frozen); ``requires_grad``,
    ``.grad`` and the buffers of the model; its forward and backward hooks; cuDNN's flags and the
    deterministic-algorithms switch. Inside, gradients are enabled, inference mode and autocast are off, and
    ``torch.compile`` is bypassed, because a compiled module would not call hooks.

    Args:
        model: The network.
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
    training = [module.training for module in modules]
    hooks = [_hook_ids(module) for module in modules]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one
    cudnn = torch.backends.cudnn
    cudnn_flags = (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32)
    deterministic = torch.are_deterministic_algorithms_enabled()
    deterministic_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(_cuda_devices()))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in {"cpu", _device_type(model)}:
            stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            if eval_mode:
                for module in modules:
                    module.training = False
            yield
        finally:
            for module, flag, ids in zip(modules, training, hooks, strict=True):
                module.training = flag
                _remove_new_hooks(module, ids)
            for parameter, requires_grad, grad in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad
            with torch.no_grad():
                for buffer, saved in buffers:
                    # writing only what changed keeps the version counters that autograd checks
                    if not _same(buffer, saved):
                        buffer.copy_(saved)
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
            cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = cudnn_flags
            torch.use_deterministic_algorithms(deterministic, warn_only=deterministic_warn)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _hook_ids(module: nn.Module) -> list[set[int]]:
    return [set(getattr(module, kind)) for kind in _HOOKS]


def _remove_new_hooks(module: nn.Module, before: list[set[int]]) -> None:
    for kind, ids in zip(_HOOKS, before, strict=True):
        hooks = getattr(module, kind)
        for key in [key for key in hooks if key not in ids]:
            del hooks[key]


def _same(a: Tensor, b: Tensor) -> bool:
    # bytes, so that a NaN equals itself
    return a.numel() == 0 or torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def _cuda_devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


def _device_type(model: nn.Module) -> str:
    parameter = next(model.parameters(), None)
    return parameter.device.type if parameter is not None else "cpu"
