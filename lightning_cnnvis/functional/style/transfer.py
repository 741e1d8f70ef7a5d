"""The style of pictures: a photograph as others would have painted it, by what a network's layers see in them.

Gatys, Ecker & Bethge 2015 (arXiv 1508.06576): the correlations between a layer's feature maps, the Gram matrix, hold
texture and colour without the places, and the features of a higher layer hold what is where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.any_size import checked_pictures, forward_of_any_size
from lightning_cnnvis.functional.network.forward import blank_input, model_options
from lightning_cnnvis.functional.network.output import read_output, tensor_of
from lightning_cnnvis.functional.network.tracing import check_calls
from lightning_cnnvis.functional.optimization.loop import Batch, image_seeds, optimize
from lightning_cnnvis.functional.optimization.objectives import Loss, Objective
from lightning_cnnvis.functional.optimization.recipes import Phase, Recipe
from lightning_cnnvis.functional.style.gram import check_maps, content_error, default_layers, gram, style_distances
from lightning_cnnvis.functional.tensors import cat_fields
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.photographs import fit_photograph
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import LayerError, get_layer

_LR = 0.1
_SMALLEST = 1e-4  # distance of Gram matrices that counts as none: one percent of their norm


@dataclass(frozen=True)
class Style:
    """Photographs in the style of other pictures.

    Attributes:
        images: ``(N, C, H, W)`` in [0, 1].
        layers: Names of the L layers whose Gram matrices are the style.
        content_layer: Name of the layer whose features are the content.
        before: ``(N, L)``, distance of the photograph's style to the wanted one, ‖G - G*‖² / ‖G*‖².
        after: ``(N, L)``, the same of the result.
        content_errors: ``(N,)``, ‖F - F₀‖² / ‖F₀‖² of the content layer's features, from the photograph's.
        labels: ``(N, 2)``, class of the photograph and of the result; None if the network is not a classifier.
        losses: ``(N, steps)``, the loss before each step.
    """

    images: Tensor
    layers: tuple[str, ...]
    content_layer: str
    before: Tensor
    after: Tensor
    content_errors: Tensor
    labels: Tensor | None
    losses: Tensor

    @property
    def remaining(self) -> Tensor:
        """``(N, L)``, the share of each layer's style distance that is left, at least of 1e-4."""
        return self.after / self.before.clamp_min(_SMALLEST)

    @property
    def fall(self) -> Tensor:
        """``(N,)``, by which share the style distance fell, mean over the layers; 1 is the whole of it."""
        return 1 - self.remaining.mean(1)

    @property
    def kept(self) -> Tensor | None:
        """``(N,)`` bool, whether the network takes the result for what it took the photograph for."""
        return None if self.labels is None else self.labels[:, 0] == self.labels[:, 1]

    @staticmethod
    def cat(parts: Sequence[Style]) -> Style:
        """Joins the pictures of several transfers of one style, at least one, of the same size.

        Args:
            parts: Results for shares of the photographs.

        Returns:
            All pictures, in order.
        """
        return cat_fields(parts, shared=["layers", "content_layer"])


def stylize(
    model: nn.Module,
    content: Tensor,
    style: Tensor | Sequence[Tensor],
    *,
    input_spec: InputSpec,
    content_layer: str | None = None,
    style_layers: Sequence[str] | None = None,
    content_weight: float = 0.1,
    steps: int = 200,
) -> Style:
    """Changes photographs so that layers see the style of other pictures in them, and still their content.

    The loss is the mean over the style layers of ‖G - G*‖² over what it was for the photograph, so that layers of any
    network, and of any size, count alike; plus ``content_weight`` · ‖F - F₀‖² / ‖F₀‖². G is the Gram matrix of a
    layer's maps over the number of places. It differs from the paper in this scale, in that the image is Fourier
    coefficients with decorrelated colours, without which other networks than VGG give checkerboards (Mordvintsev et
    al. 2018, https://doi.org/10.23915/distill.00012), and in Adam in the place of L-BFGS. It starts from the
    photograph.

    Args:
        model: The network. Left as it was.
        content: ``(N, C, H, W)`` or ``(C, H, W)``, of any size that goes through the network, in [0, 1]. One is worked
            on at a time.
        style: Pictures in [0, 1], of any size: ``(M, C, h, w)``, ``(C, h, w)`` or a sequence of such. Of several, the
            mean of the Gram matrices is taken: what they have in common, such as the photographs of a class.
        input_spec: Channels and normalisation of the network's input; its size is that at which it is asked for the
            class.
        content_layer: Dotted name of the layer that holds the content; None takes the last rectified convolution, by
            which the network recognises what is there. A larger weight may be needed for it to do so still.
        style_layers: Dotted names of the layers that hold the style; None takes the first rectified convolution of each
            size of map, five at most.
        content_weight: Weight of the content, relative to the style: more keeps more of the photograph.
        steps: Number of optimisation steps.

    Returns:
        The pictures, with the distances before and after.

    Raises:
        LayerError: If a layer does not exist, has no map, or there is no convolution to choose.
        ValueError: If a picture does not have the channels of the network's input, is not finite, or does not go
            through the network, or there are none; if the weight is negative, or there are no steps.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU())
        >>> photo, painting = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
        >>> found = stylize(net, photo, painting.sqrt(), input_spec=InputSpec(), steps=20)
        >>> found.images.shape, found.layers, found.content_layer, bool(found.fall > 0)
        (torch.Size([1, 3, 20, 30]), ('1', '4'), '4', True)
    """
    check_strength(content_weight, steps)
    like = model_options(model)
    photos = checked_pictures(content, input_spec, "content").to(like.device, torch.float32)
    pictures = _style_pictures(style, input_spec)
    if not len(photos) or not pictures:
        raise ValueError("content or style is empty. Give at least one picture of each.")
    with isolated(model) as network:
        layers, of_content = _layers(network, input_spec, style_layers, content_layer)
        wanted = [
            forward_of_any_size(network, layers, input_spec.normalize(one.to(like)), "style picture")
            for one in pictures
        ]
        check_maps({layer: wanted[0][layer] for layer in layers})
        targets = {layer: torch.stack([gram(maps[layer].float())[0] for maps in wanted]).mean(0) for layer in layers}
        del wanted
        parts = [
            _stylize_one(
                network, photo, targets, of_content, input_spec=input_spec, content_weight=content_weight, steps=steps
            )
            for photo in torch.split(photos, 1)
        ]
        found = Style.cat(parts)
        return replace(found, labels=_labels(network, photos, found.images, input_spec))


