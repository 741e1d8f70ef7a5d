"""Where pictures and scalars go: image files, and whatever experiment loggers the run has."""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = npt.NDArray[np.uint8]

# 1 is four times faster than Pillow's default of 6, for files that are 10 to 20 % larger
_PNG_COMPRESSION = 1


class SinkError(OSError):
    """Something could not be written. The message names each file and logger, and why."""


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


def tag_path(tag: str) -> PurePosixPath:
    """The relative folder for the pictures of a tag; safe on every file system.

    The parts between slashes become folders. What could leave the folder or is not allowed in a file name is
    replaced, and a short hash is appended then, so that distinct tags keep distinct folders.

    Args:
        tag: Any text, such as ``"deconvnet/features.3"``.

    Returns:
        A relative path without ``..``.

    Example:
        >>> print(tag_path("deconvnet/features.3"))
        deconvnet/features.3
        >>> print(tag_path("class/../<b>cat</b>"))
        class/_-5ec1f7e7/_b_cat_-9543b436/b_-08a37669
    """
    # no deeper than four folders, however many slashes a class name has
    return PurePosixPath(*(_safe_part(part) for part in tag.split("/", 3)))


_UNSAFE = re.compile(r"[^\w .,+=@()-]+")
_RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
_MAX_BYTES = 120


def _safe_part(part: str) -> str:
    safe = _UNSAFE.sub("_", unicodedata.normalize("NFC", part))
    safe = safe.encode()[:_MAX_BYTES].decode(errors="ignore").strip(" .")
    if _RESERVED_ON_WINDOWS.fullmatch(safe):
        safe = f"_{safe}"
    if safe != part or not safe:
        digest = hashlib.sha256(part.encode(errors="surrogatepass")).hexdigest()[:8]
        safe = f"{safe or '_'}-{digest}"
    return safe


class Sinks:
    """Writes pictures to files and to loggers, and scalars to loggers.

    A logger is used by what it can do: TensorBoard, Weights & Biases, MLflow, Comet and Aim show pictures,
    others get the scalars. Files are always written, to ``<folder>/<tag>/epoch_0005.png``, under a temporary
    name first, so that nobody reads half a picture.

    Everything is logged at ``step`` = epoch, counted from 1: pictures and scalars share that axis.

    A sink that fails does not stop the others. What failed is raised as one `SinkError` when all were tried:
    at the end of the ``with`` block if there is one, else by the method itself.

    Args:
        loggers: Lightning loggers; none by default.
        folder: Where the files go. None: no files.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with Sinks(folder=folder) as sinks:
        ...     sinks.picture("deconvnet/conv1", np.zeros((8, 8, 3), dtype=np.uint8), step=5)
        >>> print(*(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")))
        deconvnet/conv1/epoch_0005.png
    """

    def __init__(self, loggers: Sequence[Any] = (), folder: str | Path | None = None) -> None:
        self.loggers = tuple(loggers)
        self.folder = None if folder is None else Path(folder)
        self._open_blocks = 0
        self._failures: list[str] = []

    @classmethod
    def of(cls, trainer: Any) -> Sinks:
        """The sinks of a run: its loggers, and the folder ``cnnvis`` beside the run's checkpoints.

        Every rank must call this (Lightning broadcasts the folder); only rank 0 gets sinks that write. With
        ``fast_dev_run`` no files are written.

        Args:
            trainer: A Lightning ``Trainer`` that has set up its strategy.
        """
        log_dir = trainer.log_dir
        if not trainer.is_global_zero:
            return cls()
        if trainer.fast_dev_run:
            return cls(trainer.loggers)
        if trainer.loggers and not isinstance(getattr(trainer.loggers[0], "log_dir", None), (str, Path)):
            # loggers without a folder of their own share a save_dir: keep runs apart as ModelCheckpoint does
            logger = trainer.loggers[0]
            parts = [log_dir or trainer.default_root_dir, logger.name, logger.version]
            log_dir = os.path.join(*(str(part) for part in parts if part not in {None, ""}))
        elif trainer.loggers:
            log_dir = trainer.loggers[0].log_dir
        return cls(trainer.loggers, Path(log_dir) / "cnnvis")

    def picture(self, tag: str, picture: Picture, step: int) -> None:
        """Writes a picture.

        Args:
            tag: Name of the picture; what is before the first slash groups it in TensorBoard.
            picture: ``(H, W, 3)``, uint8.
            step: The epoch, counted from 1.

        Raises:
            ValueError: If the picture has another shape or type.
            SinkError: If a file or a logger failed; inside a ``with`` block at its end.
        """
        self._deliver(_Artefact(tag, step, ".png", encode_png(picture), [picture]))

    def animation(self, tag: str, frames: Sequence[Picture], step: int, *, seconds_per_frame: float = 0.25) -> None:
        """Writes an animation, as GIF.

        Args:
            tag: Name of the animation.
            frames: Pictures of one shape ``(H, W, 3)``, uint8.
            step: The epoch, counted from 1.
            seconds_per_frame: How long a frame is shown.

        Raises:
            ValueError: If there is no frame, or if a frame has another shape or type.
            SinkError: Like `picture`.
        """
        gif = encode_gif(frames, seconds_per_frame)
        self._deliver(_Artefact(tag, step, ".gif", gif, list(frames)))

    def table(self, tag: str, csv: str) -> None:
        """Writes a table to ``<folder>/<tag>.csv``. It goes to the files only.

        Args:
            tag: Name of the table.
            csv: Its lines.

        Raises:
            SinkError: Like `picture`.
        """
        if self.folder is not None:
            path = self.folder / tag_path(tag)
            path = path.with_name(f"{path.name}.csv")
            self._try(str(path), write, path, csv.encode())
        self._raise_failures()

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Logs a number. It goes to the loggers only.

        Args:
            tag: Name of the curve.
            value: The number.
            step: The epoch, counted from 1.

        Raises:
            SinkError: If a logger failed; inside a ``with`` block at its end.
        """
        for logger in self.loggers:
            self._try(_name(logger), _log_scalar, logger, _text(tag), value, step)
        self._raise_failures()

    def __enter__(self) -> Sinks:
        """Gathers failures until the end of the block."""
        self._open_blocks += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Makes the loggers show what they have, and raises what failed unless the block itself did."""
        self._open_blocks -= 1
        for logger in self.loggers:
            self._try(_name(logger), _flush, logger)
        if error is None:
            self._raise_failures()
        elif not self._open_blocks:
            self._failures = []

    def _deliver(self, artefact: _Artefact) -> None:
        path = None
        if self.folder is not None:
            path = self.folder / tag_path(artefact.tag) / f"epoch_{artefact.step:04d}{artefact.suffix}"
            if not self._try(str(path), write, path, artefact.data):
                path = None
        for logger in self.loggers:
            self._try(_name(logger), _log, logger, artefact, path)
        self._raise_failures()

    def _try(self, target: str, write: Callable[..., object], *args: object) -> bool:
        try:
            write(*args)
        except Exception as error:  # a logger may raise anything
            self._failures.append(f"{target} ({type(error).__name__}: {error})")
            return False
        return True

    def _raise_failures(self) -> None:
        if self._failures and not self._open_blocks:
            # a full disk fails for every picture in the same way
            failures = list(dict.fromkeys(self._failures))
            shown, more = failures[:3], len(failures) - 3
            self._failures = []
            raise SinkError(f"Could not write to {'; '.join(shown)}{f' and {more} more' if more > 0 else ''}.")


