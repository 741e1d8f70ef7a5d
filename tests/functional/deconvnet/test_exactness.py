"""`project` against a deconvnet written out by hand, which shares no code with the package: no autograd, no windows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_cnnvis.functional.deconvnet.projection import Projections, plan_windows, project, project_windows
from lightning_cnnvis.functional.deconvnet.windows import Windows, cut
from lightning_cnnvis.isolation import isolated

Down = Callable[[Tensor], Tensor]


class Residual(nn.Module):
    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Concat(nn.Module):
    def __init__(self, *branches: nn.Sequential) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def explicit_projection(
    layers: nn.Sequential, images: Tensor, channels: Tensor, positions: Tensor, start: str = "activation"
) -> Tensor:
    """The pictures of units at the end of some layers, each of its own image, on whole images."""
    with torch.no_grad():
        output, down = run(layers, images)
        units = (torch.arange(len(images)), channels)
        if output.ndim == 4:
            units += (positions[:, 0], positions[:, 1])
        signal = torch.zeros_like(output)
        signal[units] = output[units] if start == "activation" else 1.0
        return down(signal)


def run(module: nn.Module, x: Tensor) -> tuple[Tensor, Down]:
    """What a module computes, and how a signal passes it on the way down."""
    if isinstance(module, nn.Sequential):
        downs = []
        for layer in module:
            x, down = run(layer, x)
            downs.append(down)
        return x, lambda s: _chain(reversed(downs), s)
    if isinstance(module, Residual):
        y, down = run(module.body, x)
        return x + y, lambda s: s + down(s)
    if isinstance(module, Concat):
        parts = [run(branch, x) for branch in module.branches]
        widths = [len(y[0]) for y, _ in parts]
        return torch.cat([y for y, _ in parts], 1), lambda s: sum(
            down(piece) for (_, down), piece in zip(parts, s.split(widths, 1), strict=True)
        )
    if isinstance(module, nn.ReLU):
        return x.clamp(min=0), lambda s: s.clamp(min=0)
    if isinstance(module, nn.ReLU6):
        return x.clamp(0, 6), lambda s: s.clamp(min=0)
    if isinstance(module, nn.LeakyReLU):
        slope = module.negative_slope
        return torch.where(x > 0, x, slope * x), lambda s: torch.where(s > 0, s, slope * s)
    if isinstance(module, nn.PReLU):
        slopes = module.weight.view(-1, 1, 1)
        return torch.where(x > 0, x, slopes * x), lambda s: torch.where(s > 0, s, slopes * s)
    if isinstance(module, nn.BatchNorm2d):
        scale = (module.weight / (module.running_var + module.eps).sqrt()).view(-1, 1, 1)
        shift = module.bias.view(-1, 1, 1) - module.running_mean.view(-1, 1, 1) * scale
        return x * scale + shift, lambda s: s * scale
    if isinstance(module, nn.LocalResponseNorm):
        return module(x), lambda s: s
    if isinstance(module, nn.Dropout | nn.Identity):
        return x, lambda s: s
    if isinstance(module, nn.Flatten):
        return x.flatten(1), lambda s: s.view_as(x)
    if isinstance(module, nn.Linear):
        return x @ module.weight.T + module.bias, lambda s: s @ module.weight
    if isinstance(module, nn.Conv2d):
        return module(x), lambda s: _filter_down(module, s, x.shape[2:])
    if isinstance(module, nn.MaxPool2d):
        return _max_pool(module, x)
    if isinstance(module, nn.AvgPool2d):
        return module(x), lambda s: _spread_averages(module, s, x.shape)
    raise TypeError(type(module))


def _chain(downs, signal: Tensor) -> Tensor:
    for down in downs:
        signal = down(signal)
    return signal


def _filter_down(conv: nn.Conv2d, signal: Tensor, size: torch.Size) -> Tensor:
    # pixels at the end that no filter reaches
    rest = [
        n - ((out - 1) * s - 2 * p + d * (k - 1) + 1)
        for n, out, s, p, d, k in zip(
            size, signal.shape[2:], conv.stride, conv.padding, conv.dilation, conv.kernel_size, strict=True
        )
    ]
    return F.conv_transpose2d(signal, conv.weight, None, conv.stride, conv.padding, rest, conv.groups, conv.dilation)


def _max_pool(pool: nn.MaxPool2d, x: Tensor) -> tuple[Tensor, Down]:
    y, switches = F.max_pool2d(
        x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )

    def down(signal: Tensor) -> Tensor:
        flat = torch.zeros_like(x).flatten(2)
        return flat.scatter_add(2, switches.flatten(2), signal.flatten(2)).view_as(x)

    return y, down


def _spread_averages(pool: nn.AvgPool2d, signal: Tensor, shape: torch.Size) -> Tensor:
    k, s, p = pool.kernel_size, pool.stride, pool.padding
    down = signal.new_zeros(shape)
    for i in range(signal.shape[2]):
        for j in range(signal.shape[3]):
            ends = [(a * s - p, min(a * s - p + k, n + p)) for a, n in zip((i, j), shape[2:], strict=True)]
            inside = [(max(a, 0), min(b, n)) for (a, b), n in zip(ends, shape[2:], strict=True)]
            counted = ends if pool.count_include_pad else inside
            count = (counted[0][1] - counted[0][0]) * (counted[1][1] - counted[1][0])
            (top, bottom), (left, right) = inside
            down[:, :, top:bottom, left:right] += signal[:, :, i, j, None, None] / count
    return down


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-300))


def on_windows(net: nn.Module, images: Tensor, layer: str, channels: Tensor, positions: Tensor) -> Tensor:
    """The pictures on whole windows, without cropping, put back where they belong."""
    with isolated(net):
        windows = Windows(plan_windows(net, layer, images).field)
        corners = windows.corners(positions)
        inputs = cut(images, corners, windows.size)
        pixels, _ = project_windows(net, inputs, layer, channels, windows.positions_within(positions, corners))
    full = torch.zeros_like(images)
    for picture, part, (top, left) in zip(full, pixels, corners.tolist(), strict=True):
        picture[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return full


def outside(projections: Projections) -> Tensor:
    """Where no pixel of the receptive fields is, ``(N, 1, H, W)``."""
    mask = torch.ones(len(projections), 1, *projections.image_size, dtype=torch.bool)
    for one, (top, left, bottom, right) in zip(mask, projections.boxes.tolist(), strict=True):
        one[:, top:bottom, left:right] = False
    return mask


@st.composite
def blocks(draw: st.DrawFn, width: int, *, keeps_size: bool = False) -> tuple[nn.Module, int]:
    """A layer or a branching for maps of a width, and the width that it makes."""
    kinds = ["conv", "depthwise", "max", "avg", "norm", "rectifier"]
    kind = draw(st.sampled_from(kinds[:2] + kinds[4:] if keeps_size else [*kinds, "residual", "concat"]))
    if kind in ("conv", "depthwise"):
        kernel = draw(st.sampled_from((1, 3, 5) if keeps_size else (1, 2, 3, 5)))
        dilation = draw(st.integers(1, 2))
        # strides larger than kernels among them
        stride = 1 if keeps_size else draw(st.integers(1, 3))
        padding = dilation * (kernel - 1) // 2 if keeps_size else draw(st.integers(0, kernel))
        groups, wide = (width, width) if kind == "depthwise" else (1, width if keeps_size else 4)
        conv = nn.Conv2d(width, wide, kernel, stride, padding, dilation, groups)
        return nn.Sequential(conv, nn.ReLU(inplace=True)) if draw(st.booleans()) else conv, wide
    if kind == "max":
        kernel = draw(st.integers(2, 3))
        padding, dilation = draw(st.integers(0, 1)), draw(st.integers(1, 2))
        return nn.MaxPool2d(kernel, draw(st.integers(1, 3)), padding, dilation, ceil_mode=draw(st.booleans())), width
    if kind == "avg":
        kernel, stride, padding = draw(st.integers(2, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 1))
        return nn.AvgPool2d(kernel, stride, padding, draw(st.booleans()), draw(st.booleans())), width
    if kind == "norm":
        norm = nn.BatchNorm2d(width) if draw(st.booleans()) else nn.LocalResponseNorm(3, k=0.5)
        for name, tensor in norm.state_dict().items():
            if "num" not in name:
                tensor.copy_(torch.rand_like(tensor) + 0.5)
        return norm, width
    if kind == "rectifier":
        kinds = [nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.2), nn.PReLU(width)]
        return draw(st.sampled_from(kinds)), width
    if kind == "residual":
        return Residual(draw(stacks(width, 2, keeps_size=True))[0]), width
    branches = [draw(stacks(width, draw(st.integers(1, 2)), keeps_size=True)) for _ in range(2)]
    return Concat(*(branch for branch, _ in branches)), sum(wide for _, wide in branches)


@st.composite
def stacks(draw: st.DrawFn, width: int, depth: int, *, keeps_size: bool = False) -> tuple[nn.Sequential, int]:
    layers = []
    for _ in range(depth):
        layer, width = draw(blocks(width, keeps_size=keeps_size))
        layers.append(layer)
    return nn.Sequential(*layers), width


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_random_networks_equal_an_explicit_deconvnet(data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    in_channels = data.draw(st.integers(1, 4))
    body, width = data.draw(stacks(4, data.draw(st.integers(1, 5))))
    net = nn.Sequential(nn.Conv2d(in_channels, 4, 3, padding=1), nn.ReLU(), *body).double().eval()
    height, wide = data.draw(st.integers(6, 40)), data.draw(st.integers(6, 40))
    images = torch.randn(4, in_channels, height, wide, dtype=torch.float64)
    try:
        with torch.no_grad():
            output = net(images)
    except RuntimeError:
        assume(False)
    assume(output.numel())
    rows, columns = output.shape[2] - 1, output.shape[3] - 1
    anywhere = [(data.draw(st.integers(0, rows)), data.draw(st.integers(0, columns))) for _ in range(2)]
    positions = torch.tensor([(0, columns), (rows, 0), *anywhere])
    channels = torch.randint(width, (4,))
    layer = str(len(net) - 1)
    expected = explicit_projection(net, images, channels, positions)
    result = project(net, images, layer, channels, positions)
    assert relative_error(result.full(), expected) < 1e-10
    whole = project(net, images, layer, channels, positions, windowed=False)
    assert relative_error(whole.full(), expected) < 1e-10
    assert relative_error(on_windows(net, images, layer, channels, positions), expected) < 1e-10
    assert not expected.masked_select(outside(result)).any()
    # twice the activation gives twice the picture
    positive = result.activations > 0
    one = project(net, images, layer, channels, positions, start="one")
    scaled = one.pixels * result.activations.view(-1, 1, 1, 1)
    assert relative_error(scaled[positive], result.pixels[positive]) < 1e-10 if positive.any() else True


class LinearCase(nn.Module):
    """The network of captum's published case."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.relu1 = nn.ReLU()
        self.fc1 = nn.Linear(8, 4)
        self.relu2 = nn.ReLU()
        with torch.no_grad():
            self.conv1.weight.fill_(1)
            self.conv1.bias.copy_(torch.tensor([-50.0, -75.0]))
            self.fc1.weight.copy_(torch.cat([torch.ones(4, 5), -torch.ones(4, 3)], 1))
            self.fc1.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(self.fc1(self.relu1(self.conv1(x)).view(-1, 8)))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("deconvnet", [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]),
        ("guided", [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]),
    ],
)
def test_published_case(rule, expected):
    images = torch.arange(16.0).view(1, 1, 4, 4)
    result = project(LinearCase(), images, "relu2", torch.tensor([0]), rule=rule, start="one")
    assert result.full()[0, 0].tolist() == expected


