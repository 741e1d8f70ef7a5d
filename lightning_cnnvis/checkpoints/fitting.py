"""Fit weights to a network, by whatever names and around whatever module they were saved."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_cnnvis.checkpoints.files import EXTRA, CheckpointError, first_line, shortened
from lightning_cnnvis.layers import find_network
from lightning_cnnvis.text import printable

_DEEPEST = 6
"""How many modules there may be around a network in the module that was saved."""
_WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def fit_weights(model: nn.Module, weights: Mapping[str, Any], source: str, *, partial: bool = False) -> list[str]:
    """Copies weights into a network.

    Weights of a module around the network fit too (``model.conv1.weight``), whatever else that has, such as the weights
    of a loss; and so do those of a child of it (``0.weight`` for ``features.0.weight``). The names that
    ``torch.compile`` and ``DataParallel`` add are left out. What ``load_state_dict`` accepts is accepted.

    Args:
        model: The network; its weights are replaced.
        weights: The new weights, tensors of the parameters' shapes, by key.
        source: Origin of the weights, for the message.
        partial: Whether the weights may end before the network does: whole children at its end, or at the end of its
            last sequence, may be missing or be of another network. They are replaced by the identity, so that the
            network ends where its weights do.

    Returns:
        The dotted names of the children that were missing, in the order of the network.

    Raises:
        CheckpointError: If keys or shapes do not fit; the message names them.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> features = {f"0.{key}": value for key, value in nn.Conv2d(3, 8, 3).state_dict().items()}
        >>> fit_weights(net, features, "features.pth", partial=True)
        ['2']
    """
    own = model.state_dict()
    fitted, strangers = _renamed(weights, own)
    differing = {
        "missing": [key for key in own if key not in fitted and not _is_dispensable(key)],
        "unexpected": [key for key in fitted if key not in own],
        "of another shape": [key for key in own if key in fitted and not _same_shape(own[key], fitted[key])],
    }
    beside, absent = _passed_over(model, differing) if partial else ([], [])
    differing = {
        what: [key for key in keys if key not in beside and not _is_inside(key, absent)]
        for what, keys in differing.items()
    }
    if any(differing.values()):
        if _load_strictly(model, fitted):
            return []
        raise CheckpointError(
            f"The weights of {source} do not fit {type(model).__name__} ({_told(differing, own, fitted)}). Name the "
            "network that they belong to."
        )
    replaced = [key for key in fitted if _is_inside(key, absent)]
    passed_over = [*strangers, *replaced, *(key for key in beside if key in fitted)]
    if passed_over:
        about = shortened(passed_over)
        warnings.warn(
            f"{printable(source)} has more than {type(model).__name__}, which is passed over: {printable(about)}.",
            stacklevel=2,
        )
    for name in absent:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    kept = {key: value for key, value in fitted.items() if not _is_inside(key, absent) and key not in beside}
    try:
        model.load_state_dict(kept, strict=False)
    except Exception as error:  # a module's own set_extra_state, or hooks of its own
        raise CheckpointError(
            f"{type(model).__name__} does not take the weights of {source} ({type(error).__name__}: "
            f"{first_line(str(error))}). Name the network that they belong to."
        ) from error
    return absent


def _load_strictly(model: nn.Module, weights: Mapping[str, Any]) -> bool:
    """Whether the network itself knows how to take weights of other names or shapes; it is as before if not."""
    before = {key: value.clone() if isinstance(value, Tensor) else value for key, value in model.state_dict().items()}
    try:
        model.load_state_dict(dict(weights))
    except Exception:  # whatever the hooks of the network raise
        model.load_state_dict(before, strict=False)
        return False
    return True


def _renamed(weights: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Renames weights to the network's keys.

    Returns:
        The weights under the network's names as far as these are known; and the keys of what does not belong to it.
    """
    names = {_plain(key): key for key in own}
    plain = {_plain(key): value for key, value in weights.items()}
    if len(names) < len(own) or len(plain) < len(weights):  # a module that is called so
        names, plain = {key: key for key in own}, dict(weights)
    inside: dict[str, int] = {}
    for key in plain:
        parts = key.split(".")
        for n in range(min(len(parts), _DEEPEST)):
            if ".".join(parts[n:]) in names:
                prefix = "".join(f"{part}." for part in parts[:n])
                inside[prefix] = inside.get(prefix, 0) + 1
    if inside:
        prefix = max(inside, key=lambda known: (inside[known], -len(known)))
        found = {key.removeprefix(prefix): value for key, value in plain.items() if key.startswith(prefix)}
        strangers = [key for key in plain if not key.startswith(prefix)]
        beside = _beside_wrapper(weights, names) if not prefix else []
        strangers += beside
        found = {key: value for key, value in found.items() if key not in beside}
        return {names.get(key, key): value for key, value in found.items()}, strangers
    # those of a child of the network, with or without names of modules around it
    for _ in range(_DEEPEST):
        for child in dict.fromkeys(name.split(".")[0] for name in names):
            found = {f"{child}.{key}": value for key, value in plain.items()}
            if found and set(found) <= set(names):
                return {names[key]: value for key, value in found.items()}, []
        heads = {key.partition(".")[0] for key in plain}
        if len(heads) != 1 or not all("." in key for key in plain):
            break
        plain = {key.partition(".")[2]: value for key, value in plain.items()}
    return dict(weights), []


