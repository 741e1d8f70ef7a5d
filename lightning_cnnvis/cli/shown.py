"""What a training shows, as flags of the commands that train: ``--show`` and ``--epochs_shown``."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Union

from jsonargparse import ArgumentParser, Namespace

from lightning_cnnvis.callbacks import MethodCallback, VisualizationCallback, callback_class, methods_to_show
from lightning_cnnvis.methods import method_names
from lightning_cnnvis.methods.method import Method

BY_DEFAULT = ", ".join(method.name for method in methods_to_show())
"""The names of the methods that are shown if none are chosen."""


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags.

    Args:
        parser: The parser of a command.
    """
    parser.add_argument(
        "--show",
        nargs="+",
        type=str,
        help=f"Methods whose pictures are shown, in the place of {BY_DEFAULT}. There are {', '.join(method_names())}.",
    )
    parser.add_argument(
        "--epochs_shown",
        "--epochs-shown",
        nargs="+",
        type=Union[int, str],  # noqa: UP007 - jsonargparse
        help="Epochs at which they are shown, from 1, such as 1,2,5; the last one is shown in any case.",
    )


def entry_of(method: Method[..., Any]) -> dict[str, Any]:
    """Describes the callback of a method as a configuration does, with the options that it has during a training.

    Args:
        method: The method.

    Returns:
        The entry of the Trainer's callbacks.
    """
    kind = callback_class(method)
    home = "lightning_cnnvis.callbacks" if kind.__module__.startswith("lightning_cnnvis.") else ""
    if getattr(importlib.import_module(home or kind.__module__), kind.__name__, None) is not kind:
        # made for a method that was registered from outside: no import path leads to it
        path, own = "lightning_cnnvis.callbacks.MethodCallback", {"method": method.name}
        return {"class_path": path, "init_args": own | ({"options": dict(method.training)} if method.training else {})}
    return {"class_path": f"{home or kind.__module__}.{kind.__name__}", "init_args": dict(method.training or {})}


def choose(config: Namespace) -> None:
    """Puts what ``--show`` and ``--epochs_shown`` say into the callbacks of a configuration, which a run keeps.

    Args:
        config: The configuration of a command, which is changed.

    Raises:
        ValueError: If there is no such method, or an epoch is not a whole number of at least 1.
    """
    show, epochs = config.pop("show", None), config.pop("epochs_shown", None)
    callbacks = config.trainer.callbacks
    if show is not None:
        others = [entry for entry in callbacks if not _shows(entry, MethodCallback)]
        asked = [Namespace(entry_of(method)) for method in methods_to_show(show)]  # type: ignore[no-untyped-call]
        for entry in asked:
            entry.init_args = Namespace(entry.init_args)  # type: ignore[no-untyped-call]
        callbacks = [*asked, *others]
    if epochs is not None:
        chosen = _epochs(epochs)
        for entry in callbacks:
            if _shows(entry, VisualizationCallback):
                entry.init_args = Namespace({**(entry.get("init_args") or {}), "epochs": chosen})  # type: ignore[no-untyped-call]
                entry.init_args.pop("every_n_epochs", None)
    config.trainer.callbacks = callbacks


def _shows(entry: Namespace, kind: type) -> bool:
    """Whether an entry of a configuration is a callback of a kind."""
    module, _, name = str(entry.class_path).rpartition(".")
    found = getattr(importlib.import_module(module), name, None) if module else None
    return isinstance(found, type) and issubclass(found, kind)


def _epochs(given: Sequence[int | str]) -> list[int]:
    """The epochs that were typed.

    Args:
        given: Numbers, or numbers with commas between them.

    Returns:
        The epochs.

    Raises:
        ValueError: If one is not a whole number of at least 1.

    Examples:
        >>> _epochs(["1,2,5"]), _epochs([1, 2])
        ([1, 2, 5], [1, 2])
    """
    words = [word for one in given for word in str(one).split(",") if word.strip()]
    wrong = [word for word in words if not word.strip().isdecimal() or not int(word)]
    if wrong or not words:
        raise ValueError(f"--epochs_shown {' '.join(map(str, given))}: epochs are whole numbers from 1, such as 1,2,5.")
    return sorted({int(word) for word in words})
