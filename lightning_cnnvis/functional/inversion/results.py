"""Results of inversions, and their distances from the originals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.inversion.metamers import MEASURES, Metamers, feature_similarities, null_similarities
from lightning_cnnvis.functional.inversion.metrics import (
    mean_distance_between,
    psnr,
    sample_variance,
    squared_distance,
    ssim,
)
from lightning_cnnvis.functional.inversion.representations import Representation, outputs_of
from lightning_cnnvis.functional.network.chunks import in_chunks
from lightning_cnnvis.functional.network.forward import OUTPUT
from lightning_cnnvis.functional.network.output import ClassOutput, read_output
from lightning_cnnvis.functional.tensors import cat_fields
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layers import LayerError


@dataclass(frozen=True)
class Inversions:
    """Reconstructions of images from their features, and their distances from the originals.

    L layers, R restarts, N images. Errors compare the features Φ(x) of a reconstruction with those of the original,
    Φ₀, in the requested channels and positions. Everything is measured on ``images`` as they are.

    Attributes:
        layers: Names of the layers.
        images: ``(L, R, N, C, H, W)``; in [0, 1] for the method ``"fourier"``, around it for the published ones,
            which do not bound their pixels: clip for a picture.
        originals: ``(N, C, H, W)`` in [0, 1].
        errors: ``(L, R, N)``, squared error ‖Φ(x) − Φ₀‖² / ‖Φ₀‖², definition (a); NaN where Φ₀ is 0,
            and where a published method diverged: its image is not finite then.
        relative_errors: ``(L, R, N)``, ‖Φ(x) − Φ₀‖² over the mean squared distance between the features of two
            different originals, definition (c); NaN for a single image. The one number that depends on the other
            images.
        pixel_variances: ``(L, N)``, variance between the restarts of a pixel in [0, 1], mean over the image; NaN for
            a single restart.
        feature_variances: ``(L, N)``, variance between the restarts' features, summed, over ‖Φ₀‖²; NaN likewise.
        label_kept: ``(L, R, N)`` bool, whether the largest output of the network is the same as for the original.
            None if the network's output is not ``(N, classes)``.
        psnr: ``(L, R, N)``, peak signal-to-noise ratio to the original in dB, of the clipped images.
        ssim: ``(L, R, N)``, structural similarity to the original, likewise; NaN for images below 11 pixels.
        losses: ``(L, R, N, steps)``, the weighted error and the penalties, before each step.
        metamers: Whether the layers take the reconstructions and their originals for the same, against pairs of other
            images; None if no others were given.
    """

    layers: tuple[str, ...]
    images: Tensor
    originals: Tensor
    errors: Tensor
    relative_errors: Tensor
    pixel_variances: Tensor
    feature_variances: Tensor
    label_kept: Tensor | None
    psnr: Tensor
    ssim: Tensor
    losses: Tensor
    metamers: Metamers | None = None

    @property
    def root_errors(self) -> Tensor:
        """``(L, R, N)``, ‖Φ(x) − Φ₀‖ / ‖Φ₀‖, definition (b): the root of (a)."""
        return self.errors.sqrt()

    @staticmethod
    def cat(parts: Sequence[Inversions]) -> Inversions:
        """Joins the layers of several inversions of the same images, at least one, with the same restarts and steps.

        Args:
            parts: Inversions of shares of the layers.

        Returns:
            All layers, in order.
        """
        known = [part.metamers for part in parts if part.metamers is not None]
        joined = cat_fields([replace(part, metamers=None) for part in parts], shared=["originals"])
        return replace(joined, metamers=Metamers.cat(known) if len(known) == len(parts) else None)


def measured(
    model: nn.Module,
    inputs: Tensor,
    representations: Mapping[str, Representation],
    images: Tensor,
    losses: Tensor,
    *,
    input_spec: InputSpec,
    chunk: int,
    others: Tensor | None = None,
) -> Inversions:
    """Measures reconstructions.

    Args:
        model: The network, in evaluation mode.
        inputs: The originals, ``(N, C, H, W)``, normalised for the network.
        representations: Representations of the originals, by layer.
        images: The reconstructions, ``(L, R, N, C, H, W)``, layers in the order of ``representations``.
        losses: ``(L, R, N, steps)``.
        input_spec: The network's input.
        chunk: Number of images that are compared at a time.
        others: ``(M, C, H, W)``, normalised, whose pairs tell what similarity means nothing; None leaves that out.

    Returns:
        Images and losses with their measures.
    """
    restarts, count = images.shape[1:3]
    originals = input_spec.denormalize(inputs.to(images))
    output = _class_output(model, inputs, input_spec)
    labels = None if output is None else output.labels(outputs_of(model, inputs, [OUTPUT], len(inputs))[OUTPUT])
    errors, relative = images.new_empty(images.shape[:3]), images.new_empty(images.shape[:3])
    feature_variances = images.new_empty(len(representations), count)
    kept = torch.empty(images.shape[:3], dtype=torch.bool, device=images.device)
    alike: list[dict[str, Tensor]] = []
    null: list[dict[str, Tensor]] = []
    recorded_layers = [] if labels is None else [OUTPUT]
    for index, (layer, representation) in enumerate(representations.items()):
        between = mean_distance_between(representation.features)
        alike.append({name: images.new_empty(restarts, count, dtype=torch.float32) for name in MEASURES})
        if others is not None:
            null.append(null_similarities(representation.select(outputs_of(model, others, [layer], chunk)[layer])))
        for n in range(count):
            again = input_spec.normalize(images[index, :, n]).to(inputs)
            recorded = outputs_of(model, again, [*dict.fromkeys([layer, *recorded_layers])], restarts)
            features = representation.select(recorded[layer])
            distances = squared_distance(features, representation.features[n])
            norm = torch.where(representation.norms[n] > 0, representation.norms[n], torch.nan)
            errors[index, :, n] = distances / norm
            relative[index, :, n] = distances / between
            feature_variances[index, n] = sample_variance(features).sum() / norm
            if others is not None:
                original = representation.features[n].expand_as(features)
                for name, values in feature_similarities(features, original).items():
                    alike[-1][name][:, n] = values
            if output is not None and labels is not None:
                kept[index, :, n] = output.labels(recorded[OUTPUT]) == labels[n]
    flat = images.flatten(0, 2)

    def likeness(part: slice) -> tuple[Tensor, Tensor]:
        mine = originals[torch.arange(part.start, part.stop, device=originals.device) % count]
        return psnr(flat[part], mine), ssim(flat[part], mine)

    ratios, similarities = (torch.cat(p) for p in zip(*in_chunks(likeness, len(flat), chunk), strict=True))
    return Inversions(
        layers=tuple(representations),
        images=images,
        originals=originals,
        errors=errors,
        relative_errors=relative,
        pixel_variances=torch.stack([sample_variance(of_layer).flatten(1).mean(1) for of_layer in images]),
        feature_variances=feature_variances,
        label_kept=None if labels is None else kept,
        psnr=ratios.view(images.shape[:3]),
        ssim=similarities.view(images.shape[:3]),
        losses=losses,
        metamers=Metamers(
            {name: torch.stack([one[name] for one in alike]) for name in MEASURES},
            {name: torch.stack([one[name] for one in null]) for name in MEASURES},
            None if labels is None else kept,
        )
        if null
        else None,
    )


def _class_output(model: nn.Module, inputs: Tensor, input_spec: InputSpec) -> ClassOutput | None:
    """Finds out what the output means; None if the model is not a classifier."""
    try:
        return read_output(model, input_spec, torch.zeros_like(inputs[:1]))
    except LayerError:
        return None
