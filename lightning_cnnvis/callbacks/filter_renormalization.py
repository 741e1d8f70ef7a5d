"""Callback that keeps single filters from dominating: Zeiler & Fergus 2013, section 3 (arXiv 1311.2901)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_cnnvis.layers import LayerError, get_layer


class FilterRenormalization(Callback):
    """Scales every convolution filter whose RMS exceeds a radius back to that radius, after each step.

    Zeiler & Fergus 2013 (arXiv 1311.2901, section 3) saw in their pictures that a few filters of the first
    layer dominated, and renormalised "each filter in the convolutional layers whose RMS value exceeds a fixed
    radius of 10^-1 to this fixed radius". This matters most in conv1, whose inputs ranged over about ±128: the
    radius bounds the response, that is, the filter times its input. For images standardised to a deviation
    of about 1, responses of the same size need a radius about 60 times greater in conv1.

    Args:
        radius: Greatest root mean square of the weights of one filter.
        layers: Dotted names of the convolutions, as the LightningModule's ``named_modules()`` lists them; None
            takes all.

    Raises:
        MisconfigurationException: If the radius is not positive. Before training starts: if a layer does not exist
            or is not a convolution.

    Examples:
        >>> FilterRenormalization(radius=0.1, layers=["model.conv1"]).radius
        0.1
    """

    def __init__(self, radius: float = 0.1, layers: Sequence[str] | None = None) -> None:
        if not radius > 0:
            raise MisconfigurationException(f"radius={radius} is not positive. Pass a positive number.")
        self.radius = radius
        self.layers = layers

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that the layers exist and are convolutions."""
        self._convolutions(pl_module)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Renormalises the filters; without an optimiser step (gradient accumulation), nothing changes."""
        for convolution in self._convolutions(pl_module):
            convolution.weight.copy_(renormalize(convolution.weight, self.radius))

    def _convolutions(self, pl_module: LightningModule) -> list[nn.Conv1d | nn.Conv2d | nn.Conv3d]:
        if self.layers is None:
            modules = list(pl_module.modules())
            return [module for module in modules if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
        convolutions = []
        for name in self.layers:
            try:
                module = get_layer(pl_module, name)
            except LayerError as error:
                raise MisconfigurationException(f"FilterRenormalization: {error}") from error
            if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                raise MisconfigurationException(
                    f"FilterRenormalization: layer {name!r} is a {type(module).__name__}, not a convolution. Name "
                    "convolutions only."
                )
            convolutions.append(module)
        return convolutions


def renormalize(weight: Tensor, radius: float) -> Tensor:
    """Scales each filter whose root mean square exceeds the radius to that radius.

    Args:
        weight: Weights, ``(filters, ...)``.
        radius: Greatest root mean square.

    Returns:
        The weights, of the same shape; filters within the radius are unchanged.

    Examples:
        >>> renormalize(torch.tensor([[3.0, 3.0], [1.0, -1.0]]), radius=2.0)
        tensor([[ 2.,  2.],
                [ 1., -1.]])
    """
    rms = weight.flatten(1).pow(2).mean(1).sqrt()
    scale = torch.where(rms > radius, radius / rms, 1.0).to(weight.dtype)
    return weight * scale.view(-1, *[1] * (weight.ndim - 1))
