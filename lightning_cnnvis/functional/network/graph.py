"""The part of an autograd graph that lies between an input and an output."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import Node


def nodes_between(output: Tensor, inputs: Tensor) -> list[Node]:
    """Finds the autograd nodes through which ``inputs`` reaches ``output``.

    Args:
        output: A tensor of any shape, computed from ``inputs`` with gradients enabled.
        inputs: A leaf tensor of any shape that requires a gradient.

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
    """Lists the nodes to which a node passes gradients on.

    Args:
        node: A node.

    Returns:
        Its children, in the order of its operation's arguments.
    """
    return [child for child, _ in node.next_functions if child is not None]


def input_shapes(node: Node) -> list[tuple[Node, tuple[int, ...]]]:
    """Lists the nodes to which a node passes gradients on, with the shapes of the tensors between them.

    Args:
        node: A node.

    Returns:
        Each child and the shape of the tensor that it made.
    """
    return [(child, _shape(child, number)) for child, number in node.next_functions if child is not None]


def output_shape(node: Node) -> tuple[int, ...]:
    """Returns the shape of the tensor that a node's forward operation made.

    Args:
        node: A node.

    Returns:
        The shape; that of the first tensor if there are several.
    """
    return _shape(node, 0)


def _shape(node: Node, number: int) -> tuple[int, ...]:
    return tuple(int(n) for n in node._input_metadata[number].shape)


def kind(node: Node) -> str:
    """Returns the name of a node's operation: ``Convolution`` for a ``ConvolutionBackward0``.

    Args:
        node: A node.

    Returns:
        The name. A `torch.autograd.Function` written in Python has its full name, so that it is not mistaken for one of
        torch's operations.
    """
    function = getattr(node, "_forward_cls", None)
    if function is not None:
        return full_name(function)
    return node.name().rpartition("::")[2].partition("Backward")[0]


def full_name(function: type) -> str:
    """Returns the name that `kind` gives the nodes of a `torch.autograd.Function`.

    Args:
        function: The class.

    Returns:
        Its module and its qualified name.
    """
    return f"{function.__module__}.{function.__qualname__}"


def saved_dims(node: Node, name: str, ndim: int) -> tuple[int, ...] | None:
    """Reads dimensions that an operation saved.

    Args:
        node: The operation's node.
        name: Name of the argument: one dimension or a tuple of them.
        ndim: Number of dimensions of the operation's tensor.

    Returns:
        The dimensions, counted from the front; None if the operation was given none, such as a mean over everything.
    """
    value = getattr(node, f"_saved_{name}", None)
    values = value if isinstance(value, tuple) else (value,)
    if not values or None in values:
        return None
    return tuple(signed(value) % ndim for value in values)


def signed(value: int) -> int:
    """Restores the sign of a saved integer: autograd shows negative ones as unsigned 64-bit numbers.

    Args:
        value: The saved integer.

    Returns:
        The integer with its sign.

    Examples:
        >>> signed(2**64 - 1), signed(3)
        (-1, 3)
    """
    return value - 2**64 if value >= 2**63 else value
