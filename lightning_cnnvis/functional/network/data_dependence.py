"""Networks whose forward pass reads values that depend on the image, as a branch does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_cnnvis.functional.network.forward import plain_forward

_aten = torch.ops.aten


def reads_values(model: nn.Module, layer: str, image: Tensor) -> bool:
    """Tells whether the way to a layer may differ from image to image.

    It may where the forward pass turns a tensor that depends on the image into numbers: ``if x.mean() > 0``,
    ``scores.tolist()``, ``x[mask]`` with a number of values that the mask decides.

    Args:
        model: The network, isolated and in evaluation mode.
        layer: Dotted name of the layer; `OUTPUT` for the model's output.
        image: ``(1, C, H, W)``.

    Returns:
        Whether a value is read before the layer.

    Examples:
        >>> class Gate(nn.Module):
        ...     def forward(self, x):
        ...         return 2 * x if x.mean() > 0 else x
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), Gate())
        >>> image = torch.zeros(1, 3, 8, 8)
        >>> reads_values(net, "0", image), reads_values(net, "1", image)
        (False, True)
    """
    followed = _Followed(image)
    with torch.no_grad(), followed, _ReadByPython(followed):
        plain_forward(model, [layer])(image)
    return followed.read


class _Followed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows an image through the operations, and notes whether one makes numbers of what depends on it."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read = False
        # by memory, since a view that is written to changes what it is a view of; held, so that none is used twice
        self._dependent = {memory_of(image): image}

    def depends(self, values: Any) -> bool:
        """Whether a tensor among the values depends on the image."""
        return any(memory_of(tensor) in self._dependent for tensor in tensors_in(values))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation, and follows its results."""
        result = func(*args, **(kwargs or {}))
        if self.depends((args, kwargs)):
            self.read |= func.overloadpacket in _READERS or _selects_by_mask(func, args)
            written = args if func._schema.is_mutable else ()
            self._dependent |= {memory_of(tensor): tensor for tensor in tensors_in((result, written))}
        return result


class _ReadByPython(TorchFunctionMode):
    """Notes the readings that are not operations of torch."""

    def __init__(self, followed: _Followed) -> None:
        super().__init__()
        self.followed = followed

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs a function of torch."""
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__) and self.followed.depends(args):
            self.followed.read = True
        return func(*args, **(kwargs or {}))


# results whose values or shapes Python goes on with
_READERS = {
    _aten._local_scalar_dense, _aten.equal, _aten.nonzero, _aten.masked_select, _aten.unique_dim, _aten._unique2,
    _aten.unique_consecutive, _aten.repeat_interleave, _aten.bincount, _aten.allclose, _aten.is_nonzero,
}  # fmt: skip


def _selects_by_mask(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether the operation is ``x[mask]``, whose result has as many values as the mask has ones."""
    return func.overloadpacket is _aten.index and any(
        index.dtype in (torch.bool, torch.uint8) for index in tensors_in(args[1])
    )


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Finds the tensors in lists, tuples and mappings.

    Args:
        values: Whatever an operation takes or returns.

    Returns:
        The tensors, of any shape.
    """
    return (value for value in tree_leaves(values) if isinstance(value, Tensor))


def memory_of(tensor: Tensor) -> int:
    """Identifies the memory of a tensor, which is that of its views.

    Args:
        tensor: A tensor of any shape.

    Returns:
        A number that no other memory has as long as the tensor is held.
    """
    return int(tensor.untyped_storage()._cdata)