@dataclass(frozen=True)
class _Artefact:
    """An encoded picture (one frame) or animation."""

    tag: str
    step: int
    suffix: str
    data: bytes
    frames: list[Picture]


def write(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name and then renames it, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _log(logger: Any, artefact: _Artefact, path: Path | None) -> None:
    """Shows an artefact in a logger that can, found out by the methods it has."""
    experiment: Any = getattr(logger, "experiment", None)
    tag, step, picture, still = _text(artefact.tag), artefact.step, artefact.frames[0], len(artefact.frames) == 1
    if hasattr(experiment, "add_image"):
        _log_tensorboard(experiment, tag, artefact)
    elif hasattr(logger, "log_image"):  # Weights & Biases, whose own steps only ever go up: the epoch is a caption
        caption = [f"epoch {step}"]
        if still:
            logger.log_image(key=tag, images=[picture], caption=caption)
        elif path is not None:
            logger.log_video(key=tag, videos=[str(path)], caption=caption, format=["gif"])
    elif hasattr(experiment, "log_image"):
        if "run_id" in inspect.signature(experiment.log_image).parameters:  # MLflow
            key = re.sub(r"[^\w\-. /]", "_", str(tag_path(tag)), flags=re.ASCII)
            if still:
                experiment.log_image(logger.run_id, picture, key=key, step=step)
            elif path is not None:
                experiment.log_artifact(logger.run_id, str(path), key)
        elif still:  # Comet
            experiment.log_image(picture, name=tag, step=step)
        elif path is not None and hasattr(experiment, "log_video"):
            experiment.log_video(str(path), name=tag, step=step)
    elif hasattr(experiment, "track") and type(experiment).__module__.split(".")[0] == "aim":
        import aim  # noqa: PLC0415 - only there if the user has it

        experiment.track(aim.Image(Image.open(io.BytesIO(artefact.data))), name=tag, step=step)


def _log_tensorboard(writer: Any, tag: str, artefact: _Artefact) -> None:
    height, width, _ = artefact.frames[0].shape
    try:
        from tensorboard.compat.proto.summary_pb2 import (  # type: ignore[import-untyped]  # noqa: PLC0415
            Summary,
        )

        # as add_image does, which would encode the picture a second time and knows no GIF
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=artefact.data)
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        writer._get_file_writer().add_summary(summary, artefact.step)
    except (ImportError, AttributeError, TypeError):  # a writer of another make, tensorboardX for one
        writer.add_image(tag, artefact.frames[0], artefact.step, dataformats="HWC")


def _log_scalar(logger: Any, tag: str, value: float, step: int) -> None:
    logger.log_metrics({tag: value}, step=step)


def _flush(logger: Any) -> None:
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_image"):  # TensorBoard would wait for two minutes
        experiment.flush()


def _text(tag: str) -> str:
    """The tag without what a log file cannot hold: control characters, broken unicode."""
    tag = tag.encode(errors="replace").decode()
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", tag)


def _name(logger: Any) -> str:
    return f"logger {type(logger).__name__}"
