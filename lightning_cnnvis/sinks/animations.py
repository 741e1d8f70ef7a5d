"""Moving pictures on the disk: GIF, and MP4 with the optional dependency."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from lightning_utilities.core.imports import module_available
from torch import Tensor

from lightning_cnnvis.pictures import Picture, as_picture, encode_gif
from lightning_cnnvis.sinks.atomic import write


def write_animation(path: str | Path, frames: Iterable[Tensor], *, seconds_per_frame: float = 0.1) -> Path:
    """Writes frames, such as those of `zoom`, as an animation.

    The file appears when it is complete.

    Args:
        path: Ends in ``.gif`` or ``.mp4``. MP4 needs the package imageio with ffmpeg, the extra ``video``.
        frames: ``(C, H, W)`` each, in [0, 1], of one size. Each is taken as it is needed.
        seconds_per_frame: How long a frame is shown.

    Returns:
        The path.

    Raises:
        ValueError: If the path ends otherwise, or there is no frame.
        ModuleNotFoundError: If an MP4 is asked for and imageio is missing.
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "fall.gif"
        >>> write_animation(path, torch.rand(3, 3, 16, 16)).name
        'fall.gif'
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in {".gif", ".mp4"}:
        raise ValueError(f"{path.name!r} is neither .gif nor .mp4: end the name in one of them.")
    if suffix == ".mp4" and not module_available("imageio_ffmpeg"):
        raise ModuleNotFoundError(
            "MP4 needs imageio with ffmpeg: python -m pip install 'lightning-cnnvis[video]'. Or write a .gif.",
            name="imageio_ffmpeg",
        )
    pictures = [as_picture(frame) for frame in frames]
    write(path, encode_gif(pictures, seconds_per_frame) if suffix == ".gif" else _mp4(pictures, seconds_per_frame))
    return path


def _mp4(pictures: list[Picture], seconds_per_frame: float) -> bytes:
    import imageio.v3 as iio  # noqa: PLC0415 - optional

    if not pictures:
        raise ValueError("An animation has at least one frame, but frames is empty.")
    # what every player shows has even sides
    height, width = (side + side % 2 for side in pictures[0].shape[:2])
    even = [np.pad(p, ((0, height - p.shape[0]), (0, width - p.shape[1]), (0, 0)), mode="edge") for p in pictures]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "animation.mp4"
        iio.imwrite(
            file, np.stack(even), plugin="FFMPEG", fps=1 / seconds_per_frame, codec="libx264", macro_block_size=2
        )
        return file.read_bytes()
