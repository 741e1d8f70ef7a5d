"""Pictures as arrays and as encoded files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

Picture = npt.NDArray[np.uint8]
"""``(height, width, 3)``, ``uint8``."""

# 1 is four times faster than Pillow's default of 6, for files that are 10 to 20 % larger
_PNG_COMPRESSION = 1


def encode_png(picture: Picture) -> bytes:
    """Encodes a picture of shape ``(H, W, 3)`` as PNG.

    Example:
        >>> encode_png(np.zeros((2, 2, 3), dtype=np.uint8))[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    Image.fromarray(_checked(picture)).save(buffer, "PNG", compress_level=_PNG_COMPRESSION)
    return buffer.getvalue()


def encode_gif(frames: Sequence[Picture], seconds_per_frame: float) -> bytes:
    """Encodes pictures of one shape ``(H, W, 3)`` as a GIF that plays for ever."""
    if not frames:
        raise ValueError("An animation has at least one frame, but frames is empty.")
    shapes = sorted({_checked(frame).shape for frame in frames})
    if len(shapes) > 1:
        raise ValueError(f"The frames have different shapes, {shapes}: an animation needs one.")
    # dithering would flicker from frame to frame, and costs half of the file
    first, *rest = (Image.fromarray(frame).quantize(dither=Image.Dither.NONE) for frame in frames)
    buffer = io.BytesIO()
    duration = max(round(1000 * seconds_per_frame), 20)  # browsers slow down what claims to be faster
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=duration, loop=0)
    return buffer.getvalue()


def _checked(picture: Picture) -> Picture:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise ValueError(
            f"A picture is a uint8 array of shape (height, width, 3), not {picture.dtype} {picture.shape}."
        )
    return picture


def as_bytes(pictures: Tensor) -> Tensor:
    """Pictures ``(N, C, H, W)`` in [0, 1] as ``uint8`` of three channels, on the CPU."""
    if pictures.shape[1] != 3:
        pictures = pictures.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return pictures.detach().float().nan_to_num().clamp(0, 1).mul(255).round().byte().cpu()


def as_picture(frame: Tensor) -> Picture:
    """A frame ``(C, H, W)`` in [0, 1] as ``(H, W, 3)``, uint8."""
    return as_bytes(frame[None])[0].permute(1, 2, 0).contiguous().numpy()
