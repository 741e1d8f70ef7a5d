"""What a picture does at rectifiers and normalisations on its way down the network.

The way down is autograd's backward pass: there a convolution is its transposed filters, and a max-pooling puts
the values back at its switches, adding where windows overlap. Only rectifiers and response normalisations
differ between the methods. A dispatch mode replaces what they do, so that every form of a rectifier is treated
alike: module, function, in-place, shared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_cnnvis.functional.network.canonical import Rule, check_choice

_aten = torch.ops.aten


class UnsupportedOperationError(ValueError):
    """The network has an operation that a deconvnet cannot pass."""


class RectifiedBackward(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces what the backward pass does at rectifiers.

    - ``"deconvnet"`` rectifies the signal itself, whatever was active on the way up (Zeiler & Fergus 2013, section
      2.1, arXiv 1311.2901).
    - ``"guided"`` does so and also blocks what was inactive on the way up (Springenberg et al. 2014, section 3.4,
      arXiv 1412.6806).
    - ``"gradient"`` changes nothing (Simonyan et al. 2013, section 3, arXiv 1312.6034).

    To rectify is to apply the layer's own rectifier: a leaky one leaks. A ReLU6 is not cut off at 6 on the way
    down, so that twice the activation gives twice the picture.

    Args:
        rule: One of the three.

    Raises:
        ValueError: If the rule is none of these.

    Example:
        >>> x = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
        >>> y = x.relu()
        >>> with RectifiedBackward("deconvnet"):
        ...     torch.autograd.grad(y, x, torch.tensor([5.0, 6.0, -7.0]))
        (tensor([5., 6., 0.]),)
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        check_choice("rule", rule, Rule)
        self.rule = rule

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation of the backward pass, or what the rule puts in its place."""
        rectify = _RECTIFY.get(func)
        if rectify is None or self.rule == "gradient":
            return func(*args, **(kwargs or {}))
        signal = rectify(*args)
        if self.rule == "guided":
            return func(signal, *args[1:], **(kwargs or {}))
        # PReLU's operation also returns its weights' gradient, which nobody asks for here
        return (signal, torch.zeros_like(args[2])) if func is _aten._prelu_kernel_backward.default else signal


def _relu(signal: Tensor, *_: object) -> Tensor:
    return signal.clamp(min=0)


def _leaky_relu(signal: Tensor, _: Tensor, slope: float, *__: object) -> Tensor:
    return F.leaky_relu(signal, slope)


def _prelu(signal: Tensor, _: Tensor, weight: Tensor) -> Tensor:
    return torch.where(signal > 0, signal, weight * signal)


_RECTIFY: dict[Any, Callable[..., Tensor]] = {
    _aten.threshold_backward.default: _relu,
    _aten.hardtanh_backward.default: _relu,
    _aten.leaky_relu_backward.default: _leaky_relu,
    _aten._prelu_kernel_backward.default: _prelu,
}
