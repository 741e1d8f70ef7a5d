"""The methods by name: those of this package, those of installed packages, and those registered by hand.

Nothing heavy is imported before a method is asked for, so that the command line can list them at once.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import warnings
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cnnvis.methods.method import Method, ScalarPlot

BUILTIN = {
    "deconv": "lightning_cnnvis.methods.deconv",
    "classes": "lightning_cnnvis.methods.classes",
    "maximize": "lightning_cnnvis.methods.maximize",
    "dream": "lightning_cnnvis.methods.dream",
    "accentuate": "lightning_cnnvis.methods.accentuate",
    "style": "lightning_cnnvis.methods.style",
    "invert": "lightning_cnnvis.methods.invert",
    "occlusion": "lightning_cnnvis.methods.occlusion",
    "correspondence": "lightning_cnnvis.methods.correspondence",
    "invariance": "lightning_cnnvis.methods.invariance",
    "patches": "lightning_cnnvis.methods.patches",
    "unit_invariance": "lightning_cnnvis.methods.unit_invariance",
    "randomization": "lightning_cnnvis.methods.randomization",
    "diagnose": "lightning_cnnvis.methods.diagnose",
}
"""The modules of the package's own methods, in the order in which they are listed."""

ENTRY_POINT_GROUP = "lightning_cnnvis.methods"
"""Packages that bring methods name their modules in this group of entry points."""


RESERVED = frozenset(
    {
        *("fit", "validate", "test", "predict", "layers", "evolve", "report"),
        *("images", "model", "look", "source", "subject", "checkpoint", "input_spec", "progress"),
    }
)
"""Names of commands, and of what `analyze` returns besides methods."""


class MethodError(ValueError):
    """A method of another package that cannot be loaded."""


_registered: dict[str, Method[..., Any]] = {}
_warned: set[str] = set()


def register_method(method: Method[..., Any], *, replace: bool = False) -> None:
    """Makes a method known by its name: as a callback, in `analyze`, as a command, in ``evolve`` and in reports.

    Args:
        method: The row.
        replace: Whether it may take the place of another method of that name.

    Raises:
        ValueError: If there is another method of the name or the tag.
    """
    foreign = method.run.__module__ not in BUILTIN.values()
    if method.name in RESERVED:
        raise ValueError(
            f"{method.name!r} is a command, or an attribute of what `analyze` returns. Choose another name."
        )
    if foreign and method.name in BUILTIN and not replace:
        raise ValueError(f"{method.name!r} is a method of this package. Choose another name, or say replace=True.")
    # the package's own have tags, too
    known = {name: _loaded(name) for name in BUILTIN} if foreign else {}
    for other in {**known, **_registered}.values():
        again = other.name == method.name and other.run.__module__ == method.run.__module__  # as in a notebook
        replaced = other.name == method.name and replace
        if not (again or replaced) and {other.name, other.tag} & {method.name, method.tag}:
            raise ValueError(
                f"There is a method {other.name!r} with the tag {other.tag!r} already. Choose another name and tag, or "
                "say replace=True."
            )
    _registered[method.name] = method


def method_names() -> list[str]:
    """The names of all methods, without importing any."""
    return list(dict.fromkeys([*BUILTIN, *_entry_points(), *_registered]))


def get_method(name: str) -> Method[..., Any]:
    """Finds the method of a name, or of a tag such as ``"inversion"``.

    Args:
        name: The name.

    Returns:
        The method.

    Raises:
        ValueError: If there is none. The message lists the names nearest to it.

    Examples:
        >>> get_method("invert").tag
        'inversion'
        >>> get_method("dreams")
        Traceback (most recent call last):
        ...
        ValueError: There is no method 'dreams'. Did you mean 'dream'? There are deconv, classes, ...
    """
    if name in BUILTIN or name in method_names():  # the packages installed are searched only where they must be
        return _loaded(name)
    for method in all_methods():
        if method.tag == name:
            return method
    names = method_names()
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"There is no method {name!r}. {hint}There are {', '.join(names)}.")


def all_methods() -> list[Method[..., Any]]:
    """Loads every method, in the order of `method_names`; one of another package that cannot be loaded is left out."""
    found = []
    for name in method_names():
        try:
            found.append(_loaded(name))
        except MethodError as error:  # noqa: PERF203 - a handful
            if name not in _warned:
                warnings.warn(str(error), stacklevel=2)
            _warned.add(name)
    return found


def scalar_plots() -> dict[str, ScalarPlot]:
    """The plots of all methods' numbers, by the first part of their tags."""
    return {kind: plot for method in all_methods() for kind, plot in method.plots.items()}


def summary_of(name: str) -> str:
    """What a method does, in a line: the first of its module's docstring, which is read without being run.

    Args:
        name: The method's name.

    Returns:
        The line; empty if it cannot be read.
    """
    if name in _registered:
        return _registered[name].summary
    module = BUILTIN[name] if name in BUILTIN else _entry_points()[name].module
    try:
        found = importlib.util.find_spec(module)
        source = "" if found is None or found.origin is None else Path(found.origin).read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(source)) or ""
    except (ImportError, ValueError, SyntaxError, OSError):  # a broken package costs its own line only
        return ""
    return docstring.partition("\n")[0].rstrip(".")


def _loaded(name: str) -> Method[..., Any]:
    if name not in _registered:
        if name in BUILTIN:
            importlib.import_module(BUILTIN[name])  # registers it
        else:
            point = _entry_points()[name]
            try:
                point.load()  # registers it
            except Exception as error:
                raise MethodError(
                    f"The method {name!r} of {point.module} cannot be loaded ({type(error).__name__}: {error}). Fix or "
                    "uninstall the package."
                ) from error
            if name not in _registered:
                raise MethodError(f"{point.module} does not register a method {name!r}. Fix or uninstall the package.")
    return _registered[name]


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
