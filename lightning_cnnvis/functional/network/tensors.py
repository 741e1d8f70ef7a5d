"""Tensors inside of results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


def to_cpu(result: T) -> T:
    """The same with its tensors on the CPU."""
    found: Any = result
    if isinstance(found, Tensor):
        return found.cpu()  # type: ignore[return-value]
    if is_dataclass(found) and not isinstance(found, type):
        values = {field.name: getattr(found, field.name) for field in fields(found)}
        moved = {name: to_cpu(value) for name, value in values.items()}
        return replace(found, **{n: v for n, v in moved.items() if v is not values[n]})
    if isinstance(found, Mapping):
        return {name: to_cpu(value) for name, value in found.items()}  # type: ignore[return-value]
    if isinstance(found, list):
        return [to_cpu(value) for value in found]  # type: ignore[return-value]
    return result
