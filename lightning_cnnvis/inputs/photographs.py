"""Photographs: find the files, read them whatever their format, and fit them to a network's input."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from lightning_cnnvis.inputs.spec import InputSpec

IMAGE_SUFFIXES: tuple[str, ...] = torchvision.datasets.folder.IMG_EXTENSIONS

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_DEPTHS = (8, 10, 12, 14, 16)
"""Bits a pixel that cameras and scanners have; files of 16 and 32 bits may use fewer than they have room for."""
_MANY_PIXELS = 2**25
"""A picture of more pixels is reduced while it is read, where only a smaller one is wanted."""
_MANY_TIMES = 64
"""A picture is cut before it is scaled if it would come out with more than so many times the input's pixels."""
_LEAST_SHARE = 0.8
_USUAL_SHARE = 224 / 256
"""Share of the scaled photograph's shorter side that published networks see: 224 of 256 pixels, as a rule."""


class PhotographError(ValueError):
    """A file that cannot be read as a picture. The message names it and says why."""


def find_photographs(folder: Path) -> list[Path]:
    """Lists the image files in a folder and those below it.

    Linked folders are followed, each once. Hidden files and folders, whose names begin with a dot, are left out.

    Args:
        folder: The folder.

    Returns:
        The files, sorted.
    """
    found: list[Path] = []
    seen: set[Path] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        known = Path(place).resolve() in seen
        seen.add(Path(place).resolve())
        folders[:] = [] if known else [name for name in folders if not name.startswith(".")]
        if not known:
            found += [Path(place, name) for name in files if is_photograph(Path(name))]
    return sorted(found)


def is_photograph(path: str | Path) -> bool:
    """Whether a file's name is that of an image, and not hidden.

    Args:
        path: The file; it is not read.

    Returns:
        True for the suffixes that torchvision's ImageFolder takes, in any case.

    Examples:
        >>> is_photograph("cat.JPG"), is_photograph("notes.txt"), is_photograph("set/._cat.jpg")
        (True, False, False)
    """
    path = Path(path)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def read_photograph(path: str | Path, channels: int = 3, *, size: tuple[int, int] | None = None) -> Tensor:
    """Reads a photograph as a viewer shows it: upright, as its EXIF orientation says.

    Pictures of more than 8 bits a pixel are scaled by their range: integers by the largest value of their depth, which
    is the smallest of 8, 10, 12, 14 and 16 bits, or of more, that holds them all; floats in [0, 1] are taken as they
    are, those in [0, 255] as bytes, and others, and negative integers, are stretched from the smallest value to the
    largest. Values that are not numbers become the smallest.

    Args:
        path: The file, in any format that Pillow reads; the first picture of several.
        channels: Number of channels: 1 for grey, 2 with alpha, 3 for RGB, 4 with alpha. The picture is converted;
            without an alpha channel it is opaque.
        size: Height and width in pixels that are wanted of it, as `fit_photograph` then cuts them out. Very large
            pictures are reduced while they are read, to no less than twice that. None reads every pixel.

    Returns:
        ``(channels, H, W)``, float32 in [0, 1].

    Raises:
        PhotographError: If it is not there, is not a picture, is damaged, or has more pixels than Pillow takes for safe
            (``PIL.Image.MAX_IMAGE_PIXELS``).
        ValueError: If a photograph cannot have so many channels.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "grey.png"
        >>> Image.fromarray(np.array([[0, 4095]], dtype=np.uint16)).save(file)
        >>> read_photograph(file, channels=1)
        tensor([[[0., 1.]]])
    """
    return _pixels(path, channels, size).contiguous()


