"""A trained network, and the methods to look at it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cnnvis import figures
from lightning_cnnvis.checkpoints import Checkpoint, CheckpointError, Run, load
from lightning_cnnvis.functional.activations.harvest import Harvest
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.functional.deconvnet.projection import Projections, plan_windows
from lightning_cnnvis.functional.deepdream.octaves import DreamOptions, dream
from lightning_cnnvis.functional.inversion.methods import Method
from lightning_cnnvis.functional.inversion.reconstruction import invert_layers
from lightning_cnnvis.functional.inversion.results import on_cpu
from lightning_cnnvis.functional.network.canonical import LRNRule, Rule
from lightning_cnnvis.functional.network.defaults import MAX_DEFAULT_CLASSES, choose_channels, choose_depths
from lightning_cnnvis.functional.network.forward import OUTPUT, blank_input, is_about_shapes, plain_forward
from lightning_cnnvis.functional.visualization.classes import visualize_classes
from lightning_cnnvis.functional.visualization.presets import Preset
from lightning_cnnvis.functional.visualization.results import Visualizations
from lightning_cnnvis.functional.visualization.units import maximize_activation
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError, get_layer, trace_layers
from lightning_cnnvis.posthoc.images import DataError, Images
from lightning_cnnvis.posthoc.layer_table import LayerTable, layer_table
from lightning_cnnvis.posthoc.progress_bar import optimizing, watched
from lightning_cnnvis.posthoc.results import ClassesResult, DeconvResult, DreamResult, InvertResult
from lightning_cnnvis.posthoc.source import Data, ImageSource


class Analysis:
    """A trained network and images to show it. `analyze` makes one.

    Args:
        checkpoint: The network.
        data: Images; those of the checkpoint's own run if None. They are looked for when they are needed.
        input_spec: What the network's input looks like; None takes what the checkpoint or the data say.
        progress: Whether to show the progress of what takes longer than a second.

    Raises:
        DataError: If there is no such data, or nobody says what the input looks like.
        LayerError: If the network does not run on its input.

    Attributes:
        checkpoint: The network and what is known of it.
        model: The network.
        input_spec: What its input looks like.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        data: Data | None = None,
        *,
        input_spec: InputSpec | None = None,
        progress: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.model
        self.progress = progress
        self._source = ImageSource(checkpoint, data)
        self.input_spec = input_spec or checkpoint.input_spec or self._source.input_spec()
        if not self.input_spec.class_names and checkpoint.data_options and not checkpoint.absent:
            self.input_spec = replace(self.input_spec, class_names=self._source.class_names())
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

    def layers(self) -> LayerTable:
        """The network's layers with kind, map size, receptive field, stride, and whether the deconvnet can pass."""
        total = sum(1 for _ in self.model.modules())
        rows = watched(layer_table(self.model, self.input_spec), total, "Layers", "layer", shown=self.progress)
        return LayerTable(tuple(row for row in rows if not self._is_absent(row.name)))

    def deconv(
        self,
        layers: Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        *,
        num_channels: int | None = 16,
        k: int = 9,
        rule: Rule = "deconvnet",
        lrn: LRNRule = "identity",
        seed: int = 0,
    ) -> DeconvResult:
        """Projects the top activations of feature maps to pixels (Zeiler & Fergus 2013, arXiv 1311.2901).

        Args:
            layers: Dotted module names; the rectified output of every convolution if None.
            channels: The feature maps to show of each layer; a seeded random choice if None.
            num_channels: How many to choose; every one if None.
            k: How many activations of each are shown, at most one from an image.
            rule: ``"deconvnet"``, ``"guided"`` or ``"gradient"``.
            lrn: ``"identity"`` or ``"gradient"``: what local response normalisation does on the way down.
            seed: Seed of the choice.

        Returns:
            The projections, and a picture ``deconvnet/<layer>`` of each layer.

        Raises:
            LayerError: If a layer is not there, or the deconvnet cannot pass it.
            ValueError: If a channel is out of range.
        """
        if k < 1 or (num_channels is not None and num_channels < 1):
            raise ValueError(f"k={k}, num_channels={num_channels}: show at least 1 of each.")
        followed = self._channels(layers, channels, num_channels, rule, seed)
        tops = self._top_activations(followed, k, rule)
        projections, pictures = {}, {}
        for layer, top in watched(tops.items(), len(tops), "Projections", "layer", shown=self.progress):
            found: Projections = top.project(self.model, layer, rule=rule, lrn=lrn).to("cpu")
            projections[layer] = found
            pictures[f"deconvnet/{layer}"] = figures.top_features(found, top.k, self.input_spec, self._title(layer))
        shown = min(top.k for top in tops.values())
        return DeconvResult(pictures, shown, projections, tops, skipped=self.images.skipped)

    def classes(
        self,
        classes: Sequence[int | str] | None = None,
        layers: Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        *,
        samples_per_class: int = 1,
        num_channels: int | None = 16,
        preset: Preset = "fourier",
        steps: int | None = None,
        seed: int = 0,
    ) -> ClassesResult:
        """Makes images of what the network takes for its classes, or of what feature maps respond to most.

        See `visualize_classes` and `maximize_activation`. Where there are images, a feature map's tile says how many
        times its strongest activation on them was reached.

        Args:
            classes: Names or numbers of the classes; if None, the first twelve, or none where ``layers`` are named.
            layers: Dotted names of modules whose feature maps, or units, are shown.
            channels: The feature maps to show of each layer; the seeded random choice of `deconv` if None.
            samples_per_class: Images of each class.
            num_channels: How many feature maps to choose; every one if None.
            preset: ``"fourier"``, ``"yosinski2015"``, ``"simonyan2013"`` or ``"none"``.
            steps: Number of optimisation steps; the preset's if None.
            seed: Seed of the noise to start from.

        Returns:
            The images, the picture ``class_visualization/classes``, and a picture ``class_visualization/<layer>`` of
            each layer.

        Raises:
            CheckpointError: If the weights lack the network's end.
            LayerError: If a layer is not there.
            ValueError: If there is no such class or channel, or the network is no classifier.
        """
        if channels is not None and not layers:
            raise ValueError(f"channels={list(channels)} of which layers? Name them: layers.")
        followed = self._channels(layers, channels, num_channels, "gradient", seed) if layers else {}
        shown, pictures = None, {}
        if classes or not followed:
            shown = self._visualize_classes(classes, samples_per_class, preset, steps, seed)
            pictures["class_visualization/classes"] = self._optimized_picture(
                shown, "Classes", f"Optimised from noise to raise the class's logit ({preset}): probability and logit."
            )
        strongest = self._strongest(followed)
        maximized = {}
        for layer, chosen in followed.items():
            with optimizing(f"Feature maps of {layer}", shown=self.progress):
                maximized[layer] = maximize_activation(
                    self.model, layer, chosen, input_spec=self.input_spec, preset=preset, steps=steps, seed=seed
                )
            note = f"Optimised from noise to raise the mean of the feature map ({preset}): its peak"
            if layer in strongest:
                note += ", and how many times the strongest activation on the images"
            pictures[f"class_visualization/{layer}"] = self._optimized_picture(
                maximized[layer], layer, f"{note}.", strongest.get(layer)
            )
        return ClassesResult(pictures, shown, maximized, skipped=self.images.skipped if strongest else {})

    def dream(
        self,
        layers: Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        *,
        image: Tensor | None = None,
        size: int | None = 512,
        options: DreamOptions | None = None,
        seed: int = 0,
    ) -> DreamResult:
        """Enhances in a photograph what layers see in it; see `dream`.

        Args:
            layers: Dotted module names; a low, a middle and a high rectified convolution if None.
            channels: Enhances these channels alone; None takes all.
            image: ``(C, H, W)`` in [0, 1]; the first of the images if None.
            size: Longer side that a larger photograph is scaled down to; None leaves it as it is.
            options: How strongly and at which scales to dream.
            seed: Seed of the random shifts.

        Returns:
            The dreams, and a picture ``deepdream/<layer>`` of each layer.

        Raises:
            LayerError: If a layer is not there.
            ValueError: If a channel is out of range, or the photograph is too small for a layer.
        """
        photograph = self.images.photograph(self.input_spec) if image is None else image
        if size is not None:
            photograph = figures.reduced(photograph[None], size)[0].clamp(0, 1)
        names = choose_depths(self._rectified()) if layers is None else self._known(layers)
        dreams, pictures = {}, {}
        for name in names:
            with optimizing(f"Dream of {name}", shown=self.progress):
                dreams[name] = dream(
                    self.model,
                    photograph,
                    name,
                    input_spec=self.input_spec,
                    channels=channels,
                    seed=seed,
                    options=options,
                )
            pair = torch.cat([figures.as_bytes(photograph[None]), figures.as_bytes(dreams[name].images)])
            pictures[f"deepdream/{name}"] = figures.labelled_pictures(
                pair, ["photograph", name], ["", "dreamt"], self._title(name), side=max(pair.shape[-2:])
            )
        return DreamResult(pictures, dreams)

    def invert(
        self,
        layers: Sequence[str] | None = None,
        *,
        count: int = 2,
        images: Tensor | None = None,
        restarts: int = 1,
        method: Method = "fourier",
        steps: int | None = None,
        seed: int = 0,
    ) -> InvertResult:
        """Rebuilds images from what the layers compute for them; see `invert_layers`.

        Args:
            layers: Dotted module names; every rectified convolution if None.
            count: How many images to take.
            images: ``(N, C, H, W)`` in [0, 1], of the network's input size; the first of the images if None.
            restarts: Reconstructions of each image, from different noise.
            method: ``"fourier"``, ``"mahendran2014"`` or ``"mahendran2016"``.
            steps: Number of optimisation steps; the method's if None.
            seed: Seed of the noise to start from.

        Returns:
            The reconstructions with their errors, and the picture ``inversion/layers``; with several restarts also
            ``inversion/restarts``.

        Raises:
            LayerError: If a layer is not there.
        """
        if count < 1:
            raise ValueError(f"count={count}: take at least 1 image.")
        pictures = self.images.first(count, self.input_spec) if images is None else images
        names = self._rectified() if layers is None else self._known(layers)
        with optimizing("Inversion", shown=self.progress):
            inversions = invert_layers(
                self.model,
                self.input_spec.normalize(pictures).to(blank_input(self.model, self.input_spec)),
                names,
                input_spec=self.input_spec,
                restarts=restarts,
                method=method,
                steps=steps,
                seed=seed,
            )
        inversions = on_cpu(inversions)
        rebuilt = inversions.images.clamp(0, 1)
        grids = figures.inversion_pictures(inversions.originals, rebuilt, inversions.errors, names, method, self._title)
        return InvertResult({f"inversion/{name}": grid for name, grid in grids.items()}, inversions)

    def require_classes(self) -> None:
        """Refuses weights that end before the classes.

        Raises:
            CheckpointError: If the weights lack the network's end.
        """
        if self.checkpoint.absent:
            raise CheckpointError(
                f"The weights lack {', '.join(self.checkpoint.absent)}, which tells the classes apart: give weights of "
                "the whole network."
            )

    # The rest.

    def _title(self, of: str) -> str:
        epoch = self.checkpoint.epoch
        return f"{of} · {self.checkpoint.name}" + ("" if epoch is None else f" · epoch {epoch}")

    def _rectified(self) -> list[str]:
        with isolated(self.model):
            _, rectified = trace_layers(self.model, blank_input(self.model, self.input_spec))
        if not rectified:
            raise LayerError(f"{type(self.model).__name__} has no convolution: name the layers to look at.")
        return rectified

    def _visualize_classes(
        self, classes: Sequence[int | str] | None, samples: int, preset: Preset, steps: int | None, seed: int
    ) -> Visualizations:
        self.require_classes()
        if classes is None:
            with torch.no_grad(), isolated(self.model):
                probe = blank_input(self.model, self.input_spec)
                logits = plain_forward(self.model, [OUTPUT])(probe)[OUTPUT]
            classes = list(range(min(MAX_DEFAULT_CLASSES, logits.shape[-1])))
        with optimizing("Classes", shown=self.progress):
            return visualize_classes(
                self.model,
                classes,
                input_spec=self.input_spec,
                samples_per_class=samples,
                preset=preset,
                steps=steps,
                seed=seed,
            )

    def _optimized_picture(
        self, shown: Visualizations, title: str, note: str, strongest: Mapping[int, float] | None = None
    ) -> figures.Picture:
        states = [figures.state_of(shown, n, strongest) for n in range(len(shown.labels))]
        return figures.labelled_pictures(figures.as_bytes(shown.images), shown.labels, states, self._title(title), note)

    def _strongest(self, channels: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        """The strongest activation of each feature map on the images, by layer; nothing where there are no images."""
        try:
            tops = self._top_activations(channels, 1, "gradient") if channels else {}
        except DataError:
            return {}
        return {
            layer: dict(zip(top.channels.tolist(), top.values[:, 0].tolist(), strict=True))
            for layer, top in tops.items()
        }

    def _known(self, layers: Sequence[str]) -> list[str]:
        """The layers, once it is clear that they are there."""
        for layer in layers:
            if self._is_absent(layer):
                raise CheckpointError(
                    f"The weights lack {layer.partition('.')[0]}, so there is no layer {layer!r} to look at: name one "
                    "before it, or give weights of the whole network."
                )
            get_layer(self.model, layer)
        return list(dict.fromkeys(layers))

    def _is_absent(self, layer: str) -> bool:
        return layer.partition(".")[0] in self.checkpoint.absent

    def _channels(
        self,
        layers: Sequence[str] | None,
        channels: Sequence[int] | None,
        num_channels: int | None,
        rule: Rule,
        seed: int,
    ) -> dict[str, list[int]]:
        """The feature maps to show of each layer, once it is clear that they can be."""
        found = {}
        probe = blank_input(self.model, self.input_spec)
        for layer in self._rectified() if layers is None else self._known(layers):
            with isolated(self.model):
                maps = plan_windows(self.model, layer, probe, rule=rule).field.map_shape[0]
            for channel in channels or ():
                if not 0 <= channel < maps:
                    raise ValueError(f"Channel {channel} is not in layer {layer!r}: it has channels 0 to {maps - 1}.")
            chosen = choose_channels(layer, maps, num_channels, seed) if channels is None else dict.fromkeys(channels)
            found[layer] = list(chosen)
        return found

    def _top_activations(self, channels: Mapping[str, Sequence[int]], k: int, rule: Rule) -> dict[str, TopActivations]:
        """The strongest activations of feature maps over all images, at most as many as there are images."""
        seen = 0
        with isolated(self.model), Harvest(self.model, channels, k, rule=rule) as harvest, torch.no_grad():
            batches = self.images.batches(self.input_spec)
            for batch in watched(batches, len(self.images), "Images", "batch", shown=self.progress):
                self.model(batch.to(blank_input(self.model, self.input_spec)))
                seen += len(batch)
        # fewer images than places would leave holes in the pictures
        return {layer: top.best(min(k, seen)) for layer, top in harvest.tops.items()}

    def _check_input(self) -> None:
        with isolated(self.model), torch.no_grad():
            try:
                self.model(blank_input(self.model, self.input_spec))
            except RuntimeError as error:
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
    input_spec: InputSpec | None = None,
    device: torch.device | str = "cpu",
    trust: bool = False,
    progress: bool = False,
) -> Analysis:
    """Opens a trained network to look at.

    Args:
        checkpoint: A checkpoint of Lightning, a file of plain weights, a run or a folder with checkpoints, or a
            network; None takes the published weights of ``model``. See `lightning_cnnvis.checkpoints.load`.
        data: Images to show it: a folder of them, image files, a data module or its import path, a loader of batches,
            or a tensor ``(N, C, H, W)``, normalised. Those that the run was validated on, if None.
        model: What the weights are of, where the file does not say: an import path, ``"torchvision:NAME"``,
            ``"timm:NAME"``, or a network.
        input_spec: What the input looks like, where neither checkpoint nor data say.
        device: Where to put the network.
        trust: Unpickles whatever is in the file, which may run any code.
        progress: Whether to show progress bars.

    Returns:
        The network with the methods ``layers()``, ``deconv()``, ``classes()``, ``dream()`` and ``invert()``. In a
        notebook their results show themselves as pictures.

    Raises:
        CheckpointError: If the checkpoint cannot be loaded.
        DataError: If the data are not there.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> analysis = analyze(net, torch.rand(4, 3, 16, 16), input_spec=InputSpec(size=(16, 16)))
        >>> analysis.deconv(k=2, num_channels=3).projections["1"].pixels.shape
        torch.Size([6, 3, 3, 3])
    """
    loaded = load(checkpoint, model, device=device, trust=trust)
    return Analysis(loaded, data, input_spec=input_spec, progress=progress)
