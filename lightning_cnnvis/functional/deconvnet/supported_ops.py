"""Operations that a deconvnet can pass: linear ones, rectifiers and max-pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from lightning_cnnvis.functional.deconvnet.rules import RectifiedBackward, Rule, UnsupportedOperationError
from lightning_cnnvis.functional.network.canonical import RESPONSE_NORMS, RectifiableForward
from lightning_cnnvis.functional.network.graph import children, kind, nodes_between, output_shape
from lightning_cnnvis.functional.network.tracing import trace
from lightning_cnnvis.functional.noise import gaussian
from lightning_cnnvis.layers import activations


def fitting_rule(model: nn.Module, layer: str, image: Tensor) -> str:
    """Chooses the rule with which a layer's projections show most.

    A deconvnet finds its way down by the places where max-pooling found its maxima. Without these, strides leave a
    grid that is the same for every image, and guided backpropagation, which knows where rectifiers were on, shows more.

    Args:
        model: The network, isolated and in evaluation mode.
        layer: Dotted name of the layer.
        image: ``(1, C, H, W)``, any image that the network takes.

    Returns:
        ``"deconvnet"`` where there is a max-pooling before the layer, ``"guided"`` elsewhere.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1))
        >>> [fitting_rule(net, layer, torch.rand(1, 3, 16, 16)) for layer in ("1", "3")]
        ['guided', 'deconvnet']
    """
    _, nodes = trace(model, layer, image)
    return "deconvnet" if any(kind(node).startswith("MaxPool") for node in nodes) else "guided"


def check_supported(model: nn.Module, layer: str, image: Tensor) -> None:
    """Checks that a deconvnet can pass every operation between the images and a layer.

    The model must be isolated and in evaluation mode.

    Args:
        model: The network.
        layer: Dotted name of the layer at which the way down begins.
        image: ``(1, C, H, W)``, any image that the network takes; not a blank one.

    Raises:
        UnsupportedOperationError: If an operation is neither linear nor a rectifier nor a max-pooling. The message
            names the module and the remedy.
    """
    graph = _Graph(model, layer, image)
    # the last one found is the nearest to the image: layers before it can be projected
    offenders = [node for node in graph.nodes if not _passable(node, graph.on_path)]
    problem = "is neither linear nor a rectifier nor a max-pooling"
    if not offenders and graph.may_depend_on_image():
        # a mask, or an index, that is computed from the image shows on other images
        problem = "multiplies by, or chooses by, what depends on the image"
        for other in _other_images(image):
            offenders = offenders or graph.differing_from(_Graph(model, layer, other))
    if not offenders:
        return
    offender = offenders[-1]
    remedy = "; if it is meant to be a ReLU, write it as one." if kind(offender) in _MASKS else "."
    raise UnsupportedOperationError(
        f"A deconvnet cannot pass {kind(offender)} in {graph.module_of(offender)}: it {problem}. "
        f"Name a layer before it, or use rule='gradient'{remedy}"
    )


def _other_images(image: Tensor) -> tuple[Tensor, Tensor]:
    """Two images that differ from one as much as they can: its negative, and one of strong colours."""
    colors = torch.linspace(-3, 3, image.shape[1] + 2, dtype=image.dtype, device=image.device)[1:-1]
    return image.flip(-1).neg(), 0.5 * image.flip(-2) + colors.view(1, -1, 1, 1) + 1


class _Graph:
    """The graph from a layer to an image, and the module that made each part of it."""

    def __init__(self, model: nn.Module, layer: str, image: Tensor) -> None:
        image = image.detach().clone().requires_grad_()
        # modules with the nodes at which they began and ended; inner ones end before the modules around them
        self.ended: list[tuple[str, list[Node], Node]] = []
        # modules that were still running when the layer was done, from the outermost in
        self.running: list[tuple[str, list[Node]]] = []
        handles = [
            handle
            for name, module in model.named_modules()
            for handle in (
                module.register_forward_pre_hook(self._hook_before(name)),
                module.register_forward_hook(self._hook_after()),
            )
        ]
        try:
            with RectifiableForward("identity"):
                output = activations(model, image, [layer])[layer]
        finally:
            for handle in handles:
                handle.remove()
        self.model = model
        self.output = output
        self.nodes = nodes_between(output, image)
        self.on_path = set(self.nodes)

    def _hook_before(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            begin = [x.grad_fn for x in inputs if isinstance(x, Tensor) and x.grad_fn is not None]
            self.running.append((name, begin))

        return hook

    def _hook_after(self) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            name, begin = self.running.pop()
            if isinstance(output, Tensor) and output.grad_fn is not None:
                self.ended.append((name, begin, output.grad_fn))

        return hook

    def may_depend_on_image(self) -> bool:
        """Whether there is an operation whose derivative may differ from image to image."""
        return any(kind(node) in _CHOICES for node in self.nodes) or any(True for _ in self._factors())

    def differing_from(self, other: _Graph) -> list[Node]:
        """Finds the operations that another image changes."""
        if [kind(node) for node in self.nodes] != [kind(node) for node in other.nodes]:
            # another way through the network, which is checked where it is taken
            return []
        factors = [
            node
            for (node, factor), (_, changed) in zip(self._factors(), other._factors(), strict=True)
            if factor.shape != changed.shape or not torch.equal(factor, changed)
        ]
        choices = [
            node
            for node, changed in zip(self.nodes, other.nodes, strict=True)
            if kind(node) in _CHOICES and not _same_way_down(node, changed)
        ]
        return sorted({*factors, *choices}, key=self.nodes.index)

    def _factors(self) -> Iterator[tuple[Node, Tensor]]:
        """Finds the products of a tensor that depends on the image with one that has no gradient to it."""
        for node in self.nodes:
            if kind(node) in ("Mul", "Div"):
                for factor in (getattr(node, f"_saved_{name}", None) for name in ("self", "other")):
                    if isinstance(factor, Tensor) and factor.grad_fn not in self.on_path:
                        yield node, factor

    def module_of(self, node: Node) -> str:
        """Names the innermost module whose forward pass made the operation."""
        top = self.output.grad_fn
        assert top is not None
        unfinished = ((name, begin, top) for name, begin in reversed(self.running))
        spans = chain(self.ended, unfinished)
        name = next((name for name, begin, end in spans if _made_between(node, begin, end)), "")
        return f"module {name!r}" if name else f"the forward method of {type(self.model).__name__}"


def _passable(node: Node, on_path: set[Node]) -> bool:
    name = kind(node)
    if name in _LINEAR or name in _CHOICES:
        return True
    first = node.next_functions[0][0] if node.next_functions else None
    if name in _PRODUCTS:
        # linear as long as one factor only depends on the image
        return sum(child in on_path for child in children(node)) == 1
    conditions: dict[str, Callable[[Any], bool]] = {
        "Div": lambda _: first in on_path and sum(child in on_path for child in children(node)) == 1,
        "Hardtanh": lambda n: n._saved_min_val == 0,
        "Threshold": lambda n: n._saved_threshold == 0,
        "NativeBatchNorm": lambda n: not n._saved_training,
        "CudnnBatchNorm": lambda n: not n._saved_training,
        "MiopenBatchNorm": lambda n: not n._saved_training,
    }
    return name in conditions and conditions[name](node)


_BARE = Rule("bare", lambda signal, _: signal)


def _same_way_down(node: Node, other: Node) -> bool:
    """Tells whether an operation passes a signal on in the same way for two images, apart from rectifiers."""
    if output_shape(node) != output_shape(other):
        return False
    signal = gaussian(output_shape(node))
    meta = node._input_metadata[0]
    signal = signal.to(meta.device, meta.dtype)
    with RectifiedBackward(_BARE):
        passed = [way(signal) for way in (node, other)]  # type: ignore[operator]
    for a, b in zip(*(p if isinstance(p, tuple) else (p,) for p in passed), strict=True):
        if (a is None) != (b is None) or (a is not None and not torch.equal(a, b)):
            return False
    return True


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


# Operations that are linear as long as what they choose by does not depend on the image: an index, a mask, a place to
# write to. Those that write into a part of a tensor may do anything there.
_CHOICES = {
    "CopySlices",
    "Diagonal",
    "Gather",
    "Index",
    "IndexAdd",
    "IndexCopy",
    "IndexFill",
    "IndexPut",
    "IndexPutImpl",
    "IndexSelect",
    "MaskedFill",
    "MaskedScatter",
    "MaskedSelect",
    "Put",
    "Scatter",
    "ScatterAdd",
    "SelectScatter",
    "SliceScatter",
    "Take",
    "Where",
    "Tril",
    "Triu",
}

_MASKS = {"Clamp", "ClampMin", "MaskedFill", "Maximum", "Mul", "Where"}

_PRODUCTS = {"Mul", "Mm", "Bmm", "Addmm", "Addbmm", "Baddbmm", "Mv", "Linear", "Convolution"}

_LINEAR = {
    # rectifiers and switches, for which there are rules
    "Relu", "LeakyRelu", "PreluKernel", "MaxPool2DWithIndices", "AdaptiveMaxPool2D",
    *RESPONSE_NORMS,
    # sums, averages
    "Add", "Sub", "Neg", "Sum", "Mean", "AvgPool2D", "AvgPool3D", "AdaptiveAvgPool2D", "NativeDropout",
    # passing values on where a module has a full backward hook
    "torch.nn.modules._functions.BackwardHookFunction",
    # moving values about
    "AccumulateGrad", "Alias", "AsStrided", "Cat", "ChannelShuffle", "Clone", "ConstantPadNd", "Expand", "Flip",
    "Im2Col", "MaxUnpool2D", "Permute", "PixelShuffle", "PixelUnshuffle", "ReflectionPad2D",
    "Repeat", "ReplicationPad2D", "ReshapeAlias", "Roll", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze",
    "Stack", "T", "ToCopy", "Transpose", "Unbind", "UnsafeView", "Unsqueeze", "UpsampleBicubic2D",
    "UpsampleBilinear2D", "UpsampleNearest2D", "UpsampleNearestExact2D", "View",
}  # fmt: skip
