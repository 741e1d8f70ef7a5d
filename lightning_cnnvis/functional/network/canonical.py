"""A forward pass in canonical form: its graph consists of operations that the rules of the way down handle."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_cnnvis.functional.network.graph import full_name

LRNRule = Literal["identity", "gradient"]


class RectifiableForward(TorchFunctionMode):
    """Prepares the forward pass for the way down; what it computes stays the same.

    A clamp at zero becomes the ReLU that it is. Local response normalisation becomes one node of the graph, whose
    backward pass is chosen here, because the papers do not say: ``"identity"``, the default everywhere, hands the
    signal through unchanged, as the deconvnet of Zeiler & Fergus, which has no such layer, does; ``"gradient"`` takes
    the derivative.

    Args:
        lrn: What response normalisation does on the way down, ``"identity"`` or ``"gradient"``.

    Raises:
        ValueError: If ``lrn`` is not one of its choices.

    Examples:
        >>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
        >>> with RectifiableForward("identity"):
        ...     x.clamp(min=0)
        tensor([0., 2.], grad_fn=<ReluBackward0>)
    """

    def __init__(self, lrn: LRNRule) -> None:
        super().__init__()
        check_choice("lrn", lrn, LRNRule)
        self.response_norm = _PassThrough if lrn == "identity" else _ResponseNorm

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs a torch function, or its canonical form."""
        kwargs = kwargs or {}
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
"""Kinds of the nodes that stand for response normalisation; see `graph.kind`."""


def check_choice(name: str, value: object, choices: Any) -> None:
    """Checks that a value is one of the choices of a Literal type.

    Args:
        name: Name of the argument, for the error.
        value: Its value.
        choices: The Literal type.

    Raises:
        ValueError: If the value is not one of the choices, which the message lists.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r} is none of {', '.join(map(repr, get_args(choices)))}.")
