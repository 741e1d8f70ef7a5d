"""What a training shows of its input and output at its first batch."""

from __future__ import annotations

import warnings
from typing import Any

import pytorch_lightning as pl
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.batches import values_of
from lightning_cnnvis.inputs.feeding import Feeding, find_feeding

_FEW = 32  # images that are compared

_LOSSES_OF_LABELS = (nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss)
_FUNCTIONS_OF_LABELS = (F.binary_cross_entropy_with_logits, F.multilabel_soft_margin_loss)


class Observation:
    """Watches what the network is called with during one batch. It only reads.

    Args:
        network: The network that is trained.
        images: ``(N, C, H, W)``, the images of the batch, before the training step may overwrite them.

    Attributes:
        images: A copy of the first of them.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self._count = len(images)
        self.images = images[:_FEW].detach().to("cpu", copy=True)
        self._inputs: Tensor | None = None
        self._handle = network.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._inputs is not None:
            return
        values = (value for value in values_of([*args, *kwargs.values()]) if isinstance(value, Tensor))
        inputs = next((value for value in values if value.ndim == 4 and value.is_floating_point()), None)
        if inputs is not None:
            # a batch that was cut up or joined with another is compared by its quantiles
            self._inputs = inputs[: _FEW if len(inputs) == self._count else None].detach().to("cpu", copy=True)

    def feeding(self) -> Feeding | None:
        """Finds out what the network was fed.

        Returns:
            The feeding; None if the network was not called, or with something else than the batch's images.
        """
        return None if self._inputs is None else find_feeding(self.images, self._inputs)

    @property
    def seen(self) -> bool:
        """Whether the network was called."""
        return self._inputs is not None

    def end(self) -> None:
        """Stops watching."""
        self._handle.remove()


def learn_formats(observation: Observation, known: InputSpec, *, of_input: bool) -> tuple[InputSpec, InputSpec]:
    """Finds the formats of the network's input and of the batches.

    Args:
        observation: What was seen.
        known: The format that is known.
        of_input: Whether that is the format of the network's input, and not of the batches.

    Returns:
        The formats of the network's input and of the batches. They are one where the network is fed the images of
        the batch, or where it could not be seen what it is fed; a warning then says so.
    """
    if not observation.seen:
        return known, known
    feeding = observation.feeding()
    if feeding is None:
        warnings.warn(
            "The network is fed something else than the images of the batch, such as mixtures of them. If the "
            "pictures' colours look wrong, describe what it is fed: "
            f"input_spec=InputSpec(size={known.size}, mean=..., std=...).",
            stacklevel=2,
        )
        return known, known
    if of_input:
        return known, feeding.spec_of_batch(known, observation.images)
    return feeding.spec_of_inputs(known), known


def has_several_labels(pl_module: pl.LightningModule, batch: Any) -> bool:
    """Tells whether a training shows that the classes do not exclude each other.

    Args:
        pl_module: The LightningModule: it may hold the loss of such logits, or a metric of TorchMetrics for them.
        batch: A batch: its target may have several ones in a row.

    Returns:
        Whether it shows it. A training that does not may have several labels nevertheless.

    Examples:
        >>> import torch
        >>> has_several_labels(pl.LightningModule(), [torch.rand(2, 3, 8, 8), torch.tensor([[1.0, 1.0], [0.0, 1.0]])])
        True
    """
    held: list[Any] = [*pl_module.modules(), *vars(pl_module).values()]
    if any(
        isinstance(one, _LOSSES_OF_LABELS)
        or any(one is function for function in _FUNCTIONS_OF_LABELS)
        or type(one).__name__.startswith("Multilabel")
        for one in held
    ):
        return True
    return any(_is_of_several(value) for value in values_of(batch) if isinstance(value, Tensor))


def _is_of_several(target: Tensor) -> bool:
    """Whether a tensor is a target of zeros and ones, ``(N, K)``, of which a row has other than one."""
    return (
        target.ndim == 2
        and target.shape[1] > 1
        and bool(((target == 0) | (target == 1)).all())
        and bool((target.sum(1) != 1).any())
    )
