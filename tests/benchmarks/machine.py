"""What figures were measured on."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable

import torch

from lightning_cnnvis import __version__


def default_device() -> str:
    """A GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronize(device: str | torch.device) -> None:
    """Waits until a GPU has done what was asked of it; a CPU has."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: str | torch.device) -> float:
    """Wall-clock seconds of a piece of work, to the end of what it started on the device."""
    synchronize(device)
    begin = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begin


def describe(device: str) -> dict[str, str]:
    """The date, the device and the versions that a measurement belongs to.

    Args:
        device: Where it runs: ``cpu`` or a CUDA device.
    """
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads"
    return {
        "date": datetime.date.today().isoformat(),
        "device": name,
        "torch": torch.__version__,
        "lightning_cnnvis": __version__,
    }
