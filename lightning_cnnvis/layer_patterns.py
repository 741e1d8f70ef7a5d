"""Name several layers of a network at once: by patterns, or all of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from lightning_cnnvis.layers import LayerCalls, LayerError, split_call

ALL = "all"
"""Stands for the rectified output of every convolution."""


def is_pattern(name: str, modules: Iterable[str]) -> bool:
    """Tells whether a name stands for layers to look for: a pattern, or "all".

    Args:
        name: What the user gave.
        modules: The names of the network's modules, which are never patterns.

    Returns:
        Whether it does.

    Examples:
        >>> is_pattern("layer*.1", ["layer1", "layer1.1"]), is_pattern("layer1.1", ["layer1", "layer1.1"])
        (True, False)
    """
    return name not in modules and (name == ALL or any(character in name for character in "*?["))


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Finds the names that a pattern stands for.

    ``*`` stands for any text within one part of a dotted name, ``?`` for one character, ``[12]`` for one of several,
    ``**`` for any number of parts. A pattern without ``@`` finds every call of a module that runs several times.

    Args:
        pattern: The pattern.
        names: Names of layers.

    Returns:
        Those that match, in their order.

    Examples:
        >>> matching("layer*.1", ["layer1.0", "layer1.1", "layer2.1", "layer2.0.downsample.1"])
        ['layer1.1', 'layer2.1']
        >>> matching("layer2.**", ["layer1.0", "layer2.0", "layer2.0.relu@2"])
        ['layer2.0', 'layer2.0.relu@2']
    """
    expression = re.compile(_as_expression(pattern))
    return [name for name in names if expression.fullmatch(name if "@" in pattern else _without_call(name))]


def check_patterns(layers: Sequence[str], modules: Sequence[str]) -> None:
    """Refuses patterns that match no module of a network.

    Args:
        layers: Names and patterns.
        modules: The names of the network's modules.

    Raises:
        LayerError: If one does not match; the message lists the names nearest to it.

    Examples:
        >>> check_patterns(["laier*"], ["layer1", "layer2"])
        Traceback (most recent call last):
        ...
        lightning_cnnvis.layers.LayerError: No layer matches 'laier*'. The nearest are 'layer2', 'layer1'.
    """
    for layer in layers:
        if is_pattern(layer, modules) and layer != ALL and not matching(_without_call(layer), modules):
            raise LayerError(f"No layer matches {layer!r}. {_nearest(layer, modules)}")


def expand(
    layers: Sequence[str], calls: Mapping[str, LayerCalls], rectified: Sequence[str], modules: Iterable[str]
) -> list[str]:
    """Puts the layers in the place of the patterns that stand for them.

    Args:
        layers: Names and patterns.
        calls: The layers that take part in a forward pass; see `trace_layers`.
        rectified: Those that hold the rectified output of a convolution, which "all" stands for.
        modules: The names of the network's modules.

    Returns:
        The names, each once. A pattern finds layers that return a tensor, in the order in which they run.

    Raises:
        LayerError: If a pattern matches no layer that runs; the message lists the names nearest to it.
    """
    known = set(modules)
    whole = [name for name, call in calls.items() if call.calls == 1 and call.shape]
    numbered = [name for name in calls if split_call(name, known)[1] is not None and calls[name].shape]
    names = [name for name in calls if name in {*whole, *numbered}]
    found: dict[str, None] = {}
    for layer in layers:
        if not is_pattern(layer, known):
            found[layer] = None
            continue
        matches = list(rectified) if layer == ALL else matching(layer, names)
        if not matches:
            raise LayerError(f"No layer that runs in a forward pass matches {layer!r}. {_nearest(layer, names)}")
        found |= dict.fromkeys(matches)
    return list(found)


_WILD = re.compile(r"\*\*|\*|\?|\[!?[^\]]+\]")


def _as_expression(pattern: str) -> str:
    """The regular expression of a pattern."""
    found, end = "", 0
    for wild in _WILD.finditer(pattern):
        found += re.escape(pattern[end : wild.start()])
        found += {"**": ".+", "*": "[^.]*", "?": "[^.]"}.get(wild[0], wild[0].replace("[!", "[^"))
        end = wild.end()
    return found + re.escape(pattern[end:])


def _without_call(name: str) -> str:
    return name.rpartition("@")[0] or name


def _nearest(pattern: str, names: Sequence[str]) -> str:
    plain = re.sub(r"[*?\[\]]", "", pattern)
    near = difflib.get_close_matches(plain, names, n=5, cutoff=0.3) or list(names[:5])
    return f"The nearest are {', '.join(map(repr, near))}." if near else "The network has no layers."
