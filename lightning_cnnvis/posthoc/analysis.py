"""A trained network, and the methods to look at it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from lightning_cnnvis.checkpoints import Checkpoint, Run, load
from lightning_cnnvis.functional.network.forward import blank_input, is_about_shapes
from lightning_cnnvis.functional.tensors import to_cpu
from lightning_cnnvis.inputs import InputSpec, OutputKind
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError, check_takes_an_image, find_network
from lightning_cnnvis.methods.builtin import BuiltinMethods
from lightning_cnnvis.methods.method import BoundMethod, Method
from lightning_cnnvis.methods.own_statistics import measure_images, statistics_in, wants_own, with_statistics
from lightning_cnnvis.methods.registry import get_method, method_names
from lightning_cnnvis.methods.results import Animation, Result
from lightning_cnnvis.pictures import Picture
from lightning_cnnvis.posthoc.images import Images
from lightning_cnnvis.posthoc.layer_table import LayerTable, layer_table
from lightning_cnnvis.posthoc.progress_bar import optimizing, watched
from lightning_cnnvis.posthoc.reading import Reading
from lightning_cnnvis.posthoc.source import Data, ImageSource
from lightning_cnnvis.posthoc.subject import AnalysisSubject

R = TypeVar("R", bound=Result)


class Analysis(BuiltinMethods):
    """A trained network and images to show it. `analyze` makes one.

    Every method is a method of it, those that were registered from outside as well: ``analysis.dream(["relu2"])``.

    Args:
        checkpoint: The network.
        data: Images; those of the checkpoint's own run if None. They are looked for when they are needed.
        input_spec: The format of the network's input; None takes what the checkpoint or the data tell.
        output_kind: What a classifier's output is; None takes what the format of the input says. See `InputSpec`.
        progress: Whether to show the progress of what takes longer than a second.
        reading: How images are read, and how many of them; one after the other, and all, if None.

    Raises:
        DataError: If there are no such data, or the format of the input is not known.
        LayerError: If the network does not run on its input.

    Attributes:
        checkpoint: The network and what is known of it.
        model: The network.
        input_spec: The format of its input.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        data: Data | None = None,
        *,
        input_spec: InputSpec | None = None,
        output_kind: OutputKind | None = None,
        progress: bool = False,
        reading: Reading | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.model
        self.progress = progress
        self._source = ImageSource(checkpoint, data, reading)
        self.input_spec = input_spec or checkpoint.input_spec or self._source.input_spec()
        if not self.input_spec.class_names and checkpoint.data_options and not checkpoint.absent:
            self.input_spec = replace(self.input_spec, class_names=self._source.class_names())
        if output_kind is not None:
            self.input_spec = replace(self.input_spec, output_kind=output_kind)
        self._check_input()

    @property
    def source(self) -> Any:
        """Where the images come from: a data module, image files, a loader, or None."""
        return self._source.found

    @property
    def images(self) -> Images:
        """The images.

        Raises:
            DataError: If there are none.
        """
        return self._source.images

    @property
    def subject(self) -> AnalysisSubject:
        """What methods look at: the network, and the images."""
        return AnalysisSubject(
            network=self.model,
            input_spec=self.input_spec,
            absent=self.checkpoint.absent,
            source=self._source,
            progress=self.progress,
        )

    def layers(self) -> LayerTable:
        """The network's layers with kind, map size, receptive field, stride, and whether they can be projected.

        Returns:
            The table.
        """
        total = sum(1 for _ in self.model.modules())
        subject = self.subject
        with isolated(self.model) as network:
            rows = watched(layer_table(network, self.input_spec), total, "Layers", "layer", shown=self.progress)
            return LayerTable(tuple(row for row in rows if not subject.is_absent(row.name)))

    def look(self, method: Method[..., R] | str, options: Any = None, *, partial: Path | None = None) -> R:
        """Runs a method. ``analysis.<method>(...)`` does the same, with the options as arguments.

        Args:
            method: The method, or its name.
            options: The method's options, or a mapping of them; the defaults if None.
            partial: File in which the results of a pass over the images that takes longer than a minute are kept
                meanwhile, so that the same call goes on from them if the program is killed; removed in the end. None
                keeps nothing.

        Returns:
            The result, with pictures whose tags are those of a training.

        Raises:
            ValueError: If there is no such method, an option is out of range, or the method cannot be used on the
                network.
        """
        row: Method[..., Any] = get_method(method) if isinstance(method, str) else method
        if options is None or isinstance(options, Mapping):
            options = row.options_from(options or {})
        results: dict[str, Any] = {}
        pictures: dict[str, Picture] = {}
        animations: dict[str, Animation] = {}
        scalars: dict[str, float] = {}
        tables: dict[str, str] = {}
        texts: dict[str, Sequence[str]] = {}
        documents: dict[str, str] = {}
        # one copy for all parts: whatever isolates it again is given it back
        with isolated(self.model) as network:
            subject = replace(self.subject, network=network, partial=partial)
            if wants_own(options):
                measured = statistics_in(self.checkpoint.callbacks) or measure_images(subject.images, self.input_spec)
                options = with_statistics(options, measured)
            parts = row.work(subject, options)
            prepared = row.prepare(subject, options, parts)
            for part, items in watched(parts.items(), len(parts), row.name, "layer", shown=self.progress):
                with optimizing(f"{row.name} {part}".strip(), shown=self.progress):
                    results[part] = to_cpu(row.run(subject, options, part, items, prepared))
                for tag, drawing in row.draw(subject, options, part, results[part], self._title).items():
                    if isinstance(drawing, Animation):
                        animations[tag] = drawing
                    else:
                        pictures[tag] = drawing
                scalars |= row.scalars(options, part, results[part])
                tables |= row.tables(options, part, results[part])
                texts |= row.texts(options, part, results[part])
                documents |= row.documents(options, part, results[part])
        if partial is not None:
            partial.unlink(missing_ok=True)
        skipped = self.images.skipped if subject.images_used else {}
        found: R = row.result(
            pictures,
            parts=results,
            animations=animations,
            scalars=scalars,
            tables=tables,
            texts=texts,
            documents=documents,
            skipped=skipped,
        )
        return found

    def __getattr__(self, name: str) -> Any:
        """A method that was registered from outside."""
        if name.startswith("_") or name not in method_names():
            raise AttributeError(
                f"{type(self).__name__} has no method {name!r}. It has {', '.join(['layers', *method_names()])}."
            )
        return BoundMethod(get_method(name), self)

    def __repr__(self) -> str:
        """What it is of, and what it can be asked for."""
        images = "no images yet" if self._source.found is None else f"images from {type(self._source.found).__name__}"
        return (
            f"Analysis of {self.checkpoint.name}: {type(self.model).__name__}, input "
            f"{'×'.join(map(str, self.input_spec.shape))}, {images}\n"
            f"It has {', '.join(['layers', *method_names()])}."
        )

    def __dir__(self) -> list[str]:
        """The attributes, and all methods."""
        return sorted({*super().__dir__(), *method_names()})

    # The rest.

    def _title(self, shown: str) -> str:
        epoch = self.checkpoint.epoch
        return f"{shown} · {self.checkpoint.name}" + ("" if epoch is None else f" · epoch {epoch}")

    def _check_input(self) -> None:
        check_takes_an_image(self.model)
        with isolated(self.model) as network, torch.no_grad():
            try:
                network(blank_input(network, self.input_spec))
            except Exception as error:
                if not is_about_shapes(error):
                    raise
                raise LayerError(
                    f"{self.checkpoint.name} does not run on an image of shape {self.input_spec.shape}: {error}. Say "
                    "what its input looks like: input_spec=InputSpec(size=..., channels=...)."
                ) from error


