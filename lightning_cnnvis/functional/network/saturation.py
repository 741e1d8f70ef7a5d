"""Rectifiers with an upper bound, such as ReLU6: what their outputs would be without it.

At the bound, many units of many images are equal, and what a layer returns does not tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary


class Unsaturated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what rectifiers with an upper bound would return without it.

    What they return stays the same. The mode acts on operations, so that a rectifier may be a module, a function or in
    place; and it follows their results through operations that move values about. It can be entered again while it is
    active.

    Examples:
        >>> x = torch.tensor([-1.0, 2.0, 7.0])
        >>> with Unsaturated() as unsaturated:
        ...     y = torch.nn.functional.relu6(x)
        >>> y, unsaturated.of(y)
        (tensor([0., 2., 6.]), tensor([0., 2., 7.]))
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._values = WeakTensorKeyDictionary()
        self._depth = 0

    def of(self, output: Tensor) -> Tensor:
        """Returns what a tensor would be without upper bounds.

        Args:
            output: A tensor of any shape.

        Returns:
            A tensor of the same shape, which is larger at most where ``output`` is at the bound; ``output`` itself if
            it does not come from a rectifier with an upper bound.
        """
        values: Tensor = self._values.get(output, output)  # type: ignore[no-untyped-call]
        return values

    def __enter__(self) -> Unsaturated:
        """Begins to note outputs."""
        self._depth += 1
        if self._depth == 1:
            super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        """Stops noting outputs. Those that were noted are still known."""
        self._depth -= 1
        if not self._depth:
            super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """Stops noting outputs and forgets them, also where an interrupt kept the mode from being left."""
        if self._depth:
            self._depth = 1
            self.__exit__(None, None, None)
        self._values = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation, and notes its result."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.removesuffix("_")
        known = before = None
        # whatever goes wrong here, such as memory that runs out, must not stop the pass that is followed
        with suppress(Exception):
            if name in _BOUNDS or name in _MOVES or (name in ("mul", "div") and args[1] > 0):
                known = self._values.get(args[0])  # type: ignore[no-untyped-call]
            if name in _BOUNDS:
                before = known if known is not None else args[0].clone() if func._schema.is_mutable else args[0]
        result = func(*args, **kwargs)
        with suppress(Exception):
            output = result[0] if isinstance(result, tuple) else result
            if before is not None:
                values = _BOUNDS[name](output, before, *args[1:], **kwargs)
            elif known is not None:
                moved = func(known.clone() if func._schema.is_mutable else known, *args[1:], **kwargs)
                values = moved[0] if isinstance(moved, tuple) else moved
            else:
                values = None
            if values is not None:
                self._values[output] = values
            elif func._schema.is_mutable and args[0] in self._values:
                del self._values[args[0]]
        return result


# Each function takes what the rectifier returned, what it was given, and torch's further arguments of the operation. It
# returns the output without the upper bound, or None if there is no bound.


def _above(output: Tensor, unbounded: Tensor, max: Any) -> Tensor | None:
    return None if max is None else torch.where(output >= max, unbounded, output)


def _hardtanh(output: Tensor, given: Tensor, min_val: float = -1, max_val: float = 1) -> Tensor | None:
    return _above(output, given, max_val)


def _clamp(output: Tensor, given: Tensor, min: Any = None, max: Any = None) -> Tensor | None:
    return _above(output, given, max)


def _minimum(output: Tensor, given: Tensor, other: Tensor) -> Tensor | None:
    return _above(output, given, other) if other.ndim == 0 else None


_BOUNDS: dict[str, Callable[..., Tensor | None]] = {
    "hardtanh": _hardtanh,
    "relu6": lambda output, given: _above(output, given, 6),
    "hardsigmoid": lambda output, given: _above(output, given / 6 + 0.5, 1),
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_max": _above,
    "minimum": _minimum,
}

# operations that keep the order of values; those that multiply by a positive number do, too
_MOVES = {
    "_to_copy", "_unsafe_view", "alias", "clone", "detach", "expand", "flatten", "max_pool2d",
    "max_pool2d_with_indices", "permute", "reshape", "select", "slice", "squeeze", "transpose", "unsqueeze", "view",
}  # fmt: skip
