"""ZFNet: Zeiler & Fergus 2013, *Visualizing and Understanding Convolutional Networks* (arXiv 1311.2901)."""

from __future__ import annotations

from lightning_cnnvis.models.convnet import ConvNet, Stage


class ZFNet(ConvNet):
    """The network of Zeiler & Fergus 2013 (arXiv 1311.2901, Fig. 3): AlexNet with finer first layers.

    Compared with AlexNet, conv1 has filters of 7×7 in place of 11×11 and a stride of 2 in place of 4, and no layer
    is split in two groups. The strides of conv1 and conv2 shrink with the image, so that conv3–5 see enough
    pixels; nothing else changes. Sizes of the maps after each layer:

    =============  =======  =======  =====  =====  =====  =====  =======  =====
    image          strides  conv1    pool1  conv2  pool2  conv3  conv4–5  pool5
    =============  =======  =======  =====  =====  =====  =====  =======  =====
    224            2, 2     110      55     26     13     13     13       6
    64             2, 1     30       15     15     7      7      7        3
    32             1, 1     28       14     14     7      7      7        3
    =============  =======  =======  =====  =====  =====  =====  =======  =====

    Images of 128 px and more have the paper's strides, those of 48 px and more the second row's, smaller
    ones the third's; 12 px is the least. At 224 px the receptive fields of conv1–5 are 7, 27, 75, 107 and
    139 px wide.

    Args:
        num_classes: Number of logits.
        image_size: Height and width of the images in pixels.
        in_channels: Number of image channels.
        width: Factor on the numbers of feature maps (96, 256, 384, 384, 256) and of hidden units (4096).
        local_response_norm: Whether to normalise after pool1 and pool2.
        dropout: Dropout probability after fc6 and fc7.
        init: ``"he"`` or ``"paper"``; see `ConvNet`.

    Raises:
        ValueError: If an argument is out of range or the image too small.

    Examples:
        >>> import torch
        >>> net = ZFNet(num_classes=10, image_size=64, width=0.25)
        >>> net(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 10])
        >>> net.conv1
        Conv2d(3, 24, kernel_size=(7, 7), stride=(2, 2), padding=(1, 1))
    """

    @staticmethod
    def stages(image_size: int) -> tuple[Stage, ...]:
        """Lists the five convolutional stages.

        Args:
            image_size: Height and width of the images in pixels.

        Returns:
            The stages, in order.
        """
        stride1 = 2 if image_size >= 48 else 1
        stride2, padding2 = (2, 0) if image_size >= 128 else (1, 2)
        return (
            Stage(96, 7, stride1, padding=1, after=("pool", "norm"), ceil_mode=True),
            Stage(256, 5, stride2, padding=padding2, after=("pool", "norm"), ceil_mode=True),
            Stage(384, 3, padding=1),
            Stage(384, 3, padding=1),
            Stage(256, 3, padding=1, after=("pool",), ceil_mode=True),
        )
