"""How each experiment logger shows pictures, found out by what it can do: each of Lightning's packages has its own."""

from __future__ import annotations

import inspect
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lightning_cnnvis.pictures import Picture
from lightning_cnnvis.sinks.tags import logged_name, mlflow_name


@dataclass(frozen=True)
class Artefact:
    """An encoded picture (one frame) or animation."""

    tag: str
    step: int
    suffix: str
    data: bytes
    frames: list[Picture]


def log_artefact(logger: Any, artefact: Artefact, path: Path | None) -> None:
    """Shows an artefact in a logger that can.

    Args:
        logger: A Lightning logger.
        artefact: The picture or animation.
        path: The file that holds it, if there is one; some loggers take animations from files only.
    """
    experiment: Any = getattr(logger, "experiment", None)
    tag, step, still = logged_name(artefact.tag), artefact.step, len(artefact.frames) == 1
    if hasattr(experiment, "add_image"):
        _log_tensorboard(experiment, tag, artefact)
    elif hasattr(logger, "log_image"):  # Weights & Biases, whose slider shows its own steps: the epoch is a caption too
        caption = [f"epoch {step}"]
        if still:
            logger.log_image(key=tag, images=[artefact.frames[0]], step=step, caption=caption)
        elif path is not None:
            logger.log_video(key=tag, videos=[str(path)], step=step, caption=caption, format=["gif"])
    elif _is_mlflow(experiment):
        if still:
            experiment.log_image(logger.run_id, artefact.frames[0], key=mlflow_name(artefact.tag), step=step)
        elif path is not None:
            experiment.log_artifact(logger.run_id, str(path), mlflow_name(artefact.tag))
    elif hasattr(experiment, "log_image"):
        if still:  # Comet, which would stretch the contrast of an array
            experiment.log_image(io.BytesIO(artefact.data), name=tag, step=step)
        elif path is not None and hasattr(experiment, "log_video"):
            experiment.log_video(str(path), name=tag, step=step)
    elif hasattr(experiment, "track") and type(experiment).__module__.split(".")[0] == "aim":
        import aim  # noqa: PLC0415 - only there if the user has it

        experiment.track(aim.Image(Image.open(io.BytesIO(artefact.data))), name=tag, step=step)


def log_scalar(logger: Any, tag: str, value: float, step: int) -> None:
    """Logs a number."""
    name = mlflow_name if _is_mlflow(getattr(logger, "experiment", None)) else logged_name
    logger.log_metrics({name(tag): value}, step=step)


def flush(logger: Any) -> None:
    """Makes a logger show what it has."""
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_image"):  # TensorBoard would wait for two minutes
        experiment.flush()


def _is_mlflow(experiment: Any) -> bool:
    log_image = getattr(experiment, "log_image", None)
    return log_image is not None and "run_id" in inspect.signature(log_image).parameters


def _log_tensorboard(writer: Any, tag: str, artefact: Artefact) -> None:
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
