"""A copy of a network to work on, which shares the weights and nothing that a forward pass may change."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, Dataset

_log = logging.getLogger(__name__)

_PACKAGE = __name__.partition(".")[0]

_PASS_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_GRADIENT_HOOKS = ("_backward_hooks", "_backward_pre_hooks")

# too large to copy, known by their identity, or with weights that a copy would not share
_NEVER_COPIED = (
    Dataset,
    DataLoader,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
    BaseException,
    torch.jit.ScriptModule,
)

_LIBRARIES = ("torch", "torchvision", "timm", "pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics")

_FEW = 1000  # a longer list holds data, not modules


def working_copy(model: nn.Module) -> nn.Module | None:
    """Copies a network such that its forward passes leave no trace on the original.

    The copy has the memory of the weights in common with the original: it costs none, and computes the same, byte for
    byte. Everything else is its own: buffers, counters, queues, arrays, random generators, whatever else is reachable
    from the modules or held by their classes, and modules that change their class in their first forward pass. Hooks on
    forward passes belong to what the network computes; those of the copy work on copies of what they hold: the object
    of a method, the closure and the global variables of a function. Hooks on gradients are left out, since they concern
    the training.

    A LightningModule in the copy is attached to a trainer without loggers, and its ``log`` does nothing.

    Data sets, loaders, optimizers and scripted modules are shared, and so is what cannot be copied, such as a lock or
    an open file.

    Args:
        model: The network. What it belongs to is copied only as far as the network refers to it.

    Returns:
        The copy, in the modes of the original; None if the network cannot be copied.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> twin = working_copy(net)
        >>> twin[0].weight.data_ptr() == net[0].weight.data_ptr()
        True
        >>> _ = twin(torch.rand(1, 3, 8, 8))
        >>> int(net[1].num_batches_tracked), int(twin[1].num_batches_tracked)
        (0, 1)
    """
    if isinstance(model, torch.jit.ScriptModule):
        return None
    try:
        return _Copier(model).copy()
    except Exception:
        try:
            return _Copier(model, share_uncopyable=True).copy()
        except Exception as error:
            _log.debug("%s cannot be copied", type(model).__name__, exc_info=error)
            return None


class _Copier:
    """Copies a network once.

    Args:
        model: The network.
        share_uncopyable: Whether to find out what cannot be copied, and share it.
    """

    def __init__(self, model: nn.Module, *, share_uncopyable: bool = False) -> None:
        self.model = model
        self.lenient = share_uncopyable
        # the modules, and those that they refer to: a hook of a layer may be a method of the LightningModule
        self.modules = list(_reachable(model))
        self.memo: dict[int, Any] = {}  # what stands for the objects that are not copied as they are, by identity
        self.functions: list[tuple[FunctionType, FunctionType]] = []  # each with its copy
        self.alive: list[Any] = []  # whose identities the memo holds

    def copy(self) -> nn.Module:
        """Copies the network."""
        with torch.no_grad(), _DetachedCopies():
            self._share()
            for module in self.modules:
                for hook in _hooks(module):
                    self._copy_function(hook, with_globals=True)
                for value in vars(module).values():
                    self._copy_function(value)
            if self.lenient:
                self._share_uncopyable()
            for function, twin in self.functions:
                self._fill(function, twin)
            network: nn.Module = copy.deepcopy(self.model, self.memo)
            self._detach()
        if _memory_of(network) != _memory_of(self.model):
            raise TypeError(f"{type(self.model).__name__} copies itself without its weights.")
        return network

    def _share(self) -> None:
        for module in self.modules:
            for parameter in module._parameters.values():
                if type(parameter) is nn.Parameter and id(parameter) not in self.memo:
                    twin = nn.Parameter(parameter.detach(), parameter.requires_grad)
                    vars(twin).update(vars(parameter))
                    self.memo[id(parameter)] = twin
                elif parameter is not None and not is_lazy(parameter):
                    self.memo.setdefault(id(parameter), parameter)
            left_out = [*filter(_is_ours, _hooks(module)), *_hooks(module, _GRADIENT_HOOKS)]
            held = (*vars(module).values(), *module._modules.values())
            kept = [value for value in held if isinstance(value, _NEVER_COPIED)]
            self.memo |= {id(value): value for value in (*left_out, *kept)}
            trainer = vars(module).get("_trainer")
            if trainer is not None and id(trainer) not in self.memo:
                self.memo[id(trainer)] = _without_loggers(trainer)

    def _share_uncopyable(self) -> None:
        tables = {"_modules", "_parameters", *_PASS_HOOKS, *_GRADIENT_HOOKS}
        for module in self.modules:
            attributes = [value for name, value in vars(module).items() if name not in tables]
            for value in (*attributes, *_hooks(module)):
                self._copied(value)

    def _copy_function(self, function: Any, *, with_globals: bool = False) -> None:
        """Prepares a copy of a function that holds something; a deep copy would share it."""
        if not isinstance(function, FunctionType) or id(function) in self.memo:
            return
        held = function.__closure__ or ()
        if not held and not with_globals:
            return
        namespace = dict(function.__globals__) if with_globals else function.__globals__
        cells = tuple(CellType() for _ in held)
        twin = FunctionType(function.__code__, namespace, function.__name__, function.__defaults__, cells)
        twin.__kwdefaults__ = function.__kwdefaults__
        vars(twin).update(vars(function))
        self.memo[id(function)] = twin
        self.functions.append((function, twin))
        for contents in _contents(function):
            self._copy_function(contents, with_globals=with_globals)

    def _fill(self, function: FunctionType, twin: FunctionType) -> None:
        for cell, original in zip(twin.__closure__ or (), function.__closure__ or (), strict=True):
            with suppress(ValueError):  # which a variable raises that is not assigned yet
                contents = original.cell_contents
                cell.cell_contents = self._copied(contents)
        if twin.__globals__ is not function.__globals__:
            for name in set(function.__code__.co_names) & function.__globals__.keys():
                twin.__globals__[name] = self._copied(function.__globals__[name])

    def _copied(self, value: Any) -> Any:
        if isinstance(value, (*_NEVER_COPIED, ModuleType)):
            return value
        attempt = dict(self.memo)
        try:
            twin = copy.deepcopy(value, attempt)
        except Exception:
            if not self.lenient:
                raise
            self.memo[id(value)] = value
            return value
        self.memo |= attempt
        self.alive.append(attempt)
        return twin

    def _detach(self) -> None:
        for original in self.modules:
            module = self.memo.get(id(original))
            if module is None or module is original:
                continue
            for table in (vars(module), *(getattr(module, name) for name in _PASS_HOOKS)):
                # a deep copy shares functions, in some versions of Python whatever the memo says
                table.update({key: self.memo.get(id(held), held) for key, held in table.items() if callable(held)})
            for name in _PASS_HOOKS:
                hooks = getattr(module, name)
                for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
                    del hooks[key]
            for table in _GRADIENT_HOOKS:
                getattr(module, table).clear()
            module._is_full_backward_hook = None
            for kind in own_classes(original):
                for name, value in vars(kind).items():
                    if _is_state(name, value):
                        vars(module).setdefault(name, self._copied(value))
            if "_trainer" in vars(original):
                # a LightningModule copies itself without its trainer
                vars(module).update(_trainer=self.memo.get(id(original._trainer)), log=_discard, log_dict=_discard)


class _DetachedCopies(TorchFunctionMode):
    """Lets tensors be copied that torch refuses to: computed ones, without their graph, and a lazy module's buffers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Copies a tensor, or does what else is asked for."""
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            if is_lazy(tensor):
                kind: Any = type(tensor)
                memo[id(tensor)] = twin = kind(device=tensor.device, dtype=tensor.dtype)
                vars(twin).update(vars(tensor))
                return twin
            if not tensor.is_leaf:
                return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


