"""The viewer's page in one piece, for a report that opens from the disk, where a page's modules may not be loaded."""

from __future__ import annotations

import re
from importlib.resources import files

_IMPORT = re.compile(r'^import (?:(\w+)|\{ ([\w, ]+) \}) from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?:async )?(?:function|class|const) (\w+)", re.MULTILINE)
_DEFAULT = re.compile(r"^export \{ (\w+) as default \};$", re.MULTILINE)


def bundled_script(entry: str = "report") -> str:
    """Puts a module and those that it imports into one script.

    Each becomes a function that returns its exports, in the order in which they need each other. The modules of the
    page keep to what this needs: an import or an export a line, by name, at the left margin.

    Args:
        entry: Name of the module that begins.

    Returns:
        A script of a page.

    Examples:
        >>> "import " in bundled_script("address"), "function readAddress" in bundled_script("address")
        (False, True)
    """
    parts: dict[str, str] = {}
    _add(entry, parts)
    return '"use strict";\n' + "\n".join(parts.values())


def bundled_style() -> str:
    """Gives the style sheets of the page, one after the other.

    Returns:
        CSS.
    """
    return _read("uplot.css") + "\n" + _read("style.css")


def _add(name: str, parts: dict[str, str]) -> None:
    if name in parts:
        return
    source = _read(f"{name}.js")
    for _, _, needed in _IMPORT.findall(source):
        _add(needed, parts)
    # a library has one export, and may have others in its comments
    exports = [f"default: {found}" for found in _DEFAULT.findall(source)] or _EXPORT.findall(source)
    source = _IMPORT.sub(lambda found: f"const {_taken(found)} = module_{found[3]};\n", source)
    source = re.sub(r"^export (?=async |function|class|const)", "", _DEFAULT.sub("", source), flags=re.MULTILINE)
    parts[name] = f"const module_{name} = (() => {{\n{source}\nreturn {{ {', '.join(exports)} }};\n}})();"


def _taken(found: re.Match[str]) -> str:
    if found[1]:
        return f"{{ default: {found[1]} }}"
    return f"{{ {found[2].replace(' as ', ': ')} }}"


def _read(file: str) -> str:
    return (files("lightning_cnnvis") / "viewer" / "page" / file).read_text(encoding="utf-8")
