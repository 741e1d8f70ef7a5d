"""A failure is never the run's: it becomes one warning that says what to do."""

from __future__ import annotations

import logging
import warnings

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities import rank_zero_only

from lightning_cnnvis.functional.network.chunks import is_out_of_memory
from lightning_cnnvis.sinks import SinkError

_log = logging.getLogger(__name__)


def warn_of_failure(who: str, error: Exception, epoch: int, layer: str | None, next_try: str | None) -> None:
    """Turns an exception into a warning.

    Args:
        who: What failed.
        error: How it failed; its traceback goes to the log at level ``DEBUG``.
        epoch: The epoch, counted from 1.
        layer: The layer it worked on, if any; by default what `naming_layer` noted.
        next_try: When it will be tried again, such as ``"epoch 5"``; None if it will not.
    """
    _log.debug("%s failed", who, exc_info=error)
    rank = getattr(rank_zero_only, "rank", 0)
    layer = layer or getattr(error, "cnnvis_layer", None)
    where = (f" on layer {layer!r}" if layer else "") + (f" on rank {rank}" if rank else "")
    outlook = f"The training goes on, and {next_try} tries again." if next_try else "The training is not affected."
    warnings.warn(
        f"{who} failed at epoch {epoch}{where}: {type(error).__name__}: {str(error).rstrip('.')}. "
        f"{_remedy(error)}{outlook}",
        stacklevel=2,
    )


def _remedy(error: Exception) -> str:
    if is_out_of_memory(error):
        return "Show fewer or smaller images at a time. "
    if isinstance(error, SinkError):
        return "Check the free space and permissions there. "
    if isinstance(error, (ValueError, MisconfigurationException)):
        return ""  # they say it themselves
    return "on_error='raise' shows where it comes from. "
