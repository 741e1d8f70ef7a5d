"""The exact receptive field of any layer, read off the autograd graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.autograd.graph import Node

from lightning_cnnvis.channel_dim import as_maps
from lightning_cnnvis.functional.network.canonical import RESPONSE_NORMS
from lightning_cnnvis.functional.network.data_dependence import reads_values
from lightning_cnnvis.functional.network.forward import noise_image
from lightning_cnnvis.functional.network.graph import input_shapes, kind, output_shape, saved_dims, signed
from lightning_cnnvis.functional.network.tracing import trace
from lightning_cnnvis.isolation import isolated


@dataclass(frozen=True)
class ReceptiveField:
    """The part of the image that each unit of a layer depends on.

    Attributes:
        size: Height and width of the field in pixels. It may exceed the image.
        stride: Distance between the fields of neighbouring units, in pixels, down and right; zero if every unit
            depends on the whole image.
        offset: Top and left pixel of the field of the unit at row 0, column 0; negative where the field begins in the
            padding.
        map_shape: Channels, height and width of the layer's map; height and width are 1 if it has none.
        input_size: Height and width of the image.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    offset: tuple[int, int]
    map_shape: tuple[int, int, int]
    input_size: tuple[int, int]

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Computes the field of one unit, cut off at the image's borders.

        Args:
            row: Row of the unit in the layer's map.
            column: Its column.

        Returns:
            Top, left, bottom and right in pixels; bottom and right are exclusive.
        """
        start = [o + s * p for o, s, p in zip(self.offset, self.stride, (row, column), strict=True)]
        stop = [a + n for a, n in zip(start, self.size, strict=True)]
        # a field may lie wholly in the padding
        top, left = (min(max(a, 0), n) for a, n in zip(start, self.input_size, strict=True))
        bottom, right = (min(max(b, 0), n) for b, n in zip(stop, self.input_size, strict=True))
        return top, left, bottom, right

    @property
    def whole_image(self) -> bool:
        """Whether every unit depends on the whole image, or may do so as far as the graph shows."""
        return self.stride == (0, 0)


def receptive_field(
    model: nn.Module, layer: str, input_size: tuple[int, int], *, channels: int | None = None
) -> ReceptiveField:
    """Finds the receptive field of the units of a layer.

    One image is run through the network, and the kernels, strides, paddings and dilations are read off the
    autograd graph of the pass, along every branch. So functional layers count like modules. An operation that mixes
    positions in a way that cannot be read, or that depends on the size of the map (attention, adaptive pooling,
    resizing, a dense layer), makes the field the whole image, and so does a way that depends on values of the image.

    Args:
        model: The network. It is left as it was.
        layer: Dotted module name.
        input_size: Height and width of the images, in pixels.
        channels: Number of image channels; None takes that of the first convolution.

    Returns:
        The field.

    Raises:
        LayerError: If the layer does not exist, does not stand for one call of a module, does not return a tensor,
            or if the images are too small for it.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 7, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2))
        >>> field = receptive_field(net, "2", (224, 224))
        >>> field.size, field.stride, field.offset
        ((11, 11), (4, 4), (-1, -1))
        >>> field.box(0, 1)
        (0, 3, 10, 14)
    """
    with isolated(model) as network:
        image = noise_image(network, input_size, channels)
        output, nodes = trace(network, layer, image)
        if reads_values(network, layer, image):
            return whole_image(output, input_size)
    return read_field(output, nodes, input_size)


# One axis of the field of a unit, seen from some tensor on the way down: the unit at position p depends on the
# positions stride * p + first ... stride * p + last of the tensor. None stands for all of them.
_Span = tuple[int, int, int] | None
_Spans = tuple[_Span, _Span]

_WHOLE: _Spans = (None, None)


def whole_image(output: Tensor, input_size: tuple[int, int]) -> ReceptiveField:
    """Makes the field of units that each depend on the whole image.

    Args:
        output: The layer's output ``(1, K, H', W')``, ``(1, K)``, or tokens ``(1, K, T)``.
        input_size: Height and width of the images, in pixels.

    Returns:
        The field; tokens are a map of one row.
    """
    channels, height, width = (*as_maps(output).shape[1:], 1, 1)[:3]
    return ReceptiveField(input_size, (0, 0), (0, 0), (channels, height, width), input_size)


def read_field(output: Tensor, nodes: list[Node], input_size: tuple[int, int]) -> ReceptiveField:
    """Reads the receptive field off a graph.

    Args:
        output: The layer's output ``(1, K, H', W')``, ``(1, K)``, or tokens ``(1, K, T)``, from `trace`.
        nodes: The graph between the image and the output, from `trace`.
        input_size: Height and width of the images, in pixels.

    Returns:
        The field.
    """
    has_map = output.ndim == 4
    whole = whole_image(output, input_size)
    on_path = set(nodes)
    spans: dict[Node, _Spans] = {nodes[0]: ((1, 0, 0), (1, 0, 0)) if has_map else _WHOLE}
    for node in nodes[:-1]:
        below = _through(node, spans[node])
        for child, shape in input_shapes(node):
            if child in on_path:
                if kind(node) in _WINDOWS:
                    # the weights, should they depend on the image, are not local
                    local = child is node.next_functions[0][0]
                else:
                    # between maps of different sizes, a pointwise operation broadcasts, or is not pointwise
                    local = shape[-2:] == output_shape(node)[-2:]
                known = below if local else _WHOLE
                spans[child] = _union(spans[child], known) if child in spans else known
    rows, columns = spans[nodes[-1]]
    if rows is None or columns is None:
        return whole
    return ReceptiveField(
        size=(rows[2] - rows[1] + 1, columns[2] - columns[1] + 1),
        stride=(rows[0], columns[0]),
        offset=(rows[1], columns[1]),
        map_shape=whole.map_shape,
        input_size=input_size,
    )


def _union(a: _Spans, b: _Spans) -> _Spans:
    def union(a: _Span, b: _Span) -> _Span:
        # branches that meet have the same stride, unless something was resized on the way
        if a is None or b is None or a[0] != b[0]:
            return None
        return a[0], min(a[1], b[1]), max(a[2], b[2])

    return union(a[0], b[0]), union(a[1], b[1])


def _through(node: Node, spans: _Spans) -> _Spans:
    """Computes the spans in the tensor that the operation read from those in the tensor that it made."""
    read = _WINDOWS.get(kind(node))
    if read is not None:
        window = read(node)
        if window is None:
            return _WHOLE
        return _slide(spans[0], *window[0]), _slide(spans[1], *window[1])
    return spans if _POINTWISE.get(kind(node), _never)(node) else _WHOLE


def _slide(span: _Span, kernel: int, stride: int, padding: int, dilation: int) -> _Span:
    if span is None:
        return None
    step, first, last = span
    return step * stride, first * stride - padding, last * stride - padding + dilation * (kernel - 1)


_Window = tuple[tuple[int, int, int, int], tuple[int, int, int, int]]


def _convolution(node: Node) -> _Window | None:
    if node._saved_transposed or len(node._saved_stride) != 2:  # type: ignore[attr-defined]
        return None
    return _rows_and_columns(node, tuple(node._saved_weight.shape[-2:]))  # type: ignore[attr-defined]


def _pool(node: Node) -> _Window:
    return _rows_and_columns(node, node._saved_kernel_size)  # type: ignore[attr-defined]


def _rows_and_columns(node: Node, kernel: tuple[int, ...]) -> _Window:
    stride = getattr(node, "_saved_stride", ()) or kernel
    padding = getattr(node, "_saved_padding", (0, 0))
    dilation = getattr(node, "_saved_dilation", (1, 1))
    rows, columns = (tuple(pair) for pair in zip(*map(_pair, (kernel, stride, padding, dilation)), strict=True))
    return rows, columns


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _pad(node: Node) -> _Window | None:
    pad = [signed(int(p)) for p in node._saved_pad]  # type: ignore[attr-defined]
    # a crop hides what lies beyond it, so that what looks like a border of the map is not one of the image
    if any(pad[4:]) or min(pad) < 0:
        return None
    left, _, top, _ = [*pad, 0, 0, 0, 0][:4]
    return (1, 1, top, 1), (1, 1, left, 1)


_WINDOWS: dict[str, Callable[[Node], _Window | None]] = {
    "Convolution": _convolution,
    "MaxPool2DWithIndices": _pool,
    "AvgPool2D": _pool,
    "ConstantPadNd": _pad,
}


def _always(_: Node) -> bool:
    return True


def _never(_: Node) -> bool:
    return False


def _in_evaluation(node: Node) -> bool:
    return not node._saved_training  # type: ignore[attr-defined]


def _keeps_map(*names: str) -> Callable[[Node], bool]:
    """Makes the check that none of the dimensions that an operation works along is one of the last two."""

    def keeps(node: Node) -> bool:
        ndim = len(input_shapes(node)[0][1])
        dims = [saved_dims(node, name, ndim) for name in names]
        return all(d is not None and not set(d) & {ndim - 1, ndim - 2} for d in dims)

    return keeps


def _keeps_map_when_permuted(node: Node) -> bool:
    dims = saved_dims(node, "dims", len(output_shape(node))) or ()
    return dims[-2:] == (len(dims) - 2, len(dims) - 1)


def _keeps_map_when_unsqueezed(node: Node) -> bool:
    ndim = len(output_shape(node))
    return not set(saved_dims(node, "dim", ndim) or ()) & {ndim - 1, ndim - 2}


# Operations that map a position to the same position. Each is also checked to leave the map's size alone, so
# that views and slices count only where they keep the last two dimensions.
_POINTWISE: dict[str, Callable[[Node], bool]] = {
    **dict.fromkeys(
        (
            "Relu", "Threshold", "Hardtanh", "LeakyRelu", "PreluKernel", "RreluWithNoise", "ClampMin", "Clamp",
            "ClampMax", "Gelu", "Silu", "Mish", "Elu", "Softplus", "Sigmoid", "Tanh", "Hardsigmoid", "Hardswish",
            "LogSigmoid", "Exp", "Log", "Sqrt", "Rsqrt", "Pow", "Abs", "Neg",
            "Add", "Sub", "Mul", "Div", "Where", "Maximum", "Minimum", "Clone", "ToCopy", "Alias",
            *RESPONSE_NORMS, "View", "UnsafeView", "ReshapeAlias",
            "Slice", "Expand", "ChannelShuffle",
        ),
        _always,
    ),
    **dict.fromkeys(("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"), _in_evaluation),
    **dict.fromkeys(("Cat", "Split", "SplitWithSizes", "Select", "Unbind", "Mean", "Sum", "IndexSelect"),
                    _keeps_map("dim")),
    "Stack": _keeps_map_when_unsqueezed,
    "Unsqueeze": _keeps_map_when_unsqueezed,
    "Transpose": _keeps_map("dim0", "dim1"),
    "Permute": _keeps_map_when_permuted,
}  # fmt: skip
