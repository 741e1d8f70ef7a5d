"""The photograph that a method works on: named by the user, or the first of the images."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.inputs.photographs import read_photograph
from lightning_cnnvis.methods.subject import Subject


def check_photograph(image: str | Path | Tensor | None) -> None:
    """Checks, before any work, that a photograph can be used.

    Args:
        image: A file, or ``(C, H, W)``; None for the first of the images.

    Raises:
        ValueError: If the file cannot be read, or the tensor is not one photograph.
    """
    if isinstance(image, str | Path):
        read_photograph(image)
    elif image is not None and image.ndim != 3:
        raise ValueError(f"image of shape {tuple(image.shape)}: give one photograph, (C, H, W).")


def photograph_of(subject: Subject, image: str | Path | Tensor | None, size: int | None) -> Tensor:
    """Reads the photograph to work on.

    Args:
        subject: The network, with its images.
        image: A file, or ``(C, H, W)`` in [0, 1]; None for the first of the images.
        size: Longer side in pixels that a larger one is scaled down to; None leaves it.

    Returns:
        ``(C, H, W)`` in [0, 1].
    """
    if isinstance(image, str | Path):
        photograph = read_photograph(image, subject.input_spec.channels)
    elif image is not None:
        photograph = image
    else:
        photograph = subject.images.photograph(subject.input_spec)
    return bounded(photograph, size)


def bounded(picture: Tensor, size: int | None) -> Tensor:
    """Scales a picture ``(C, H, W)`` down, if its longer side is more than ``size`` pixels; None leaves it."""
    return picture if size is None else figures.reduced(picture[None], size)[0].clamp(0, 1)
