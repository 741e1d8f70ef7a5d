"""Networks that treat the places of an image differently, as by coordinates among their inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_cnnvis.functional.network.data_dependence import memory_of, tensors_in
from lightning_cnnvis.layers import activations


def depends_on_place(model: nn.Module, layer: str, image: Tensor) -> bool:
    """Tells whether a unit of a layer may depend on its place in the image, and not only on what is there.

    It does where what depends on the image meets something else that differs from place to place: coordinates,
    embeddings of positions, a gain for each place, a mask of the border. However weak it is, it counts, and learned
    values count also while they are all equal. Padding is not looked at.

    Args:
        model: The network, isolated and in evaluation mode.
        layer: Name of a layer with maps ``(N, C, H, W)``, as are those before it.
        image: ``(1, C, H, W)``.

    Returns:
        Whether it may.

    Examples:
        >>> class Coordinates(nn.Module):
        ...     def forward(self, x):
        ...         row = torch.linspace(-1, 1, x.shape[3]).expand(len(x), 1, *x.shape[2:])
        ...         return torch.cat([x, row], 1)
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), Coordinates(), nn.Conv2d(9, 4, 3))
        >>> image = torch.zeros(1, 3, 8, 8)
        >>> depends_on_place(net, "0", image), depends_on_place(net, "2", image)
        (False, True)
    """
    places = _Places(model, image)
    with torch.no_grad(), places:
        activations(model, image, [layer])
    return places.found


class _Places(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows an image through the operations, and notes whether it meets what differs from place to place."""

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = False
        # by memory, as views have that of what they are views of; the tensors are held, so that none is used twice
        self._of_image = {memory_of(image): image}
        self._learned = {memory_of(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation, and follows its results."""
        name = func.overloadpacket.__name__
        given = list(tensors_in((args, kwargs)))
        of_image = [memory_of(tensor) in self._of_image for tensor in given]
        if any(of_image) and (torch.Tag.pointwise in func.tags or name in _JOINS):
            others = [tensor for tensor, on in zip(given, of_image, strict=True) if not on]
            if name == "copy_" and not of_image[0]:
                others = []  # what is overwritten
            self.found = self.found or any(map(self._differs, others))
        learned = any(memory_of(tensor) in self._learned for tensor in given)
        result = func(*args, **(kwargs or {}))
        made = list(tensors_in((result, args[:1] if func._schema.is_mutable else ())))
        if any(of_image) and not name.endswith("_like") and not name.startswith("new_"):
            self._of_image |= {memory_of(tensor): tensor for tensor in made}
        elif learned:
            self._learned |= {memory_of(tensor): tensor for tensor in made}
        return result

    def _differs(self, tensor: Tensor) -> bool:
        """Whether a tensor, broadcast to a map, differs from place to place."""
        if all(n == 1 for n in tensor.shape[-2:]):
            return False
        first = tensor[..., :1] if tensor.ndim == 1 else tensor[..., :1, :1]
        return memory_of(tensor) in self._learned or bool((tensor != first).any())


# operations that set tensors side by side, or write one into another
_JOINS = {"cat", "concat", "concatenate", "copy_", "stack"}
