"""A device that is not there: tensors that say they are on a GPU, hold their values on the CPU, and refuse to mix."""

from __future__ import annotations

import collections
import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
DEVICE = torch.device("lazy:0")  # a kind that every torch knows, and none has

_TRANSFERS = {aten._to_copy.default, aten.copy_.default}
_READS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default}
# which take no number of the host beside tensors of the device
_STRICT = {aten.mm.default, aten.addmm.default, aten.convolution.default, aten.stack.default, aten.cat.default}
# which MPS does not have
_ABSENT = {torch.float64, torch.complex128}


class Mixed(RuntimeError):
    """Tensors of two devices in one operation."""


class Pretended(torch.Tensor):
    """A tensor on the pretended device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Pretended:
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        wrapper.held = held
        return wrapper

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


reads: collections.Counter[str] = collections.Counter()
"""Places in the package at which values went from the device to the host, since `pretend` began."""


def _place() -> str:
    """The innermost line of the package that is at work."""
    for frame in reversed(traceback.extract_stack()):
        _, found, place = frame.filename.rpartition("lightning_cnnvis/")
        if found and "tests/" not in place:
            return f"{place}:{frame.lineno} {frame.line}"
    return "outside"


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
    here = [tensor for tensor in tensors if not isinstance(tensor, Pretended)]
    device = kwargs.get("device")
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != DEVICE.type and (there or _is_there(device)):
        raise Mixed(f"{func}: a generator of the CPU for the device, at {_place()}")
    if func not in _TRANSFERS and there and any(tensor.ndim or func in _STRICT for tensor in here):
        indices = func in (aten.index.Tensor, aten.index_put_.default) and isinstance(args[0], Pretended)
        if not indices:  # of which torch copies those of the host
            raise Mixed(f"{func}: {[tuple(tensor.shape) for tensor in here]} on the CPU, at {_place()}")
    target_is_there = bool(there) or _is_there(device)
    if func is aten._to_copy.default:
        target_is_there = _is_there(device) if device is not None else bool(there)
    elif func is aten.copy_.default:
        target_is_there = isinstance(args[0], Pretended)
    elif device is not None:
        target_is_there = _is_there(device)
    if there and (func in _READS or (func in _TRANSFERS and not target_is_there)):
        reads[_place()] += 1
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map(lambda value: value.held if isinstance(value, Pretended) else value, (args, kwargs))
    result = func(*args, **kwargs)
    if target_is_there and any(leaf.dtype in _ABSENT for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)):
        raise TypeError(f"{func}: the device has no float64, at {_place()}")
    known = {id(tensor.held): tensor for tensor in there}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not target_is_there:
            return value
        return known.get(id(value)) if id(value) in known else Pretended(value)

    return tree_map(wrapped, result)


class _Factories(TorchDispatchMode):
    """Makes tensors on the pretended device where one is asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_there(kwargs.get("device")) or any(isinstance(v, Pretended) for v in tree_leaves((args, kwargs))):
            return _run(func, args, kwargs)
        return func(*args, **kwargs)


@contextlib.contextmanager
def pretend(monkeypatch: Any) -> Iterator[None]:
    """Inside, `DEVICE` is one like others."""
    make, as_list = torch.tensor, torch.Tensor.tolist

    def tensor(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
        made = make(data, device="cpu", **options)
        return Pretended(made) if _is_there(device) else made

    def tolist(self: torch.Tensor) -> Any:
        if not isinstance(self, Pretended):
            return as_list(self)
        reads[_place()] += 1
        return as_list(self.held)

    reads.clear()
    with monkeypatch.context() as patch, _Factories():
        patch.setattr(torch, "tensor", tensor)
        patch.setattr(torch.Tensor, "tolist", tolist)
        yield


def moved(model: nn.Module) -> nn.Module:
    """Puts a network's weights and buffers on the pretended device."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(Pretended(parameter.detach()), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Pretended(buffer.detach())
    return model
