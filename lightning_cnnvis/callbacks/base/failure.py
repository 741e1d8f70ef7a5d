"""Failures of a visualisation, turned into one warning each, so that the training goes on."""

from __future__ import annotations

import logging
import traceback
import warnings

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from lightning_cnnvis.functional.network.chunks import is_out_of_memory
from lightning_cnnvis.sinks import SinkError

_log = logging.getLogger(__name__)


def warn_of_failure(who: str, error: Exception, epoch: int, layer: str | None, next_try: str | None) -> None:
    """Turns an exception into a warning that names the cause, the place and the remedy.

    Args:
        who: Name of the callback that failed.
        error: The exception; its traceback goes to the log at level ``DEBUG``.
        epoch: The epoch, counted from 1.
        layer: The layer that was worked on; None takes the one that `naming_layer` noted, if any.
        next_try: Time of the next try in words, such as ``"epoch 5"``; None if there is none.
    """
    _log.debug("%s failed", who, exc_info=error)
    rank = getattr(rank_zero_only, "rank", 0)
    layer = layer or getattr(error, "cnnvis_layer", None)
    where = (f" on layer {layer!r}" if layer else "") + (f" on rank {rank}" if rank else "")
    outlook = f"Training goes on; the next try is at {next_try}." if next_try else "Training is not affected."
    warnings.warn(
        f"{who} failed at epoch {epoch}{where}: {type(error).__name__}: {str(error).rstrip('.')}. "
        f"{_remedy(error)}{outlook}",
        stacklevel=2,
    )


def is_refusal(error: Exception) -> bool:
    """Tells an error of this package about settings that cannot work from other failures.

    Args:
        error: An exception of a callback's check.

    Returns:
        True for a ValueError or MisconfigurationException, unless the network raised it in its forward pass: it may not
        take a blank image or a batch of one, and yet train.
    """
    if not isinstance(error, (ValueError, MisconfigurationException)):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    within_forward = any(frame.f_code is nn.Module._call_impl.__code__ for frame in frames)
    # hooks of this package refuse layers in the middle of a pass
    ours = bool(frames) and frames[-1].f_globals.get("__name__", "").partition(".")[0] == __name__.partition(".")[0]
    return ours or not within_forward


def _remedy(error: Exception) -> str:
    if is_out_of_memory(error):
        return "Show fewer or smaller images at a time. "
    if isinstance(error, SinkError):
        return "Check free space and permissions at the destination. "
    if is_refusal(error):
        return ""  # their messages name a remedy
    return "Pass on_error='raise' to see the traceback. "
