"""The dimension of a layer's output that holds its channels, found by following them through a forward pass.

A convolution's output is ``(N, C, H, W)``. The layers of a Swin transformer give ``(N, H, W, C)``, those of a vision
transformer tokens ``(N, T, C)``, and neither the shape nor the class of a layer tells which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_cnnvis.following import Follower

FIRST = 1
"""The dimension of the channels of ``(N, C, ...)``."""


def channels_first(output: Tensor, dim: int) -> Tensor:
    """Brings a layer's output into the order ``(N, C, ...)``.

    Args:
        output: ``(N, ...)``.
        dim: The dimension that holds the channels.

    Returns:
        A view ``(N, C, ...)``; the output itself if it has that order.

    Examples:
        >>> import torch
        >>> channels_first(torch.zeros(1, 7, 8, 96), 3).shape
        torch.Size([1, 96, 7, 8])
    """
    return output if dim == FIRST else output.movedim(dim, FIRST)


def as_maps(output: Tensor) -> Tensor:
    """Lays the tokens of a layer out as the columns of a map with one row.

    Args:
        output: ``(N, C, ...)``, channels first.

    Returns:
        ``(N, C, 1, T)`` for tokens ``(N, C, T)``; other outputs as they are.

    Examples:
        >>> import torch
        >>> as_maps(torch.zeros(1, 96, 50)).shape
        torch.Size([1, 96, 1, 50])
    """
    return output.unsqueeze(2) if output.ndim == 3 else output


@dataclass(frozen=True)
class _Factor:
    """A factor of the size of a dimension, and whether it counts channels."""

    size: int
    is_channels: bool = False


# The factors of each dimension, from the outermost in; a dimension of size 1 may have none. They are what a view keeps:
# it divides the same factors, in the same order, among other dimensions.
_Dim = tuple[_Factor, ...]
_Layout = tuple[_Dim, ...]
_Rule = Callable[[Sequence[int], Sequence[Any]], "_Layout | None"]


class FollowChannels(Follower[_Layout]):  # type: ignore[no-untyped-call]
    """Follows through a forward pass which dimension of each tensor holds channels.

    Convolutions put them first, layer normalisation and dense layers last; permutations and views move them, and other
    operations leave them where they are.

    Args:
        image: The network's input, ``(N, C, H, W)``.

    Examples:
        >>> import torch
        >>> image = torch.zeros(2, 3, 8, 8)
        >>> with FollowChannels(image) as followed:
        ...     last = image.permute(0, 2, 3, 1)
        ...     tokens = torch.nn.functional.linear(last.flatten(1, 2), torch.zeros(5, 3))
        >>> followed.dim_of(image), followed.dim_of(last), followed.dim_of(tokens)
        (1, 3, 2)
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__(image, _first(image.shape, [None]) if image.ndim > FIRST else None)

    def dim_of(self, output: Tensor) -> int:
        """Tells which dimension of a tensor holds channels.

        Args:
            output: A tensor that was computed in this mode, ``(N, ...)``.

        Returns:
            The dimension; 1 if it is not known, or if there are several.
        """
        layout = self.note_on(output) or ()
        # dimension 0 is that of the images, of which channels may be a factor as long as a layer mixes both
        dims = [place for place, dim in enumerate(layout) if place > 0 and _has_channels(dim)]
        return dims[0] if len(dims) == 1 else FIRST

    def pass_on(self, func: Any, args: Sequence[Any], read: list[_Layout], result: Tensor) -> _Layout | None:
        """Finds the layout of the result of an operation."""
        rule = _RULES.get(func.overloadpacket.__name__.removesuffix("_"))
        layout = rule(result.shape, [self._without_tensors(arg) for arg in args]) if rule else None
        return layout or _like_operands(result.shape, read)

    def _without_tensors(self, arg: Any) -> Any:
        """Puts layouts in the place of tensors, and None in that of those that do not depend on the image."""
        if isinstance(arg, list | tuple):
            return [self._without_tensors(value) for value in arg]
        return self.note_on(arg) if isinstance(arg, Tensor) else arg


