"""Checks of options that several methods have."""

from __future__ import annotations


def check_at_least_one(**options: int | None) -> None:
    """Refuses counts below 1; None stands for the default.

    Args:
        **options: Values by name.

    Raises:
        ValueError: If one is below 1.

    Example:
        >>> check_at_least_one(k=0)
        Traceback (most recent call last):
        ...
        ValueError: k=0 must be at least 1.
    """
    for name, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")


def check_names(argument: str, names: object) -> None:
    """Refuses one name in the place of a list of names, whose letters would be taken for names.

    Args:
        argument: The option's name.
        names: Its value.

    Raises:
        ValueError: If it is one name.
    """
    if isinstance(names, str):
        raise ValueError(f"{argument}={names!r} is one name, not a list: give {argument}=[{names!r}].")
