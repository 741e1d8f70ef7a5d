"""Base of ZFNet and AlexNet: five convolutions and three fully connected layers, named as in the papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Init = Literal["he", "paper"]


@dataclass(frozen=True)
class Stage:
    """One convolution with its ReLU, and what follows them.

    Args:
        channels: Number of feature maps at width 1.
        kernel: Height and width of the filters.
        stride: Stride of the convolution.
        padding: Zero padding of the convolution on every side.
        groups: Number of groups that the channels are split into.
        after: The layers after the ReLU, in order: ``"pool"`` (maximum over 3×3, stride 2) and ``"norm"``
            (local response normalisation).
        ceil_mode: Whether the pooling keeps an incomplete last window.
    """

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    after: tuple[Literal["pool", "norm"], ...] = ()
    ceil_mode: bool = False

    def map_sizes(self, size: int) -> list[int]:
        """Computes the sizes of the maps after the convolution and, if there is one, the pooling.

        Args:
            size: Height and width of the stage's input in pixels.

        Returns:
            The heights, which are also the widths; 0 or less where nothing is left.

        Examples:
            >>> Stage(96, 7, stride=2, padding=1, after=("pool",), ceil_mode=True).map_sizes(224)
            [110, 55]
        """
        sizes = [(size + 2 * self.padding - self.kernel) // self.stride + 1]
        if "pool" in self.after:
            sizes.append((sizes[0] - 3 + self.ceil_mode) // 2 + 1)
        return sizes


class ConvNet(nn.Module):
    """A chain of convolutional stages and three fully connected layers: the base of `ZFNet` and `AlexNet`.

    Every layer is a named child that runs once, each ReLU included, so that hooks find what the papers speak
    of: ``conv1``, ``relu1``, ``pool1``, ``norm1``, …, ``pool5``, ``fc6``, ``relu6``, ``dropout6``, ``fc7``,
    ``relu7``, ``dropout7``, ``fc8``.

    Args:
        num_classes: Number of logits.
        image_size: Height and width of the images in pixels.
        in_channels: Number of image channels.
        width: Factor on the numbers of feature maps and of hidden units.
        local_response_norm: Whether to normalise after the first two convolutions, as in the papers.
        dropout: Dropout probability after fc6 and fc7.
        init: ``"he"``: normal weights that keep the scale of the signal (He et al. 2015, arXiv 1502.01852), but
            a fiftieth of that in conv1, so that what its filters learn stands out from the noise that they
            start from. ``"paper"``: normal weights of standard deviation 1e-2, made for inputs of about ±128.
            Biases are 0 in both.

    Raises:
        ValueError: If an argument is out of range; for an image that is too small, the message gives the
            smallest size that works.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int = 224,
        in_channels: int = 3,
        width: float = 1.0,
        local_response_norm: bool = True,
        *,
        dropout: float = 0.5,
        init: Init = "he",
    ) -> None:
        super().__init__()
        for argument, value in {"num_classes": num_classes, "in_channels": in_channels, "width": width}.items():
            if value <= 0:
                raise ValueError(f"{argument}={value}: it must be positive.")
        if init not in ("he", "paper"):
            raise ValueError(f"init={init!r} is unknown: use 'he' or 'paper'.")
        if not self._fits(image_size):
            smallest = next(size for size in range(1, 1000) if self._fits(size))
            raise ValueError(
                f"image_size={image_size} is too small for {type(self).__name__}: no feature map would be "
                f"left at its end. Use images of at least {smallest}×{smallest} pixels."
            )
        self.image_size = image_size
        self.in_channels = in_channels
        channels, size = in_channels, image_size
        for number, stage in enumerate(self.stages(image_size), start=1):
            maps = _scaled(stage.channels, width)
            conv = nn.Conv2d(channels, maps, stage.kernel, stage.stride, stage.padding, groups=stage.groups)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"relu{number}", nn.ReLU())
            for kind in stage.after:
                if kind == "pool":
                    self.add_module(f"pool{number}", nn.MaxPool2d(3, 2, ceil_mode=stage.ceil_mode))
                elif local_response_norm:
                    norm = _LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)
                    self.add_module(f"norm{number}", norm)
            channels, size = maps, stage.map_sizes(size)[-1]
        self.flatten = _Flatten((channels, size, size), image_size)
        features, hidden = channels * size * size, _scaled(4096, width)
        for number in (6, 7):
            self.add_module(f"fc{number}", nn.Linear(features, hidden))
            self.add_module(f"relu{number}", nn.ReLU())
            self.add_module(f"dropout{number}", nn.Dropout(dropout))
            features = hidden
        self.fc8 = nn.Linear(features, num_classes)
        self._initialize(init)

    @staticmethod
    def stages(image_size: int) -> tuple[Stage, ...]:
        """Lists the convolutional stages; a subclass defines them.

        Args:
            image_size: Height and width of the images in pixels.

        Returns:
            The stages, in order.

        Raises:
            TypeError: If a subclass does not define them.
        """
        raise TypeError("ConvNet has no stages of its own: use ZFNet or AlexNet, or define `stages`.")

    def forward(self, images: Tensor) -> Tensor:
        """Computes the logits of a batch of images.

        Args:
            images: ``(N, in_channels, image_size, image_size)``, normalised.

        Returns:
            Logits ``(N, num_classes)``.

        Raises:
            ValueError: If the images have a size that the network was not built for.
        """
        for layer in self.children():
            images = layer(images)
        return images

    @classmethod
    def _fits(cls, size: int) -> bool:
        for stage in cls.stages(size):
            *_, size = sizes = stage.map_sizes(size)
            if min(sizes) < 1:
                return False
        return True

    @torch.no_grad()
    def _initialize(self, init: Init) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif init == "paper":
                nn.init.normal_(parameter, std=1e-2)
            else:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
                if name == "conv1.weight":
                    parameter.mul_(0.02)


class _LocalResponseNorm(nn.LocalResponseNorm):
    """Computes in float32, as it must: torch has none in bfloat16 on the CPU."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps if maps.dtype == torch.float64 else maps.float()).to(maps.dtype)


class _Flatten(nn.Flatten):
    """Flattens the last maps, and refuses those of images of another size.

    The check sits here and not at the entrance because the convolutions take images of any size: the
    deconvnet runs them on windows.
    """

    def __init__(self, shape: tuple[int, int, int], image_size: int) -> None:
        super().__init__()
        self.shape = shape
        self.image_size = image_size

    def forward(self, maps: Tensor) -> Tensor:
        if tuple(maps.shape[1:]) != self.shape:
            raise ValueError(
                f"The last feature maps are {tuple(maps.shape[2:])} in place of {self.shape[1:]}: the network "
                f"was built for images of {self.image_size}×{self.image_size} pixels. Resize the images, or "
                "build it with their image_size."
            )
        return super().forward(maps)


def _scaled(channels: int, width: float) -> int:
    """Multiplies the number of channels by the width, and makes it even, so that two groups can share them."""
    return max(2, 2 * round(channels * width / 2))