def _dim(size: int, is_channels: bool = False) -> _Dim:
    return (_Factor(size, is_channels),) if size != 1 or is_channels else ()


def _has_channels(*dims: _Dim) -> bool:
    return any(factor.is_channels for dim in dims for factor in dim)


def _without_channels(dim: _Dim) -> _Dim:
    return tuple(_Factor(factor.size) for factor in dim)


def _size(dim: _Dim) -> int:
    return math.prod(factor.size for factor in dim)


def _with_channels(layout: _Layout, place: int) -> _Layout:
    """Makes one dimension that of the channels."""
    place %= len(layout)
    return tuple(_dim(_size(dim), True) if i == place else _without_channels(dim) for i, dim in enumerate(layout))


def _like_operands(shape: Sequence[int], read: Sequence[_Layout]) -> _Layout | None:
    """The layout of the result of an operation that leaves dimensions where they are, such as a sum or a pooling."""
    # a mask that multiplies a map has the map's shape, or is without channels
    read = sorted(read, key=lambda layout: not _has_channels(*layout))
    sizes = [tuple(map(_size, layout)) for layout in read]
    if tuple(shape) in sizes:
        return read[sizes.index(tuple(shape))]
    for layout in read:
        if len(layout) == len(shape):
            return _resized(layout, shape)
    for size, layout in zip(sizes, read, strict=True):
        before = len(shape) - len(size)
        if before > 0 and all(n in (1, m) for n, m in zip(size, shape[before:], strict=True)):
            return _resized(((),) * before + layout, shape)
    return None


def _resized(layout: _Layout, shape: Sequence[int]) -> _Layout:
    return tuple(
        dim if _size(dim) == size else _dim(size, _has_channels(dim)) for dim, size in zip(layout, shape, strict=True)
    )


def _first(shape: Sequence[int], args: Sequence[Any]) -> _Layout:
    """A convolution, whose channels are dimension 1."""
    batch = args[0][0] if args[0] and _size(args[0][0]) == shape[0] else _dim(shape[0])
    return (_without_channels(batch), _dim(shape[1], True), *(_dim(size) for size in shape[2:]))


def _normalized_maps(shape: Sequence[int], args: Sequence[Any]) -> _Layout | None:
    """A batch or group normalisation, whose channels are dimension 1, or part of it."""
    layout = args[0]
    if not layout or len(layout) != len(shape) or len(shape) < 2:
        return None
    return layout if _has_channels(layout[1]) else _with_channels(layout, 1)


def _normalized_vectors(shape: Sequence[int], args: Sequence[Any]) -> _Layout | None:
    """A layer normalisation, over the channels if it is over one dimension."""
    layout, normalized = args[:2]
    return _with_channels(layout, -1) if layout and len(normalized) == 1 and len(layout) == len(shape) else None


