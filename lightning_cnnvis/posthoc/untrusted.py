"""What the configuration of a run may ask for when it may be anybody's.

A configuration names classes to import and arguments to make them with: whoever wrote the file chooses what runs.
Unless the run is trusted, it gets this package's own data modules and visualisations, made of plain values, and none
that name a place on this machine or in the network.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytorch_lightning as pl

import lightning_cnnvis.data
import lightning_cnnvis.functional
from lightning_cnnvis.callbacks import FeatureConvergence, VisualizationCallback
from lightning_cnnvis.inputs.spec import MAX_SIDE
from lightning_cnnvis.posthoc.reading import DataError

PACKAGE = "lightning_cnnvis"
_LIGHTNING = ("pytorch_lightning.", "lightning.", "lightning_cnnvis.")
_MAX_NUMBER = 2**20
_MAX_DEPTH = 20
_SHOWN_BITS = 64
_SIDES = {"image_size", "size"}
_PLACES = {"root", "download", "image", "images_from", "judges", "style"}
"""Arguments of this package that name a place, or fetch something from one."""
_OTHERS_PLACES = re.compile(r"(^|_)(root|path|paths|dir|dirs|directory|folder|file|files|url|uri|download|cache)(_|$)")
_DOTTED = re.compile(r"\s*[^\W\d]\w*(\.[^\W\d]\w*)+\s*")
_NAME = re.compile(r"[\w -]*")


class UntrustedError(DataError):
    """Something that a run asks for and gets only if it is trusted. The message says what, and what to do.

    Attributes:
        what: The first sentence: what the run asks for.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what} Give images of your own, --data, or trust the run: --trust, or trust=True.")


def own_data_module(name: object) -> type[pl.LightningDataModule] | None:
    """Finds a data module of this package by the name that a configuration has for it. Nothing is imported.

    Args:
        name: Its name or import path.

    Returns:
        The class; None if it is none of this package.

    Examples:
        >>> own_data_module("lightning_cnnvis.data.CIFAR10").__name__, own_data_module("evil.CIFAR10")
        ('CIFAR10', None)
    """
    for kind in _own_data_modules():
        if name in [kind.__name__, *_paths(kind, "data")]:
            return kind
    return None


def own_visualization(name: object) -> type[pl.Callback] | None:
    """Finds a visualisation of this package, or a callback that uses their measurements; nothing is imported.

    Args:
        name: Its import path.

    Returns:
        The class; None if it is none of this package.
    """
    kinds = [*_subclasses(VisualizationCallback), *_subclasses(FeatureConvergence)]
    return next((kind for kind in kinds if _is_own(kind) and name in _paths(kind, "callbacks")), None)


def is_passed_over(name: object) -> bool:
    """Whether a callback is none that is drawn again, as far as its name tells: Lightning's, and short names."""
    return not isinstance(name, str) or "." not in name or name.startswith(_LIGHTNING)


def check_arguments(kind: type, entry: Mapping[str, Any], depth: int = 0) -> None:
    """Refuses the entry of a class in a configuration if making it needs more than plain values.

    Args:
        kind: The class, of this package.
        entry: Its entry, ``{"class_path": ..., "init_args": {...}}``.
        depth: How many entries it is nested in.

    Raises:
        UntrustedError: If an argument names another class, a function, a place, or a number that no run has.
    """
    surplus = set(entry) - {"class_path", "init_args"}
    arguments = entry.get("init_args") or {}
    if surplus or not isinstance(arguments, Mapping):
        raise UntrustedError(f"The run gives {kind.__name__} arguments in a form that is not known.")
    for name, value in arguments.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise UntrustedError(f"The run gives {kind.__name__} an argument {_short(name)}, which is not a name.")
        parameter = _parameter(kind, name)
        if parameter is not None and _same(parameter.default, value):
            continue
        _check_value(f"{kind.__name__}({name}=)", name, value, _hint(kind, name), depth + 1)


