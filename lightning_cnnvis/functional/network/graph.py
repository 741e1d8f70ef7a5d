"""The part of an autograd graph that lies between an input and an output."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import Node


def nodes_between(output: Tensor, inputs: Tensor) -> list[Node]:
    """The autograd nodes through which ``inputs`` reaches ``output``.

    Args:
        output: A tensor computed from ``inputs`` with gradients enabled.
        inputs: A leaf tensor that requires a gradient.

    Returns:
        The nodes in topological order, from the output back to the input's own node, which comes last. Empty if
        the output does not depend on the inputs.
    """
    if output.grad_fn is None:
        return []
    # An iterative depth-first search: deep networks would exceed the recursion limit. A node is emitted once its
    # whole past is known, so that the reversed order is topological.
    reaches: dict[Node, bool] = {}
    order: list[Node] = []
    stack: list[tuple[Node, bool]] = [(output.grad_fn, False)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            reaches[node] = getattr(node, "variable", None) is inputs or any(
                reaches.get(child, False) for child in children(node)
            )
            if reaches[node]:
                order.append(node)
        elif node not in reaches:
            reaches[node] = False
            stack.append((node, True))
            stack.extend((child, False) for child in children(node) if child not in reaches)
    return order[::-1]


def children(node: Node) -> list[Node]:
    """The nodes that a node passes gradients on to."""
    return [child for child, _ in node.next_functions if child is not None]


def input_shapes(node: Node) -> list[tuple[Node, tuple[int, ...]]]:
    """The nodes that a node passes gradients on to, each with the shape of the tensor between the two."""
    return [(child, _shape(child, number)) for child, number in node.next_functions if child is not None]


def output_shape(node: Node) -> tuple[int, ...]:
    """The shape of the tensor that the node's forward operation made; of the first if it made several."""
    return _shape(node, 0)


def _shape(node: Node, number: int) -> tuple[int, ...]:
    return tuple(int(n) for n in node._input_metadata[number].shape)


def kind(node: Node) -> str:
    """The operation's name: ``Convolution`` for a ``ConvolutionBackward0``.

    An `torch.autograd.Function` written in Python has its full name, so that it is not taken for one of torch's.
    """
    function = getattr(node, "_forward_cls", None)
    if function is not None:
        return full_name(function)
    return node.name().rpartition("::")[2].partition("Backward")[0]


def full_name(function: type) -> str:
    """The name that `kind` gives the nodes of an `torch.autograd.Function`."""
    return f"{function.__module__}.{function.__qualname__}"


def saved_dims(node: Node, name: str, ndim: int) -> tuple[int, ...] | None:
    """A saved dimension or tuple of dimensions, counted from the front of a tensor of ``ndim`` dimensions.

    None if the operation was given none, as a mean over everything.
    """
    value = getattr(node, f"_saved_{name}", None)
    values = value if isinstance(value, tuple) else (value,)
    if not values or None in values:
        return None
    return tuple(signed(value) % ndim for value in values)


def signed(value: int) -> int:
    """A saved integer; autograd shows negative ones as unsigned 64-bit numbers."""
    return value - 2**64 if value >= 2**63 else value