def _reachable(model: nn.Module) -> Iterator[nn.Module]:
    """The modules of a network, and those that their hooks and attributes refer to."""
    seen: set[int] = set()
    waiting: list[Any] = [model]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
            yield value
            waiting += [*value._modules.values(), *vars(value).values(), *filter(_is_theirs, _hooks(value))]
        elif isinstance(value, MethodType):
            waiting.append(value.__self__)
        elif isinstance(value, FunctionType):
            waiting += _contents(value)
        elif isinstance(value, list | tuple) and len(value) < _FEW:
            waiting += value


def own_classes(module: nn.Module) -> Iterator[type]:
    """Finds the classes of a module that are neither torch's nor Lightning's.

    Args:
        module: The module.

    Yields:
        The classes, the most special one first.
    """
    for kind in type(module).__mro__:
        if kind.__module__.partition(".")[0] not in {"builtins", "abc", "typing", *_LIBRARIES}:
            yield kind


def _is_state(name: str, value: Any) -> bool:
    """Whether an attribute of a class is one that its instances may change together."""
    fixed = isinstance(value, str | bytes | int | float | complex | tuple | frozenset | type) or value is None
    return not (name.startswith("__") or fixed or callable(value) or hasattr(value, "__get__"))


def _memory_of(model: nn.Module) -> dict[str, int | None]:
    """Where the weights are, by name; a module may copy itself in a way of its own."""
    weights = dict(model.named_parameters())
    return {name: weight.data_ptr() if type(weight) is nn.Parameter else None for name, weight in weights.items()}


def _contents(function: FunctionType) -> list[Any]:
    """What the closure of a function holds."""
    contents = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):
            contents.append(cell.cell_contents)
    return contents


def _hooks(module: nn.Module, tables: Sequence[str] = _PASS_HOOKS) -> list[Any]:
    return [hook for table in tables for hook in getattr(module, table).values()]


def _is_ours(hook: Any) -> bool:
    """Whether the hook is one of this package's, which follow the original."""
    return str(getattr(hook, "__module__", "")).partition(".")[0] == _PACKAGE


def _is_theirs(hook: Any) -> bool:
    return not _is_ours(hook)


def _without_loggers(trainer: Any) -> Any:
    """A trainer that knows the epoch and the step as the original does."""
    quiet = copy.copy(trainer)
    quiet.loggers = [_Silence() for _ in getattr(trainer, "loggers", ())]
    return quiet


class _Silence:
    """An experiment logger that takes anything and keeps nothing."""

    def __getattr__(self, name: str) -> _Silence:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> _Silence:
        return self

    def __getitem__(self, _: Any) -> _Silence:
        return self


def _discard(*_: Any, **__: Any) -> None:
    """Takes the place of ``log``."""
