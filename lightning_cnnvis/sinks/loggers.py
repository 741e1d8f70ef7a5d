"""How each experiment logger shows pictures.

Loggers are told apart by what they can do, never by their class: ``lightning.pytorch`` and ``pytorch_lightning`` have
different ones of the same name.
"""

from __future__ import annotations

import inspect
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightning_utilities.core.imports import module_available
from PIL import Image

from lightning_cnnvis.pictures import Picture
from lightning_cnnvis.sinks.protocol import EncodedAnimation, EncodedPicture, EncodedView, Sink
from lightning_cnnvis.sinks.tags import as_markdown, logged_name, mlflow_name
from lightning_cnnvis.tensorboard.names import PLUGIN_NAME


class LoggerSink(Sink):
    """Logs scalars to a Lightning logger of any kind; the base of sinks for loggers that also show pictures.

    A subclass says in `fits` which loggers it is for, and is made known with `register_logger_sink`.

    Args:
        logger: A Lightning logger.

    Attributes:
        logger: The same.
    """

    logger: Any

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    @classmethod
    def fits(cls, logger: Any) -> bool:
        """Says whether this sink is for a logger.

        Args:
            logger: A Lightning logger.

        Returns:
            True for every logger, unless a subclass says otherwise.
        """
        return True

    @property
    def experiment(self) -> Any:
        """The object of the logger's own library; None if there is none."""
        return _experiment(self.logger)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Logs a number.

        Args:
            tag: Name of the curve.
            value: The number.
            step: The epoch, counted from 1.
        """
        self.logger.log_metrics({logged_name(tag): value}, step=step)


class TensorBoardSink(LoggerSink):
    """Shows pictures and animations in TensorBoard, or with any writer that has ``add_image``.

    Args:
        logger: A Lightning logger.
    """

    @classmethod
    def fits(cls, logger: Any) -> bool:
        """Looks for ``experiment.add_image``.

        Args:
            logger: A Lightning logger.

        Returns:
            Whether it is there.
        """
        return hasattr(_experiment(logger), "add_image")

    def picture(self, tag: str, picture: EncodedPicture, step: int) -> None:
        """Adds a picture.

        Args:
            tag: Name of the picture.
            picture: The picture.
            step: The epoch, counted from 1.
        """
        self._add(logged_name(tag), picture.png, picture.pixels, step)

    def animation(self, tag: str, animation: EncodedAnimation, step: int) -> None:
        """Adds an animation, which TensorBoard plays like a picture.

        Args:
            tag: Name of the animation.
            animation: The animation.
            step: The epoch, counted from 1.
        """
        self._add(logged_name(tag), animation.gif, animation.frames[0], step)

    @property
    def takes_views(self) -> bool:  # type: ignore[override]
        """Whether the writer is that of torch, which writes any summary: the tab reads them."""
        find = getattr(self.experiment, "_get_file_writer", None)
        return find is not None and hasattr(find(), "add_summary") and module_available("tensorboard")

    def view(self, view: EncodedView, step: int) -> None:
        """Writes what the tab of this package shows.

        Each epoch has a tag of its own: of one tag, TensorBoard keeps ten steps.

        Args:
            view: The data.
            step: The epoch, counted from 1.
        """
        from tensorboard.compat.proto.summary_pb2 import (  # type: ignore[import-untyped]  # noqa: PLC0415
            DATA_CLASS_BLOB_SEQUENCE,
            Summary,
            SummaryMetadata,
        )
        from tensorboard.compat.proto.tensor_pb2 import TensorProto  # type: ignore[import-untyped]  # noqa: PLC0415
        from tensorboard.compat.proto.types_pb2 import DT_STRING  # type: ignore[import-untyped]  # noqa: PLC0415

        blobs = [view.body, *view.sheets]
        tensor = TensorProto(dtype=DT_STRING, string_val=blobs)
        tensor.tensor_shape.dim.add(size=len(blobs))
        # without a data class, the loader that TensorBoard prefers drops the summary, and says nothing
        metadata = SummaryMetadata(
            plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=view.head),
            data_class=DATA_CLASS_BLOB_SEQUENCE,
        )
        # its other loader reads no data under a tag that JSON would escape
        tag = mlflow_name(f"{PLUGIN_NAME}/{view.key}/{step:04d}")
        summary = Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
        self.experiment._get_file_writer().add_summary(summary, step)

    def text(self, tag: str, lines: Sequence[str], step: int) -> None:
        """Adds sentences to the text tab, if the writer can.

        Args:
            tag: Name of the text.
            lines: The sentences.
            step: The epoch, counted from 1.
        """
        if hasattr(self.experiment, "add_text"):
            self.experiment.add_text(logged_name(tag), as_markdown(lines), step)

    def flush(self) -> None:
        """Writes out the events, for which TensorBoard would wait two minutes."""
        self.experiment.flush()

    def _add(self, tag: str, data: bytes, frame: Picture, step: int) -> None:
        writer, (height, width, _) = self.experiment, frame.shape
        try:
            from tensorboard.compat.proto.summary_pb2 import (  # noqa: PLC0415
                Summary,
            )

            # like add_image, which would encode the picture a second time and cannot take a GIF
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
            summary = Summary(value=[Summary.Value(tag=tag, image=image)])
            writer._get_file_writer().add_summary(summary, step)
        except (ImportError, AttributeError, TypeError):  # a writer of another make, such as tensorboardX
            writer.add_image(tag, frame, step, dataformats="HWC")


class WandbSink(LoggerSink):
    """Shows pictures and animations in Weights & Biases.

    Its slider counts steps of its own, so that the epoch is also the caption.

    Args:
        logger: A Lightning logger.
    """

    @classmethod
    def fits(cls, logger: Any) -> bool:
        """Looks for ``log_image``.

        Args:
            logger: A Lightning logger.

        Returns:
            Whether it is there.
        """
        return hasattr(logger, "log_image")

    def picture(self, tag: str, picture: EncodedPicture, step: int) -> None:
        """Logs a picture.

        Args:
            tag: Name of the picture.
            picture: The picture.
            step: The epoch, counted from 1.
        """
        self.logger.log_image(key=logged_name(tag), images=[picture.pixels], step=step, caption=[f"epoch {step}"])

    def animation(self, tag: str, animation: EncodedAnimation, step: int) -> None:
        """Logs an animation, from a file: arrays would need moviepy.

        Args:
            tag: Name of the animation.
            animation: The animation.
            step: The epoch, counted from 1.
        """
        with animation.as_file(f"epoch_{step:04d}.gif") as file:
            self.logger.log_video(
                key=logged_name(tag), videos=[str(file)], step=step, caption=[f"epoch {step}"], format=["gif"]
            )

    def text(self, tag: str, lines: Sequence[str], step: int) -> None:
        """Logs sentences as a table, a row each.

        Args:
            tag: Name of the text.
            lines: The sentences.
            step: The epoch, counted from 1.
        """
        if hasattr(self.logger, "log_text"):
            self.logger.log_text(key=logged_name(tag), columns=["finding"], data=[[line] for line in lines], step=step)

    @property
    def takes_pages(self) -> bool:  # type: ignore[override]
        """Whether the run takes artifacts."""
        return hasattr(self.experiment, "log_artifact")

    def page(self, name: str, html: str) -> None:
        """Keeps a page as an artifact of the type ``report``.

        Args:
            name: Name of the page; the artifact's begins with the id of the run.
            html: One HTML file.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.html"
            file.write_text(html, encoding="utf-8")
            self.experiment.log_artifact(str(file), name=f"{self.experiment.id}-cnnvis-{name}", type="report")


