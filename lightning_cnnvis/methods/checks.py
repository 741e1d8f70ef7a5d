"""Checks of options that several methods have."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path

from lightning_cnnvis.layer_patterns import ALL


def check_at_least_one(**options: int | None) -> None:
    """Refuses counts below 1; None stands for the default.

    Args:
        **options: Values by name.

    Raises:
        ValueError: If one is below 1.

    Examples:
        >>> check_at_least_one(k=0)
        Traceback (most recent call last):
        ...
        ValueError: k=0 must be at least 1.
    """
    for name, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")


def check_lists(**options: Sized | str | None) -> None:
    """Refuses one name in the place of a list of names, whose letters would be taken for names, and empty lists.

    The layers may be ``"all"``, which is not a list.

    Args:
        **options: Values by name; None stands for the default.

    Raises:
        ValueError: If one is a name, or empty.

    Examples:
        >>> check_lists(layers="relu1")
        Traceback (most recent call last):
        ...
        ValueError: layers='relu1' is one name, not a list: give layers=['relu1'].
    """
    for name, value in options.items():
        if name == "layers" and value == ALL:
            continue
        if isinstance(value, str | Path):
            raise ValueError(f"{name}={str(value)!r} is one name, not a list: give {name}=[{str(value)!r}].")
        if value is not None and not len(value):
            raise ValueError(f"{name}=[] leaves nothing to show. Name at least one.")
