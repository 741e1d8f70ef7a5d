"""Describe a network's input: size, channels, normalisation and class names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

OutputKind = Literal["softmax", "sigmoid", "probabilities", "log_probabilities"]
"""What the output of a classifier is; see `InputSpec`."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_SIDE = 2**13
"""Largest height and width in pixels of an input that is taken over from a file that may be anybody's."""


@dataclass(frozen=True)
class InputSpec:
    """Format of the images that a network expects, and the way from them to pictures and back.

    Args:
        size: Height and width in pixels.
        channels: Number of image channels.
        mean: Mean that the data pipeline subtracts from pixels in [0, 1]: one value for each channel, or a single
            value for all of them.
        std: Standard deviation that the data pipeline then divides by, like ``mean``.
        class_names: Names of the classes, in the order of the logits; empty if unknown. With two names for a network
            with one output, that is the second one's.
        output_kind: What a classifier's output is, where it does not show itself: logits, ``"softmax"`` of classes that
            exclude each other, or ``"sigmoid"`` of those that do not; ``"probabilities"``; or ``"log_probabilities"``.
            With None, several values are logits of a softmax, and a single one is that of a sigmoid.

    Raises:
        ValueError: If a size, a channel count or a standard deviation is not positive, or if ``mean`` or
            ``std`` has neither one value nor one for each channel, or there is no such kind of output.

    Examples:
        >>> spec = InputSpec(size=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        >>> spec.normalize(torch.full((1, 3, 64, 64), 0.75)).unique()
        tensor([1.])
        >>> spec.denormalize(torch.ones(1, 3, 64, 64)).unique()
        tensor([0.7500])
    """

    size: tuple[int, int] = (224, 224)
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    class_names: tuple[str, ...] = ()
    output_kind: OutputKind | None = None

    def __post_init__(self) -> None:
        """Checks the values and spreads single means and deviations over the channels."""
        # a YAML file gives lists
        for field in ("size", "mean", "std", "class_names"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size={self.size} is not a height and a width of at least 1 pixel.")
        if self.channels < 1:
            raise ValueError(f"channels={self.channels}: an image has at least 1 channel.")
        for field in ("mean", "std"):
            values: tuple[float, ...] = getattr(self, field)
            if len(values) == 1:
                object.__setattr__(self, field, values * self.channels)
            elif len(values) != self.channels:
                raise ValueError(
                    f"{field}={values} has {len(values)} values for {self.channels} channels: "
                    "give one value, or one for each channel."
                )
        if min(self.std) <= 0:
            raise ValueError(f"std={self.std}: every standard deviation must be positive.")
        if self.output_kind is not None and self.output_kind not in get_args(OutputKind):
            raise ValueError(
                f"output_kind={self.output_kind!r} is none of {', '.join(map(repr, get_args(OutputKind)))}."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(C, H, W)`` of one image."""
        return (self.channels, *self.size)

    def class_name(self, index: int) -> str:
        """Names a class.

        Args:
            index: Number of the class, from 0.

        Returns:
            The name; the number where there is none, and both where another class has the same name.

        Examples:
            >>> [InputSpec(class_names=("crane", "cat", "crane")).class_name(n) for n in (0, 1, 5)]
            ['crane (0)', 'cat', '5']
        """
        name = self.class_names[index] if index < len(self.class_names) else ""
        if not name.strip():
            return str(index)
        return name if self.class_names.count(name) == 1 else f"{name} ({index})"

    def normalize(self, images: Tensor) -> Tensor:
        """Turns pictures into network inputs.

        Args:
            images: ``(..., C, H, W)``, pixels in [0, 1].

        Returns:
            The inputs, of the same shape.
        """
        mean, std = self._statistics(images)
        return (images - mean) / std

    def denormalize(self, inputs: Tensor) -> Tensor:
        """Turns network inputs back into pictures; the inverse of `normalize`.

        Args:
            inputs: ``(..., C, H, W)``.

        Returns:
            Images of the same shape; in [0, 1] if the inputs came from such images. Not clipped.
        """
        mean, std = self._statistics(inputs)
        return inputs * std + mean

    def _statistics(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.ndim < 3 or images.shape[-3] != self.channels:
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not end in ({self.channels}, height, width): "
                f"this input has {self.channels} channels."
            )
        dtype = images.dtype if images.is_floating_point() else torch.float32
        mean, std = (
            torch.tensor(values, dtype=dtype, device=images.device).view(-1, 1, 1) for values in (self.mean, self.std)
        )
        return mean, std