def _view(shape: Sequence[int], args: Sequence[Any]) -> _Layout | None:
    """A view, which keeps the order of the values: divides the factors of the size among other dimensions."""
    if not args[0] or 0 in shape:
        return None
    factors: list[_Factor] = []
    for factor in (factor for dim in args[0] for factor in dim):
        if factors and factors[-1].is_channels == factor.is_channels:
            factors[-1] = _Factor(factors[-1].size * factor.size, factor.is_channels)
        else:
            factors.append(factor)
    layout = []
    for size in shape:
        dim: list[_Factor] = []
        rest = size
        while rest > 1 or (not dim and factors and factors[0].size == 1):
            if not factors:
                return None
            factor = factors.pop(0)
            if rest % factor.size:
                if factor.size % rest:
                    return None
                factors.insert(0, _Factor(factor.size // rest, factor.is_channels))
                factor = _Factor(rest, factor.is_channels)
            dim.append(factor)
            rest //= factor.size
        layout.append(tuple(dim))
    return tuple(layout)


def _permute(_: Sequence[int], args: Sequence[Any]) -> _Layout | None:
    return tuple(args[0][dim] for dim in args[1]) if args[0] else None


def _transpose(_: Sequence[int], args: Sequence[Any]) -> _Layout | None:
    if not args[0]:
        return None
    layout = list(args[0])
    first, second = args[1:3] if len(args) > 2 else (0, -1)
    layout[first], layout[second] = layout[second], layout[first]
    return tuple(layout)


def _unsqueeze(shape: Sequence[int], args: Sequence[Any]) -> _Layout | None:
    return _inserted(args[0], args[1] % len(shape), ()) if args[0] else None


def _stack(shape: Sequence[int], args: Sequence[Any]) -> _Layout | None:
    layout = next((layout for layout in args[0] if layout), None)
    place = (args[1] if len(args) > 1 else 0) % len(shape)
    return _inserted(layout, place, _dim(shape[place])) if layout else None


def _inserted(layout: _Layout, place: int, dim: _Dim) -> _Layout:
    return (*layout[:place], dim, *layout[place:])


def _squeeze(shape: Sequence[int], args: Sequence[Any]) -> _Layout | None:
    if not args[0]:
        return None
    asked = _places(args[1] if len(args) > 1 else range(len(args[0])), args[0])
    layout = tuple(dim for place, dim in enumerate(args[0]) if place not in asked or _size(dim) != 1)
    return layout if len(layout) == len(shape) else None


def _dropping(argument: int) -> _Rule:
    """Makes the rule of an operation that drops dimensions, such as a mean, from the argument that names them."""

    def rule(shape: Sequence[int], args: Sequence[Any]) -> _Layout | None:
        layout = args[0]
        if not layout or len(layout) <= len(shape):
            return None
        dims = args[argument] if len(args) > argument else 0
        dropped = _places(range(len(layout)) if dims is None else dims, layout)
        kept = tuple(dim for place, dim in enumerate(layout) if place not in dropped)
        return kept if len(kept) == len(shape) else None

    return rule


def _places(dims: Any, layout: _Layout) -> set[int]:
    return {dim % len(layout) for dim in ((dims,) if isinstance(dims, int) else dims)}


def _product(argument: int) -> _Rule:
    """Makes the rule of a matrix product, from the place of the first matrix among the arguments."""

    def rule(shape: Sequence[int], args: Sequence[Any]) -> _Layout | None:
        left, right = args[argument : argument + 2]
        if left and right:
            return (*left[:-1], right[-1])
        if left:
            # a dense layer makes new channels, unless it mixes positions
            return (*left[:-1], _dim(shape[-1], not _has_channels(*left[:-1])))
        return (*right[:-2], _dim(shape[-2], not _has_channels(right[-1])), right[-1]) if right else None

    return rule


# Each rule computes the layout of a result from its shape and the operation's arguments, with layouts in the place of
# tensors, or None in the place of those that do not depend on the image.
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("convolution", "im2col", "col2im"), _first),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
         "miopen_batch_norm", "_batch_norm_no_update", "_batch_norm_with_update", "native_group_norm"),
        _normalized_maps,
    ),
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm"), _normalized_vectors),
    **dict.fromkeys(("view", "_unsafe_view", "_reshape_alias", "reshape"), _view),
    "permute": _permute,
    **dict.fromkeys(("transpose", "t"), _transpose),
    "unsqueeze": _unsqueeze,
    "stack": _stack,
    "squeeze": _squeeze,
    **dict.fromkeys(
        ("select", "unbind", "mean", "sum", "amax", "amin", "max", "min", "prod", "logsumexp", "var", "std", "var_mean",
         "std_mean", "argmax", "argmin", "any", "all"),
        _dropping(1),
    ),
    "linalg_vector_norm": _dropping(2),
    "mv": lambda _, args: args[0][:-1] if args[0] else None,
    **dict.fromkeys(("mm", "bmm"), _product(0)),
    **dict.fromkeys(("addmm", "baddbmm", "_addmm_activation"), _product(1)),
}  # fmt: skip
