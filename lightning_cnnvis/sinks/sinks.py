"""All the sinks of a run as one: its files and its loggers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from operator import methodcaller
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any

from lightning_cnnvis.pictures import Picture, encode_gif, encode_png
from lightning_cnnvis.sinks.atomic import join, located, sweep
from lightning_cnnvis.sinks.files import FileSink
from lightning_cnnvis.sinks.loggers import logger_sink
from lightning_cnnvis.sinks.protocol import EncodedAnimation, EncodedPicture, EncodedView, Sink, SinkError

__all__ = ["SinkError", "Sinks"]


class Sinks:
    """Sends pictures, animations, tables and scalars to files, to loggers and to other sinks.

    TensorBoard, Weights & Biases, MLflow, Comet, Aim and those of `register_logger_sink` show pictures, other loggers
    get the scalars. Files are named ``<folder>/<tag>/epoch_0005.png`` and appear when they are complete.

    Pictures are logged at ``step`` = epoch, counted from 1; scalars at the training step, as Lightning's own are, so
    that cursors link. In the loggers, every name is in the group ``cnnvis``.

    A sink that fails does not stop the others. Once all have been tried, the failures are raised as one `SinkError`: at
    the end of the ``with`` block if there is one, else by the method itself.

    Args:
        loggers: Lightning loggers.
        folder: Folder for the files: a path, or the URL of a remote one that fsspec knows, such as
            ``"s3://bucket/run"``. None: no files.
        sinks: Any other sinks.
        training_step: Tells the step that loggers show a scalar at; by default, it is the epoch.

    Attributes:
        loggers: The loggers.
        folder: A path if the folder is local, the URL if it is remote; None if there is none.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> folder = Path(tempfile.mkdtemp())
        >>> with Sinks(folder=folder) as sinks:
        ...     sinks.picture("deconvnet/conv1", np.zeros((8, 8, 3), dtype=np.uint8), step=5)
        >>> print(*(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")))
        deconvnet/conv1/epoch_0005.png
    """

    loggers: tuple[Any, ...]
    folder: Path | str | None

    def __init__(
        self,
        loggers: Sequence[Any] = (),
        folder: str | Path | None = None,
        *,
        sinks: Sequence[Sink] = (),
        training_step: Callable[[], int] | None = None,
    ) -> None:
        self.loggers = tuple(loggers)
        self._files = None if folder is None else FileSink(folder)
        self.folder = None if self._files is None else self._files.folder
        self._training_step = training_step
        self._loggers = [
            _Target(f"logger {type(logger).__name__}", partial(logger_sink, logger)) for logger in self.loggers
        ]
        self._sinks = [_Target.of(sink) for sink in sinks]
        self._targets = [*([] if self._files is None else [_Target.of(self._files)]), *self._loggers, *self._sinks]
        self._open_blocks = 0
        self._failures: list[str] = []

    @classmethod
    def of(cls, trainer: Any) -> Sinks:
        """Finds the sinks of a run: its loggers, and the folder ``cnnvis`` beside the run's checkpoints.

        Every rank must call this, since Lightning broadcasts the folder. With ``fast_dev_run`` no files are written.
        Files in the folder that a killed run left half-written are removed.

        A trainer with an attribute ``cnnvis_sinks``, as `evolve` has it, names the sinks itself.

        Args:
            trainer: A Lightning ``Trainer`` that has set up its strategy.

        Returns:
            The sinks on rank 0; on other ranks, ones that write nothing.
        """
        own: Sequence[Sink] | None = getattr(trainer, "cnnvis_sinks", None)
        if own is not None:
            return cls(sinks=own)
        log_dir = trainer.log_dir
        if not trainer.is_global_zero:
            return cls()
        if trainer.fast_dev_run:
            return cls(trainer.loggers, training_step=partial(_training_step, trainer))
        folder = located(log_dir or trainer.default_root_dir)
        if trainer.loggers:
            logger = trainer.loggers[0]
            known = getattr(logger, "log_dir", None)
            if isinstance(known, (str, Path)):
                folder = located(known)
            else:
                # loggers without a folder of their own share a save_dir: keep runs apart as ModelCheckpoint does
                folder = join(folder, *(str(part) for part in (logger.name, logger.version) if part not in {None, ""}))
        folder = join(folder, "cnnvis")
        sweep(folder)
        return cls(trainer.loggers, folder, training_step=partial(_training_step, trainer))

    def picture(self, tag: str, picture: Picture, step: int) -> None:
        """Writes a picture.

        Args:
            tag: Name of the picture; the part before the first slash groups it in TensorBoard.
            picture: ``(H, W, 3)``, uint8.
            step: The epoch, counted from 1.

        Raises:
            ValueError: If the picture has another shape or type.
            SinkError: If a file or a logger failed; inside a ``with`` block at its end.
        """
        encoded = EncodedPicture(picture, encode_png(picture))
        self._send(lambda sink: sink.picture(tag, encoded, step), self._targets)

    def animation(self, tag: str, frames: Sequence[Picture], step: int, *, seconds_per_frame: float = 0.25) -> None:
        """Writes an animation, as GIF.

        Args:
            tag: Name of the animation.
            frames: Pictures of one shape ``(H, W, 3)``, uint8.
            step: The epoch, counted from 1.
            seconds_per_frame: How long a frame is shown, in seconds.

        Raises:
            ValueError: If there is no frame, or if a frame has another shape or type.
            SinkError: Like `picture`.
        """
        encoded = EncodedAnimation(tuple(frames), encode_gif(frames, seconds_per_frame))
        if self._files is not None:
            files = _Target.of(self._files)
            file = self._files.path(tag, step, ".gif")
            if self._try(files, lambda sink: sink.animation(tag, encoded, step)) and isinstance(file, Path):
                encoded = replace(encoded, path=file)  # for loggers that take animations from files only
        self._send(lambda sink: sink.animation(tag, encoded, step), [*self._loggers, *self._sinks])

    def table(self, tag: str, csv: str) -> None:
        """Writes a table to ``<folder>/<tag>.csv``. Experiment loggers do not take tables.

        Args:
            tag: Name of the table.
            csv: Its lines, comma-separated values.

        Raises:
            SinkError: Like `picture`.
        """
        self._send(lambda sink: sink.table(tag, csv), self._targets)

    def text(self, tag: str, lines: Sequence[str], step: int) -> None:
        """Writes sentences: to ``<folder>/<tag>.md``, and to the loggers that show text.

        Args:
            tag: Name of the text.
            lines: The sentences, plain text.
            step: The epoch, counted from 1.

        Raises:
            SinkError: Like `picture`.
        """
        self._send(lambda sink: sink.text(tag, lines, step), self._targets)

    def document(self, name: str, content: str) -> None:
        """Writes a file of text. Experiment loggers do not take any.

        Args:
            name: Name of the file, with slashes between its folders, such as ``"diagnosis/findings.json"``.
            content: What is in it.

        Raises:
            SinkError: Like `picture`.
        """
        self._send(lambda sink: sink.document(name, content), self._targets)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Logs a number. There is no file for it.

        Args:
            tag: Name of the curve.
            value: The number.
            step: The epoch, counted from 1.

        Raises:
            SinkError: If a logger failed; inside a ``with`` block at its end.
        """
        self.scalars({tag: value}, step, single=True)

    def scalars(self, values: Mapping[str, float], step: int, *, single: bool = False) -> None:
        """Logs numbers of many layers, classes or images; to loggers, as one curve for each kind: their mean.

        Args:
            values: The numbers by tag. The part of a tag before the first slash says what is counted, the rest of what.
            step: The epoch, counted from 1.
            single: Whether loggers get each number, and no mean.

        Raises:
            SinkError: Like `scalar`.

        Examples:
            >>> from lightning_cnnvis.sinks import Recording
            >>> recording = Recording()
            >>> Sinks(sinks=[recording]).scalars({"dead_maps/relu1": 0.5, "dead_maps/relu2": 0.1}, step=5)
            >>> recording.scalars["dead_maps/relu1"]
            {5: 0.5}
        """
        for tag, value in values.items():
            self._deliver(methodcaller("scalar", tag, value, step), self._sinks)
        logged_at = step if self._training_step is None else self._training_step()
        for tag, value in (values if single else _means(values)).items():
            self._deliver(methodcaller("scalar", tag, value, logged_at), self._loggers)
        self._raise_failures()

    @property
    def takes_views(self) -> bool:
        """Whether any sink has a use for what the viewer reads. A sink that cannot be asked has none."""
        return self._any(lambda sink: sink.takes_views)

    @property
    def takes_pages(self) -> bool:
        """Whether any sink has a use for the page of a run. A sink that cannot be asked has none."""
        return self._any(lambda sink: sink.takes_pages)

    def view(self, view: EncodedView, step: int) -> None:
        """Gives what the viewer reads to the sinks that have a use for it.

        Args:
            view: The data.
            step: The epoch, counted from 1.

        Raises:
            SinkError: Like `scalar`.
        """
        self._send(lambda sink: sink.view(view, step) if sink.takes_views else None, self._targets)

    def page(self, name: str, html: str) -> None:
        """Gives the page of a run that has ended to the sinks that have a use for it.

        Args:
            name: Name of the page.
            html: One HTML file that needs no other.

        Raises:
            SinkError: Like `scalar`.
        """
        self._send(lambda sink: sink.page(name, html) if sink.takes_pages else None, self._targets)

    def __enter__(self) -> Sinks:
        """Gathers failures until the end of the block."""
        self._open_blocks += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Flushes the sinks, and raises what failed unless the block itself did."""
        self._open_blocks -= 1
        for target in self._targets:
            self._try(target, lambda sink: sink.flush())
        if error is None:
            self._raise_failures()
        elif not self._open_blocks:
            self._failures = []

    def _any(self, ask: Callable[[Sink], bool]) -> bool:
        found: list[bool] = []
        for target in self._targets:
            self._try(target, lambda sink: found.append(ask(sink)))
        return any(found)

    def _send(self, deliver: Callable[[Sink], None], targets: Sequence[_Target]) -> None:
        self._deliver(deliver, targets)
        self._raise_failures()

    def _deliver(self, deliver: Callable[[Sink], None], targets: Sequence[_Target]) -> None:
        for target in targets:
            self._try(target, deliver)

    def _try(self, target: _Target, deliver: Callable[[Sink], None]) -> bool:
        try:
            deliver(target.sink)
        except SinkError as error:
            self._failures += error.failures
        except Exception as error:  # a logger may raise anything
            self._failures.append(f"{target.name} ({type(error).__name__}: {error})")
        else:
            return True
        return False

    def _raise_failures(self) -> None:
        if self._failures and not self._open_blocks:
            failures, self._failures = self._failures, []
            raise SinkError(failures)


def _means(values: Mapping[str, float]) -> dict[str, float]:
    """The mean of each kind of number, without those that are not known."""
    kinds: dict[str, list[float]] = {}
    for tag, value in values.items():
        if not math.isnan(value):
            kinds.setdefault(tag.partition("/")[0], []).append(value)
    return {kind: fmean(found) for kind, found in kinds.items()}


def _training_step(trainer: Any) -> int:
    """The step that Lightning logs scalars at: not ``global_step``, which counts every optimizer's."""
    loop = getattr(getattr(trainer, "fit_loop", None), "epoch_loop", None)
    return int(getattr(loop, "_batches_that_stepped", trainer.global_step))


class _Target:
    """A sink with its name in error messages, found when it is first used: only then may a logger connect."""

    def __init__(self, name: str, find: Callable[[], Sink]) -> None:
        self.name = name
        self._find = find

    @classmethod
    def of(cls, sink: Sink) -> _Target:
        return cls(type(sink).__name__, lambda: sink)

    @cached_property
    def sink(self) -> Sink:
        return self._find()