def read_fitted(path: str | Path, channels: int, size: tuple[int, int], resize: int | None = None) -> Tensor:
    """Reads a photograph and fits it to a network's input, as `read_photograph` and `fit_photograph` do in turn.

    It takes a tenth less time than the two, since the whole photograph is never laid out channel by channel.

    Args:
        path: The file.
        channels: Number of channels.
        size: Height and width of the input in pixels.
        resize: Size in pixels that the shorter side is brought to before the cut; see `fit_photograph`.

    Returns:
        ``(channels, *size)``, float32 in [0, 1].

    Raises:
        PhotographError: If it cannot be read, as for `read_photograph`.
        ValueError: If a photograph cannot have so many channels.
    """
    return fit_photograph(_pixels(path, channels, size), size, resize).contiguous()


def _pixels(path: str | Path, channels: int, size: tuple[int, int] | None) -> Tensor:
    """What `read_photograph` returns, in any memory layout."""
    if channels not in _MODES:
        raise ValueError(f"A photograph cannot have {channels} channels. Give images as a tensor or by a data module.")
    with _readable(path):
        with _no_warning_of_size(), Image.open(path) as image:
            _check_size(image)
            whole = _oriented(image, size)
        if not _is_deep(whole):
            values = torch.from_numpy(np.array(whole.convert(_MODES[channels])))
            return values.to(torch.float32).div_(255).view(whole.height, whole.width, channels).permute(2, 0, 1)
        grey = torch.from_numpy(_scaled(np.asarray(whole)))[None]
        opaque = torch.ones_like(grey)
        return torch.cat({1: [grey], 2: [grey, opaque], 3: [grey] * 3, 4: [grey] * 3 + [opaque]}[channels])


def open_photograph(path: str | Path) -> Image.Image:
    """Opens a photograph for transforms that take pictures of Pillow, read as `read_photograph` does.

    Args:
        path: The file.

    Returns:
        The picture, RGB, of 8 bits a channel.

    Raises:
        PhotographError: If it cannot be read, as for `read_photograph`.
    """
    with _readable(path):
        with _no_warning_of_size(), Image.open(path) as image:
            _check_size(image)
            whole = _oriented(image, None)
        if _is_deep(whole):
            whole = Image.fromarray((_scaled(np.asarray(whole)) * 255).round().astype(np.uint8))
        return whole.convert("RGB")


def fit_photograph(photo: Tensor, size: tuple[int, int], resize: int | None = None) -> Tensor:
    """Scales a photograph so that it covers a network's input, and cuts out the centre.

    Args:
        photo: ``(C, H, W)`` in [0, 1].
        size: Height and width of the input in pixels. A photograph of exactly this size comes through untouched.
        resize: Size in pixels that the shorter side is brought to before the cut, where that is larger: networks with
            published weights see seven eighths of it as a rule. A size that would leave less than four fifths belongs
            to inputs of another size: seven eighths are taken then.

    Returns:
        ``(C, *size)`` in [0, 1].

    Examples:
        >>> fit_photograph(torch.rand(3, 40, 100), (24, 32)).shape
        torch.Size([3, 24, 32])
    """
    height, width = size
    shorter = max(resize or 0, min(size))
    if min(size) < _LEAST_SHARE * shorter:
        shorter = round(min(size) / _USUAL_SHARE)
    # the least height and width that the scaled photograph must have
    least = tuple(shorter if side == min(size) else round(side * shorter / min(size)) for side in size)
    scaled_height, scaled_width = _covering(photo.shape[-2:], least)
    if scaled_height * scaled_width > _MANY_TIMES * least[0] * least[1]:
        photo = _shortened(photo, least)
        scaled_height, scaled_width = _covering(photo.shape[-2:], least)
    scaled = v2.functional.resize(photo, [scaled_height, scaled_width], antialias=True)
    fitted: Tensor = v2.functional.center_crop(scaled, [height, width]).clamp(0, 1)
    return fitted


