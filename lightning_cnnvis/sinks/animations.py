"""Animations as files: GIF, and MP4 with an optional dependency."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from lightning_utilities.core.imports import module_available
from torch import Tensor

from lightning_cnnvis.pictures import Picture, as_picture, encode_gif
from lightning_cnnvis.sinks.atomic import located, write


def write_animation(path: str | Path, frames: Iterable[Tensor], *, seconds_per_frame: float = 0.1) -> Path | str:
    """Writes frames, such as those of `zoom`, as an animation.

    The file appears when it is complete.

    Args:
        path: File name that ends in ``.gif`` or ``.mp4``, or the URL of a remote file that fsspec knows. MP4 needs the
            package imageio with ffmpeg, the extra ``video``.
        frames: ``(C, H, W)`` each, in [0, 1], of one size. Each is taken as it is needed.
        seconds_per_frame: How long a frame is shown, in seconds.

    Returns:
        The path; a URL if the file is remote.

    Raises:
        ValueError: If the path has another suffix, or there is no frame.
        ModuleNotFoundError: If the path ends in ``.mp4`` and imageio is missing.
        OSError: If the file cannot be written.

    Examples:
        >>> import tempfile, torch
        >>> path = write_animation(f"{tempfile.mkdtemp()}/fall.gif", torch.rand(3, 3, 16, 16))
        >>> path.name
        'fall.gif'
    """
    file = located(path)
    name = posixpath.basename(file) if isinstance(file, str) else file.name
    suffix = posixpath.splitext(name)[1].lower()
    if suffix not in {".gif", ".mp4"}:
        raise ValueError(f"{name!r} is neither .gif nor .mp4: end the name in one of them.")
    if suffix == ".mp4" and not module_available("imageio_ffmpeg"):
        raise ModuleNotFoundError(
            "MP4 needs imageio with ffmpeg: python -m pip install 'lightning-cnnvis[video]'. Or write a .gif.",
            name="imageio_ffmpeg",
        )
    pictures = [as_picture(frame) for frame in frames]
    write(file, encode_gif(pictures, seconds_per_frame) if suffix == ".gif" else _mp4(pictures, seconds_per_frame))
    return file


def _mp4(pictures: list[Picture], seconds_per_frame: float) -> bytes:
    import imageio.v3 as iio  # noqa: PLC0415 - optional

    if not pictures:
        raise ValueError("An animation has at least one frame, but frames is empty.")
    # some players only show videos with even sides
    height, width = (side + side % 2 for side in pictures[0].shape[:2])
    even = [np.pad(p, ((0, height - p.shape[0]), (0, width - p.shape[1]), (0, 0)), mode="edge") for p in pictures]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "animation.mp4"
        iio.imwrite(
            file, np.stack(even), plugin="FFMPEG", fps=1 / seconds_per_frame, codec="libx264", macro_block_size=2
        )
        return file.read_bytes()