def without_places(kind: type, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Leaves out arguments that name a place on this machine or in the network.

    Args:
        kind: The class that takes them; its own defaults are no choice of the file.
        options: Arguments by name.

    Returns:
        The other arguments, and the names of those that were left out.

    Examples:
        >>> without_places(lightning_cnnvis.data.CIFAR10, {"root": "/home/you", "image_size": 32, "download": False})
        ({'image_size': 32, 'download': False}, ['root'])
    """
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    for name, value in options.items():
        parameter = _parameter(kind, name)
        default = parameter is not None and _same(parameter.default, value)
        if not default and (_OTHERS_PLACES.search(name) or any(map(_is_place, _leaves(value)))):
            left_out.append(name)
        else:
            kept[name] = value
    return kept, left_out


def _own_data_modules() -> list[type[pl.LightningDataModule]]:
    named = [getattr(lightning_cnnvis.data, name) for name in lightning_cnnvis.data.__all__]
    return [kind for kind in named if issubclass(kind, pl.LightningDataModule) and "build" in vars(kind)]


def _subclasses(kind: type) -> Iterator[type]:
    yield kind
    children: list[type] = kind.__subclasses__()
    for child in children:
        yield from _subclasses(child)


def _is_own(kind: type) -> bool:
    return kind.__module__.startswith(f"{PACKAGE}.")


def _paths(kind: type, room: str) -> list[str]:
    """A class's import paths, as a list: what is looked up in it may be of any type, hashable or not."""
    name = kind.__qualname__
    return [f"{PACKAGE}.{name}", f"{PACKAGE}.{room}.{name}", f"{kind.__module__}.{name}"]


def _own_options(name: object) -> type | None:
    """A dataclass of this package that options consist of, by its import path."""
    for known in lightning_cnnvis.functional.__all__:
        kind = getattr(lightning_cnnvis.functional, known)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and name in _paths(kind, "functional"):
            return kind
    return None


def _parameter(kind: type, name: str) -> inspect.Parameter | None:
    for base in kind.__mro__:
        if "__init__" in vars(base):
            found = inspect.signature(base.__init__).parameters.get(name)  # type: ignore[misc]
            if found is not None:
                return found
    return None


def _hint(kind: type, name: str) -> Any:
    """The type of an argument, which a class may pass on to those that it is derived from; ``Any`` if it has none."""
    for base in kind.__mro__:
        if "__init__" in vars(base):
            hints = get_type_hints(base.__init__)  # type: ignore[misc]
            if name in hints:
                return hints[name]
    return Any


def _same(default: object, value: object) -> bool:
    return type(default) is type(value) and default == value


def _check_value(where: str, name: str, value: object, hint: Any, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise UntrustedError(f"The run nests {where} deeper than any run does.")
    if isinstance(value, Mapping):
        _check_mapping(where, value, hint, depth)
    elif isinstance(value, list | tuple):
        for one in value:
            _check_value(where, name, one, hint, depth + 1)
    elif name in _PLACES and value:
        raise UntrustedError(f"The run asks for {where}{_short(value)}, which was not followed.")
    elif isinstance(value, str):
        _check_text(where, value, hint)
    elif isinstance(value, int) and name != "seed":
        if abs(value) > (MAX_SIDE if name in _SIDES else _MAX_NUMBER):
            raise UntrustedError(f"The run asks for {where}{_short(value)}, which is more than any run needs.")
    elif not isinstance(value, int | float | None):
        raise UntrustedError(f"The run gives {where} a {type(value).__name__}, which is not a plain value.")


def _check_mapping(where: str, value: Mapping[Any, Any], hint: Any, depth: int) -> None:
    if "class_path" in value:
        own = _own_options(value["class_path"])
        if own is None:
            raise UntrustedError(f"The run asks for {where}{_short(value['class_path'])}, which was not imported.")
        check_arguments(own, value, depth)
        return
    options = _dataclass_in(hint)
    for key, one in value.items():
        if not (isinstance(key, str) and key.isidentifier()):
            raise UntrustedError(f"The run gives {where} an argument {_short(key)}, which is not a name.")
        _check_value(where, key, one, Any if options is None else _hint(options, key), depth + 1)


def _check_text(where: str, value: str, hint: Any) -> None:
    if not _is_plain(hint) and _DOTTED.fullmatch(value):
        raise UntrustedError(f"The run asks for {where}{_short(value)}, which was not imported.")
    # the parser reads text as YAML where it is to become more than text
    if (not _is_plain(hint) and not _NAME.fullmatch(value)) or ("&" in value and "*" in value):
        raise UntrustedError(f"The run asks for {where}{_short(value)}, which is not a plain value.")


def _short(value: object) -> str:
    """A value in a sentence; numbers are not written out, which takes long for large ones."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return "a number of many digits"
    return repr(value)[:60]


def _is_plain(hint: Any) -> bool:
    """Whether values of a type are made of text and numbers: a parser looks for no class or function for them."""
    if get_origin(hint) is Literal or hint in {str, int, float, bool, type(None), ...}:
        return True
    return bool(get_args(hint)) and get_origin(hint) in _CONTAINERS and all(map(_is_plain, get_args(hint)))


_CONTAINERS = {Union, types.UnionType, list, tuple, Sequence}


def _dataclass_in(hint: Any) -> type | None:
    for kind in get_args(hint) or (hint,):
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return kind
    return None


def _leaves(value: object, depth: int = 0) -> Iterator[object]:
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        for one in value.values():
            yield from _leaves(one, depth + 1)
    elif isinstance(value, list | tuple | set) and depth < _MAX_DEPTH:
        for one in value:
            yield from _leaves(one, depth + 1)
    else:
        yield value


def _is_place(value: object) -> bool:
    if isinstance(value, PurePath):
        return True
    return isinstance(value, str) and (value.startswith((".", "~")) or any(c in value for c in "/\\"))
