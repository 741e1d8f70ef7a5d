"""The accelerator of this machine, whichever it is: CUDA, XPU, MPS, or another that torch knows."""

from __future__ import annotations

from typing import Any

import torch


def accelerator() -> torch.device | None:
    """Returns the accelerator that torch would use here.

    Returns:
        The device, without a number; None if there is none, or only the CPU.
    """
    return torch.accelerator.current_accelerator(check_available=True)


def devices_in_use() -> tuple[str, list[int]]:
    """Lists the accelerators whose random generators a computation may have drawn from.

    Returns:
        The type of device, and the numbers of all devices; none if the accelerator was not initialised, which asking
        for its generators would do. The type is ``"cuda"`` where there is no accelerator, as `torch.random.fork_rng`
        has it.
    """
    found = accelerator()
    if found is None:
        return "cuda", []
    module: Any = torch.get_device_module(found)
    # MPS cannot be asked, and costs nothing to initialise
    in_use = getattr(module, "is_initialized", lambda: True)()
    return found.type, list(range(torch.accelerator.device_count())) if in_use else []


def synchronize(device: torch.device) -> None:
    """Waits for all that is queued on a device; there is nothing to wait for on the CPU.

    Args:
        device: The device.
    """
    found = accelerator()
    if found is not None and found.type == device.type:
        torch.accelerator.synchronize(device)


def empty_cache() -> None:
    """Gives memory that torch has reserved on the accelerator, and does not use, back to the device."""
    found = accelerator()
    if found is not None:
        module: Any = torch.get_device_module(found)
        getattr(module, "empty_cache", lambda: None)()
