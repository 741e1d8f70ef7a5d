"""Inversion: images whose features in a layer are those of a given image.

Mahendran & Vedaldi 2014 (arXiv 1412.0035) and 2016 (arXiv 1512.02017). The differences between the original and its
reconstructions show the information that the layer has discarded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.inversion.metamers import check_others
from lightning_cnnvis.functional.inversion.methods import (
    InversionMethod,
    InversionStage,
    check_method,
    inversion_method,
)
from lightning_cnnvis.functional.inversion.representations import FeatureMask, Reconstructions, encode
from lightning_cnnvis.functional.inversion.results import Inversions, measured
from lightning_cnnvis.functional.network.forward import OUTPUT, blank_input, model_options, staged_forward
from lightning_cnnvis.functional.network.receptive_field import ReceptiveField, receptive_field
from lightning_cnnvis.functional.optimization.gradients import Gradient, model_gradient
from lightning_cnnvis.functional.optimization.loop import Batch, image_seeds, optimize
from lightning_cnnvis.functional.optimization.parameterizations import ImageStatistics
from lightning_cnnvis.functional.optimization.recipes import Recipe
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError, check_call, get_layer, split_call, trace_layers


@dataclass(frozen=True)
class InversionOptions:
    """Advanced options of inversion.

    Args:
        mask: The channels or positions to reproduce, in every layer; None takes all.
        statistics: Statistics of the user's own images, for the method ``"fourier"``; None takes everyday photographs.
        chunk: Number of images that are optimised at a time; halved when memory runs out.
        others: ``(M, C, H, W)``, other images, normalised as the network expects them. Their pairs tell which
            similarity of features means nothing, so that the result says which layers take a reconstruction and its
            original for the same; see `Metamers`. None leaves that out.

    Examples:
        >>> InversionOptions(mask=FeatureMask(channels=[0, 3]), chunk=4).chunk
        4
    """

    mask: FeatureMask | None = None
    statistics: ImageStatistics | None = None
    chunk: int = 16
    others: Tensor | None = None


def invert(
    model: nn.Module,
    images: Tensor,
    layer: str,
    *,
    input_spec: InputSpec,
    restarts: int = 1,
    method: str | Recipe | InversionMethod = "fourier",
    steps: int | None = None,
    seed: int = 0,
    options: InversionOptions | None = None,
) -> Inversions:
    """Reconstructs images from their features in a layer.

    Args:
        model: The network. Left as it was.
        images: ``(N, C, H, W)``, normalised for the network.
        layer: Dotted module name: any layer that returns a tensor, fully connected ones included; ``""`` is the
            model's output.
        input_spec: The network's input, with which to convert it to pixels in [0, 1] and back.
        restarts: Number of reconstructions of each image, from different noise.
        method: ``"fourier"``, ``"mahendran2014"``, ``"mahendran2016"`` or another name registered in
            `INVERSION_METHODS`, see `inversion_method`; or a recipe or settings of your own.
        steps: Number of steps; None takes the method's own.
        seed: Seed of all random numbers. Each restart has noise of its own, the same for every image and layer, so
            that an image's result does not depend on the other images and layers.
        options: Advanced options.

    Returns:
        The reconstructions, with L = 1.

    Raises:
        LayerError: If the layer does not exist, does not stand for one call of a module, or does not return a tensor.
        ValueError: If the images do not have the size and the channels of the network's input or are not finite, if
            there are none, if an option is out of range, or there is no method of the name.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> inversions = invert(net, images, "1", input_spec=InputSpec(size=(16, 16)), restarts=3, steps=8)
        >>> inversions.images.shape, inversions.errors.shape
        (torch.Size([1, 3, 2, 3, 16, 16]), torch.Size([1, 3, 2]))
    """
    return invert_layers(
        model,
        images,
        [layer],
        input_spec=input_spec,
        restarts=restarts,
        method=method,
        steps=steps,
        seed=seed,
        options=options,
    )


def invert_layers(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[str],
    *,
    input_spec: InputSpec,
    restarts: int = 1,
    method: str | Recipe | InversionMethod = "fourier",
    steps: int | None = None,
    seed: int = 0,
    options: InversionOptions | None = None,
) -> Inversions:
    """Reconstructs images from several layers at once.

    Layers with the same settings share their batches, sorted by depth: each sample leaves the forward pass at its own
    layer. The settings of a method depend on the size of the receptive field; see `inversion_method`.

    Args:
        model: The network. Left as it was.
        images: ``(N, C, H, W)``, normalised for the network.
        layers: Dotted module names, in any order; ``""`` is the model's output.
        input_spec: The network's input, with which to convert it to pixels in [0, 1] and back.
        restarts: Number of reconstructions of each image in each layer, from different noise.
        method: ``"fourier"``, ``"mahendran2014"``, ``"mahendran2016"`` or another name registered in
            `INVERSION_METHODS`, see `inversion_method`; or a recipe or settings of your own.
        steps: Number of steps; None takes the method's own.
        seed: Seed of all random numbers; see `invert`.
        options: Advanced options.

    Returns:
        The reconstructions, in the order of ``layers``.

    Raises:
        LayerError: If a layer does not exist, does not stand for one call of a module, or does not return a tensor.
        ValueError: If no layer is named or one is named twice; also for the reasons that `invert` has.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 5))
        >>> images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> inversions = invert_layers(net, images, ["1", "3"], input_spec=InputSpec(size=(16, 16)), steps=8)
        >>> inversions.images.shape, inversions.label_kept.shape
        (torch.Size([2, 1, 2, 3, 16, 16]), torch.Size([2, 1, 2]))
    """
    options = options or InversionOptions()
    check_method(method)
    _check(images, layers, restarts, input_spec)
    if options.others is not None:
        check_others(options.others, input_spec.shape)
    with isolated(model) as network:
        inputs = images.detach().to(model_options(network))
        order = _running_order(network, layers, inputs[:1])
        representations = {
            layer: encode(network, inputs, layer, options.mask or FeatureMask(), options.chunk) for layer in order
        }
        methods = {
            layer: inversion_method(
                method,
                _field(network, layer, method, input_spec),
                input_spec,
                steps=steps,
                statistics=options.statistics,
            )
            for layer in order
        }
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for alike in _alike(methods):
            batch = Reconstructions(
                {layer: representations[layer] for layer in alike},
                {layer: methods[layer].weight for layer in alike},
                restarts,
            )
            found |= _reconstruct(
                network, batch, methods[alike[0]].stages, seed=seed, chunk=options.chunk, input_spec=input_spec
            )
        reconstructed, losses = (torch.stack([found[layer][i] for layer in layers]) for i in range(2))
        ordered = {layer: representations[layer] for layer in layers}
        return measured(
            network,
            inputs,
            ordered,
            reconstructed,
            losses,
            input_spec=input_spec,
            chunk=options.chunk,
            others=None if options.others is None else options.others.detach().to(inputs, copy=True),
        )


def _check(images: Tensor, layers: Sequence[str], restarts: int, input_spec: InputSpec) -> None:
    if isinstance(layers, str) or len(layers) == 0:
        raise ValueError(f"layers={layers!r}: give a sequence of at least one layer name.")
    for layer in layers:
        if list(layers).count(layer) > 1:
            raise ValueError(f"Layer {layer!r} is named twice: name each layer once.")
    if restarts < 1:
        raise ValueError(f"restarts={restarts}: at least 1 reconstruction is made of an image.")
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images of shape {tuple(images.shape)}: give at least one image, (N, C, H, W).")
    if tuple(images.shape[1:]) != input_spec.shape:
        raise ValueError(
            f"images of shape {tuple(images.shape)}: the network's input is {input_spec.shape} for each. "
            "Resize the images, or correct the input_spec."
        )
    if not images.is_floating_point():
        raise ValueError(
            f"images of type {images.dtype}: give them as the network gets them, input_spec.normalize(...)."
        )
    bad = [i for i, finite in enumerate(images.isfinite().flatten(1).all(1).tolist()) if not finite]
    if bad:
        raise ValueError(f"images {bad} contain NaN or infinite values. Give finite images.")


def _running_order(model: nn.Module, layers: Sequence[str], probe: Tensor) -> list[str]:
    """Sorts the layers by depth, and checks that each stands for one call of a module."""
    modules = [layer for layer in layers if layer != OUTPUT]
    for layer in modules:
        get_layer(model, layer)
    calls, _ = trace_layers(model, probe)
    names = dict(model.named_modules())
    for layer in modules:
        base, _ = split_call(layer, names)
        if base not in calls:
            raise LayerError(f"Layer {layer!r} does not run in the model's forward pass: name one that does.")
        check_call(model, layer, calls[base].calls)
    return [layer for layer in calls if layer in modules] + [OUTPUT] * (OUTPUT in layers)


def _field(
    model: nn.Module, layer: str, method: str | Recipe | InversionMethod, input_spec: InputSpec
) -> ReceptiveField | None:
    """Finds the receptive field, if the method depends on it."""
    if isinstance(method, Recipe | InversionMethod) or layer == OUTPUT:
        return None
    return receptive_field(model, layer, input_spec.size, channels=input_spec.channels)


def _alike(settings: Mapping[str, InversionMethod]) -> list[list[str]]:
    """Groups layers that differ at most in the weight of the error, so that they can share their batches."""
    groups: list[list[str]] = []
    for layer, method in settings.items():
        for group in groups:
            if settings[group[0]].stages == method.stages:
                group.append(layer)
                break
        else:
            groups.append([layer])
    return groups


def _reconstruct(
    model: nn.Module,
    batch: Reconstructions,
    stages: Sequence[InversionStage],
    *,
    seed: int,
    chunk: int,
    input_spec: InputSpec,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Runs the stages; returns images ``(R, N, C, H, W)`` and losses ``(R, N, steps)`` of each layer."""
    layers, restarts, originals = batch.shape
    of_restart = image_seeds(seed, *(("restart", restart) for restart in range(restarts)))
    seeds = [s for s in of_restart for _ in range(originals)] * layers
    objective = batch.objective()
    (height, width), images, losses = input_spec.size, None, []
    for stage in stages:

        def gradient_of(part: slice, recipe: Recipe = stage.recipe) -> Gradient:
            counts = {layer: rows.stop - rows.start for layer, rows in batch.rows(part).items()}
            forward = staged_forward(model, counts, blank_input(model, input_spec))
            return model_gradient(model, objective, part, precision=recipe.precision, forward=forward)

        size = (height + stage.margin, width + stage.margin)
        optimized = optimize(
            model,
            objective,
            stage.recipe,
            Batch(seeds, size=size, starts=images, chunk=chunk),
            input_spec=input_spec,
            gradient_of=gradient_of,
        )
        edge = stage.margin // 2
        images = optimized.images[..., edge : edge + height, edge : edge + width]
        losses.append(optimized.losses)
    assert images is not None
    by_layer = (values.reshape(*batch.shape, *values.shape[1:]) for values in (images, torch.cat(losses, 1)))
    return dict(zip(batch.representations, zip(*by_layer, strict=True), strict=True))
