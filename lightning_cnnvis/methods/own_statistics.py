"""The colours and the spectrum of a user's own images: measured once, kept in checkpoints, read from them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Literal

import torch

from lightning_cnnvis.functional.optimization.parameterizations import ImageStatistics
from lightning_cnnvis.functional.optimization.spectrum import DIRECTIONS, SCALES
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.methods.subject import Images

OwnStatistics = ImageStatistics | Literal["own"]
"""Statistics, or the word for those of the user's own images."""

MEASURED = 64
"""Number of images that are measured; a run's memory holds them until they are."""


def as_statistics(given: Any) -> OwnStatistics | None:
    """Reads statistics as a user gives them, also as a YAML file has them.

    Args:
        given: Statistics, a mapping of their fields, ``"own"`` or None.

    Returns:
        The statistics, ``"own"`` or None.

    Raises:
        ValueError: If it is something else.

    Examples:
        >>> as_statistics("mine")
        Traceback (most recent call last):
        ...
        ValueError: statistics='mine': give ImageStatistics, 'own' for those of your images, or None.
    """
    if given is None or isinstance(given, ImageStatistics):
        return given
    if isinstance(given, str) and given == "own":
        return "own"
    found = statistics_from(given)
    if found is None:
        raise ValueError(f"statistics={given!r}: give ImageStatistics, 'own' for those of your images, or None.")
    return found


def wants_own(options: Any) -> bool:
    """Tells whether options ask for statistics that have still to be measured.

    Args:
        options: The options of any method.

    Returns:
        Whether they do.
    """
    statistics = getattr(options, "statistics", None)
    return isinstance(statistics, str) and statistics == "own"


def with_statistics(options: Any, statistics: ImageStatistics | None) -> Any:
    """Puts statistics in the place of ``"own"``.

    Args:
        options: The options of any method.
        statistics: The statistics; None for those of everyday photographs.

    Returns:
        The options; the same if they do not ask for any.
    """
    return replace(options, statistics=statistics) if wants_own(options) else options


def measured(statistics: OwnStatistics | None) -> ImageStatistics | None:
    """Returns statistics that are known.

    Args:
        statistics: Statistics, ``"own"`` or None.

    Returns:
        The statistics; None where they are not known, which stands for everyday photographs.
    """
    return statistics if isinstance(statistics, ImageStatistics) else None


def measure_images(images: Images, input_spec: InputSpec) -> ImageStatistics:
    """Measures the first images.

    Args:
        images: Where they come from.
        input_spec: The network's input.

    Returns:
        Their statistics.

    Raises:
        ValueError: If there is no image, or they have fewer than 4 pixels a side.
    """
    return ImageStatistics.measure(images.first(MEASURED, input_spec))


def statistics_state(statistics: ImageStatistics | None) -> dict[str, Any] | None:
    """Makes builtins of statistics, for a checkpoint.

    Args:
        statistics: The statistics, or None.

    Returns:
        The builtins; None for None.
    """
    return None if statistics is None else asdict(statistics)


def statistics_from(state: Any) -> ImageStatistics | None:
    """Reads statistics from a checkpoint, which may hold anything.

    Args:
        state: What was stored under the name.

    Returns:
        The statistics; None if it is something else.

    Examples:
        >>> statistics = ImageStatistics.natural(1)
        >>> statistics_from(statistics_state(statistics)) == statistics, statistics_from({"mean": "a"})
        (True, None)
    """
    if not isinstance(state, Mapping):
        return None
    try:
        mean = torch.tensor(state["mean"], dtype=torch.float64, device="cpu")
        covariance = torch.tensor(state["covariance"], dtype=torch.float64, device="cpu")
        spectrum = torch.tensor(state.get("spectrum") or (), dtype=torch.float64, device="cpu")
        decay = float(state.get("decay", ImageStatistics.decay))
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError):
        return None
    channels = len(mean) if mean.ndim == 1 else 0
    shapes = covariance.shape == (channels, channels) and (
        not spectrum.numel() or spectrum.shape == (channels, SCALES, DIRECTIONS)
    )
    finite = all(values.isfinite().all() for values in (mean, covariance, spectrum)) and abs(decay) < 100
    if not (channels and shapes and finite):
        return None
    return ImageStatistics(
        tuple(mean.tolist()),
        tuple(map(tuple, covariance.tolist())),
        decay,
        tuple(tuple(map(tuple, rows)) for rows in spectrum.tolist()),
    )


def statistics_in(callbacks: Mapping[str, Any]) -> ImageStatistics | None:
    """Finds the statistics that a run's callbacks have measured.

    Args:
        callbacks: States of the callbacks in a checkpoint, by their keys.

    Returns:
        The first ones; None if there are none.
    """
    states = (state.get("statistics") for state in callbacks.values() if isinstance(state, Mapping))
    return next((found for found in map(statistics_from, states) if found is not None), None)
