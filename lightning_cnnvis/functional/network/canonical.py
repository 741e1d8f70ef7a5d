"""A forward pass whose graph is of the operations that the rules of the way down know."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_cnnvis.functional.network.graph import full_name

Rule = Literal["deconvnet", "guided", "gradient"]
LRNRule = Literal["identity", "gradient"]


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


RESPONSE_NORMS = tuple(map(full_name, (_PassThrough, _ResponseNorm)))
"""The kinds of node that stand for response normalisation; see `graph.kind`."""


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raises a ValueError that lists the choices of a Literal type, unless the value is one of them."""
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r} is none of {', '.join(map(repr, get_args(choices)))}.")
