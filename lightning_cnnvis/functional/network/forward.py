"""Forward passes of a network that go only as deep as needed, for each sample only as deep as it needs."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_cnnvis.channel_dim import channels_first
from lightning_cnnvis.functional.network.chunks import is_out_of_memory
from lightning_cnnvis.functional.network.output import tensor_of
from lightning_cnnvis.functional.noise import gaussian
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layers import LayerError, activations, bringing_channels_first, channel_dim, hook_layer

OUTPUT = ""
"""Name of the model's own output among layers, as ``named_modules()`` names the model itself."""

Forward = Callable[[Tensor], Mapping[str, Tensor]]
"""A function of inputs ``(N, C, H, W)`` that returns what was recorded, layer -> ``(M, ...)``."""


def blank_input(model: nn.Module, input_spec: InputSpec) -> Tensor:
    """Makes an input of zeros, with which to find out the sizes of a model's layers.

    Args:
        model: The network.
        input_spec: The network's input.

    Returns:
        ``(1, C, H, W)``, of the dtype and on the device of the model's weights.

    Examples:
        >>> blank_input(nn.Conv2d(3, 8, 3).double(), InputSpec(size=(4, 6))).shape
        torch.Size([1, 3, 4, 6])
    """
    return model_options(model).new_zeros(1, *input_spec.shape)


def plain_forward(model: nn.Module, layers: Sequence[str]) -> Forward:
    """Makes a forward pass that stops after the deepest of the layers.

    Args:
        model: The network.
        layers: Dotted module names, and `OUTPUT` for the model's output.

    Returns:
        The pass: a function of inputs ``(N, C, H, W)`` that returns every layer's output ``(N, C, ...)``, channels
        first, by name, and the model's own as it is. It raises a `LayerError` if a layer does not exist, does not run,
        or does not return a tensor.

    Examples:
        >>> forward = plain_forward(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()), ["0", OUTPUT])
        >>> {layer: tuple(output.shape) for layer, output in forward(torch.zeros(2, 3, 4, 4)).items()}
        {'0': (2, 8, 2, 2), '': (2, 32)}
    """
    modules = [layer for layer in layers if layer != OUTPUT]
    if OUTPUT not in layers:
        return lambda inputs: activations(model, inputs, modules)

    def forward(inputs: Tensor) -> Mapping[str, Tensor]:
        recorded: dict[str, Tensor] = {}
        with ExitStack() as stack:
            for layer in modules:
                for handle in hook_layer(model, layer, _store(recorded, layer)):
                    stack.callback(handle.remove)
            stack.enter_context(bringing_channels_first(model, inputs, modules, recorded))
            output = model(inputs)
        return {**recorded, OUTPUT: tensor_of(output)}

    return forward


def _store(recorded: dict[str, Tensor], layer: str) -> Callable[[nn.Module, object, Tensor], None]:
    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        # a later in-place operation may overwrite the output
        recorded[layer] = output.clone()

    return hook


def staged_forward(model: nn.Module, counts: Mapping[str, int], probe: Tensor) -> Forward:
    """Makes a forward pass that each sample leaves at its own layer.

    The batch is sorted by depth: first the samples of the shallowest layer, last those of the deepest. After each
    layer its samples are dropped, so that deeper layers do not run on them. Where the network cannot go on with a
    part of the batch (inside a residual block, for example, the branches would no longer fit together), a first pass
    on ``probe`` shows it, and all samples go on to the deepest layer.

    Args:
        model: The network, in evaluation mode.
        counts: Number of samples of each layer, layer -> number, in the order of the forward pass.
        probe: One input ``(1, C, H, W)`` to try the pass on.

    Returns:
        The pass. It records for each layer only its own samples.

    Raises:
        LayerError: If a layer does not exist, or the layers are not in the order in which they run.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> forward = staged_forward(net, {"0": 2, "2": 1}, torch.zeros(1, 3, 8, 8))
        >>> {layer: output.shape[0] for layer, output in forward(torch.zeros(3, 3, 8, 8)).items()}
        {'0': 2, '2': 1}
    """
    layers = [layer for layer in counts if counts[layer]]
    order = _running_order(model, layers, probe)
    if order != layers:
        raise LayerError(f"The layers {layers} do not run in this order. Sort the samples as {order}.")
    if len(layers) > 1 and _can_narrow(model, layers, probe):
        return lambda inputs: _narrowing_pass(model, layers, [counts[layer] for layer in layers], inputs)
    whole = plain_forward(model, layers)

    def forward(inputs: Tensor) -> Mapping[str, Tensor]:
        recorded, start, mine = whole(inputs), 0, {}
        for layer in layers:
            mine[layer] = recorded[layer][start : start + counts[layer]]
            start += counts[layer]
        return mine

    return forward


