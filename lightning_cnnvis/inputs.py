"""What the network's input looks like: size, channels, normalisation and class names."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """The images a network expects, and how to go from them to pictures and back.

    Args:
        size: Height and width in pixels.
        channels: Number of image channels.
        mean: Mean that the data pipeline subtracts from pixels in [0, 1], one value for each channel. A
            single value is taken for every channel.
        std: Standard deviation that the data pipeline divides by, like ``mean``.
        class_names: Names of the classes, in the order of the logits. Empty when unknown.

    Raises:
        ValueError: If a size, a channel count or a standard deviation is not positive, or if ``mean`` or
            ``std`` has neither one value nor one for each channel.

    Example:
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

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(C, H, W)`` of one image."""
        return (self.channels, *self.size)

    def class_name(self, index: int) -> str:
        """The name of a class: its number where it has none, and with its number where another has the same."""
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


_IMAGE_KEYS = ("images", "image", "pixel_values", "inputs", "x")


def images_of(batch: Any, images: str | Callable[[Any], Tensor] | None = None) -> Tensor:
    """The images of a batch.

    Args:
        batch: A tensor, or a sequence or mapping with one in it, nested as it may be. In a mapping the keys
            ``images``, ``image``, ``pixel_values``, ``inputs`` and ``x`` come first.
        images: Function that takes the batch and returns its images, or the dotted name of one,
            ``"package.module.function"``. None: the first tensor ``(N, C, H, W)`` is taken.

    Returns:
        ``(N, C, H, W)``.

    Raises:
        ValueError: If there is no such tensor, or no such function.

    Example:
        >>> images_of([torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])]).shape
        torch.Size([2, 3, 8, 8])
        >>> images_of({"mask": torch.zeros(2, 1, 8, 8), "image": torch.zeros(2, 3, 8, 8)}).shape
        torch.Size([2, 3, 8, 8])
    """
    if images is not None:
        found: Any = (_function(images) if isinstance(images, str) else images)(batch)
        if not _is_images(found):
            raise ValueError(f"images={images!r} returned {_describe(found)}, not a tensor (N, C, H, W).")
        return found
    for value in values_of(batch):
        if _is_images(value):
            return value
    raise ValueError(
        f"The batch holds no tensor (N, C, H, W): it is {_describe(batch)}. Name a function that takes the batch "
        "and returns its images: images='package.module.function'."
    )


def _is_images(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim == 4 and (value.is_floating_point() or value.dtype == torch.uint8)


def values_of(batch: Any) -> Iterator[Any]:
    """Everything in a nested batch, likely images first."""
    if isinstance(batch, Mapping):
        first = [key for key in _IMAGE_KEYS if key in batch]
        for key in (*first, *(key for key in batch if key not in first)):
            yield from values_of(batch[key])
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from values_of(value)
    else:
        yield batch


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
    if isinstance(value, Mapping):
        return "a mapping with " + (", ".join(f"{key!r}: {_describe(v)}" for key, v in value.items()) or "no keys")
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of " + (", ".join(map(_describe, value[:4])) or "nothing")
    return f"a {type(value).__name__}"


def _function(name: str) -> Callable[[Any], Any]:
    module, _, attribute = name.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"images={name!r} is not the dotted name of a function that can be imported.") from error
    if not callable(function):
        raise ValueError(f"images={name!r} is a {type(function).__name__}, not a function.")
    return function  # type: ignore[no-any-return]
