"""A forward pass that computes only what a change of a part of the image can change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from lightning_cnnvis.functional.deconvnet.conv_arithmetic import NotLocal, Sliding
from lightning_cnnvis.functional.deconvnet.cropped_forward import SLIDING
from lightning_cnnvis.functional.deconvnet.windows import cut

WORTHWHILE = 0.5
"""Share of a map up to which its changed part is computed by itself. Cutting out and pasting cost about as much as the
rest of the map beyond it."""


@dataclass(frozen=True)
class _Along:
    """The changed part of a map along one axis, in each copy.

    Attributes:
        starts: Its first row, or column, in each copy.
        size: Its length, the same in all.
    """

    starts: tuple[int, ...]
    size: int

    def output(self, sliding: Sliding, limit: int) -> _Along:
        """The part of a kernel's output that reads changed values; ``limit`` is the output's length."""
        firsts = [-((sliding.reach - start - sliding.before) // sliding.stride) for start in self.starts]
        lasts = [(start + self.size - 1 + sliding.before) // sliding.stride for start in self.starts]
        return _Along.covering(firsts, lasts, limit)

    def input(self, sliding: Sliding) -> _Along:
        """The part of a kernel's input that this part of its output reads, which may leave the map."""
        starts = tuple(start * sliding.stride - sliding.before for start in self.starts)
        return _Along(starts, (self.size - 1) * sliding.stride + sliding.reach + 1)

    def union(self, other: _Along, limit: int) -> _Along:
        """The part that covers two; ``limit`` is the map's length."""
        lasts = [max(a + self.size, b + other.size) - 1 for a, b in zip(self.starts, other.starts, strict=True)]
        return _Along.covering(list(map(min, self.starts, other.starts)), lasts, limit)

    @staticmethod
    def covering(firsts: Sequence[int], lasts: Sequence[int], limit: int) -> _Along:
        """Parts of one size that lie in the map and cover these rows as far as the map goes."""
        firsts, lasts = [max(first, 0) for first in firsts], [min(last, limit - 1) for last in lasts]
        size = max(1, *(last - first + 1 for first, last in zip(firsts, lasts, strict=True)))
        return _Along(tuple(min(first, limit - size) for first in firsts), size)


@dataclass(frozen=True)
class _Changes:
    """A map of the untouched image, and what is different in the copies.

    Attributes:
        untouched: ``(1, C, H, W)``.
        windows: ``(B, C, h, w)``, the part of each copy's map that may be different.
        rows: Where these lie.
        columns: Where these lie.
    """

    untouched: Tensor
    windows: Tensor
    rows: _Along
    columns: _Along

    @property
    def places(self) -> tuple[_Along, _Along]:
        return self.rows, self.columns

    @property
    def share(self) -> float:
        """The share of the map that the windows are."""
        return self.windows.shape[2] * self.windows.shape[3] / (self.untouched.shape[2] * self.untouched.shape[3])

    def part(self, rows: _Along, columns: _Along, fill: float = 0.0) -> Tensor:
        """Another part of each copy's map, ``(B, C, h, w)``, with a value where it leaves the map."""
        if (rows, columns) == self.places:
            return self.windows
        (before, behind), (left, right) = (
            (max(0, -min(along.starts)), max(0, max(along.starts) + along.size - length))
            for along, length in ((rows, self.untouched.shape[2]), (columns, self.untouched.shape[3]))
        )
        source = self.untouched
        if before or behind or left or right:
            source = F.pad(source, (left, right, before, behind), value=fill)
        corners = torch.tensor([rows.starts, columns.starts], device=source.device).T
        corners = corners + torch.tensor([before, left], device=source.device)
        indices = torch.zeros(len(corners), dtype=torch.long, device=source.device)
        part = cut(source, corners, (rows.size, columns.size), indices)
        self._paste(part, rows, columns)
        return part

    def whole(self) -> Tensor:
        """The whole map of each copy, ``(B, C, H, W)``."""
        layout = _layout(self.untouched)
        whole = self.untouched.expand(len(self.windows), -1, -1, -1).clone(memory_format=layout)
        height, width = whole.shape[2:]
        count = len(whole)
        self._paste(whole, _Along((0,) * count, height), _Along((0,) * count, width))
        return whole

    def _paste(self, target: Tensor, rows: _Along, columns: _Along) -> None:
        """Puts the windows into parts of the maps, in which they may lie in different places."""
        downs, rights = (
            [own - other for own, other in zip(mine.starts, into.starts, strict=True)]
            for mine, into in zip(self.places, (rows, columns), strict=True)
        )
        groups: dict[tuple[int, int], list[int]] = {}
        for copy, offset in enumerate(zip(downs, rights, strict=True)):
            groups.setdefault(offset, []).append(copy)
        for (down, right), copies in groups.items():
            top, bottom = _overlap(down, self.rows.size, rows.size)
            left, stop = _overlap(right, self.columns.size, columns.size)
            if top >= bottom or left >= stop:
                continue
            for chosen in self._at_once(copies):
                target[chosen, :, top:bottom, left:stop] = self.windows[
                    chosen, :, top - down : bottom - down, left - right : stop - right
                ]

    def _at_once(self, copies: list[int]) -> Sequence[Any]:
        """Indices of copies to write to at once: all by a slice; some by their numbers, on a CPU one by one."""
        if len(copies) == len(self.windows):
            return [slice(None)]
        # on a CPU, a selection by several numbers is slower than several selections
        return [slice(copy, copy + 1) for copy in copies] if self.windows.device.type == "cpu" else [copies]


