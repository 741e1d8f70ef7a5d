"""The diagnosis of a network over a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.diagnosis.census import Census
from lightning_cnnvis.functional.diagnosis.findings import FindingLimits
from lightning_cnnvis.functional.diagnosis.judging import findings_of, layer_findings_of
from lightning_cnnvis.functional.diagnosis.measures import measure
from lightning_cnnvis.functional.diagnosis.origins import origins
from lightning_cnnvis.functional.diagnosis.results import Diagnosis
from lightning_cnnvis.functional.diagnosis.shifts import MIN_SIDE, shift_errors
from lightning_cnnvis.functional.diagnosis.statistics import similarity
from lightning_cnnvis.functional.network.forward import blank_input, model_options
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError, channel_dim, get_layer, trace_layers

_SHIFTED_IMAGES = 6
"""Number of images that are shifted; each passes through the first layers four times."""


def diagnose(
    model: nn.Module,
    loader: Iterable[object],
    *,
    input_spec: InputSpec,
    layers: Sequence[str] | None = None,
    limits: FindingLimits | None = None,
) -> Diagnosis:
    """Says what is wrong with the feature maps of a network, as far as they and their kernels show it.

    Zeiler & Fergus (2013, section 4.1, arXiv 1311.2901) saw dead filters, filters that dominate, and aliasing in
    AlexNet's first layers, and mended the network by what they saw. A map is *dead* if it is not above 0 at any
    position of any image; *always on* if it is everywhere; *dominating* if it is many times stronger than the others;
    *duplicate* if its kernel is that of another map, up to sign and shift; *aliased* if it holds what its stride cannot
    sample; *noisy* if its kernel never formed.

    Args:
        model: The network. It runs in evaluation mode and is left as it was.
        loader: Batches of images ``(N, C, H, W)``, or tuples and lists that begin with them, normalised as the network
            expects them; at least two images. They are moved to the model's device.
        input_spec: The format of the input.
        layers: Dotted names of the layers; the rectified output of every convolution if None.
        limits: The numbers from which something counts as wrong; the defaults if None.

    Returns:
        The findings, and the numbers behind them.

    Raises:
        LayerError: If a layer is not there or has no maps, or the network has no convolution.
        ValueError: If there are fewer than two images.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> _ = net[0].weight.data.abs_(), net[0].bias.data[3].fill_(-100)
        >>> found = diagnose(net, [torch.rand(8, 3, 16, 16)], input_spec=InputSpec(size=(16, 16)))
        >>> [(one.kind, one.layer, one.channels) for one in found.findings if one.kind == "dead"]
        [('dead', '1', (3,))]
    """
    options = model_options(model)
    dims = followed_layers(model, blank_input(model, input_spec), layers)
    with isolated(model) as network, Census(network, dims) as census, torch.no_grad():
        for batch in loader:
            images = batch[0] if isinstance(batch, list | tuple) and batch else batch
            if not isinstance(images, Tensor):
                raise ValueError(f"The loader gave a {type(images).__name__}, not a tensor of images (N, C, H, W).")
            network(images.to(options, copy=True))
    return examine(model, census, limits=limits)


def followed_layers(model: nn.Module, image: Tensor, layers: Sequence[str] | None = None) -> dict[str, int]:
    """Finds the layers to look at, and which dimension of their outputs holds the channels.

    Args:
        model: The network.
        image: ``(1, C, H, W)``, any image.
        layers: Dotted names; the rectified output of every convolution if None.

    Returns:
        The dimension by layer, in the order in which they run.

    Raises:
        LayerError: If a layer does not run, or has no maps; if the network has no convolution.
    """
    with isolated(model) as network:
        calls, rectified = trace_layers(network, image)
        named = rectified if layers is None else list(dict.fromkeys(layers))
        if not named:
            raise LayerError(f"{type(model).__name__} has no convolution: name the layers to look at, layers=[...].")
        for layer in named:
            get_layer(network, layer)
        missing = [layer for layer in named if layer not in calls]
        if missing:
            raise LayerError(f"Layer {missing[0]!r} does not run in the model's forward pass: name one that does.")
        flat = [layer for layer in named if len(calls[layer].shape) not in (1, 2, 3)]
        if flat:
            raise LayerError(
                f"Layer {flat[0]!r} has no feature maps: its output for one image has shape {calls[flat[0]].shape}."
            )
        return {layer: channel_dim(network, layer) for layer in calls if layer in named}


def examine(
    model: nn.Module, census: Census, *, limits: FindingLimits | None = None, settled: Mapping[str, int] | None = None
) -> Diagnosis:
    """Makes the diagnosis from what the feature maps of a network did.

    Args:
        model: The network, which the census was taken of.
        census: What its maps did on the images.
        limits: The numbers from which something counts as wrong; the defaults if None.
        settled: The epoch at which each layer has settled, where that is known.

    Returns:
        The diagnosis.

    Raises:
        ValueError: If there were fewer than two images.
    """
    taken = census.statistics
    seen = max((one.images for one in taken.values()), default=0)
    if seen < 2:
        known = "no image" if not seen else "one image"
        raise ValueError(f"There was {known}: whether a map is dead takes more than that. Give at least two images.")
    images = census.images[:_SHIFTED_IMAGES].to(model_options(model))
    with isolated(model) as network:
        found = origins(network, list(taken), images[:1])
        # the passes end with the last of these layers
        large = {layer: one.stride for layer, one in found.items() if min(one.size) >= MIN_SIDE}
        errors = shift_errors(network, images, large)
    measures, before = {}, ""
    for layer, statistics in taken.items():
        alike = similarity(taken[before], statistics) if before else float("nan")
        measures[layer] = measure(layer, statistics, found[layer], errors.get(layer), before, alike)
        before = layer
    findings = [one for layer in measures.values() for one in findings_of(layer, limits)]
    of_layers = [one for layer in measures.values() for one in layer_findings_of(layer, limits)]
    worst = [sorted(ones, key=lambda one: -one.severity) for ones in (findings, of_layers)]
    return Diagnosis(tuple(worst[0]), tuple(worst[1]), measures, seen, dict(settled or {}))
