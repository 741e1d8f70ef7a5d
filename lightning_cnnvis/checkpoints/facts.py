"""What a checkpoint says beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_cnnvis.inputs import InputSpec


@dataclass(frozen=True, eq=False)
class Facts:
    """What a checkpoint says beside its weights; all of it may be missing.

    Attributes:
        epoch: Number of epochs that the network was trained for.
        input_spec: The network's input, as a visualisation found it during the training.
        metrics: Values that the checkpoint was chosen by, by name.
        callbacks: States of the callbacks, by their keys.
        data_options: Arguments that the data module was made with.
    """

    epoch: int | None = None
    input_spec: InputSpec | None = None
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

        Example:
            >>> Facts.of({"state_dict": {}, "epoch": 2, "datamodule_hyper_parameters": {"batch_size": 8}}).epoch
            3
        """
        if not isinstance(content, Mapping):
            return Facts()
        callbacks = _mapping(content.get("callbacks"))
        states = [state for state in callbacks.values() if isinstance(state, Mapping)]
        specs = (state["input_spec"] for state in states if state.get("input_spec"))
        return Facts(
            epoch_of(content),
            next((InputSpec(**spec) for spec in specs), None),
            {
                state["monitor"]: float(state["current_score"])
                for state in states
                if state.get("monitor") and state.get("current_score") is not None
            },
            callbacks,
            _mapping(content.get("datamodule_hyper_parameters")),
        )


def epoch_of(content: Any) -> int | None:
    """Counts the epochs that a checkpoint of Lightning was trained for.

    Args:
        content: What was read from the file.

    Returns:
        The number of whole epochs; None if the content does not say it.

    Example:
        >>> epoch_of({"epoch": 0}), epoch_of({"0.weight": 0})
        (1, None)
    """
    epoch = content.get("epoch") if isinstance(content, Mapping) else None
    if not isinstance(epoch, int):
        return None
    # `epoch` counts from 0 when it is saved during an epoch, and from 1 after the last one
    progress: Any = content
    for key in ("loops", "fit_loop", "epoch_progress", "current"):
        progress = _mapping(progress.get(key))
    ready = progress.get("ready")
    return ready if isinstance(ready, int) and ready > 0 else epoch + 1


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