def check_photographs(images: Sequence[str | Path] | Tensor | None) -> None:
    """Refuses what cannot be taken for photographs, before there is a network.

    Args:
        images: Files, or ``(N, C, H, W)``; None is fine.

    Raises:
        ValueError: If a tensor has another shape.
        PhotographError: If a file cannot be read.
    """
    if isinstance(images, Tensor):
        if images.ndim != 4:
            raise ValueError(f"images of shape {tuple(images.shape)}: give images of one size, (N, C, H, W).")
    else:
        for path in images or ():
            read_photograph(path)


def read_photographs(images: Sequence[str | Path] | Tensor, spec: InputSpec) -> Tensor:
    """Reads photographs at a network's input size.

    Args:
        images: Files, which are cut to the input size; a tensor is taken as it is.
        spec: The network's input.

    Returns:
        ``(N, C, H, W)`` in [0, 1].

    Raises:
        PhotographError: If a file cannot be read.
    """
    if isinstance(images, Tensor):
        return images
    return torch.stack([fit_photograph(read_photograph(path, spec.channels), spec.size) for path in images])


def _covering(shape: tuple[int, ...], least: tuple[int, ...]) -> tuple[int, int]:
    """Height and width that a picture is scaled to, so that it is just as high or as wide as it must be."""
    (height, width), (high, wide) = shape, least
    if height * wide <= width * high:
        return high, max(wide, int(high * width / height))
    return max(high, int(wide * height / width)), wide


def _shortened(photo: Tensor, least: tuple[int, ...]) -> Tensor:
    """Cuts the ends off a picture that is far too long, so that scaling it does not ask for the memory of all of it."""
    height, width = photo.shape[-2:]
    high = min(height, 8 * max(1, round(width * least[0] / least[1])))
    wide = min(width, 8 * max(1, round(height * least[1] / least[0])))
    middle: Tensor = v2.functional.center_crop(photo, [high, wide])
    return middle


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    try:
        yield
    # what Pillow raises at files that are damaged, or too large
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotographError(f"{str(path)!r} cannot be read as a picture: {error}") from error


@contextmanager
def _no_warning_of_size() -> Iterator[None]:
    """What Pillow warns of is refused here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _check_size(image: Image.Image) -> None:
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        raise ValueError(f"it has {image.width}×{image.height} pixels, more than PIL.Image.MAX_IMAGE_PIXELS, {most}")


def _oriented(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """The whole picture, upright; where only a size is wanted, very large ones reduced."""
    if size is not None and image.width * image.height > _MANY_PIXELS:
        enough = 2 * max(size)
        image.draft(None, (enough, enough))  # JPEG: decoded at a half, a quarter or an eighth of the size
        image.load()
        image = ImageOps.exif_transpose(image)
        factor = min(image.size) // enough
        if factor > 1 and (_is_deep(image) or image.mode in {"1", "P", "PA"}):  # have no means
            return image.resize((image.width // factor, image.height // factor), Image.Resampling.NEAREST)
        return image.reduce(factor) if factor > 1 else image
    return ImageOps.exif_transpose(image)


def _is_deep(image: Image.Image) -> bool:
    """Whether a picture has more than 8 bits a pixel, in a single channel: ``I;16`` and its kin, ``I`` and ``F``."""
    return image.mode[0] in "IF"


def _scaled(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Scales values to [0, 1] by their range; see `read_photograph`."""
    numbers: NDArray[np.float64] = values.astype(np.float64)
    finite = np.isfinite(numbers)
    low, high = (numbers[finite].min(), numbers[finite].max()) if finite.any() else (0.0, 0.0)
    numbers = np.where(finite, numbers, low)
    if low < 0 or (values.dtype.kind == "f" and high > 255):
        numbers, top = numbers - low, max(high - low, np.finfo(np.float64).tiny)
    elif values.dtype.kind == "f":
        top = 255 if high > 1 else 1
    else:
        needed = int(high).bit_length()
        top = 2 ** next((depth for depth in _DEPTHS if depth >= needed), needed) - 1
    scaled: NDArray[np.float32] = (numbers / top).astype(np.float32)
    return scaled
