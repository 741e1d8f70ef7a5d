"""All the checkpoints of a run in order: how its features came about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

from lightning_cnnvis import figures
from lightning_cnnvis.callbacks import MethodCallback, VisualizationCallback, callback_of
from lightning_cnnvis.checkpoints import Run, load
from lightning_cnnvis.evolution.features import LayerEvolution
from lightning_cnnvis.figures.curves import curves_picture, save_csv
from lightning_cnnvis.functional.optimization.parameterizations import ImageStatistics
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.methods.own_statistics import statistics_in, wants_own
from lightning_cnnvis.methods.registry import all_methods, scalar_plots
from lightning_cnnvis.posthoc import runs
from lightning_cnnvis.posthoc.analysis import Analysis
from lightning_cnnvis.posthoc.images import ImageFiles
from lightning_cnnvis.posthoc.progress_bar import watched
from lightning_cnnvis.posthoc.reading import Reading
from lightning_cnnvis.posthoc.replay import JustANetwork, Replayer
from lightning_cnnvis.posthoc.source import Data
from lightning_cnnvis.sinks.atomic import write
from lightning_cnnvis.sinks.tags import document_file, epoch_file, table_file


@dataclass(frozen=True, eq=False, repr=False)
class Evolution:
    """What the callbacks of a run drew and measured at its epochs. In a notebook it shows the strips.

    Attributes:
        epochs: The epochs, counted from 1, ascending.
        pictures: PNG files by tag and epoch.
        curves: Numbers by tag and epoch: what the callbacks measured, and what the validation logged.
        tables: Tables as CSV, by tag, such as errors beside the accuracy.
        documents: Other files of text, by name, such as findings.
        animations: GIF files by tag and epoch.
        layers: Each layer's fixed units, and the columns of its strip.
        skipped: Image files that could not be read, and why.
    """

    epochs: tuple[int, ...]
    pictures: Mapping[str, Mapping[int, bytes]]
    curves: Mapping[str, Mapping[int, float]]
    tables: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)
    animations: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict)
    layers: Mapping[str, LayerEvolution] = field(default_factory=dict)
    skipped: Mapping[Path, str] = field(default_factory=dict)

    @property
    def strips(self) -> dict[str, bytes]:
        """The last state of each strip, a PNG file, by tag."""
        return {tag: states[max(states)] for tag, states in self.pictures.items() if "evolution" in tag}

    def _repr_png_(self) -> bytes:
        pictures = [np.asarray(Image.open(BytesIO(png)).convert("RGB")) for png in self.strips.values()]
        buffer = BytesIO()
        Image.fromarray(figures.stacked(pictures)).save(buffer, "PNG")
        return buffer.getvalue()

    def save(self, folder: str | Path) -> list[Path]:
        """Writes every picture, animation and table, named as the callbacks do, and the curves.

        The curves are ``curves.csv`` and ``curves.png``.

        Args:
            folder: Where to; it is made if it is not there.

        Returns:
            The files. Each is written under a temporary name first.

        Raises:
            OSError: If one cannot be written.
        """
        folder = Path(folder)
        files = {
            folder / epoch_file(tag, epoch, suffix): data
            for kind, suffix in ((self.pictures, ".png"), (self.animations, ".gif"))
            for tag, states in kind.items()
            for epoch, data in states.items()
        }
        files |= {folder / table_file(tag): table.encode() for tag, table in self.tables.items()}
        files |= {folder / document_file(name): content.encode() for name, content in self.documents.items()}
        files[folder / "curves.csv"] = save_csv(self.curves)
        picture = curves_picture(self.curves, {kind: plot.title for kind, plot in scalar_plots().items()})
        if picture is not None:
            files[folder / "curves.png"] = picture
        for file, data in files.items():
            write(file, data)
        return list(files)

    def __repr__(self) -> str:
        """The epochs and the tags."""
        return f"Evolution(epochs {', '.join(map(str, self.epochs))}: {', '.join(self.pictures)})"


def find_epochs(folder: str | Path, *, trust: bool = False) -> dict[int, Path]:
    """Lists the checkpoints of a run by epoch.

    Those of the epochs that were shown, where they were kept (`VisualizationCheckpoint`); else all that there are.
    Files that do not say their epoch have it in their names, or are counted in the natural order of these.

    Args:
        folder: The folder of a run, or one with checkpoints.
        trust: As for `analyze`.

    Returns:
        The files by epoch, counted from 1, ascending.

    Raises:
        CheckpointError: If there are none, or they are of several runs.
    """
    with Run(folder, trust=trust) as run:
        return run.epochs


def evolve(
    run: str | Path | Run,
    data: Data | None = None,
    *,
    model: str | nn.Module | None = None,
    callbacks: Sequence[pl.Callback] | None = None,
    epochs: Sequence[int] | None = None,
    input_spec: InputSpec | None = None,
    device: torch.device | str = "cpu",
    trust: bool = False,
    progress: bool = False,
    workers: int | None = 0,
    max_images: int | None = None,
) -> Evolution:
    """Draws the pictures of a training again, from its checkpoints: those that it drew itself, bit for bit, and others.

    Args:
        run: A run, its folder, or one with checkpoints.
        data: As for `analyze`.
        model: As for `analyze`.
        callbacks: What to show. By default the visualisations in the run's ``config.yaml``, and if they are not among
            them, those of methods that are shown over the epochs in any case.
        epochs: The epochs to show, of those that have checkpoints; all of them if None.
        input_spec: As for `analyze`.
        device: As for `analyze`. On the device of the training, pictures come out the same to the bit.
        trust: As for `analyze`. A `Run` has its own.
        progress: Whether to show a progress bar.
        workers: As for `analyze`.
        max_images: As for `analyze`; of a loader, whole batches, which a validation is made of: as many as hold so many
            images.

    Returns:
        The pictures and the curves.

    Raises:
        CheckpointError: If there is no checkpoint, or one cannot be loaded.
        DataError: If there are no images to show the network.
    """
    if not isinstance(run, Run):
        with Run(run, trust=trust) as opened:
            return evolve(
                opened, data, model=model, callbacks=callbacks, epochs=epochs, input_spec=input_spec, device=device,
                progress=progress, workers=workers, max_images=max_images,
            )  # fmt: skip
    chosen = _chosen(run, epochs)
    loaded = load(run, model, epoch=chosen[0], device=device)
    # weights only say nothing of their input, but another checkpoint of the run may
    if loaded.input_spec is None:
        loaded = replace(loaded, input_spec=run.input_spec, batch_spec=run.batch_spec)
    analysis = Analysis(loaded, data, input_spec=input_spec, reading=Reading(workers, max_images))
    module, feed = _module_and_data(analysis)
    shows = _default_shows(run, module) if callbacks is None else list(callbacks)
    for callback in shows:
        if isinstance(callback, VisualizationCallback) and callback.needs_output:
            loaded.require_output()
    for callback in shows:
        if isinstance(callback, VisualizationCallback):
            callback.show_at(chosen)
            callback.input_spec = callback.input_spec or input_spec or _unless_the_data_say(analysis)
            callback.batch_spec = loaded.batch_spec
        if isinstance(callback, MethodCallback) and wants_own(callback.options):
            callback.know_statistics(_statistics(run, chosen))
    replayer = Replayer(shows, chosen[-1], torch.device(device), _shortened(runs.trainer_options(run), analysis))
    for epoch in watched(chosen, len(chosen), "Evolution", "epoch", shown=progress):
        load(run, loaded.module or loaded.model, epoch=epoch, device=device)
        replayer.show(epoch, module, **feed)
    replayer.end(module)
    drawn = replayer.recording
    return Evolution(
        tuple(chosen),
        drawn.pictures,
        drawn.scalars | replayer.metrics,
        tables=drawn.tables,
        documents=drawn.documents,
        animations=drawn.animations,
        layers=_layer_evolutions(shows),
        skipped=analysis.images.skipped,
    )


def _statistics(run: Run, epochs: Sequence[int]) -> ImageStatistics | None:
    """The statistics that the run has measured of its images: not before the first epoch that it drew."""
    states = (run.facts(run.epochs[epoch]).callbacks for epoch in reversed(epochs))
    return next((found for found in map(statistics_in, states) if found is not None), None)


def _default_shows(run: Run, module: pl.LightningModule) -> list[pl.Callback]:
    """What the run itself drew, and what is shown over the epochs in any case."""
    shows = runs.visualizations(run)
    drawn = {show.method.name for show in shows if isinstance(show, MethodCallback)}
    for method in all_methods():
        # measured beside the accuracy, which a network without a LightningModule does not log
        if method.evolve is None or method.name in drawn or (method.evolve and isinstance(module, JustANetwork)):
            continue
        shows.append(callback_of(method, **method.evolve))
    return shows


def _chosen(run: Run, epochs: Sequence[int] | None) -> list[int]:
    """The epochs to show, ascending, once it is clear that they have checkpoints."""
    if epochs is None:
        return list(run.epochs)
    for epoch in epochs:
        run.at(epoch)
    return sorted(set(epochs))


def _unless_the_data_say(analysis: Analysis) -> InputSpec | None:
    """What the callbacks cannot find out themselves: they ask the data module first."""
    known, batch_spec = getattr(analysis.source, "input_spec", None), analysis.checkpoint.batch_spec
    told = isinstance(known, InputSpec) and batch_spec in (None, analysis.input_spec)
    return None if told else analysis.input_spec


def _module_and_data(analysis: Analysis) -> tuple[pl.LightningModule, dict[str, Any]]:
    """What ``Trainer.validate`` takes."""
    module = analysis.checkpoint.module
    if isinstance(analysis.source, pl.LightningDataModule) and module is not None:
        return module, {"datamodule": analysis.source}
    if module is None or isinstance(analysis.source, ImageFiles | list):
        # no labels, and nothing to validate but the pictures
        module = JustANetwork(analysis.model)
    return module, {"dataloaders": _Loader(analysis)}


def _shortened(options: Mapping[str, Any], analysis: Analysis) -> Mapping[str, Any]:
    """The Trainer's options, such that a validation ends with the batch that completes the number of images."""
    images = analysis.images
    size = getattr(getattr(images, "loader", None), "batch_size", None)
    if not size or images.reading.max_images is None:
        return options
    batches = math.ceil(images.reading.max_images / size)
    limit = options.get("limit_val_batches")
    if isinstance(limit, float) and len(images):
        limit = int(limit * len(images))  # as Lightning counts
    return {**options, "limit_val_batches": min(batches, limit) if isinstance(limit, int) else batches}


class _Loader:
    """The images as a loader, which can be gone through again and again."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis

    def __iter__(self) -> Any:
        images = self._analysis.images
        loader = getattr(images, "loader", None)
        # batches of a loader have labels, which a module's validation needs
        return images.batches(self._analysis.input_spec) if loader is None or isinstance(loader, list) else iter(loader)


def _layer_evolutions(callbacks: Sequence[pl.Callback]) -> dict[str, LayerEvolution]:
    found: dict[str, LayerEvolution] = {}
    for callback in callbacks:
        if isinstance(callback, VisualizationCallback):
            found |= {layer: state for layer, state in callback.evolutions.items() if layer not in found}
    return found
