"""The output of a classifier: which tensor it is, and what its values mean."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from lightning_cnnvis.functional.network.graph import children, kind
from lightning_cnnvis.functional.noise import gaussian
from lightning_cnnvis.inputs import InputSpec, OutputKind
from lightning_cnnvis.inputs.batches import named_parts
from lightning_cnnvis.layers import LayerError


def tensor_of(output: Any) -> Tensor:
    """Finds the tensor of a network's output that tells the classes apart.

    Args:
        output: A tensor, or a tuple, mapping, named tuple or dataclass with one in it, such as a ``ModelOutput`` or
            ``GoogLeNetOutputs``.

    Returns:
        The tensor, of any shape: that which is named like logits, or else the first ``(N, K)``, or else the first.

    Raises:
        LayerError: If there is no floating-point tensor.

    Examples:
        >>> tensor_of({"loss": torch.tensor(1.0), "logits": torch.zeros(2, 10)}).shape
        torch.Size([2, 10])
        >>> tensor_of((torch.zeros(2, 10), torch.zeros(2, 4))).shape
        torch.Size([2, 10])
    """
    if isinstance(output, Tensor):
        return output
    found = [value for value in _values(output) if value.is_floating_point() and value.ndim]
    best = next((value for value in found if value.ndim == 2), next(iter(found), None))
    if best is None:
        raise LayerError(f"The model returns a {type(output).__name__} without a tensor. Name the layer to look at.")
    return best


def _values(output: Any) -> Iterator[Tensor]:
    parts = named_parts(output)
    if isinstance(output, Tensor):
        yield output
    elif parts is not None:
        for name in sorted(parts, key=_rank):
            yield from _values(parts[name])
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _values(value)


# words in the names of an output's parts
_LOGITS = {
    "logit", "logits", "score", "scores", "out", "output", "outputs", "pred", "preds", "prediction", "predictions",
    "class", "classes", "classification", "probs", "probabilities",
}  # fmt: skip
_OTHERS = {"aux", "attention", "embedding", "feature", "features", "hidden", "loss", "pooler"}


def _rank(name: object) -> int:
    words = set(re.findall(r"[a-z]+", str(name).lower()))
    return 2 if words & _OTHERS else 0 if words & _LOGITS else 1


@dataclass(frozen=True)
class ClassOutput:
    """The meaning of a classifier's output.

    Attributes:
        kind: What the values are: ``"softmax"`` and ``"sigmoid"`` for logits of classes that exclude each other or do
            not, ``"probabilities"``, or ``"log_probabilities"``.
        count: Number of classes.
        two_sided: Whether the one value is that of the second of two classes.
    """

    kind: OutputKind
    count: int
    two_sided: bool = False

    @property
    def score(self) -> str:
        """What `scores` are, in words."""
        return "logit" if self.kind in ("softmax", "sigmoid") else "log-probability"

    def scores(self, output: Tensor) -> Tensor:
        """Computes what an optimisation raises: the logit, which does not saturate, or the logarithm of a probability.

        Args:
            output: The network's output, as `tensor_of` finds it.

        Returns:
            ``(N, count)``.
        """
        values = _as_rows(output)
        if self.kind in ("softmax", "sigmoid"):
            return torch.cat([-values, values], 1) if self.two_sided else values
        if self.kind == "log_probabilities":
            return self._log_of_both(values.exp()) if self.two_sided else values
        return self._log_of_both(values)

    def probabilities(self, output: Tensor) -> Tensor:
        """Computes the probability of each class, as the network gives it.

        Args:
            output: The network's output, as `tensor_of` finds it.

        Returns:
            ``(N, count)``, in [0, 1].
        """
        values = _as_rows(output)
        if self.kind == "softmax":
            return values.softmax(1)
        given = {"sigmoid": Tensor.sigmoid, "log_probabilities": Tensor.exp}.get(self.kind, Tensor.clone)(values)
        return torch.cat([1 - given, given], 1) if self.two_sided else given

    def labels(self, output: Tensor) -> Tensor:
        """Finds what the network takes each image for.

        Args:
            output: The network's output, as `tensor_of` finds it.

        Returns:
            ``(N,)`` integers: the most probable class; for a single one, whether it is more probable than not.
        """
        probabilities = self.probabilities(output)
        return (probabilities[:, 0] > 0.5).long() if self.count == 1 else probabilities.argmax(1)

    def _log_of_both(self, probabilities: Tensor) -> Tensor:
        if self.two_sided:
            probabilities = torch.cat([1 - probabilities, probabilities], 1)
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


def read_output(model: nn.Module, input_spec: InputSpec, inputs: Tensor) -> ClassOutput | None:
    """Finds out what the output of a classifier means.

    Probabilities show themselves: they add up to one, or are made of nothing but sigmoids. Other values are what
    ``input_spec.output_kind`` says, or else a single one is the logit of a sigmoid, and several are those of a softmax.

    Args:
        model: The network, isolated and in evaluation mode.
        input_spec: The network's input.
        inputs: ``(1, C, H, W)``, a blank image for the network.

    Returns:
        The meaning; None if the output is neither ``(N, K)``, nor ``(N, K, 1, 1)``, nor ``(N,)``.

    Raises:
        LayerError: If the output contains no tensor.

    Examples:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Softmax(1))
        >>> read_output(net, InputSpec(size=(2, 2)), torch.zeros(1, 3, 2, 2))
        ClassOutput(kind='probabilities', count=5, two_sided=False)
    """
    noise = gaussian(inputs.shape).to(inputs)
    # of two images, since a network may refuse a batch of another size than one
    with torch.enable_grad():
        outputs = [tensor_of(model(image.requires_grad_())) for image in (inputs.detach().clone(), noise)]
    if not all(_is_of_classes(output) for output in outputs):
        return None
    values = torch.cat([_as_rows(output).detach().cpu().double() for output in outputs])
    output_kind = _kind_of(values, outputs[-1].grad_fn)
    if output_kind in ("softmax", "sigmoid"):  # as which anything passes that does not show itself
        output_kind = input_spec.output_kind or output_kind
    two_sided = values.shape[1] == 1 and len(input_spec.class_names) == 2 and output_kind != "softmax"
    return ClassOutput(output_kind, 2 if two_sided else values.shape[1], two_sided)


def _kind_of(values: Tensor, made_by: Node | None) -> OutputKind:
    if values.shape[1] > 1:
        if (values >= 0).all() and _are_ones(values.sum(1)):
            return "probabilities"
        if (values <= 0).all() and _are_ones(values.exp().sum(1)):
            return "log_probabilities"
    if "LogSigmoid" in _makers(made_by, _REARRANGING):
        return "log_probabilities"
    if (values >= 0).all() and (values <= 1).all() and _makers(made_by, _REARRANGING | _COMBINING) <= _UNIT_INTERVAL:
        return "probabilities"
    return "softmax" if values.shape[1] > 1 else "sigmoid"


def _are_ones(sums: Tensor) -> bool:
    # half precision has three digits
    return bool(((sums - 1).abs() < 1e-2).all())


def _makers(node: Node | None, passed: Set[str]) -> set[str]:
    """Names the operations that a tensor is made of, where those that are passed end; "" is a tensor that none made."""
    if node is None:
        return {""}
    found, seen, ahead = set(), {node}, [node]
    while ahead:
        node = ahead.pop()
        before = children(node) if kind(node) in passed else []
        found |= set() if before else {kind(node)}
        ahead += [other for other in before if other not in seen]
        seen.update(before)
    return found


_REARRANGING = {
    "Alias", "AsStrided", "Cat", "Clone", "Expand", "Flip", "Index", "IndexSelect", "Permute", "ReshapeAlias", "Select",
    "Slice", "Split", "SplitWithSizes", "Squeeze", "Stack", "T", "ToCopy", "Transpose", "Unbind", "UnsafeView",
    "Unsqueeze", "View",
}  # fmt: skip
# as bounds for the logarithm, the mean of several networks, the opposite and the product with an objectness do
_COMBINING = {
    "Add", "Clamp", "ClampMax", "ClampMin", "Div", "Maximum", "Mean", "Minimum", "Mul", "Rsub", "Sqrt", "Sub", "Sum",
}  # fmt: skip
_UNIT_INTERVAL = {"Sigmoid", "Hardsigmoid", "Softmax"}


def _is_of_classes(output: Tensor) -> bool:
    return output.is_floating_point() and (output.ndim in (1, 2) or (output.ndim > 2 and output[0, 0].numel() == 1))


def _as_rows(output: Tensor) -> Tensor:
    """An output of classes as ``(N, K)``."""
    return output.reshape(len(output), -1)


def class_indices(classes: Sequence[int | str], count: int, input_spec: InputSpec) -> list[int]:
    """Finds classes by their numbers or names.

    Args:
        classes: Indices, or names from ``input_spec.class_names``.
        count: Number of classes of the network.
        input_spec: The network's input.

    Returns:
        The indices.

    Raises:
        ValueError: If there is no such class, or none is named.

    Examples:
        >>> class_indices(["dog", 0], 2, InputSpec(class_names=("cat", "dog")))
        [1, 0]
    """
    if isinstance(classes, str) or len(classes) == 0:
        raise ValueError(f"classes={classes!r} is not a list. Give a sequence of at least one class index or name.")
    indices = []
    for wanted in classes:
        if isinstance(wanted, str):
            names = input_spec.class_names
            if wanted not in names:
                near = ", ".join(map(repr, difflib.get_close_matches(wanted, names, n=3)))
                known = ", ".join(map(repr, names[:10])) or "none: give input_spec.class_names, or indices"
                hint = f"Did you mean {near}?" if near else f"Known names: {known}."
                raise ValueError(f"There is no class named {wanted!r}. {hint}")
            indices.append(names.index(wanted))
        elif isinstance(wanted, float):
            raise ValueError(f"Class {wanted}: give the index of a class, a whole number, or its name.")
        elif 0 <= int(wanted) < count:
            indices.append(int(wanted))
        else:
            raise ValueError(f"Class {wanted} is out of range: the model has classes 0 to {count - 1}.")
    return indices
