"""Flags of a command from a dataclass of options, such as a method's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse
from jsonargparse import ArgumentParser, Namespace

from lightning_cnnvis.methods.method import dataclass_in

_PLAIN = (str, int, float, bool, Path)


def add_options(parser: ArgumentParser, options: Any) -> None:
    """Adds the flags of options; what cannot be typed, such as a tensor, has none.

    Args:
        parser: The command's parser.
        options: A dataclass.
    """
    about = _descriptions(options)
    for name, (hint, default) in _fields(options).items():
        nested, element, count = _flags_in(hint), *_typed(hint)
        if nested is not None:
            parser.add_class_arguments(nested, as_group=False)
            if is_dataclass(default):
                parser.set_defaults({inner: getattr(default, inner) for inner in _fields(nested)})
        elif element is not None:
            several: dict[str, Any] = {} if count is None else {"nargs": count}
            needed: dict[str, Any] = {"required": True} if default is MISSING else {"default": _as_typed(default)}
            parser.add_argument(f"--{name}", type=element, help=about.get(name, ""), **several, **needed)


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
    for name, (hint, default) in _fields(options).items():
        nested = _flags_in(hint)
        if nested is not None:
            inner = {one: given[one] for one in _fields(nested)}
            untouched = all(inner[one] == usual for one, (_, usual) in _fields(nested).items())
            values[name] = None if default is None and untouched else nested(**inner)
        elif name in given and given[name] is not None:
            values[name] = _as_hinted(given[name], hint, class_names)
    return options(**values)


def _as_typed(default: Any) -> Any:
    """A default as the parser has it: of several values it makes a list."""
    return list(default) if isinstance(default, tuple) else default


def _as_hinted(value: Any, hint: Any, class_names: Sequence[str]) -> Any:
    """Numbers for what was typed, where a name or a number may be; a tuple for several, where one is expected."""
    if isinstance(value, list):
        kinds = [kind for kind in _choices(hint) if _is_sequence(kind)]
        values = [_as_hinted(one, get_args(kinds[0])[0], class_names) for one in value]
        return tuple(values) if get_origin(kinds[0]) is tuple else values
    if {int, str} <= set(_choices(hint)) and isinstance(value, str) and value.isdecimal() and value not in class_names:
        return int(value)
    return value


def _fields(options: Any) -> Mapping[str, tuple[Any, Any]]:
    """Type and default of each option; ``MISSING`` if it has none."""
    hints = get_type_hints(options)
    return {
        one.name: (hints[one.name], one.default if one.default_factory is MISSING else one.default_factory())
        for one in fields(options)
        if one.init
    }


def _descriptions(options: Any) -> dict[str, str]:
    return {
        one.arg_name: " ".join((one.description or "").split()) for one in parse(inspect.getdoc(options) or "").params
    }


def _choices(hint: Any) -> tuple[Any, ...]:
    """The types that a value may have; without None."""
    return (
        tuple(t for t in get_args(hint) if t is not type(None)) if get_origin(hint) in {Union, UnionType} else (hint,)
    )


def _flags_in(hint: Any) -> Any:
    """The dataclass of numbers and names that an option holds, if it holds nothing else: its fields become flags."""
    nested = dataclass_in(hint)
    if nested is None:
        return None
    typed = [_typed(kind) for kind, _ in _fields(nested).values()]
    return nested if all(element is not None and count is None for element, count in typed) else None


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) in {Sequence, list, tuple}


def _typed(hint: Any) -> tuple[Any, int | str | None]:
    """The type of what is typed for an option, None if it cannot be; and how many values there are, None for one."""
    for kind in _choices(hint):
        if _is_sequence(kind):
            elements = [one for one in get_args(kind) if one is not ...]
            fixed = get_origin(kind) is tuple and ... not in get_args(kind)
            element, _ = _typed(elements[0])
            return (element if len(set(elements)) == 1 else None), len(elements) if fixed else "+"
    plain = [kind for kind in _choices(hint) if kind in _PLAIN or get_origin(kind) is Literal]
    if not plain:
        return None, None
    # text is tried first: a number may be the name of a class
    plain.sort(key=lambda kind: kind is not str)
    return Union[(*plain, *(kind for kind in get_args(hint) if kind is type(None)))], None
