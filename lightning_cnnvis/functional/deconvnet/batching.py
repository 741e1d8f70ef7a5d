"""Projections of many units at once, each computed on no more of its image than necessary."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cnnvis.channel_dim import as_maps
from lightning_cnnvis.functional.deconvnet.conv_arithmetic import NotLocal
from lightning_cnnvis.functional.deconvnet.cropped_forward import CroppedForward
from lightning_cnnvis.functional.deconvnet.own_rectifier import pass_own_rectifier
from lightning_cnnvis.functional.deconvnet.rules import RectifiedBackward, Rule, get_rule
from lightning_cnnvis.functional.deconvnet.supported_ops import check_supported
from lightning_cnnvis.functional.deconvnet.windows import Windows, cut
from lightning_cnnvis.functional.network.canonical import LRNRule, RectifiableForward
from lightning_cnnvis.functional.network.chunks import chunk_size, in_chunks, is_out_of_memory
from lightning_cnnvis.functional.network.data_dependence import reads_values
from lightning_cnnvis.functional.network.forward import noise_image
from lightning_cnnvis.functional.network.receptive_field import ReceptiveField, read_field, whole_image
from lightning_cnnvis.functional.network.tracing import trace
from lightning_cnnvis.layers import LayerError, activations, channel_dim, has_units

Start = Literal["activation", "one"]
"""Value of the unit at which the way down begins."""


def plan_windows(
    model: nn.Module, layer: str, images: Tensor, *, rule: str | Rule = "deconvnet", windowed: bool = True
) -> Windows:
    """Checks that units of a layer can be projected by a rule, and plans the windows to compute them on.

    The plan is tried out on an image of noise, so that a network whose units depend on their place in the image, such
    as by coordinates among its inputs, gets whole images. The model must be isolated and in evaluation mode.

    Args:
        model: The network.
        layer: Dotted module name.
        images: ``(N, C, H, W)``; only their shape matters.
        rule: Rule of the way down, a name or a `Rule`; see `project`.
        windowed: Whether to compute receptive fields only, instead of whole images.

    Returns:
        The windows of the layer's units.

    Raises:
        LayerError: If the layer does not exist, does not stand for one call of a module, or its output is neither a
            map nor tokens nor a vector.
        UnsupportedOperationError: If the network has an operation before the layer that a deconvnet cannot pass.
        ValueError: If there is no rule of the name.
    """
    size = (images.shape[2], images.shape[3])
    image = noise_image(model, size, images.shape[1])
    output, nodes = trace(model, layer, image)
    if not has_units(model, layer, output):
        raise LayerError(
            f"The output of layer {layer!r} has shape {tuple(output.shape)}: it is neither a map (N, K, H, W) nor a "
            "vector (N, K) nor tokens (N, T, K). Name another layer."
        )
    whole = Windows(whole_image(output, size), channel_dim=channel_dim(model, layer))
    if get_rule(rule).rectify is not None:
        check_supported(model, layer, image)
    if reads_values(model, layer, image):
        return replace(whole, one_by_one=True)
    field = read_field(output, nodes, size)
    if windowed and not field.whole_image:
        for windows in (Windows(field, cropped=True), Windows(field)):
            if _holds(windows, model, layer, image, output.detach()):
                return windows
    return whole


@torch.no_grad()
def _holds(windows: Windows, model: nn.Module, layer: str, image: Tensor, output: Tensor) -> bool:
    """Checks that units at two corners and in the middle of the map are the same on their windows as on an image."""
    rows, columns = output.shape[2:]
    positions = torch.tensor([[0, 0], [rows // 2, columns // 2], [rows - 1, columns - 1]], device=image.device)
    corners = windows.corners(positions)
    inputs = cut(image.expand(len(positions), -1, -1, -1), corners, windows.size)
    try:
        within = windows.positions_within(positions, corners)
        forward = _forward(model, layer, inputs, within, geometry=windows)
    except NotLocal:
        return False
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # the whole image went well, so that the network refuses the window, in whatever way it does that
        return False
    units = forward.output[torch.arange(len(positions), device=positions.device), :, forward.rows, forward.columns]
    expected = output[0, :, positions[:, 0], positions[:, 1]].T
    # far above rounding errors, far below the difference of another unit
    tolerance = torch.finfo(output.dtype).eps ** 0.25 * output.abs().max()
    return bool(((units - expected).abs() <= tolerance).all())


def project_windows(
    model: nn.Module,
    windows: Tensor,
    layer: str,
    channels: Tensor,
    positions: Tensor,
    *,
    rule: str | Rule = "deconvnet",
    start: Start = "activation",
    lrn: LRNRule = "identity",
    geometry: Windows | None = None,
) -> tuple[Tensor, Tensor]:
    """Projects one unit of each window: the step of `project` after the windows have been cut.

    The model must be isolated and in evaluation mode.

    Args:
        model: The network.
        windows: ``(N, C, h, w)``, parts of images or whole ones.
        layer: Dotted module name.
        channels: ``(N,)`` integers, the unit's channel.
        positions: ``(N, 2)`` integers, row and column in the layer's map of the window.
        rule: Rule of the way down, a name or a `Rule`; see `project`.
        start: Value at which the way down begins, ``"activation"`` or ``"one"``.
        lrn: Backward pass of local response normalisation, ``"identity"`` or ``"gradient"``.
        geometry: The plan of `plan_windows`. With it, no more of a window is computed than leads to the unit.

    Returns:
        The projections ``(N, C, h, w)`` and the activations ``(N,)``.

    Raises:
        ValueError: If an activation is not finite.
    """
    rule = get_rule(rule)
    canonical = RectifiableForward(lrn)
    # read once: each chunk asks for them
    positions = positions.cpu()
    # neighbours share a chunk, because positions outside of the image for all of its units are not computed
    order = (positions[:, 0] * (positions[:, 1].max() + 1) + positions[:, 1]).argsort()

    def project_chunk(part: slice) -> tuple[Tensor, Tensor]:
        chosen, places = order[part].to(windows.device), positions[order[part]]
        if geometry is not None and geometry.one_by_one and rule.rectify is not None:
            # another image may take another way than that of the plan
            check_supported(model, layer, windows[chosen])
        with nullcontext() if rule.rectify is None else canonical:
            try:
                forward = _forward(model, layer, windows[chosen], places, geometry=geometry)
            except NotLocal:
                forward = _forward(model, layer, windows[chosen], places, geometry=None)
        units: tuple[Tensor, ...] = torch.arange(len(chosen), device=windows.device), channels[chosen]
        if forward.output.ndim == 4:
            units = *units, forward.rows, forward.columns
        values = forward.output.detach()[units]
        signal = torch.zeros_like(forward.output)
        signal[units] = values if start == "activation" else torch.ones_like(values)
        pass_own_rectifier(forward.output)
        with RectifiedBackward(rule):
            (pixels,) = torch.autograd.grad(forward.output, forward.inputs, signal)
        return forward.place(pixels), values

    size = 1 if geometry is not None and geometry.one_by_one else chunk_size(windows)
    parts = list(in_chunks(project_chunk, len(windows), size))
    place_of = order.argsort().to(windows.device)
    pixels, values = (torch.cat(tensors)[place_of] for tensors in zip(*parts, strict=True))
    if not values.isfinite().all():
        unit = int(values.isfinite().logical_not().nonzero()[0])
        raise ValueError(
            f"The activation of channel {int(channels[unit])} of layer {layer!r} on image {unit} is "
            f"{float(values[unit])}. Check the image and the weights for NaN and infinity."
        )
    return pixels, values


class _Forward(NamedTuple):
    """A forward pass: its leaf, its output, the units' places in it, and how the leaf's pixels lie in the window."""

    inputs: Tensor
    output: Tensor
    rows: Tensor
    columns: Tensor
    place: Callable[[Tensor], Tensor]


def _forward(
    model: nn.Module,
    layer: str,
    windows: Tensor,
    positions: Tensor,
    *,
    geometry: Windows | None,
) -> _Forward:
    if geometry is not None and geometry.cropped:
        return _cropped_forward(model, layer, windows, positions, geometry.field)
    inputs = _leaf(windows)
    output = as_maps(activations(model, inputs, [layer])[layer])
    rows, columns = positions.to(inputs.device).unbind(1)
    return _Forward(inputs, output, rows, columns, lambda pixels: pixels)


def _cropped_forward(
    model: nn.Module, layer: str, windows: Tensor, positions: Tensor, field: ReceptiveField
) -> _Forward:
    size = (windows.shape[2], windows.shape[3])
    cropped = CroppedForward(field, positions.cpu(), size)
    corners = cropped.corners
    inputs = _leaf(cut_or_zero(windows, corners, cropped.size))
    cropped.begin(inputs)
    with cropped:
        output = activations(model, inputs, [layer])[layer]
    rows, columns = (torch.full((len(positions),), place, device=inputs.device) for place in cropped.units(output))
    return _Forward(inputs, output, rows, columns, lambda pixels: cut_or_zero(pixels, -corners, size))


def _leaf(inputs: Tensor) -> Tensor:
    # a tensor made in inference mode cannot be a leaf; its copy can
    inputs = inputs.clone() if inputs.is_inference() else inputs.detach()
    if inputs.device.type == "cpu":
        # on a CPU, convolutions and poolings are up to twice as fast with the channels side by side
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return inputs.requires_grad_()


def cut_or_zero(images: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts windows of one size out of images, one of each; they are zero where they leave their image.

    Args:
        images: ``(N, C, H, W)``.
        corners: ``(N, 2)`` on the CPU, top and left pixel of each window; it may lie outside of the image.
        size: Height and width of the windows.

    Returns:
        ``(N, C, *size)``.
    """
    low, high = torch.aminmax(corners, dim=0)
    (top, left), (bottom, right) = low.tolist(), (high + torch.tensor(size, device="cpu")).tolist()
    height, width = images.shape[2:]
    before = max(-top, 0), max(-left, 0)
    behind = max(bottom - height, 0), max(right - width, 0)
    padded = F.pad(images, (before[1], behind[1], before[0], behind[0]))
    return cut(padded, (corners + torch.tensor(before, device="cpu")).to(images.device), size)
