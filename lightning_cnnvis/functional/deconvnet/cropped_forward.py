"""A forward pass that computes only the positions that lead to a unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from lightning_cnnvis.functional.deconvnet.conv_arithmetic import Extent, NotLocal, Sliding
from lightning_cnnvis.functional.network.receptive_field import ReceptiveField

_Extents = tuple[Extent, Extent]


class CroppedForward(TorchFunctionMode):
    """Runs a network on the receptive fields of units, each map no larger than the part that leads to the units.

    A network run on an image computes whole maps. In this mode, each convolution and pooling computes only the
    positions that lead to the unit from the field that it is given, up to the one position of the unit
    itself. Positions that lie outside of a map, as they do at the borders of the image, are set to the value of the
    padding, for each unit separately; those that lie outside for all the units are left out. Branches of different
    extent are cropped to their common part where they meet. So every value that leads to a unit is the same as on the
    whole image.

    Args:
        field: The receptive field of the units.
        positions: ``(N, 2)`` on the CPU, row and column of each unit in its layer's map. What to compute follows from
            them: on a device they would have to be waited for.
        image_size: Height and width of the images.

    Raises:
        NotLocal: Also from within the forward pass, if the network applies an operation to a map that the mode does
            not support.
    """

    def __init__(self, field: ReceptiveField, positions: Tensor, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.positions = positions
        low, high = torch.aminmax(positions, dim=0)
        self.span = list(zip(low.tolist(), high.tolist(), strict=True))
        self.extents = WeakTensorKeyDictionary()
        rows, columns = (
            Extent(field.stride[axis], field.offset[axis], field.offset[axis] + field.size[axis] - 1, image_size[axis])
            for axis in (0, 1)
        )
        self.fields = rows, columns

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the parts of the images that the units need."""
        rows, columns = self._held(self.fields)
        return len(rows), len(columns)

    @property
    def corners(self) -> Tensor:
        """``(N, 2)`` on the CPU, top and left pixel of these parts. They may leave their image."""
        corners = [
            extent.first + extent.step * self.positions[:, axis] for axis, extent in enumerate(self._held(self.fields))
        ]
        return torch.stack(corners, dim=1)

    def begin(self, inputs: Tensor) -> None:
        """Marks the network's input.

        Args:
            inputs: ``(N, C, *size)``, the parts of the images; values outside of the images do not matter.
        """
        self.extents[inputs] = self.fields

    def units(self, output: Tensor) -> tuple[int, int]:
        """Finds the units in the layer's output.

        Args:
            output: ``(N, K, H', W')``, the output.

        Returns:
            Row and column, the same for all units.

        Raises:
            NotLocal: If the output does not hold them.
        """
        extents: _Extents | None = self.extents.get(output)  # type: ignore[no-untyped-call]
        if extents is None or any(e.step != 1 or not e.first <= 0 <= e.last for e in extents):
            raise NotLocal
        rows, columns = self._held(extents)
        return -rows.first, -columns.first

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs a torch function on the part of its inputs that it needs."""
        kwargs = kwargs or {}
        sliding = SLIDING.get(func)
        if sliding is not None and args and isinstance(args[0], Tensor) and args[0] in self.extents:
            return self._slide(args[0], *sliding(*args[1:], **kwargs))
        maps = [tensor for tensor in _tensors((*args, *kwargs.values())) if tensor in self.extents]
        return self._pointwise(maps, func, args, kwargs) if maps else func(*args, **kwargs)

    def _pointwise(self, maps: list[Tensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rows, columns = self.extents[maps[0]]
        for tensor in maps[1:]:
            rows, columns = rows.overlap(self.extents[tensor][0]), columns.overlap(self.extents[tensor][1])
        common = rows, columns
        if func.__name__.endswith("_") and args[0] is maps[0] and self.extents[maps[0]] != common:
            raise NotLocal  # the rest of the tensor would be out of date
        cropped = {id(tensor): self._crop(tensor, common) for tensor in maps}
        result = func(*_replace(args, cropped), **_replace(kwargs, cropped))
        size = tuple(map(len, self._held(common)))
        for tensor in _tensors((result,)):
            if tensor.shape[-2:] != size:
                raise NotLocal
            self.extents[tensor] = common
        return result

    def _slide(
        self, tensor: Tensor, along: tuple[Sliding, Sliding], fill: float, run: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Runs a convolution or a pooling, without its padding, on the part of a tensor that it can use."""
        have: _Extents = self.extents[tensor]
        if tensor.ndim != 4:
            raise NotLocal
        made = along[0].output(have[0]), along[1].output(have[1])
        needed = [s.input(out, e) for s, out, e in zip(along, self._held(made), have, strict=True)]
        held = self._held(have)
        used = needed[0].overlap(held[0]), needed[1].overlap(held[1])
        part = self._fill(self._crop(tensor, used), used, along, fill)
        # the rest is outside of the map for all the units
        (top, bottom), (left, right) = ((u.first - n.first, n.last - u.last) for u, n in zip(used, needed, strict=True))
        if max(top, bottom, left, right) > 0:
            part = F.pad(part, (left, right, top, bottom), value=fill)
        output = run(part)
        self.extents[output] = made
        return output

    def _held(self, extents: _Extents) -> _Extents:
        """Leaves out of a tensor's extents the positions that are outside of the map for all the units."""
        return extents[0].within(*self.span[0]), extents[1].within(*self.span[1])

    def _crop(self, tensor: Tensor, wanted: _Extents) -> Tensor:
        (top, height), (left, width) = (
            (w.first - h.first, len(w))
            for w, h in zip(self._held(wanted), self._held(self.extents[tensor]), strict=True)
        )
        if (height, width) == tensor.shape[-2:]:
            return tensor
        return tensor[..., top : top + height, left : left + width]

    def _fill(self, tensor: Tensor, extents: _Extents, along: tuple[Sliding, Sliding], fill: float) -> Tensor:
        """Fills a tensor with a value where it is outside of the map and is read."""
        outside = None
        for axis, (extent, sliding) in enumerate(zip(extents, along, strict=True)):
            before, behind = sliding.leaves(extent.limit)
            low, high = self.span[axis]
            before &= extent.step * low + extent.first < 0
            behind &= extent.step * high + extent.last >= extent.limit
            if before or behind:
                offsets = torch.arange(extent.first, extent.last + 1, device=tensor.device)
                places = extent.step * self.positions[:, axis, None].to(tensor.device) + offsets
                beyond = (places < 0) | (places >= extent.limit)
                beyond = beyond[:, None, :, None] if axis == 0 else beyond[:, None, None, :]
                outside = beyond if outside is None else outside | beyond
        if outside is None:
            return tensor
        value = torch.full((), fill, dtype=tensor.dtype, device=tensor.device)
        if fill == -torch.inf:
            # as good as infinity, and safe for values that are computed from it outside of the map
            least = tensor.detach().amin()
            value = least - least.abs() - 1
        return torch.where(outside, value, tensor)


