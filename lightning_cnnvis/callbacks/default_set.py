"""The callbacks that a training has by default, and those that show methods of any names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from lightning_cnnvis.callbacks.base.method import MethodCallback, callback_class
from lightning_cnnvis.callbacks.visualization_checkpoint import VisualizationCheckpoint
from lightning_cnnvis.methods.method import Method
from lightning_cnnvis.methods.registry import all_methods, get_method


def visualizations(
    show: Sequence[str] | None = None,
    *,
    layers: Sequence[str] | None = None,
    keep_weights: bool = True,
    **schedule: Any,
) -> list[pl.Callback]:
    """Makes the callbacks that show what a network learns: ``Trainer(callbacks=visualizations())``.

    By default they are deconvnet projections, class images, inversions and the diagnosis, at the same epochs, of the
    same layers, with optimisations short enough for a training. What the network does not allow, such as class images
    of one that is not a classifier, is left out with a warning; what ``show`` names is refused instead.

    Args:
        show: Names of methods, such as ``["deconv", "dream"]``, in place of the default set.
        layers: Dotted names of layers, and patterns, such as ``"layer*.1"``, for every method that takes some; at most
            six rectified convolutions, spread over the depth, if None.
        keep_weights: Whether to keep the weights of the epochs that are shown, for ``evolve`` and ``report``; see
            `VisualizationCheckpoint`.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Returns:
        The callbacks.

    Raises:
        ValueError: If there is no such method; the message lists them.
        MisconfigurationException: If an argument is out of range.

    Examples:
        >>> [type(callback).__name__ for callback in visualizations(epochs=[1, 2, 5])][:2]
        ['DeconvNetProjection', 'ClassVisualization']
        >>> visualizations(["dreams"])
        Traceback (most recent call last):
        ...
        ValueError: There is no method 'dreams'. Did you mean 'dream'? There are deconv, classes, ...
    """
    callbacks: list[pl.Callback] = []
    for method in methods_to_show(show):
        own: dict[str, Any] = {} if layers is None or "layers" not in method.fields else {"layers": layers}
        callback: MethodCallback = callback_class(method)(**{**(method.training or {}), **own, **schedule})
        callback.optional = show is None
        callbacks.append(callback)
    return [*callbacks, VisualizationCheckpoint()] if keep_weights else callbacks


def methods_to_show(names: Sequence[str] | None = None) -> list[Method[..., Any]]:
    """Finds the methods that a training shows.

    Args:
        names: Names of methods, or the first parts of their tags, such as ``"inversion"`` for ``"invert"``; None for
            the default set.

    Returns:
        The methods, each once.

    Raises:
        ValueError: If there is no such method; the message lists them.
    """
    if names is None:
        return [method for method in all_methods() if method.training is not None]
    return list({method.name: method for method in map(get_method, names)}.values())
