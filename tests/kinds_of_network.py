"""Small networks of every kind, for methods that compare images with changed copies of them."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    """Branches that see more and less of the image, added in place."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 5, stride, 2)
        self.short = nn.Conv2d(channels, channels, 1, stride)

    def forward(self, x):
        y = F.relu(self.wide(x), inplace=True)
        y += self.short(x)
        return y


class Branches(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 3, padding=2, dilation=2)
        self.narrow = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        pooled = F.max_pool2d(x, 3, 1, 1)
        first, second = torch.cat([self.wide(x), self.narrow(x), pooled], 1).chunk(2, dim=1)
        return torch.maximum(first, second * 0.5) - first[:, :1]


class Gate(nn.Module):
    """A weight for each channel of each copy, as in squeeze and excitation."""

    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True).sigmoid()


class Places(nn.Module):
    """Values that depend on the place."""

    def forward(self, x):
        return x + torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)


class Turned(nn.Module):
    def forward(self, x):
        return x.transpose(2, 3).flip(3)


class Shuffle(nn.Module):
    def forward(self, x):
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Decides(nn.Module):
    """Another way for bright images than for dark ones."""

    def forward(self, x):
        return x * 2 if x.mean() > 0.1 else x + 1


class OneAtATime(nn.Module):
    def forward(self, x):
        assert len(x) == 1, "one image at a time"
        return x


class WritesInto(nn.Module):
    def forward(self, x):
        x[:, :, ::2] = 0
        return x


class Normalised(nn.Module):
    def forward(self, x):
        return F.layer_norm(x, x.shape[1:])


PARTS = {
    "plain": [nn.Conv2d(4, 4, 3)],
    "stride and padding": [nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 4, 3, 2)],
    "a stride larger than the kernel": [nn.Conv2d(4, 4, 1, 3)],
    "groups": [nn.Conv2d(4, 4, 3, padding="same", groups=4), nn.ReLU6(inplace=True)],
    "even kernel, same": [nn.Conv2d(4, 4, 4, padding="same")],
    "rectangular": [nn.Conv2d(4, 4, (1, 5), (2, 1), (0, 2))],
    "circular padding": [nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")],
    "reflected padding": [nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")],
    "zeros around": [nn.ZeroPad2d((1, 2, 0, 3)), nn.Conv2d(4, 4, 3)],
    "ones around": [nn.ConstantPad2d(2, 1.0), nn.Conv2d(4, 4, 3)],
    "max-pooling": [nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3)],
    "max-pooling, ceil": [nn.MaxPool2d(3, 2, ceil_mode=True)],
    "average pooling": [nn.AvgPool2d(3, 2, 1)],
    "average pooling, ceil": [nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)],
    "residual": [Residual(4), nn.ReLU(inplace=True), Residual(4, 2)],
    "branches": [Branches(4), nn.Conv2d(6, 4, 3)],
    "batch norm": [nn.BatchNorm2d(4), nn.PReLU(4), nn.Hardswish(), nn.Dropout2d()],
    "batch norm without statistics": [nn.BatchNorm2d(4, track_running_stats=False)],
    "response norm": [nn.LocalResponseNorm(3), nn.Conv2d(4, 4, 3)],
    "group norm": [nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3)],
    "instance norm": [nn.InstanceNorm2d(4)],
    "layer norm": [Normalised()],
    "excitation": [Gate(), nn.Conv2d(4, 4, 3)],
    "places": [Places()],
    "turned": [Turned(), nn.Conv2d(4, 4, 3, padding=1)],
    "shuffled": [Shuffle(), nn.Conv2d(4, 4, 3, groups=2)],
    "enlarged": [nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3)],
    "transposed": [nn.ConvTranspose2d(4, 4, 2, 2)],
    "softmax over places": [nn.Softmax(3)],
    "a decision": [Decides()],
    "one at a time": [OneAtATime()],
    "writes into the map": [WritesInto()],
}


def network_of(name: str, channels: int = 3, classes: int = 5) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(inplace=True), *deepcopy(PARTS[name]),
        nn.Conv2d(4, 6, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, classes),
    )  # fmt: skip
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


def images_of(channels: int, height: int, width: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(1))
