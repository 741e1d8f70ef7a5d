"""A way down through other filters than the way up: the control that tells switches from filters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class SwappedFilters(saved_tensors_hooks):
    """Lets the backward pass use other weights than the forward pass did; its switches and gates are kept.

    What an operation saves for its backward pass is exchanged where it is a weight, or a part or a view of one.

    Args:
        weights: The weights of the forward pass, by name.
        others: What takes their place, by name, in the same shapes and memory formats.

    Examples:
        >>> import torch
        >>> weight, x = torch.tensor([[2.0]]), torch.tensor([[3.0]], requires_grad=True)
        >>> with SwappedFilters({"w": weight}, {"w": torch.tensor([[5.0]])}):
        ...     y = torch.nn.functional.linear(x, weight)
        >>> y.item(), torch.autograd.grad(y.sum(), x)[0].item()
        (6.0, 5.0)
    """

    def __init__(self, weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
        self.pairs = [(weight, others[name]) for name, weight in weights.items()]
        super().__init__(self._swapped, lambda saved: saved)

    def _swapped(self, saved: Tensor) -> Tensor:
        for weight, other in self.pairs:
            if saved.device != weight.device:
                continue
            # a tensor without memory of its own, such as one that wraps another, has no address
            if saved.data_ptr() == 0 and saved.shape == weight.shape and bool((saved == weight).all()):
                return other
            begin = saved.data_ptr() - weight.data_ptr()
            if saved.data_ptr() != 0 and 0 <= begin < weight.numel() * weight.element_size():
                offset = other.storage_offset() + begin // weight.element_size()
                return other.as_strided(saved.shape, saved.stride(), offset)
        return saved
