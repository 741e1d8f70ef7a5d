"""Digests of networks and data, by which they are known again."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def digest_of(network: nn.Module) -> str:
    """Computes a digest of a network's class and weights.

    Args:
        network: The network.

    Returns:
        The digest, which another network, other weights and another kind of device change.
    """
    digest = blake2b(type(network).__qualname__.encode())
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor) and not is_lazy(value):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} {value.device.type}".encode())
            digest.update(bytes_of(value))
    return digest.hexdigest()


def bytes_of(value: Any) -> bytes | memoryview:
    """Returns the content of a tensor, or the text that stands for another object, for a digest.

    Args:
        value: The tensor or object.

    Returns:
        Bytes that are equal for equal values.
    """
    if isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized:
        flat = value.detach().cpu().contiguous().reshape(-1)
        return flat.view(torch.uint8).numpy().data
    return repr(value).encode()
