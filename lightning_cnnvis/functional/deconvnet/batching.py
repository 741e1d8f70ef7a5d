"""Projections of many units at once, each computed on no more of its image than necessary."""

from __future__ import annotations

import math
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
from lightning_cnnvis.functional.network.place_dependence import depends_on_place
from lightning_cnnvis.functional.network.precision import InPrecision
from lightning_cnnvis.functional.network.receptive_field import ReceptiveField, read_field, whole_image
from lightning_cnnvis.functional.network.tracing import trace
from lightning_cnnvis.layers import LayerError, activations, channel_dim, has_units

Start = Literal["activation", "one"]
"""Value of the unit at which the way down begins."""


def plan_windows(
    model: nn.Module, layer: str, images: Tensor, *, rule: str | Rule = "deconvnet", windowed: bool = True
) -> Windows:
    """Checks that units of a layer can be projected by a rule, and plans the windows to compute them on.

    A network whose units depend on their place in the image, such as by coordinates among its inputs, gets whole
    images; and so does one whose units differ on their windows for another reason, which is tried out on an image of
    noise. The model must be isolated and in evaluation mode.

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
    if windowed and not field.whole_image and not depends_on_place(model, layer, image):
        trials = _Trials(model, layer, image, _places(field, image))
        for windows in (Windows(field, cropped=True), Windows(field)):
            if trials.passed_by(windows):
                return windows
    return whole


def _places(field: ReceptiveField, image: Tensor) -> Tensor:
    """Chooses the units to try windows out on, ``(P, 2)`` on the CPU: more of them where windows are small."""
    (rows, columns), (height, width) = field.map_shape[1:], Windows(field).size
    low, high = (0, 0), (rows - 1, columns - 1)
    candidates = [low, (rows // 2, columns // 2), high, (0, columns - 1), (rows - 1, 0)]
    candidates += [(rows // 3, columns // 4), (rows // 4, 2 * columns // 3), (0, columns // 2), (rows // 2, 0)]
    count = min(max(2 * image.shape[2] * image.shape[3] // (height * width), 3), len(candidates))
    return torch.tensor(list(dict.fromkeys(candidates[:count])), device="cpu")


class _Trials:
    """Compares units on their windows with the same units on an image, up and down.

    Rounding may make a difference by itself, such as by a rectifier that is just on or just off. Where there is one in
    float32, float64 decides, in which windows that hold differ by less than any other type could tell.
    """

    def __init__(self, model: nn.Module, layer: str, image: Tensor, positions: Tensor) -> None:
        self.model, self.layer, self.image, self.positions = model, layer, image, positions
        self._wholes: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    def passed_by(self, windows: Windows) -> bool:
        """Tells whether units are the same on their windows as on an image.

        Args:
            windows: The windows.

        Returns:
            Whether they are.
        """
        try:
            if self.image.dtype != torch.float64:
                difference = self._difference(windows, torch.float32)
                if difference <= 64 * torch.finfo(torch.float32).eps:
                    return True
                if difference > 0.1:  # no rounding is as large
                    return False
            return self._difference(windows, torch.float64) <= math.sqrt(torch.finfo(torch.float64).eps)
        except NotLocal:
            return False
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # the whole image went well, so that the network refuses the window, in whatever way it does that, or the
            # device has no float64
            return False

    def _difference(self, windows: Windows, dtype: torch.dtype) -> float:
        """The largest difference of the activations, or of the pictures, over the largest value of these."""
        corners = windows.corners(self.positions)
        within = windows.positions_within(self.positions, corners)
        with InPrecision(dtype):
            image = self.image.to(dtype)
            if dtype not in self._wholes:
                whole = _forward(self.model, self.layer, image, self.positions, geometry=None)
                self._wholes[dtype] = _up_and_down(
                    whole, torch.zeros(len(within), dtype=torch.long, device=image.device)
                )
            inputs = cut(image.expand(len(within), -1, -1, -1), corners.to(image.device), windows.size)

            def work(part: slice) -> tuple[Tensor, Tensor]:
                forward = _forward(self.model, self.layer, inputs[part], within[part], geometry=windows)
                units, pixels = _up_and_down(forward, torch.arange(len(within[part]), device=image.device))
                return units, forward.place(pixels)

            # at once, or as many as fit
            parts = in_chunks(work, len(within), len(within))
            units, pixels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
            picture = torch.zeros_like(image)
            height, width = windows.size
            for window, (top, left) in zip(pixels, corners.tolist(), strict=True):
                picture[0, :, top : top + height, left : left + width] += window
        differences = [
            (found - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo(dtype).tiny)
            for found, expected in zip((units, picture), self._wholes[dtype], strict=True)
        ]
        return float(torch.stack(differences).max())


def _up_and_down(forward: _Forward, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Activations ``(P, K)`` of units in all channels, and the gradient that a signal from all of them brings."""
    units = forward.output[samples, :, forward.rows, forward.columns]
    weights = torch.linspace(-1, 2, units.shape[1], dtype=units.dtype, device=units.device)
    (pixels,) = torch.autograd.grad((units * weights).sum(), forward.inputs)
    return units.detach(), pixels


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
    inactive: bool = False,
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
        inactive: Whether units that their own rectifier turns off have a projection, too: the way down begins below it.

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
        pass_own_rectifier(forward.output, inactive=inactive)
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