def _running_order(model: nn.Module, layers: Sequence[str], probe: Tensor) -> list[str]:
    order: list[str] = []
    with ExitStack() as stack:
        for layer in layers:
            if layer != OUTPUT:
                for handle in hook_layer(model, layer, lambda *_, layer=layer: order.append(layer)):
                    stack.callback(handle.remove)
        with torch.no_grad():
            plain_forward(model, layers)(probe)
    return [*dict.fromkeys(order), *([OUTPUT] if OUTPUT in layers else [])]


def _narrowing_pass(
    model: nn.Module, layers: Sequence[str], counts: Sequence[int], inputs: Tensor
) -> Mapping[str, Tensor]:
    recorded: dict[str, Tensor] = {}

    def hook_of(layer: str, count: int) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            # the layers have been recorded before, on the probe
            recorded[layer] = channels_first(output[:count].clone(), channel_dim(model, layer))
            return output[count:]

        return hook

    with ExitStack() as stack:
        for layer, count in zip(layers[:-1], counts[:-1], strict=True):
            for handle in hook_layer(model, layer, hook_of(layer, count)):
                stack.callback(handle.remove)
        recorded[layers[-1]] = plain_forward(model, layers[-1:])(inputs)[layers[-1]]
    return recorded


def _can_narrow(model: nn.Module, layers: Sequence[str], probe: Tensor) -> bool:
    """Tries on different samples, one for each layer, whether samples can leave on the way."""
    noise = gaussian((len(layers), *probe.shape[1:])).to(probe)
    with torch.no_grad():
        expected = plain_forward(model, layers)(noise)
        try:
            narrowed = _narrowing_pass(model, layers, [1] * len(layers), noise)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # branches of different batch sizes; the whole pass just went well, so nothing else is wrong
            return False
    return all(
        narrowed[layer].shape[0] == 1 and torch.allclose(narrowed[layer][0], expected[layer][i], rtol=1e-3, atol=1e-4)
        for i, layer in enumerate(layers)
    )


def noise_image(model: nn.Module, input_size: tuple[int, int], channels: int | None = None) -> Tensor:
    """Makes an image of Gaussian noise, always the same.

    Args:
        model: The network.
        input_size: Height and width in pixels.
        channels: Number of channels C; None takes that of the first convolution, or 3 if there is none.

    Returns:
        ``(1, C, H, W)``, of the dtype and on the device of the model's weights.
    """
    weights = model_options(model)
    if channels is None:
        convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d))
        # that of a lazy convolution is 0 before its first pass
        channels = next((m.in_channels for m in convolutions if m.in_channels), 3)
    return gaussian((1, channels, *input_size)).to(weights)


def model_options(model: nn.Module) -> Tensor:
    """Returns an empty tensor of the dtype and on the device of the model's weights, for `Tensor.to`.

    Args:
        model: The network.

    Returns:
        ``(0,)``; float32 on the CPU if the model has no floating-point weights.

    Examples:
        >>> model_options(nn.Conv2d(3, 8, 3).double()).dtype
        torch.float64
    """
    weight: Tensor | None = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is None:
        return torch.empty(0, dtype=torch.float32, device="cpu")
    if is_lazy(weight):  # a lazy module has no values yet
        return torch.empty(0, dtype=weight.dtype, device=weight.device)
    return weight.detach().new_empty(0)


_ABOUT_SHAPES = re.compile("size|shape|channel|dimension|height|width|resolution", re.IGNORECASE)


def is_about_shapes(error: Exception) -> bool:
    """Tells whether an error is about the shape of an input, not about memory, the device or anything else.

    Torch raises a `RuntimeError` where shapes do not fit. A network that checks its input itself asserts, or raises an
    error of its choice.

    Args:
        error: An error that a forward pass raised.

    Returns:
        Whether its message is about a size, a shape, channels or dimensions, or, for an assertion, its line of code.

    Examples:
        >>> is_about_shapes(ValueError("Input height (32) does not match the model's (64)."))
        True
        >>> is_about_shapes(ValueError("The counter must not be negative."))
        False
    """
    own = type(error).__module__.partition(".")[0] in ("torch", __name__.partition(".")[0])
    if own or not isinstance(error, RuntimeError | AssertionError | ValueError | IndexError):
        # torch's classes of their own are about memory and devices
        return False
    message = str(error)
    if isinstance(error, AssertionError) and error.__traceback__ is not None:
        message += traceback.extract_tb(error.__traceback__)[-1].line or ""
    return not is_out_of_memory(error) and bool(_ABOUT_SHAPES.search(message))
