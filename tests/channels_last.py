"""Networks whose layers hold their channels in other places than dimension 1, and twins of them with maps."""

from __future__ import annotations

import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F


class Permute(nn.Module):
    def __init__(self, *dims):
        super().__init__()
        self.dims = dims

    def forward(self, x):
        return x.permute(self.dims)


class ChannelsLast(nn.Module):
    """A convolution, then dense layers at each place of a map ``(N, H, W, C)``."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.LayerNorm(6)
        self.dense, self.act, self.head = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x):
        x = self.norm(self.stem(x).permute(0, 2, 3, 1))
        return self.head(self.act(self.dense(x)).mean((1, 2)))


class Tokens(nn.Module):
    """Patches as tokens ``(N, T, C)``, cut out by views, and attention between them."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm, self.heads = nn.Linear(3 * 16, 8), nn.LayerNorm(8), 2
        self.qkv, self.proj, self.act, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)

    def forward(self, x):
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 16, c * 16)
        x = self.norm(self.patches(x))
        q, k, v = self.qkv(x).reshape(n, -1, 3, self.heads, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.head(self.act(x).mean(1))


class Mixed(nn.Module):
    """Maps with channels first and last and tokens by turns, as in ConvNeXt, PVT and EfficientFormer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.wide, self.narrow = nn.Linear(6, 12), nn.Linear(12, 6)
        self.tokens = nn.LayerNorm(6)
        self.conv, self.head = nn.Conv2d(6, 8, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.narrow(F.gelu(self.wide(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        n, c, h, w = x.shape
        tokens = self.tokens(x.flatten(2).transpose(1, 2))
        x = tokens.transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.conv(x).mean((2, 3)))


class TokenMixer(nn.Module):
    """Dense layers along the tokens, too, as in MLP-Mixer: there the channels stay where they are."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 6, 4, stride=4), nn.LayerNorm(6)
        self.along, self.channels, self.head = nn.Linear(16, 16), nn.Linear(6, 10), nn.Linear(10, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.along(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head(self.channels(x).mean(1))


def swin():
    return torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=12, depths=[1, 1], num_heads=[2, 2], window_size=[2, 2], num_classes=3
    )


def swin_of_timm():
    return timm.models.SwinTransformer(
        img_size=16, patch_size=2, embed_dim=12, depths=(1, 1), num_heads=(2, 2), window_size=4, num_classes=3
    )


def convnext():
    block = torchvision.models.convnext.CNBlockConfig
    return torchvision.models.ConvNeXt([block(8, 12, 1), block(12, None, 1)], num_classes=3)


def vit():
    return torchvision.models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=20, num_classes=3
    )


def vit_of_timm():
    return timm.models.VisionTransformer(img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=2, num_classes=3)


def pvt():
    return timm.models.PyramidVisionTransformerV2(
        depths=(1, 1), embed_dims=(8, 16), num_heads=(1, 2), sr_ratios=(2, 1), mlp_ratios=(2, 2), num_classes=3
    )


NETWORKS = {
    # the network, and the dimension of the channels of some of its layers
    "maps": (ChannelsLast, {"stem": 1, "norm": 3, "dense": 3, "act": 3}),
    "tokens": (Tokens, {"patches": 2, "qkv": 2, "proj": 2, "act": 2, "norm": 2}),
    "mixed": (Mixed, {"stem.1": 1, "stem.2": 1, "wide": 3, "narrow": 3, "tokens": 2, "conv": 1}),
    "mixer": (TokenMixer, {"patches": 1, "norm": 2, "along": 1, "channels": 2}),
    "swin": (
        swin,
        {"features.0.0": 1, "features.0": 3, "features.1": 3, "features.2": 3, "features.3.0.mlp.1": 3, "permute": 1},
    ),
    "swin of timm": (swin_of_timm, {"patch_embed": 3, "layers.0": 3, "layers.1.blocks.0.mlp.act": 2, "layers.1": 3}),
    "convnext": (
        convnext,
        {"features.0.1": 1, "features.1.0.block.2": 3, "features.1.0.block.4": 3, "features.1": 1, "features.3": 1},
    ),
    "vit": (
        vit,
        {
            "conv_proj": 1,
            "encoder.layers.encoder_layer_0": 2,
            "encoder.ln": 2,
            "encoder.layers.encoder_layer_1.mlp.0": 2,
        },
    ),
    "vit of timm": (vit_of_timm, {"patch_embed": 2, "blocks.0": 2, "blocks.1": 2, "blocks.1.mlp.act": 2, "norm": 2}),
    "pvt": (
        pvt,
        {
            "patch_embed.proj": 1,
            "patch_embed": 3,
            "stages.0.blocks.0": 2,
            "stages.0.blocks.0.mlp.fc1": 2,
            "stages.0": 1,
        },
    ),
}


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name][0]().eval()


class Order(nn.Module):
    """Brings a layer's output into the order ``(N, C, H, W)``."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, output):
        maps = output.movedim(self.dim, 1)
        return maps[:, :, None] if maps.ndim == 3 else maps


class Twin(nn.Module):
    """The network, where the layer's name stands for its output as maps ``(N, C, H, W)``; tokens are one row."""

    def __init__(self, network: nn.Module, layer: str, dim: int):
        super().__init__()
        self.inner, self.layer = network, layer
        parent, *path = self, *layer.split(".")
        for name in path[:-1]:
            parent.add_module(name, nn.Module())
            parent = parent.get_submodule(name)
        parent.add_module(path[-1], Order(dim))

    def forward(self, x):
        outputs = []
        handle = self.inner.get_submodule(self.layer).register_forward_hook(lambda _, __, out: outputs.append(out))
        try:
            result = self.inner(x)
        finally:
            handle.remove()
        self.get_submodule(self.layer)(outputs[0])
        return result


def twins(name: str, layer: str) -> tuple[nn.Module, Twin]:
    """The network, and its twin with the same weights."""
    return make(name), Twin(make(name), layer, NETWORKS[name][1][layer])