def _overlap(offset: int, size: int, limit: int) -> tuple[int, int]:
    """The rows of a part that a window at an offset in it covers, first to last; the last is exclusive."""
    return max(0, offset), min(limit, offset + size)


class ChangedForward(TorchFunctionMode):
    """Runs a network on copies of one image that differ in one box each, and computes only what the boxes can change.

    The network is called on what looks like a batch of the copies. Up to the layer where the changes have spread over
    most of the map, that is the untouched image, repeated without taking memory. Each function that works position by
    position, or slides a kernel, is called twice: on the map of the untouched image, and on the changed windows of all
    copies, around which as much of the untouched map is set as the kernel reads. Any other function, such as a global
    pooling or a dense layer, is given the whole maps of the copies, with the windows in place, and from there on the
    network runs as usual. So every network runs, and what is not local costs what it costs anyway.

    Args:
        image: ``(1, C, H, W)``, the untouched image, which the network may write to.
        windows: ``(B, C, h, w)``, the changed part of each copy.
        corners: ``(B, 2)``, top and left pixel of each, on the CPU; the part lies in the image.

    Raises:
        NotLocal: From within the forward pass, if the network writes to a map in a way that cannot be followed.
    """

    def __init__(self, image: Tensor, windows: Tensor, corners: Tensor) -> None:
        super().__init__()
        self._changes = WeakTensorKeyDictionary()
        rows, columns = (_Along(tuple(c), n) for c, n in zip(corners.T.tolist(), windows.shape[2:], strict=True))
        self.inputs = self._stand_in(_Changes(image, windows, rows, columns))
        """What to call the network on, ``(B, C, H, W)``; its values are not those of the copies."""

    def whole(self, tensor: Tensor) -> Tensor:
        """The true values of something that the network computed.

        Args:
            tensor: ``(B, ...)``, from a forward pass in this mode.

        Returns:
            The values of the copies.
        """
        changes = self._changes.get(tensor)  # type: ignore[no-untyped-call]
        return tensor if changes is None else changes.whole()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs a torch function on the changed windows, if it can be, or else on the whole copies."""
        kwargs = kwargs or {}
        maps = [tensor for tensor in _tensors((args, kwargs)) if tensor in self._changes]
        name = _name(func)
        if not maps or name in _ABOUT:
            return func(*args, **kwargs)
        if name == "get":  # an attribute
            value = func(*args, **kwargs)
            return self._on_whole_copies(func, args, kwargs) if isinstance(value, Tensor) else value
        if func in SLIDING and args and args[0] is maps[0] and len(maps) == 1:
            try:
                return self._slide(func, SLIDING[func](*args[1:], **kwargs), args, kwargs)
            except NotLocal:
                pass
        elif name in _POINTWISE and _POINTWISE[name](self, maps, args, kwargs):
            return self._pointwise(func, maps, args, kwargs)
        return self._on_whole_copies(func, args, kwargs)

    def _slide(self, func: Any, plan: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        along, fill, run = plan
        before: _Changes = self._changes[args[0]]
        untouched = func(before.untouched, *args[1:], **kwargs)
        rows, columns = (
            place.output(sliding, limit)
            for place, sliding, limit in zip(before.places, along, untouched.shape[2:], strict=True)
        )
        windows = run(before.part(rows.input(along[0]), columns.input(along[1]), fill))
        return self._stand_in(_Changes(untouched, windows, rows, columns))

    def _pointwise(self, func: Any, maps: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found: list[_Changes] = [self._changes[tensor] for tensor in maps]
        rows, columns = found[0].places
        height, width = found[0].untouched.shape[2:]
        for other in found[1:]:
            rows, columns = rows.union(other.rows, height), columns.union(other.columns, width)
        untouched, windows = (
            {id(tensor): part for tensor, part in zip(maps, parts, strict=True)}
            for parts in ([one.untouched for one in found], [one.part(rows, columns) for one in found])
        )
        # both, also where they are written to
        whole = func(*_replaced(args, untouched), **_replaced(kwargs, untouched))
        parts = func(*_replaced(args, windows), **_replaced(kwargs, windows))
        if whole is found[0].untouched:  # in place
            self._changes[maps[0]] = _Changes(whole, parts, rows, columns)
            return maps[0]
        if isinstance(whole, Tensor):
            return self._stand_in(_Changes(whole, parts, rows, columns))
        return type(whole)(self._stand_in(_Changes(a, b, rows, columns)) for a, b in zip(whole, parts, strict=True))

    def _on_whole_copies(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if _writes(func, kwargs) and args and args[0] in self._changes:
            raise NotLocal
        wholes = {id(tensor): self.whole(tensor) for tensor in _tensors((args, kwargs)) if tensor in self._changes}
        return func(*_replaced(args, wholes), **_replaced(kwargs, wholes))

    def _stand_in(self, changes: _Changes) -> Tensor:
        if changes.share > WORTHWHILE:
            return changes.whole()
        stand_in = changes.untouched.expand(len(changes.windows), -1, -1, -1)
        self._changes[stand_in] = changes
        return stand_in


def _name(func: Any) -> str:
    """The name of a function, the same for operators and in place: ``add`` for ``__iadd__``, ``add_``, ``__radd__``."""
    name: str = func.__name__
    if name.startswith("__") and name.endswith("__"):
        inner = name[2:-2]
        return _OPERATORS.get(inner, inner)
    return name.removesuffix("_")


_OPERATORS = {
    f"{prefix}{operator}": name
    for operator, name in {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "pow": "pow"}.items()
    for prefix in ("", "r", "i")
}


def _writes(func: Any, kwargs: dict[str, Any]) -> bool:
    name: str = func.__name__
    plain = name.endswith("_") and not name.endswith("__")
    return (
        plain
        or name == "__setitem__"
        or (name.startswith("__i") and name[3:-2] in _OPERATORS)
        or bool(kwargs.get("inplace") or kwargs.get("out") is not None)
    )


# what is asked about a map without its values, and may be asked of a stand-in
_ABOUT = {
    "size", "dim", "ndimension", "numel", "nelement", "stride", "is_floating_point", "is_complex", "is_contiguous",
    "element_size", "get_device", "len", "is_same_size",
}  # fmt: skip


def _broadcasts(mode: ChangedForward, maps: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether all other tensors are the same for each copy and at each position."""
    others = (tensor for tensor in _tensors((args, kwargs)) if not any(tensor is one for one in maps))
    return all(
        other.numel() == 1
        or (other.ndim in (3, 4) and other.shape[-2:] == (1, 1) and len(other) in (1, other.shape[-3]))
        for other in others
    )


