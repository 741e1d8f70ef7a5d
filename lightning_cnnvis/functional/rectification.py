"""What a picture does at rectifiers and normalisations on its way down the network.

The way down is autograd's backward pass: there a convolution is its transposed filters, and a max-pooling puts
the values back at its switches, adding where windows overlap. Only rectifiers and response normalisations
differ between the methods. A dispatch mode replaces what they do, so that every form of a rectifier is treated
alike: module, function, in-place, shared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Rule = Literal["deconvnet", "guided", "gradient"]
LRNRule = Literal["identity", "gradient"]

_aten = torch.ops.aten


class UnrectifiableError(ValueError):
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


class RectifiableForward(TorchFunctionMode):
    """Prepares the forward pass for the way down; what it computes stays the same.

    Local response normalisation becomes one node of the graph, whose backward pass is the rule's: the papers are
    silent. ``"identity"``, the default everywhere, hands the signal through unchanged, as the deconvnet of Zeiler &
    Fergus, which has no such layer, does; ``"gradient"`` takes the derivative. A clamp at zero becomes the ReLU that
    it is. The rule ``"gradient"`` leaves everything alone, response normalisation too.

    Args:
        rule: As for `RectifiedBackward`.
        lrn: What response normalisation does on the way down.

    Raises:
        ValueError: If one of them is not a choice.

    Example:
        >>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
        >>> with RectifiableForward("deconvnet", "identity"):
        ...     x.clamp(min=0)
        tensor([0., 2.], grad_fn=<ReluBackward0>)
    """

    def __init__(self, rule: Rule, lrn: LRNRule) -> None:
        super().__init__()
        check_choice("rule", rule, Rule)
        check_choice("lrn", lrn, LRNRule)
        self.rule = rule
        self.response_norm = _PassThrough if lrn == "identity" else _ResponseNorm

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs a torch function, or its rectifiable form."""
        kwargs = kwargs or {}
        if self.rule != "gradient":
            if func is F.local_response_norm:
                return self.response_norm.apply(args[0], args[1:], kwargs)
            if func in _CLAMPS:
                relu = _clamp_as_relu(*args, inplace=func.__name__.endswith("_"), **kwargs)
                return func(*args, **kwargs) if relu is None else relu
        return func(*args, **kwargs)


_CLAMPS = {
    getattr(owner, name + suffix)
    for owner in (torch, Tensor)
    for name in ("clamp", "clip", "clamp_min")
    for suffix in ("", "_")
}


def _clamp_as_relu(input: Tensor, min: Any = None, max: Any = None, *, inplace: bool) -> Tensor | None:
    if isinstance(min, Tensor) or min != 0 or isinstance(max, Tensor):
        return None
    return F.relu(input, inplace) if max is None else F.hardtanh(input, 0, max, inplace)


class _PassThrough(torch.autograd.Function):
    """Response normalisation whose backward pass is the identity."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        return F.local_response_norm(inputs, *args, **kwargs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], None, None


class _ResponseNorm(torch.autograd.Function):
    """Response normalisation as one node of the graph, so that its inner products are not taken for gates."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.settings = args, kwargs
        return F.local_response_norm(inputs, *args, **kwargs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (inputs,) = ctx.saved_tensors
        args, kwargs = ctx.settings
        with torch.enable_grad():
            inputs = inputs.detach().requires_grad_()
            output = F.local_response_norm(inputs, *args, **kwargs)
        (signal,) = torch.autograd.grad(output, inputs, grads[0])
        return signal, None, None


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raises a ValueError that lists the choices of a Literal type, unless the value is one of them."""
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r} is none of {', '.join(map(repr, get_args(choices)))}.")
