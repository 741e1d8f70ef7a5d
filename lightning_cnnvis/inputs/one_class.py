"""Images of one class, out of all images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class OneClassError(ValueError):
    """There are too few images of a class. The message says of which, and what to do."""


def of_one_class(
    labelled: Iterable[tuple[Tensor, Sequence[int | str]]], count: int, wanted: Sequence[int | str] = ()
) -> Tensor:
    """Takes the first images of one class.

    Args:
        labelled: Batches ``(N, C, H, W)``, each with the classes of its images.
        count: Number of images.
        wanted: Number and name of the class; that of which there are enough images first if empty.

    Returns:
        ``(count, C, H, W)``; those of the class with most images where there are fewer.

    Raises:
        OneClassError: If there are fewer than two images of a class.
    """
    found: dict[int | str, list[Tensor]] = {}
    for images, labels in labelled:
        for image, label in zip(images, labels, strict=True):
            if not wanted or label in wanted:
                of_class = found.setdefault(label, [])
                of_class.append(image)
                if len(of_class) == count:
                    return torch.stack(of_class)
    best = max(found.values(), key=len, default=[])
    if len(best) < 2:
        named = f"class {wanted[0]!r}" if wanted else "one class"
        raise OneClassError(f"There are fewer than two images of {named}. Give images, or parts in a file.")
    return torch.stack(best)
