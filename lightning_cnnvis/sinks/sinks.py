"""Where pictures and scalars go: image files, and whatever experiment loggers the run has."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning_cnnvis.pictures import Picture, encode_gif, encode_png
from lightning_cnnvis.sinks.atomic import write
from lightning_cnnvis.sinks.loggers import Artefact, flush, log_artefact, log_scalar
from lightning_cnnvis.sinks.tags import tag_path

__all__ = ["SinkError", "Sinks"]


class SinkError(OSError):
    """Something could not be written. The message names each file and logger, and why."""


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
        >>> import numpy as np
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
        ``fast_dev_run`` no files are written. Files in the folder that a killed run left half-written are removed.
        Nothing is written to a remote folder, with a warning.

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
        if "://" in str(log_dir):
            warnings.warn(
                f"Pictures go to the loggers only, since files are not written to {log_dir}: a remote folder.",
                stacklevel=2,
            )
            return cls(trainer.loggers)
        folder = Path(log_dir) / "cnnvis"
        _sweep(folder)
        return cls(trainer.loggers, folder)

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
        self._deliver(Artefact(tag, step, ".png", encode_png(picture), [picture]))

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
        self._deliver(Artefact(tag, step, ".gif", gif, list(frames)))

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
            self._try(_name(logger), log_scalar, logger, tag, value, step)
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
            self._try(_name(logger), flush, logger)
        if error is None:
            self._raise_failures()
        elif not self._open_blocks:
            self._failures = []

    def _deliver(self, artefact: Artefact) -> None:
        path = None
        if self.folder is not None:
            path = self.folder / tag_path(artefact.tag) / f"epoch_{artefact.step:04d}{artefact.suffix}"
            if not self._try(str(path), write, path, artefact.data):
                path = None
        for logger in self.loggers:
            self._try(_name(logger), log_artefact, logger, artefact, path)
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


def _sweep(folder: Path) -> None:
    """Removes half-written files; what cannot be removed does no harm."""
    with suppress(OSError):
        for part in folder.rglob(".*.part"):
            part.unlink(missing_ok=True)


def _name(logger: Any) -> str:
    return f"logger {type(logger).__name__}"