@pytest.mark.parametrize("layer", ["1", "4", "7", "9", "11", "12"])
def test_imagenet_alexnet_equals_explicit_deconvnet(shared_data, layer):
    net = torchvision.models.alexnet(weights=None).features
    net.load_state_dict(load_file(shared_data / "alexnet_features_imagenet.safetensors"))
    images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    stack = net[: int(layer) + 1]
    with torch.no_grad():
        maps = stack(images)
    channels = maps.amax((2, 3)).argsort(dim=1)[torch.arange(4), torch.tensor([-1, -5, -20, -30])]
    flat = maps[torch.arange(4), channels].flatten(1).argmax(1)
    positions = torch.stack([flat // maps.shape[3], flat % maps.shape[3]], 1)
    # one unit at a corner, where the padding matters
    positions[0] = torch.tensor([0, maps.shape[3] - 1])
    expected = explicit_projection(stack, images, channels, positions)
    result = project(net, images, layer, channels, positions)
    assert relative_error(result.full(), expected) < 1e-5
    whole = project(net, images, layer, channels, positions, windowed=False)
    assert relative_error(whole.full(), expected) < 1e-5


def test_logits_and_dense_layers():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(8 * 49, 20),
        nn.ReLU(),
        nn.Linear(20, 5),
    )
    net = net.double().train()
    images = torch.randn(2, 3, 31, 31, dtype=torch.float64)
    channels = torch.tensor([4, 1])
    result = project(net, images, "7", channels)
    expected = explicit_projection(net.eval(), images, channels, torch.zeros(2, 2, dtype=torch.long))
    assert relative_error(result.full(), expected) < 1e-10
    assert result.pixels.shape == images.shape
    assert result.boxes.tolist() == [[0, 0, 31, 31]] * 2
