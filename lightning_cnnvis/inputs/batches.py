"""Find the images in a batch, however it is nested."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

# words in the names of a batch's parts
_IMAGES = {
    "image", "images", "img", "imgs", "pixel", "pixels", "photo", "photos", "picture", "pictures", "frame", "frames",
    "input", "inputs", "x", "rgb", "view", "views",
}  # fmt: skip
_TARGETS = {
    "target", "targets", "label", "labels", "seg", "segmentation", "semantic", "instance", "panoptic", "mask", "masks",
    "gt", "truth", "y", "depth", "heatmap", "heatmaps", "flow", "annotation", "annotations", "box", "boxes", "weight",
    "weights", "edge", "edges", "trimap", "alpha", "normals", "keypoints",
}  # fmt: skip


def images_of(batch: Any, get_images: str | Callable[[Any], Tensor] | None = None) -> Tensor:
    """Finds the images of a batch.

    Args:
        batch: A tensor, or a sequence, mapping, named tuple or dataclass with one in it, nested to any depth. Parts
            that are named like images (``image``, ``img``, ``pixel_values``, ``inputs``, ``x``) come first, those that
            are named like targets (``mask``, ``seg``, ``label``, ``depth``) last.
        get_images: Function that takes the batch and returns its images, or the dotted name of one,
            ``"package.module.function"``. None: the first tensor ``(N, C, H, W)`` is taken.

    Returns:
        The images, ``(N, C, H, W)``.

    Raises:
        ValueError: If there is no such tensor, or no such function.

    Examples:
        >>> images_of([torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])]).shape
        torch.Size([2, 3, 8, 8])
        >>> images_of({"seg": torch.zeros(2, 1, 8, 8), "img": torch.zeros(2, 3, 8, 8)}).shape
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


def labels_of(batch: Any, count: int) -> list[int] | None:
    """Finds the classes of a batch's images.

    Args:
        batch: The batch; see `images_of`.
        count: The number of its images.

    Returns:
        The number of each image's class, from the last tensor of ``count`` integers; None if there is none.

    Examples:
        >>> labels_of([torch.zeros(2, 3, 8, 8), torch.tensor([4, 1])], 2)
        [4, 1]
    """
    found = [
        value
        for value in values_of(batch)
        if isinstance(value, Tensor)
        and value.shape in ((count,), (count, 1))
        and not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    ]
    return [int(label) for label in found[-1].flatten()] if found else None


def values_of(batch: Any) -> Iterator[Any]:
    """Goes through everything in a nested batch, likely images first.

    Args:
        batch: The batch.

    Yields:
        What has no parts of its own.
    """
    named = named_parts(batch)
    if named is not None:
        for name in sorted(named, key=_rank):
            yield from values_of(named[name])
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from values_of(value)
    else:
        yield batch


def named_parts(batch: Any) -> Mapping[Any, Any] | None:
    """Takes apart what names its parts.

    Args:
        batch: Anything.

    Returns:
        The parts by name of a mapping, a named tuple or a dataclass; None for anything else.
    """
    if isinstance(batch, Mapping):
        return batch
    if isinstance(batch, tuple) and hasattr(batch, "_asdict"):
        return batch._asdict()  # type: ignore[no-any-return]
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    if not isinstance(batch, Tensor) and hasattr(batch, "keys") and hasattr(batch, "__getitem__"):
        return {key: batch[key] for key in batch.keys()}  # noqa: SIM118 - such as a TensorDict, which is no mapping
    return None


def _rank(name: object) -> int:
    """Ranks a part by its name: an image first, a target last."""
    words = set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name)).lower()))
    return 2 if words & _TARGETS else 0 if words & _IMAGES else 1


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
    named = named_parts(value)
    if named is not None:
        kind = "mapping" if isinstance(value, Mapping) else type(value).__name__
        return f"a {kind} with " + (", ".join(f"{key!r}: {_describe(v)}" for key, v in named.items()) or "no keys")
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
