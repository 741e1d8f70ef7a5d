"""Results as a whole: their tensors moved to the CPU, and the results of shares of the work joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")


def to_cpu(result: T) -> T:
    """Copies a result with all its tensors on the CPU, such as to send it from process to process.

    Args:
        result: A tensor, a dataclass, a mapping, a list or a tuple, nested in any way, or an object with a method
            ``to(device)`` that returns a copy. Anything else is returned as it is.

    Returns:
        The same structure. Tensors that are on the CPU already are not copied.

    Examples:
        >>> to_cpu({"relu1": (torch.ones(2), "a label")})
        {'relu1': (tensor([1., 1.]), 'a label')}
    """
    moved: Any = result
    if callable(getattr(result, "to", None)):
        moved = result.to("cpu")  # type: ignore[attr-defined]
    elif is_dataclass(result) and not isinstance(result, type):
        moved = replace(result, **{field.name: to_cpu(getattr(result, field.name)) for field in fields(result)})
    elif isinstance(result, Mapping):
        moved = {key: to_cpu(value) for key, value in result.items()}
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        moved = type(result)(*map(to_cpu, result))
    elif isinstance(result, list | tuple):
        moved = type(result)(map(to_cpu, result))
    return cast(T, moved)


def cat_fields(parts: Sequence[T], *, shared: Sequence[str] = ()) -> T:
    """Joins the results of shares of the work, field by field.

    Args:
        parts: Dataclasses of one kind, at least one. Their tensors are joined along the first dimension, their tuples
            one after the other; a field is None if it is None in any of the parts.
        shared: Names of the fields that are the same in all parts.

    Returns:
        The whole.

    Raises:
        ValueError: If there is no part.
    """
    if not parts:
        raise ValueError("There are no results to join: give at least one.")
    joined: dict[str, Any] = {}
    for field in fields(parts[0]):  # type: ignore[arg-type]
        values = [getattr(part, field.name) for part in parts]
        if field.name in shared:
            joined[field.name] = values[0]
        elif any(value is None for value in values):
            joined[field.name] = None
        elif isinstance(values[0], Tensor):
            joined[field.name] = torch.cat(values)
        else:
            joined[field.name] = tuple(item for value in values for item in value)
    return replace(parts[0], **joined)  # type: ignore[type-var]