def _plain(key: str) -> str:
    """A name without what ``torch.compile`` and the wrappers of several devices put into it, in front or inside."""
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def _beside_wrapper(weights: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """Lists what lies beside a wrapped network, as the count of `AveragedModel` and the weights of a loss do."""
    wrapped = {key for key in weights if key.split(".")[0] in _WRAPPERS}
    others = [_plain(key) for key in weights if key not in wrapped]
    return [] if not wrapped or any(key in names for key in others) else others


def _is_dispensable(key: str) -> bool:
    """Whether networks are loaded without it: counts of batches, and what modules of other versions kept."""
    return key.endswith(("num_batches_tracked", EXTRA))


def _same_shape(own: Any, value: Any) -> bool:
    # parameters of lazy modules take their shape from the weights
    return is_lazy(own) or _shape(own) == _shape(value)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _passed_over(model: nn.Module, differing: Mapping[str, list[str]]) -> tuple[list[str], list[str]]:
    """Finds what need not fit.

    Returns:
        The keys of what lies beside the network, such as the weights of a loss; and the children at the network's end
        whose weights are missing or of another one, as a new head's are: none, if anything before them does not fit.
    """
    path, network = find_network(model, None)
    keys = [key for some in differing.values() for key in some]
    beside = [key for key in keys if path and not _is_inside(key, [path])]
    foreign = {*differing["missing"], *differing["of another shape"]}
    absent = _last_children(network, f"{path}." if path else "", foreign)
    fits = all(key in beside or _is_inside(key, absent) for key in keys)
    return beside, absent if fits else []


def _told(differing: Mapping[str, list[str]], own: Mapping[str, Any], fitted: Mapping[str, Any]) -> str:
    shapes = [f"{key} {_shape(fitted[key])} in place of {_shape(own[key])}" for key in differing["of another shape"]]
    told = {**differing, "of another shape": shapes}
    return "; ".join(f"{what}: {shortened(keys)}" for what, keys in told.items() if keys)


def _last_children(network: nn.Module, prefix: str, foreign: Collection[str]) -> list[str]:
    """The last children that have such weights; of a sequence that has them in part, its own last ones."""
    absent: list[str] = []
    with_weights = [
        (prefix + name, child, keys)
        for name, child in network.named_children()
        if (keys := {f"{prefix}{name}.{key}" for key in child.state_dict() if not _is_dispensable(key)})
    ]
    for name, child, keys in reversed(with_weights):
        if not keys & set(foreign):
            return absent
        inside = _last_children(child, f"{name}.", foreign) if isinstance(child, nn.Sequential) else []
        if inside:
            return [*inside, *absent]
        absent.insert(0, name)
    return []  # the weights of nothing are there


def _is_inside(key: str, children: Collection[str]) -> bool:
    return any(key.startswith(f"{child}.") for child in children)
