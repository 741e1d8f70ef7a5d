"""Flags of a command from a dataclass of options, such as a method's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse
from jsonargparse import ArgumentParser, Namespace

_PLAIN = (str, int, float, bool, Path)


def add_options(parser: ArgumentParser, options: Any) -> None:
    """Adds the flags of options; what cannot be typed, such as a tensor, has none.

    Args:
        parser: The command's parser.
        options: A dataclass.
    """
    about = _descriptions(options)
    for name, (hint, default) in _fields(options).items():
        nested, element, several = _dataclass_in(hint), *_typed(hint)
        if nested is not None:
            parser.add_class_arguments(nested, as_group=False)
        elif several:
            parser.add_argument(f"--{name}", nargs="+", type=element, default=default, help=about.get(name, ""))
        elif element is not None:
            parser.add_argument(f"--{name}", type=element, default=default, help=about.get(name, ""))


def options_of(options: Any, given: Namespace, class_names: Sequence[str] = ()) -> Any:
    """Makes options from what was typed.

    Args:
        options: A dataclass.
        given: The parsed flags.
        class_names: Names of the classes: a number that is one of them is a name.

    Returns:
        The options.

    Raises:
        ValueError: If a value is out of range.
    """
    values: dict[str, Any] = {}
    for name, (hint, _) in _fields(options).items():
        nested = _dataclass_in(hint)
        if nested is not None:
            values[name] = nested(**{inner: given[inner] for inner in inspect.signature(nested).parameters})
        elif name in given and given[name] is not None:
            values[name] = given[name]
            if _names_or_numbers(hint):
                values[name] = [int(v) if v.isdigit() and v not in class_names else v for v in given[name]]
    return options(**values)


def _fields(options: Any) -> Mapping[str, tuple[Any, Any]]:
    """Type and default of each option."""
    hints = get_type_hints(options)
    return {name: (hints[name], one.default) for name, one in inspect.signature(options).parameters.items()}


def _descriptions(options: Any) -> dict[str, str]:
    return {
        one.arg_name: " ".join((one.description or "").split()) for one in parse(inspect.getdoc(options) or "").params
    }


def _choices(hint: Any) -> tuple[Any, ...]:
    """The types that a value may have; without None."""
    return (
        tuple(t for t in get_args(hint) if t is not type(None)) if get_origin(hint) in {Union, UnionType} else (hint,)
    )


def _dataclass_in(hint: Any) -> Any:
    """The dataclass of numbers and names that an option holds, if it holds nothing else: its fields become flags."""
    kinds = _choices(hint)
    if len(kinds) != 1 or not is_dataclass(kinds[0]):
        return None
    fields = [_typed(kind) for kind, _ in _fields(kinds[0]).values()]
    return kinds[0] if all(element is not None and not several for element, several in fields) else None


def _names_or_numbers(hint: Any) -> bool:
    return any(set(_choices(get_args(kind)[0])) == {int, str} for kind in _choices(hint) if _is_sequence(kind))


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) in {Sequence, list, tuple}


def _typed(hint: Any) -> tuple[Any, bool]:
    """The type of what is typed for an option, None if it cannot be; and whether there may be several values."""
    for kind in _choices(hint):
        if _is_sequence(kind):
            elements = _choices(get_args(kind)[0])
            return (str if str in elements else elements[0]), True
    plain = [kind for kind in _choices(hint) if kind in _PLAIN or get_origin(kind) is Literal]
    if not plain:
        return None, False
    optional = type(None) in get_args(hint)
    kind = str if str in plain else plain[0]
    return (kind | None if optional else kind), False
