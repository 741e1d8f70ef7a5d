"""Rules of the way down the network: the behaviour of the signal at rectifiers.

The way down is autograd's backward pass: there a convolution is its transposed filters, and a max-pooling puts
the values back at its switches, adding where windows overlap. Only rectifiers and response normalisations
differ between the methods. A dispatch mode replaces the rectifiers' backward pass, so that every form of a rectifier is
treated alike: module, function, in-place, shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_cnnvis.functional.deconvnet.strided_backward import backward_by_phases, is_slow
from lightning_cnnvis.functional.registry import Registry

_aten = torch.ops.aten


class UnsupportedOperationError(ValueError):
    """The network has an operation that a deconvnet cannot pass."""


@dataclass(frozen=True)
class Rectifier:
    """A rectifier that the signal meets on its way down.

    Attributes:
        backward: The operation of torch's backward pass: a function of the signal and ``args``.
        args: Its further arguments, beginning with the tensor that the forward pass saved.
        kwargs: Its keyword arguments.
    """

    backward: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def rectify(self, signal: Tensor) -> Tensor:
        """Applies the layer's own rectifier to the signal: a leaky one leaks.

        A ReLU6 is not cut off at 6, so that twice the activation gives twice the picture.

        Args:
            signal: ``(N, ...)``, the signal above the rectifier.

        Returns:
            The rectified signal, of the same shape.
        """
        return _RECTIFY[self.backward](signal, *self.args)

    def gradient(self, signal: Tensor) -> Tensor:
        """Takes the derivative, as a backward pass does: blocks the signal where the unit was inactive on the way up.

        Args:
            signal: ``(N, ...)``, the signal above the rectifier.

        Returns:
            The signal below the rectifier, of the same shape.
        """
        result = self.backward(signal, *self.args, **self.kwargs)
        gradient: Tensor = result[0] if isinstance(result, tuple) else result
        return gradient


@dataclass(frozen=True)
class Rule:
    """The behaviour of the signal at rectifiers on its way down.

    Args:
        name: Name of the rule.
        rectify: A function of the signal and the `Rectifier` that it meets, which returns the signal below it. None
            leaves the backward pass and the forward pass as they are, so that every network can be passed.

    Examples:
        >>> sign = Rule("sign", lambda signal, rectifier: rectifier.gradient(signal).sign())
        >>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
        >>> y = x.relu()
        >>> with RectifiedBackward(sign):
        ...     torch.autograd.grad(y, x, torch.tensor([5.0, 6.0]))
        (tensor([0., 1.]),)
    """

    name: str
    rectify: Callable[[Tensor, Rectifier], Tensor] | None


RULES: Registry[Rule] = Registry("rule")
"""The rules by name. Those registered here can be used wherever a rule's name is taken::

    RULES.register("sign", Rule("sign", lambda signal, rectifier: rectifier.gradient(signal).sign()))
"""


def _deconvnet(signal: Tensor, rectifier: Rectifier) -> Tensor:
    return rectifier.rectify(signal)


def _guided(signal: Tensor, rectifier: Rectifier) -> Tensor:
    return rectifier.gradient(rectifier.rectify(signal))


for _rule in (Rule("deconvnet", _deconvnet), Rule("guided", _guided), Rule("gradient", None)):
    RULES.register(_rule.name, _rule)


def get_rule(rule: str | Rule) -> Rule:
    """Looks a rule up.

    Args:
        rule: A name registered in `RULES`, or a rule, which is returned as it is.

    Returns:
        The rule.

    Raises:
        ValueError: If there is no rule of the name.
    """
    return rule if isinstance(rule, Rule) else RULES.get(rule)


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
        rule: One of the three, another name registered in `RULES`, or a `Rule`.

    Raises:
        ValueError: If there is no rule of the name.

    Examples:
        >>> x = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
        >>> y = x.relu()
        >>> with RectifiedBackward("deconvnet"):
        ...     torch.autograd.grad(y, x, torch.tensor([5.0, 6.0, -7.0]))
        (tensor([5., 6., 0.]),)
    """

    def __init__(self, rule: str | Rule) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rule = get_rule(rule)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation of the backward pass, or what the rule puts in its place."""
        if func is _aten.convolution_backward.default and is_slow(args):
            signal, image, weight, _, stride, padding, *_ = args
            return backward_by_phases(signal, image, weight, stride[0], padding), None, None
        rectify = self.rule.rectify
        if rectify is None or func not in _RECTIFY:
            return func(*args, **(kwargs or {}))
        rectified = rectify(args[0], Rectifier(func, args[1:], kwargs or {}))
        # PReLU's operation also returns its weights' gradient, which is not used here
        return (rectified, torch.zeros_like(args[2])) if func is _aten._prelu_kernel_backward.default else rectified


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
