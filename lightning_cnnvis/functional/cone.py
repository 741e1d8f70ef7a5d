"""Only what leads to a unit: a forward pass on the cone of positions below it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary


class NotLocal(Exception):  # noqa: N818 - a finding, not an error
    """The network does something that is not known to keep positions apart."""


@dataclass(frozen=True)
class Extent:
    """What rows, or what columns, of a map a tensor holds. They move with the unit to which they lead.

    Attributes:
        step: How far they move in the map when the unit moves by one.
        first: The first of them for the unit at 0. Negative before the map begins.
        length: How many there are.
        limit: How many the whole map has.
    """

    step: int
    first: int
    length: int
    limit: int

    @property
    def last(self) -> int:
        """The last of the rows or columns for the unit at 0."""
        return self.first + self.length - 1


@dataclass(frozen=True)
class Sliding:
    """A kernel that slides along an axis, ``stride`` by ``stride``, over a map with ``padding`` before and behind."""

    kernel: int
    stride: int
    padding: int
    dilation: int
    ceil_mode: bool = False

    @property
    def reach(self) -> int:
        """The distance between the kernel's first and last element."""
        return self.dilation * (self.kernel - 1)

    def output(self, extent: Extent) -> Extent:
        """What can be computed from an extent without a look beyond it."""
        if extent.step % self.stride:
            raise NotLocal
        first = -((-extent.first - self.padding) // self.stride)
        last = (extent.last + self.padding - self.reach) // self.stride
        if last < first:
            raise NotLocal
        room = extent.limit + 2 * self.padding - self.reach - 1
        limit = (-(-room // self.stride) if self.ceil_mode else room // self.stride) + 1
        if self.ceil_mode and (limit - 1) * self.stride >= extent.limit + self.padding:
            limit -= 1
        return Extent(extent.step // self.stride, first, last - first + 1, limit)

    def input(self, output: Extent, extent: Extent) -> Extent:
        """The part of an extent that an output of it is computed from."""
        first = output.first * self.stride - self.padding
        return Extent(extent.step, first, (output.length - 1) * self.stride + self.reach + 1, extent.limit)


_Extents = tuple[Extent, Extent]


class ConeMode(TorchFunctionMode):
    """Runs a network on the receptive fields of units, each map no larger than what leads to the unit.

    A network run on an image computes whole maps, and pads them. In this mode convolutions and poolings do
    not pad: from the field of a unit, each computes just the positions that lead to the unit, down to the one position
    of the unit itself. Where these lie outside of a map, as at the borders of the image, they are set to what the
    padding would be. Branches of different extent are cropped to what they have in common when they meet.
    So every value that leads to the unit is the one that the whole image gives.

    Args:
        fields: ``(N, C, h, w)``, the images' parts under the units' receptive fields; what lies outside of
            the image may be anything.
        positions: ``(N, 2)``, row and column of each unit in its layer's map.
        rows: The rows of the image in the field of the unit in row 0.
        columns: Likewise.

    Raises:
        NotLocal: From within the forward pass, if the network does something to a map that the mode does not know.
    """

    def __init__(self, fields: Tensor, positions: Tensor, rows: Extent, columns: Extent) -> None:
        super().__init__()
        self.positions = positions
        low, high = torch.aminmax(positions, dim=0)
        self.low, self.high = low.tolist(), high.tolist()
        self.extents = WeakTensorKeyDictionary()
        self.extents[fields] = (rows, columns)

    def unit(self, output: Tensor) -> tuple[int, int]:
        """Row and column of all units in the layer's output.

        Raises:
            NotLocal: If they are not there.
        """
        extents = self.extents.get(output)
        if extents is None or not all(e.step == 1 and e.first <= 0 <= e.last for e in extents):
            raise NotLocal
        return -extents[0].first, -extents[1].first

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs a torch function on what it needs of its inputs."""
        kwargs = kwargs or {}
        known = _KNOWN.get(func)
        if known is not None and isinstance(args[0], Tensor) and args[0] in self.extents:
            return known(self, *args, **kwargs)
        maps = [t for t in _tensors((*args, *kwargs.values())) if t in self.extents]
        if not maps:
            return func(*args, **kwargs)
        common = _intersection([self.extents[t] for t in maps])
        if args and args[0] is maps[0] and func.__name__.endswith("_") and self.extents[maps[0]] != common:
            raise NotLocal  # what is left of it would be out of date
        crop = {id(t): self._crop(t, common) for t in maps}
        result = func(*_replace(args, crop), **_replace(kwargs, crop))
        for tensor in _tensors(result if isinstance(result, tuple | list) else (result,)):
            if tensor.shape[-2:] != (common[0].length, common[1].length):
                raise NotLocal
            self.extents[tensor] = common
        return result

    def _crop(self, tensor: Tensor, wanted: _Extents) -> Tensor:
        have = self.extents[tensor]
        if have == wanted:
            return tensor
        (top, height), (left, width) = ((w.first - h.first, w.length) for w, h in zip(wanted, have, strict=True))
        return tensor[..., top : top + height, left : left + width]

    def _filled(self, tensor: Tensor, extents: _Extents, value: float) -> Tensor:
        """The tensor with a value at all positions that are outside of the map."""
        for axis, extent in enumerate(extents):
            first = extent.step * self.low[axis] + extent.first
            last = extent.step * self.high[axis] + extent.last
            if first >= 0 and last < extent.limit:
                continue
            places = extent.step * self.positions[:, axis, None] + extent.first
            places = places + torch.arange(extent.length, device=tensor.device)
            outside = (places < 0) | (places >= extent.limit)
            outside = outside[:, None, :, None] if axis == 0 else outside[:, None, None, :]
            tensor = tensor.masked_fill(outside, value)
        return tensor

    def slide(self, tensor: Tensor, along: tuple[Sliding, Sliding], fill: float, run: Callable[[Tensor], Any]) -> Any:
        """Runs a convolution or a pooling, without its padding, on the part of a tensor that it can use."""
        have = self.extents[tensor]
        if tensor.ndim != 4:
            raise NotLocal
        rows, columns = (s.output(e) for s, e in zip(along, have, strict=True))
        used = along[0].input(rows, have[0]), along[1].input(columns, have[1])
        output = run(self._filled(self._crop(tensor, used), used, fill))
        for result in _tensors(output if isinstance(output, tuple) else (output,)):
            self.extents[result] = (rows, columns)
        return output

    def pad(self, tensor: Tensor, rows: tuple[int, int], columns: tuple[int, int], value: float) -> Tensor:
        """Makes the map larger by so many rows and columns of a value before and behind; the tensor stays as large."""
        have = self.extents[tensor]
        filled = self._filled(tensor, have, value)
        padded = filled.view_as(filled)
        extents = (
            Extent(e.step, e.first + before, e.length, e.limit + before + behind)
            for e, (before, behind) in zip(have, (rows, columns), strict=True)
        )
        self.extents[padded] = tuple(extents)
        return padded


def _conv2d(
    cone: ConeMode,
    input: Tensor,  # noqa: A002 - torch's names
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    if isinstance(padding, str):
        if padding != "valid":
            raise NotLocal
        padding = 0
    along = _sliding(weight.shape[-2:], stride, padding, dilation)
    return cone.slide(input, along, 0.0, lambda x: torch.conv2d(x, weight, bias, stride, 0, dilation, groups))


def _max_pool2d(
    cone: ConeMode,
    input: Tensor,  # noqa: A002
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if return_indices:
        raise NotLocal
    along = _sliding(kernel_size, stride or kernel_size, padding, dilation, ceil_mode)
    return cone.slide(
        input, along, -torch.inf, lambda x: torch.max_pool2d(x, kernel_size, stride or kernel_size, 0, dilation)
    )


def _avg_pool2d(
    cone: ConeMode,
    input: Tensor,  # noqa: A002
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    if ceil_mode or not (count_include_pad or padding in (0, (0, 0))):
        raise NotLocal  # the divisor depends on the place
    along = _sliding(kernel_size, stride or kernel_size, padding, 1)
    return cone.slide(
        input,
        along,
        0.0,
        lambda x: F.avg_pool2d(x, kernel_size, stride or kernel_size, divisor_override=divisor_override),
    )


def _pad(
    cone: ConeMode,
    input: Tensor,  # noqa: A002
    pad: Any,
    mode: str = "constant",
    value: float | None = None,
) -> Any:
    if mode != "constant" or len(pad) not in (2, 4) or min(pad) < 0:
        raise NotLocal
    left, right, top, bottom = (*pad, 0, 0)[:4]
    return cone.pad(input, (top, bottom), (left, right), value or 0.0)


_KNOWN: dict[Any, Callable[..., Any]] = {
    torch.conv2d: _conv2d,
    F.max_pool2d: _max_pool2d,
    torch.max_pool2d: _max_pool2d,
    F.avg_pool2d: _avg_pool2d,
    F.pad: _pad,
}


def _sliding(kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool = False) -> tuple[Sliding, Sliding]:
    kernel, stride, padding, dilation = (
        (value, value) if isinstance(value, int) else (*value, *value)[:2]
        for value in (kernel, stride, padding, dilation)
    )
    rows, columns = zip(kernel, stride, padding, dilation, strict=True)
    return Sliding(*rows, ceil_mode), Sliding(*columns, ceil_mode)


def _intersection(extents: list[_Extents]) -> _Extents:
    def common(axis: int) -> Extent:
        one = extents[0][axis]
        first = max(e[axis].first for e in extents)
        last = min(e[axis].last for e in extents)
        if last < first or len({(e[axis].step, e[axis].limit) for e in extents}) > 1:
            raise NotLocal
        return Extent(one.step, first, last - first + 1, one.limit)

    return common(0), common(1)


def _tensors(values: Any) -> list[Tensor]:
    """The tensors among some values and in lists among them."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found.extend(v for v in value if isinstance(v, Tensor))
    return found


def _replace(values: Any, by_id: dict[int, Tensor]) -> Any:
    if isinstance(values, dict):
        return {name: _replace(value, by_id) for name, value in values.items()}
    if isinstance(values, tuple | list) and type(values) in (tuple, list):
        return type(values)(_replace(value, by_id) for value in values)
    return by_id.get(id(values), values)