class MLflowSink(LoggerSink):
    """Shows pictures in MLflow, and keeps animations among its artifacts.

    Args:
        logger: A Lightning logger.
    """

    @classmethod
    def fits(cls, logger: Any) -> bool:
        """Looks for an ``experiment.log_image`` that takes a ``run_id``.

        Args:
            logger: A Lightning logger.

        Returns:
            Whether it is there.
        """
        log_image = getattr(_experiment(logger), "log_image", None)
        return log_image is not None and "run_id" in inspect.signature(log_image).parameters

    def picture(self, tag: str, picture: EncodedPicture, step: int) -> None:
        """Logs a picture.

        Args:
            tag: Name of the picture.
            picture: The picture.
            step: The epoch, counted from 1.
        """
        self.experiment.log_image(self.logger.run_id, picture.pixels, key=mlflow_name(tag), step=step)

    def animation(self, tag: str, animation: EncodedAnimation, step: int) -> None:
        """Logs an animation as an artifact.

        Args:
            tag: Name of the animation, and of the artifact's folder.
            animation: The animation.
            step: The epoch, counted from 1.
        """
        with animation.as_file(f"epoch_{step:04d}.gif") as file:
            self.experiment.log_artifact(self.logger.run_id, str(file), mlflow_name(tag))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Logs a number.

        Args:
            tag: Name of the curve.
            value: The number.
            step: The epoch, counted from 1.
        """
        self.logger.log_metrics({mlflow_name(tag): value}, step=step)

    def text(self, tag: str, lines: Sequence[str], step: int) -> None:
        """Keeps sentences among the artifacts.

        Args:
            tag: Name of the text.
            lines: The sentences.
            step: The epoch, counted from 1.
        """
        if hasattr(self.experiment, "log_text"):
            self.experiment.log_text(self.logger.run_id, as_markdown(lines), f"{mlflow_name(tag)}/epoch_{step:04d}.md")


class CometSink(LoggerSink):
    """Shows pictures and animations in Comet, or in any other experiment that has ``log_image``.

    Args:
        logger: A Lightning logger.
    """

    @classmethod
    def fits(cls, logger: Any) -> bool:
        """Looks for ``experiment.log_image``.

        Args:
            logger: A Lightning logger.

        Returns:
            Whether it is there.
        """
        return hasattr(_experiment(logger), "log_image")

    def picture(self, tag: str, picture: EncodedPicture, step: int) -> None:
        """Logs a picture as a file: Comet would stretch the contrast of an array.

        Args:
            tag: Name of the picture.
            picture: The picture.
            step: The epoch, counted from 1.
        """
        self.experiment.log_image(io.BytesIO(picture.png), name=logged_name(tag), step=step)

    def animation(self, tag: str, animation: EncodedAnimation, step: int) -> None:
        """Logs an animation if the experiment can.

        Args:
            tag: Name of the animation.
            animation: The animation.
            step: The epoch, counted from 1.
        """
        experiment = self.experiment
        if not hasattr(experiment, "log_video"):
            return
        if animation.path is not None:
            experiment.log_video(str(animation.path), name=logged_name(tag), step=step)
        else:  # Comet uploads later, when a temporary file of ours would be gone: it makes one of its own
            experiment.log_video(io.BytesIO(animation.gif), name=logged_name(tag), step=step, format="gif")

    def text(self, tag: str, lines: Sequence[str], step: int) -> None:
        """Logs sentences if the experiment can.

        Args:
            tag: Name of the text.
            lines: The sentences.
            step: The epoch, counted from 1.
        """
        if hasattr(self.experiment, "log_text"):
            self.experiment.log_text("\n".join(lines), step=step, metadata={"name": logged_name(tag)})


class AimSink(LoggerSink):
    """Shows pictures and animations in Aim.

    Args:
        logger: A Lightning logger.
    """

    @classmethod
    def fits(cls, logger: Any) -> bool:
        """Looks for the ``experiment.track`` of Aim.

        Args:
            logger: A Lightning logger.

        Returns:
            Whether it is there.
        """
        experiment = _experiment(logger)
        return hasattr(experiment, "track") and type(experiment).__module__.split(".")[0] == "aim"

    def picture(self, tag: str, picture: EncodedPicture, step: int) -> None:
        """Tracks a picture.

        Args:
            tag: Name of the picture.
            picture: The picture.
            step: The epoch, counted from 1.
        """
        self._track(tag, picture.png, step)

    def animation(self, tag: str, animation: EncodedAnimation, step: int) -> None:
        """Tracks an animation.

        Args:
            tag: Name of the animation.
            animation: The animation.
            step: The epoch, counted from 1.
        """
        self._track(tag, animation.gif, step)

    def text(self, tag: str, lines: Sequence[str], step: int) -> None:
        """Tracks sentences.

        Args:
            tag: Name of the text.
            lines: The sentences.
            step: The epoch, counted from 1.
        """
        import aim  # noqa: PLC0415 - only there if the user has it

        self.experiment.track(aim.Text("\n".join(lines)), name=logged_name(tag), step=step)

    def _track(self, tag: str, data: bytes, step: int) -> None:
        import aim  # noqa: PLC0415 - only there if the user has it

        self.experiment.track(aim.Image(Image.open(io.BytesIO(data))), name=logged_name(tag), step=step)


# The first that fits is taken.
_KINDS: list[type[LoggerSink]] = [TensorBoardSink, WandbSink, MLflowSink, CometSink, AimSink, LoggerSink]

_Kind = TypeVar("_Kind", bound=type[LoggerSink])


def register_logger_sink(kind: _Kind) -> _Kind:
    """Makes a kind of sink known for the loggers that it fits, ahead of those known so far. Works as a decorator.

    Args:
        kind: A subclass of `LoggerSink`.

    Returns:
        The same.

    Raises:
        TypeError: If it is not a subclass of `LoggerSink`.

    Examples:
        >>> @register_logger_sink
        ... class AlbumSink(LoggerSink):
        ...     @classmethod
        ...     def fits(cls, logger):
        ...         return hasattr(logger, "album")
        ...
        ...     def picture(self, tag, picture, step):
        ...         self.logger.album[f"{tag}, epoch {step}"] = picture.png
    """
    if not (isinstance(kind, type) and issubclass(kind, LoggerSink)):
        raise TypeError(f"{kind!r} is not a subclass of LoggerSink. Derive one, and register the class.")
    if kind not in _KINDS:
        _KINDS.insert(0, kind)
    return kind


def logger_sink(logger: Any) -> LoggerSink:
    """Makes the sink of a logger. The logger may connect to its server when it is asked what it can do.

    Args:
        logger: A Lightning logger.

    Returns:
        A sink of the first kind that fits, the one registered last first; one that only logs scalars if none does.
    """
    return next(kind for kind in _KINDS if kind.fits(logger))(logger)


def _experiment(logger: Any) -> Any:
    return getattr(logger, "experiment", None)
