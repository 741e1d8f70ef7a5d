"""What a checkpoint says beside its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.spec import MAX_SIDE


@dataclass(frozen=True, eq=False)
class Facts:
    """What a checkpoint says beside its weights; all of it may be missing.

    Attributes:
        epoch: Number of epochs that the network was trained for.
        input_spec: The network's input, as a visualisation found it during the training.
        batch_spec: The images of the batches, of which the training makes that input; None if it is not known.
        metrics: Values that the checkpoint was chosen by, by name.
        callbacks: States of the callbacks, by their keys.
        data_options: Arguments that the data module was made with.
    """

    epoch: int | None = None
    input_spec: InputSpec | None = None
    batch_spec: InputSpec | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    callbacks: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(content: Any) -> Facts:
        """Gathers what the content of a file says.

        Args:
            content: What was read from a checkpoint or a file of weights.

        Returns:
            The facts; empty for plain weights.

        Examples:
            >>> Facts.of({"state_dict": {}, "epoch": 2, "datamodule_hyper_parameters": {"batch_size": 8}}).epoch
            3
        """
        if not isinstance(content, Mapping):
            return Facts()
        callbacks = _mapping(content.get("callbacks"))
        states = [state for state in callbacks.values() if isinstance(state, Mapping)]
        specs = ([_input_spec(state.get(name)) for name in ("input_spec", "batch_spec")] for state in states)
        known = next(((spec, batch_spec) for spec, batch_spec in specs if spec is not None), (None, None))
        scores = ((state.get("monitor"), _number(state.get("current_score"))) for state in states)
        return Facts(
            epoch_of(content),
            known[0],
            known[1],
            {name: score for name, score in scores if isinstance(name, str) and score is not None},
            {key: state for key, state in callbacks.items() if isinstance(key, str)},
            {
                key: value
                for key, value in _mapping(content.get("datamodule_hyper_parameters")).items()
                if isinstance(key, str)
            },
        )


def epoch_of(content: Any) -> int | None:
    """Counts the epochs that a checkpoint of Lightning was trained for.

    Args:
        content: What was read from the file.

    Returns:
        The number of whole epochs; None if the content does not say it.

    Examples:
        >>> epoch_of({"epoch": 0}), epoch_of({"0.weight": 0})
        (1, None)
    """
    epoch = content.get("epoch") if isinstance(content, Mapping) else None
    if not _is_count(epoch):
        return None
    # `epoch` counts from 0 when it is saved during an epoch, and from 1 after the last one
    progress: Any = content
    for key in ("loops", "fit_loop", "epoch_progress", "current"):
        progress = _mapping(progress.get(key))
    ready = progress.get("ready")
    return ready if _is_count(ready) and ready > 0 else epoch + 1


def _input_spec(value: Any) -> InputSpec | None:
    """The input that a callback noted; None for what is none, whatever it is."""
    if not isinstance(value, Mapping) or "size" not in value:
        return None
    channels = value.get("channels", 3)
    if not _is_count(channels) or channels > MAX_SIDE:  # a mean is repeated for each
        return None
    try:
        spec = InputSpec(**value)
        numbers = (*spec.size, spec.channels, *spec.mean, *spec.std)
        is_one = all(isinstance(number, int) for number in numbers[:3]) and all(map(math.isfinite, numbers))
        is_one = is_one and all(isinstance(name, str) for name in spec.class_names)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return spec if is_one and max(spec.size) <= MAX_SIDE else None


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
