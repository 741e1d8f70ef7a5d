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
    """Encodes a picture as PNG.

    Args:
        picture: ``(H, W, 3)``, uint8.

    Returns:
        The content of a PNG file.

    Raises:
        ValueError: If the picture has another shape or type, or no pixel.

    Examples:
        >>> encode_png(np.zeros((2, 2, 3), dtype=np.uint8))[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    Image.fromarray(_checked(picture)).save(buffer, "PNG", compress_level=_PNG_COMPRESSION)
    return buffer.getvalue()


def encode_gif(frames: Sequence[Picture], seconds_per_frame: float) -> bytes:
    """Encodes pictures as a GIF that plays for ever.

    Args:
        frames: Pictures of one shape ``(H, W, 3)``, uint8.
        seconds_per_frame: How long a frame is shown, in seconds; at least 0.02.

    Returns:
        The content of a GIF file.

    Raises:
        ValueError: If there is no frame, or if a frame has another shape or type.

    Examples:
        >>> encode_gif([np.zeros((2, 2, 3), dtype=np.uint8)], 0.1)[:6]
        b'GIF89a'
    """
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
    """Rounds pictures to bytes. NaN becomes 0, and channels other than three become their mean.

    Args:
        pictures: ``(N, C, H, W)`` in [0, 1]; values outside are clipped.

    Returns:
        ``(N, 3, H, W)``, uint8, on the CPU.

    Examples:
        >>> import torch
        >>> as_bytes(torch.tensor([0.0, 0.5, 2.0]).reshape(1, 3, 1, 1)).flatten()
        tensor([  0, 128, 255], dtype=torch.uint8)
    """
    if pictures.shape[1] != 3:
        pictures = pictures.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return pictures.detach().float().nan_to_num().clamp(0, 1).mul(255).round().byte().cpu()


def from_bytes(pictures: Tensor) -> Tensor:
    """Scales pictures of bytes to [0, 1].

    Args:
        pictures: uint8 of any shape.

    Returns:
        The same shape, float32 whatever torch's default dtype is.

    Examples:
        >>> import torch
        >>> from_bytes(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([0., 1.])
    """
    return pictures.float() / 255


def as_picture(frame: Tensor) -> Picture:
    """Turns a frame into a picture.

    Args:
        frame: ``(C, H, W)`` in [0, 1]; values outside are clipped.

    Returns:
        ``(H, W, 3)``, uint8.

    Examples:
        >>> import torch
        >>> as_picture(torch.ones(1, 2, 4)).shape
        (2, 4, 3)
    """
    return as_bytes(frame[None])[0].permute(1, 2, 0).contiguous().numpy()
