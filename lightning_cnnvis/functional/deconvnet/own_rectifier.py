"""The rectifier of the units that are shown: it passes them, even where they are at its upper bound.

A ReLU6 has no derivative at 6. The way down from a unit that is at 6 would end at the unit's own rectifier, although
the unit is as active as can be. So it begins as it would below the bound. Rectifiers further down stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_cnnvis.functional.network.graph import children, kind

_aten = torch.ops.aten

_Passes = Callable[[Tensor], Tensor]


def pass_own_rectifier(output: Tensor, *, inactive: bool = False) -> None:
    """Makes the rectifier that a layer's output comes from pass the units at its upper bound on the way down.

    Rectifiers without an upper bound, such as ReLU, are left alone.

    Args:
        output: The layer's output, of any shape, with the graph of its forward pass. The graph is changed.
        inactive: Whether it passes units that are off, too, so that the way down begins below it.

    Examples:
        >>> x = torch.tensor([-1.0, 2.0, 7.0], requires_grad=True)
        >>> y = torch.nn.functional.relu6(x)
        >>> pass_own_rectifier(y)
        >>> torch.autograd.grad(y, x, torch.ones(3))
        (tensor([0., 1., 1.]),)
    """
    node = output.grad_fn
    while node is not None and kind(node) in _MOVES and len(children(node)) == 1:
        node = node.next_functions[0][0]
    passing = {**_BOUNDED, **_OFF_BELOW_ZERO} if inactive else _BOUNDED
    make = None if node is None else passing.get(kind(node))
    if node is None or make is None:
        return
    passes = make(node)

    def hook(below: tuple[Tensor | None, ...], above: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        return below if above[0] is None else (passes(above[0]), *below[1:])

    node.register_hook(hook)


# Each function takes the rectifier's node and returns what it does to the signal. The functions do not hold the node:
# the graph would hold itself. They run within `RectifiedBackward`, which replaces torch's backward operations by its
# rule.


def _hardtanh(node: Any) -> _Passes:
    low, high, given = node._saved_min_val, node._saved_max_val, node._saved_self.detach()
    saturated = given >= high
    if low < 0:  # a bound at zero is that of units that are off
        saturated |= given <= low
    within = given.masked_fill(saturated, (low + high) / 2)
    return lambda signal: _aten.hardtanh_backward(signal, within, low, high)


def _hardsigmoid(node: Any) -> _Passes:
    given = node._saved_self.detach()
    within = given.masked_fill(given >= 3, 0)
    return lambda signal: _aten.hardsigmoid_backward(signal, within)


def _clamp(node: Any) -> _Passes:
    low, given = node._saved_min, node._saved_self.detach()
    if low is None:
        return _everything(node)
    on = (given >= low) | (low < 0)
    return lambda signal: signal * on


def _everything(_: Any) -> _Passes:
    return lambda signal: signal.clone()


_BOUNDED: dict[str, Callable[[Node], _Passes]] = {
    "Hardtanh": _hardtanh,
    "Hardsigmoid": _hardsigmoid,
    "Clamp": _clamp,
    "ClampMax": _everything,
    "Minimum": _everything,
}

_OFF_BELOW_ZERO: dict[str, Callable[[Node], _Passes]] = dict.fromkeys(
    ("Relu", "Threshold", "Hardtanh", "Clamp", "ClampMin"), _everything
)

# operations that move values about, given one tensor, and the choice of the largest of several
_MOVES = {
    "Alias", "Clone", "Div", "Expand", "MaxPool2DWithIndices", "Mul", "Permute", "ReshapeAlias", "Select", "Slice",
    "Squeeze", "ToCopy", "Transpose", "UnsafeView", "Unsqueeze", "View",
    "torch.nn.modules._functions.BackwardHookFunction",
}  # fmt: skip