def check_strength(content_weight: float, steps: int) -> None:
    """Checks the strength and the length of a transfer of style.

    Args:
        content_weight: Weight of the content.
        steps: Number of optimisation steps.

    Raises:
        ValueError: If the weight is negative or not finite, or there are no steps.
    """
    if not 0 <= content_weight < float("inf"):
        raise ValueError(f"content_weight={content_weight}: give a finite weight of 0 or more.")
    if steps < 1:
        raise ValueError(f"steps={steps}: an optimisation takes at least 1 step.")


def _stylize_one(
    network: nn.Module,
    photo: Tensor,
    targets: Mapping[str, Tensor],
    content_layer: str,
    *,
    input_spec: InputSpec,
    content_weight: float,
    steps: int,
) -> Style:
    """Works on one photograph ``(1, C, H, W)``."""
    layers = tuple(targets)
    read = list(dict.fromkeys((*layers, content_layer)))
    like = model_options(network)

    def features(images: Tensor) -> dict[str, Tensor]:
        recorded = forward_of_any_size(network, read, input_spec.normalize(images.to(like)), "photograph")
        return {layer: recorded[layer].float() for layer in read}

    originals = features(photo)
    check_maps(originals)
    before = style_distances(originals, targets)

    def bind(part: slice, device: torch.device) -> Loss:
        def loss(recorded: Mapping[str, Tensor]) -> Tensor:
            maps = {layer: recorded[layer].float() for layer in read}
            style = (style_distances(maps, targets) / before.clamp_min(_SMALLEST)).mean(1)
            return style + content_weight * content_error(maps[content_layer], originals[content_layer])

        return loss

    optimized = optimize(
        network,
        Objective(tuple(read), bind),
        Recipe((Phase(steps, _LR, final_lr=_LR / 10),), rescue=False),
        Batch(image_seeds(0, "style"), starts=photo, chunk=1),
        input_spec=replace(input_spec, size=(photo.shape[-2], photo.shape[-1])),
    )
    reached = features(optimized.images)
    return Style(
        images=optimized.images,
        layers=layers,
        content_layer=content_layer,
        before=before,
        after=style_distances(reached, targets),
        content_errors=content_error(reached[content_layer], originals[content_layer]),
        labels=None,
        losses=optimized.losses,
    )


def _style_pictures(style: Tensor | Sequence[Tensor], input_spec: InputSpec) -> list[Tensor]:
    """The pictures, each ``(1, C, h, w)``."""
    given = [style] if isinstance(style, Tensor) else list(style)
    return [one for some in given for one in torch.split(checked_pictures(some, input_spec, "style"), 1)]


def _layers(
    network: nn.Module, input_spec: InputSpec, style_layers: Sequence[str] | None, content_layer: str | None
) -> tuple[list[str], str]:
    blank = blank_input(network, input_spec)
    named = [*(style_layers or ()), *([] if content_layer is None else [content_layer])]
    if style_layers is not None and (isinstance(style_layers, str) or not len(style_layers)):
        raise ValueError(f"style_layers={style_layers!r}: give a list of at least one layer.")
    for layer in named:
        get_layer(network, layer)
    if named:
        check_calls(network, named, blank)
    if style_layers is not None and content_layer is not None:
        return list(dict.fromkeys(style_layers)), content_layer
    chosen, of_content = default_layers(network, input_spec)
    return list(dict.fromkeys(style_layers or chosen)), content_layer or of_content


def _labels(network: nn.Module, photos: Tensor, images: Tensor, input_spec: InputSpec) -> Tensor | None:
    """The classes of photographs and results ``(N, 2)``, cut to the network's input size."""
    try:
        output = read_output(network, input_spec, blank_input(network, input_spec))
    except LayerError:  # no tensor in it
        return None
    if output is None:
        return None
    found = []
    for batch in (photos, images):
        fitted = torch.stack([fit_photograph(one.clamp(0, 1), input_spec.size) for one in batch])
        with torch.no_grad():
            outputs = tensor_of(network(input_spec.normalize(fitted).to(model_options(network))))
        found.append(output.labels(outputs))
    return torch.stack(found, 1)