# Each of these functions takes torch's arguments other than the input, and returns how the kernel slides, the value of
# its padding, and the function that does not pad. The arguments are named as torch names them.
_Plan = tuple[tuple[Sliding, Sliding], float, Callable[[Tensor], Tensor]]


def _conv2d(
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> _Plan:
    kernel, dilations = _pair(weight.shape[-2:]), _pair(dilation)
    before = behind = _pair(0) if isinstance(padding, str) else _pair(padding)
    if padding == "same":
        total = tuple(d * (k - 1) for d, k in zip(dilations, kernel, strict=True))
        before = total[0] // 2, total[1] // 2
        behind = total[0] - before[0], total[1] - before[1]
    along = _axes(kernel, _pair(stride), before, behind, dilations)
    return along, 0.0, lambda x: torch.conv2d(x, weight, bias, stride, 0, dilation, groups)


def _max_pool2d(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> _Plan:
    if return_indices:
        raise NotLocal
    stride = stride or kernel_size
    pad = _pair(padding)
    along = _axes(_pair(kernel_size), _pair(stride), pad, pad, _pair(dilation), ceil_mode=ceil_mode)
    return along, -torch.inf, lambda x: torch.max_pool2d(x, kernel_size, stride, 0, dilation)


def _avg_pool2d(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> _Plan:
    pad = _pair(padding)
    if ceil_mode or (any(pad) and not count_include_pad):
        raise NotLocal  # the divisor depends on the place
    stride = stride or kernel_size
    along = _axes(_pair(kernel_size), _pair(stride), pad, pad)
    return along, 0.0, lambda x: F.avg_pool2d(x, kernel_size, stride, divisor_override=divisor_override)


def _pad(pad: Any, mode: str = "constant", value: float | None = None) -> _Plan:
    if mode != "constant" or len(pad) not in (2, 4) or min(pad) < 0:
        raise NotLocal
    left, right, top, bottom = (*pad, 0, 0)[:4]
    return (Sliding(before=top, behind=bottom), Sliding(before=left, behind=right)), value or 0.0, torch.clone


SLIDING: dict[Any, Callable[..., _Plan]] = {
    torch.conv2d: _conv2d,
    F.max_pool2d: _max_pool2d,
    torch.max_pool2d: _max_pool2d,
    F.avg_pool2d: _avg_pool2d,
    F.pad: _pad,
}


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (*value, *value)[:2]


def _axes(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    before: tuple[int, int],
    behind: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Sliding, Sliding]:
    rows, columns = (
        Sliding(kernel[axis], stride[axis], before[axis], behind[axis], dilation[axis], ceil_mode) for axis in (0, 1)
    )
    return rows, columns


def _tensors(values: Any) -> list[Tensor]:
    """Collects the tensors among some values and in lists among them."""
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
    if type(values) in (tuple, list):
        return type(values)(_replace(value, by_id) for value in values)
    return by_id.get(id(values), values)
