"""Forward passes in another floating-point type than the network's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


class InPrecision(TorchFunctionMode):
    """Runs the functions of torch in one floating-point type, such as float64 for a reference without rounding.

    Weights are converted one by one as they are used, so that no second copy of the network is held. What is written
    into weights and buffers is lost.

    Args:
        dtype: The floating-point type.

    Examples:
        >>> with InPrecision(torch.float64):
        ...     torch.nn.Conv2d(3, 8, 3).bfloat16()(torch.zeros(1, 3, 4, 4)).dtype
        torch.float64
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs a function on tensors of the type."""
        kwargs = kwargs or {}
        if func.__name__ == "__get__":
            # an attribute, such as the shape; the type is the one that the tensor would have
            return self._converted(func(*args, **kwargs))
        args, kwargs = tree_map(self._converted, (args, kwargs))
        return args[0] if func in _CASTS else tree_map(self._converted, func(*args, **kwargs))

    def _converted(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(self.dtype) if value.is_floating_point() and value.dtype != self.dtype else value
        return self.dtype if isinstance(value, torch.dtype) and value.is_floating_point else value


_CASTS = {Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16}