def analyze(
    checkpoint: str | Path | nn.Module | Run | None = None,
    data: Data | None = None,
    *,
    model: str | nn.Module | None = None,
    network: str | None = None,
    input_spec: InputSpec | None = None,
    output_kind: OutputKind | None = None,
    device: torch.device | str = "cpu",
    trust: bool = False,
    progress: bool = False,
    workers: int | None = 0,
    max_images: int | None = None,
) -> Analysis:
    """Opens a trained network to look at.

    Args:
        checkpoint: A checkpoint of Lightning, a file of plain weights, a run or a folder with checkpoints, or a
            network; None takes the published weights of ``model``. See `lightning_cnnvis.checkpoints.load`.
        data: Images to show it: a folder of them, image files, a data module or its import path, a loader of batches,
            or a tensor ``(N, C, H, W)``, normalised. Those that the run was validated on, if None.
        model: What the weights are of, where the file does not tell: an import path, ``"torchvision:NAME"``,
            ``"timm:NAME"``, or a network.
        network: Dotted name of the part to look at, in the LightningModule or in the network, such as one that takes
            the images where the whole takes more than that; None takes the whole.
        input_spec: The format of the input, where neither checkpoint nor data tell.
        output_kind: What a classifier's output is, where it does not show itself: ``"sigmoid"`` for the logits of
            several labels. See `InputSpec`.
        device: Where to put the network.
        trust: Whether to unpickle whatever is in the file, which may run any code.
        progress: Whether to show progress bars.
        workers: Number of processes that read photographs ahead of the network; None starts as many as there are
            processors, at most 8, where there are many photographs. A script that starts processes needs
            ``if __name__ == "__main__":`` on some systems.
        max_images: How many images to go through: of files, so many that are spread evenly over all; of a loader, the
            first ones. None goes through all.

    Returns:
        The network, with ``layers()`` and every method: ``deconv()``, ``classes()`` and so on. In a notebook their
        results show themselves as pictures.

    Raises:
        CheckpointError: If the checkpoint cannot be loaded.
        DataError: If the data are not there.
        LayerError: If there is no such part of the network, or the network does not run on images.
        ValueError: If a number is out of range.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> analysis = analyze(net, torch.rand(4, 3, 16, 16), input_spec=InputSpec(size=(16, 16)))
        >>> analysis.deconv(k=2, num_channels=3).projections["1"].pixels.shape
        torch.Size([6, 3, 3, 3])
    """
    reading = Reading(workers, max_images)  # checked before anything is loaded
    loaded = load(checkpoint, model, device=device, trust=trust)
    if network is not None:
        _, part = find_network(loaded.module or loaded.model, network)
        loaded = replace(loaded, model=part)
    return Analysis(loaded, data, input_spec=input_spec, output_kind=output_kind, progress=progress, reading=reading)
