"""The report of a checkpoint, or of a run with all its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import nn

from lightning_cnnvis.callbacks import MethodCallback, callback_of
from lightning_cnnvis.checkpoints import Checkpoint, Run
from lightning_cnnvis.evolution.accuracy import require
from lightning_cnnvis.methods.registry import all_methods
from lightning_cnnvis.posthoc import Evolution, analyze, evolve, runs
from lightning_cnnvis.posthoc.source import Data
from lightning_cnnvis.report.collect import ReportOptions, collect
from lightning_cnnvis.report.page import render
from lightning_cnnvis.report.plots import plots_of
from lightning_cnnvis.sinks.atomic import write


def report(
    source: str | Path | nn.Module | Run | None,
    output: str | Path = "report.html",
    data: Data | None = None,
    *,
    layers: Sequence[str] | None = None,
    options: ReportOptions | None = None,
    **opening: Any,
) -> Path:
    """Writes one HTML page on what a network has learnt; it opens from the disk and asks nothing of the network.

    Args:
        source: A checkpoint, weights or a network, as for `analyze`; or a run or its folder, whose checkpoints
            then also give the evolution over the epochs and the curves.
        output: The file to write, or a folder, in which it is ``report.html``.
        data: Images, as for `analyze`.
        layers: Dotted names of the layers to show; those that each method chooses if None.
        options: What to show.
        **opening: What `analyze` also takes: ``model``, ``network``, ``input_spec``, ``output_kind``, ``device``,
            ``trust``, ``progress``, ``workers``, ``max_images``. The evolution over a run's epochs is that of the
            whole network.

    Returns:
        The file. It is there only once it is whole.

    Raises:
        CheckpointError: If there is no checkpoint, or one cannot be loaded.
        DataError: If there are no images to show the network.
        ModuleNotFoundError: If Matplotlib or SciPy is missing.
        OSError: If the file cannot be written.

    Examples:
        >>> import tempfile, torch
        >>> from lightning_cnnvis import InputSpec
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> file = Path(tempfile.mkdtemp()) / "report.html"
        >>> few = ReportOptions(k=2, steps=2)
        >>> report(net, file, torch.rand(2, 3, 16, 16), input_spec=InputSpec(size=(16, 16)), options=few).name
        'report.html'
    """
    require("matplotlib", "scipy")
    if isinstance(source, str | Path) and Path(source).is_dir():
        with Run(source, trust=opening.get("trust", False)) as run:
            return report(run, output, data, layers=layers, options=options, **opening)
    output = Path(output)
    if output.is_dir() or output.suffix.lower() not in {".html", ".htm"}:
        output /= "report.html"
    analysis = analyze(source, data, **opening)
    measured = _measured(analysis.checkpoint.callbacks)
    options = options or ReportOptions()
    evolution = _evolution(source, data, layers, options, measured, opening) if isinstance(source, Run) else None
    if evolution is not None:
        analysis.checkpoint = _with_metrics(analysis.checkpoint, evolution)
    numbers = {} if evolution is None else {**evolution.curves, **measured}
    content = collect(
        analysis,
        layers,
        evolutions={} if evolution is None else evolution.layers,
        curves=plots_of(numbers),
        numbers=numbers,
        options=options,
    )
    write(output, render(content).encode())
    return output


def _evolution(
    run: Run,
    data: Data | None,
    layers: Sequence[str] | None,
    options: ReportOptions,
    measured: Mapping[str, Any],
    opening: dict[str, Any],
) -> Evolution | None:
    """Shows a run over its epochs, if it has several.

    What is shown over the epochs in any case is drawn again, as the run drew it if it did; what else it optimised would
    take minutes, and what it measured is known.

    Returns:
        The epochs; None if there are fewer than two, or nothing is to be shown of them.
    """
    if len(run.epochs) < 2:
        return None
    drawn = [] if layers is not None else runs.visualizations(run)
    shows: list[pl.Callback] = []
    for method in options.methods:
        # one that measures with options of its own need not, where the run did
        if method.evolve is None or (method.evolve and any(tag.startswith(f"{method.error}/") for tag in measured)):
            continue
        own = [show for show in drawn if isinstance(show, MethodCallback) and show.method.name == method.name]
        steps = {"steps": options.steps} if options.steps and method.evolve and "steps" in method.fields else {}
        again = callback_of(method, layers=layers, seed=options.seed or 0, **{**method.evolve, **steps})
        shows += own if own and not method.evolve else [again]
    of_all_epochs = {name: value for name, value in opening.items() if name not in ("network", "output_kind")}
    return evolve(run, data, callbacks=shows, **of_all_epochs) if shows else None


def _with_metrics(checkpoint: Checkpoint, evolution: Evolution) -> Checkpoint:
    """Adds what the validation of its epoch logged, which a checkpoint with only weights does not contain."""
    epoch = checkpoint.epoch or 0
    logged = {name: points[epoch] for name, points in evolution.curves.items() if "/" not in name and epoch in points}
    return replace(checkpoint, metrics={**logged, **checkpoint.metrics})


def _measured(callbacks: Mapping[str, Any]) -> dict[str, Mapping[int, float]]:
    """The numbers that a training measured, by tag and epoch, out of its callbacks' state."""
    states = [state for state in callbacks.values() if isinstance(state, Mapping)]
    return {
        tag: points for method in all_methods() for state in states for tag, points in method.measured(state).items()
    }
