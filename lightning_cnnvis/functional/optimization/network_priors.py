"""Penalties on what the layers of a network see, beside the objective and the penalties on the image itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy


class NetworkPrior(Protocol):
    """A penalty that is computed while the network runs."""

    def watching(self, model: nn.Module) -> AbstractContextManager[list[Tensor]]:
        """Watches a forward pass.

        Args:
            model: The network, in evaluation mode.

        Returns:
            A context, whose list is filled by a forward pass in it: penalties ``(N,)`` to be added to the losses,
            differentiable; entry i depends only on image i.

        Raises:
            ValueError: If the network lacks what the penalty is about.
        """
        ...


@dataclass(frozen=True)
class BatchNormPrior:
    """A penalty on inputs of BatchNorm layers whose statistics are not those of the training images.

    DeepInversion, Yin et al. 2020 (arXiv 1912.08795), Eq. 4: for each layer the Euclidean distances between the
    channels' means, and between their variances, in the image and in the training. The paper takes the statistics of
    the whole batch; here they are each image's own, over its positions, so that an image does not depend on its
    neighbours. Layers with fewer than two positions have no variance and are left out.

    Args:
        weight: Factor.
        first: Further factor for the first layer that runs.

    Examples:
        >>> net = nn.Sequential(nn.BatchNorm2d(1)).eval()  # has seen mean 0 and variance 1
        >>> with BatchNormPrior(weight=1.0, first=1.0).watching(net) as penalties:
        ...     _ = net(torch.tensor([[[[1.0, 1.0]]], [[[-1.0, 1.0]]]]))
        >>> penalties
        [tensor([2., 0.])]
    """

    weight: float = 0.01
    first: float = 10.0

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """Watches a forward pass.

        Args:
            model: The network, in evaluation mode.

        Yields:
            A list that gets a penalty ``(N,)`` from each layer that runs.

        Raises:
            ValueError: If the network has no BatchNorm layer that keeps statistics.
        """
        layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and _keeps_statistics(module)]
        if not layers:
            raise ValueError(
                f"{type(model).__name__} has no BatchNorm layer that keeps statistics, which this penalty is about. "
                "Choose another preset, such as 'fourier'."
            )
        penalties: list[Tensor] = []

        def hook(module: Any, inputs: tuple[Any, ...]) -> None:
            seen = inputs[0]
            if seen.ndim < 3 or seen[0, 0].numel() < 2:
                return
            variance, mean = torch.var_mean(_precise(seen).flatten(2), dim=2, correction=0)
            distance = (variance - module.running_var).norm(dim=1) + (mean - module.running_mean).norm(dim=1)
            penalties.append(self.weight * (1.0 if penalties else self.first) * distance)

        with ExitStack() as stack:
            for layer in layers:
                stack.callback(layer.register_forward_pre_hook(hook).remove)
            yield penalties


def _keeps_statistics(module: _BatchNorm) -> bool:
    return module.running_mean is not None and not is_lazy(module.running_mean)


def _precise(activations: Tensor) -> Tensor:
    return activations.to(torch.promote_types(activations.dtype, torch.float32))
