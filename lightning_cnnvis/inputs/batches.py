"""Find the images in a batch, however it is nested."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

_IMAGE_KEYS = ("images", "image", "pixel_values", "inputs", "x")


def images_of(batch: Any, get_images: str | Callable[[Any], Tensor] | None = None) -> Tensor:
    """Finds the images of a batch.

    Args:
        batch: A tensor, or a sequence or mapping with one in it, nested to any depth. In a mapping the keys
            ``images``, ``image``, ``pixel_values``, ``inputs`` and ``x`` come first.
        get_images: Function that takes the batch and returns its images, or the dotted name of one,
            ``"package.module.function"``. None: the first tensor ``(N, C, H, W)`` is taken.

    Returns:
        The images, ``(N, C, H, W)``.

    Raises:
        ValueError: If there is no such tensor, or no such function.

    Example:
        >>> images_of([torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])]).shape
        torch.Size([2, 3, 8, 8])
        >>> images_of({"mask": torch.zeros(2, 1, 8, 8), "image": torch.zeros(2, 3, 8, 8)}).shape
        torch.Size([2, 3, 8, 8])
    """
    if get_images is not None:
        found: Any = (_function(get_images) if isinstance(get_images, str) else get_images)(batch)
        if not _is_images(found):
            raise ValueError(f"get_images={get_images!r} returned {_describe(found)}, not a tensor (N, C, H, W).")
        return found
    for value in values_of(batch):
        if _is_images(value):
            return value
    raise ValueError(
        f"The batch contains no tensor (N, C, H, W): it is {_describe(batch)}. Name a function that takes the batch "
        "and returns its images: get_images='package.module.function'."
    )


def _is_images(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim == 4 and (value.is_floating_point() or value.dtype == torch.uint8)


def values_of(batch: Any) -> Iterator[Any]:
    """Goes through everything in a nested batch, likely images first.

    Args:
        batch: The batch.

    Yields:
        What is neither a mapping nor a sequence.
    """
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
        raise ValueError(f"get_images={name!r} is not the dotted name of a function that can be imported.") from error
    if not callable(function):
        raise ValueError(f"get_images={name!r} is a {type(function).__name__}, not a function.")
    return function  # type: ignore[no-any-return]