def _always(*_: Any) -> bool:
    return True


def _not_training(place: int, default: bool) -> Any:
    def check(mode: ChangedForward, maps: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        training = kwargs.get("training", args[place] if len(args) > place else default)
        return training is False

    return check


def _along_channels(place: int) -> Any:
    def check(mode: ChangedForward, maps: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        along = kwargs.get("dim", args[place] if len(args) > place else 0)
        return along in (1, -3) and len(list(_tensors((args, kwargs)))) == len(maps)

    return check


def _of_channels(mode: ChangedForward, maps: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    index = args[1]
    return isinstance(index, tuple) and len(index) == 2 and index[0] == slice(None) and isinstance(index[1], slice)


# functions that work position by position, each with the condition under which it does
_POINTWISE: dict[str, Any] = {
    **dict.fromkeys(
        (
            "relu", "relu6", "hardtanh", "threshold", "clamp", "clamp_min", "clamp_max", "clip", "leaky_relu", "elu",
            "selu", "celu", "gelu", "silu", "mish", "sigmoid", "logsigmoid", "hardsigmoid", "hardswish", "softplus",
            "softsign", "tanh", "exp", "log", "sqrt", "rsqrt", "square", "abs", "neg", "positive",
            "add", "sub", "subtract", "rsub", "mul", "multiply", "div", "divide", "true_divide", "pow",
            "maximum", "minimum", "where", "gt", "ge", "lt", "le", "eq", "ne",
            "clone", "contiguous", "detach", "to", "float", "double", "half", "bfloat16",
        ),
        _broadcasts,
    ),
    **dict.fromkeys(("prelu", "local_response_norm"), _always),
    "batch_norm": _not_training(5, False),
    **dict.fromkeys(("dropout", "dropout2d", "feature_dropout", "alpha_dropout"), _not_training(2, True)),
    **dict.fromkeys(("cat", "concat", "concatenate"), _along_channels(1)),
    **dict.fromkeys(("chunk", "split"), _along_channels(2)),
    "getitem": _of_channels,
}  # fmt: skip


def _layout(tensor: Tensor) -> torch.memory_format:
    lies_side_by_side = tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if lies_side_by_side else torch.contiguous_format


def _tensors(values: Any) -> Iterator[Tensor]:
    leaves: Iterable[Any] = tree_leaves(values)
    return (leaf for leaf in leaves if isinstance(leaf, Tensor))


def _replaced(values: Any, by_id: dict[int, Tensor]) -> Any:
    return tree_map(lambda value: by_id.get(id(value), value), values)
