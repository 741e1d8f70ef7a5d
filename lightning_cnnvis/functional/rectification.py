"""What a picture does at rectifiers and normalisations on its way down the network.

The way down is autograd's backward pass: there a convolution is its transposed filters, and a max-pooling puts
the values back at its switches, adding where windows overlap. Only rectifiers and response normalisations
differ between the methods. A dispatch mode replaces what they do, so that every form of a rectifier is treated
alike: module, function, in-place, shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_cnnvis.functional.graph import children, kind, nodes_between
from lightning_cnnvis.layers import activations

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
        return (signal, signal) if func is _aten._prelu_kernel_backward.default else signal


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


class ResponseNormMode(TorchFunctionMode):
    """Replaces how the signal passes local response normalisation on its way down; the way up stays the same.

    The papers are silent. ``"identity"``, the default everywhere, hands the signal through unchanged, as the
    deconvnet of Zeiler & Fergus, which has no such layer, does; ``"gradient"`` takes the derivative.

    Args:
        rule: One of the two.

    Raises:
        ValueError: If the rule is neither.
    """

    def __init__(self, rule: LRNRule) -> None:
        super().__init__()
        check_choice("lrn", rule, LRNRule)
        self.function = _PassThrough if rule == "identity" else _ResponseNorm

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs a torch function, response normalisation by the rule."""
        if func is not F.local_response_norm:
            return func(*args, **(kwargs or {}))
        inputs, settings = args[0], args[1:]
        return self.function.apply(inputs, settings, kwargs or {})


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


def check_rectifiable(model: nn.Module, images: Tensor, layer: str, nodes: Sequence[Node]) -> None:
    """Checks that a deconvnet can pass every operation between the images and a layer.

    Args:
        model: The network, in evaluation mode.
        images: Any images that the network takes.
        layer: Dotted name of the layer at which the way down begins.
        nodes: The autograd nodes between the two, as `nodes_between` gives them.

    Raises:
        UnrectifiableError: If one of them is neither linear nor a rectifier nor a max-pooling. The message
            names the module and what to do.
    """
    on_path = set(nodes)
    offender = next((node for node in nodes if not _passable(node, on_path)), None)
    if offender is None:
        return
    where = _module_of(offender, model, images, layer)
    raise UnrectifiableError(
        f"A deconvnet cannot pass {kind(offender)} in module {where!r}: it is neither linear nor a rectifier "
        "nor a max-pooling. Name a layer before it, or use rule='gradient'."
    )


def _passable(node: Node, on_path: set[Node]) -> bool:
    name = kind(node)
    if name in _LINEAR:
        return True
    if name in _PRODUCTS:
        # linear as long as one factor only depends on the image
        return sum(child in on_path for child in children(node)) < 2 and not (
            name == "Div" and children(node)[0] not in on_path
        )
    conditions: dict[str, Callable[[Any], bool]] = {
        "Hardtanh": lambda n: n._saved_min_val == 0,
        "Threshold": lambda n: n._saved_threshold == 0,
        "NativeBatchNorm": lambda n: not n._saved_training,
        "CudnnBatchNorm": lambda n: not n._saved_training,
        "MiopenBatchNorm": lambda n: not n._saved_training,
    }
    return name in conditions and conditions[name](node)


_PRODUCTS = {"Mul", "Div", "Mm", "Bmm", "Addmm", "Addbmm", "Baddbmm", "Mv", "Linear", "Convolution"}

_LINEAR = {
    # rectifiers and switches, whose rule is known
    "Relu", "LeakyRelu", "PreluKernel", "MaxPool2DWithIndices", "AdaptiveMaxPool2D",
    "_PassThrough", "_ResponseNorm",
    # sums, averages
    "Add", "Sub", "Neg", "Sum", "Mean", "AvgPool2D", "AvgPool3D", "AdaptiveAvgPool2D", "NativeDropout",
    # moving values about
    "AccumulateGrad", "Alias", "Cat", "Clone", "Chunk", "ConstantPadNd", "Expand", "Index", "IndexSelect",
    "Permute", "PixelShuffle", "PixelUnshuffle", "ReflectionPad2D", "Repeat", "ReplicationPad2D",
    "ReshapeAlias", "Roll", "Flip", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "Stack", "T", "ToCopy",
    "Transpose", "Unbind", "UnsafeView", "Unsqueeze", "UpsampleBicubic2D", "UpsampleBilinear2D",
    "UpsampleNearest2D", "View",
}  # fmt: skip


def _module_of(offender: Node, model: nn.Module, images: Tensor, layer: str) -> str:
    """Name of the innermost module whose forward pass made the operation."""
    # The graph is built anew with every module's beginning and end marked; the same operation is at the same place.
    spans: list[tuple[str, list[Node], Node]] = []

    def hook_of(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if isinstance(output, Tensor) and output.grad_fn is not None:
                begin = [x.grad_fn for x in inputs if isinstance(x, Tensor) and x.grad_fn is not None]
                spans.append((name, begin, output.grad_fn))

        return hook

    handles = [module.register_forward_hook(hook_of(name)) for name, module in model.named_modules()]
    try:
        images = images.detach().requires_grad_()
        with ResponseNormMode("identity"):
            output = activations(model, images, [layer])[layer]
        nodes = nodes_between(output, images)
        on_path = set(nodes)
        offender = next(node for node in nodes if not _passable(node, on_path))
        # inner modules end before the modules around them
        return next((name for name, begin, end in spans if _made_between(offender, begin, end)), layer)
    finally:
        for handle in handles:
            handle.remove()


def _made_between(wanted: Node, begin: list[Node], end: Node) -> bool:
    seen = set(begin)
    stack = [end]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        if node is wanted:
            return True
        seen.add(node)
        stack.extend(children(node))
    return False
