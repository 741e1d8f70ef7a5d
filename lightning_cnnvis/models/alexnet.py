"""AlexNet: Krizhevsky, Sutskever & Hinton 2012, *ImageNet Classification with Deep CNNs* (NIPS 2012)."""

from __future__ import annotations

from lightning_cnnvis.models.convnet import ConvNet, Stage


class AlexNet(ConvNet):
    """The network of Krizhevsky, Sutskever & Hinton 2012 (NIPS 2012, section 3 and Fig. 2).

    conv2, conv4 and conv5 are split into two groups, which the paper ran on two GPUs. The response
    normalisation comes before the pooling, as there. (torchvision's ``alexnet`` is another network, of 2014:
    64, 192, 384, 256, 256 maps, no groups, no normalisation.) The stride of conv1 shrinks with the image;
    nothing else changes. Sizes of the maps after each layer:

    =============  ======  =====  =====  =====  =====  =======  =====
    image          stride  conv1  pool1  conv2  pool2  conv3–5  pool5
    =============  ======  =====  =====  =====  =====  =======  =====
    224            4       55     27     27     13     13       6
    64             2       29     14     14     6      6        2
    32             1       26     12     12     5      5        2
    =============  ======  =====  =====  =====  =====  =======  =====

    Images of 128 px and more have the paper's stride, those of 48 px and more the second row's, smaller ones
    the third's; 21 px is the least. The paper's conv1 gives 55 only from 227 px; here, as is usual, it pads
    224 px by 2.

    Args:
        num_classes: Number of logits.
        image_size: Height and width of the images in pixels.
        in_channels: Number of image channels.
        width: Factor on the numbers of feature maps (96, 256, 384, 384, 256) and of hidden units (4096).
        local_response_norm: Whether to normalise before pool1 and pool2.
        dropout: Dropout probability after fc6 and fc7.
        init: ``"he"`` or ``"paper"``; see `ConvNet`. The paper's ones in some biases are not set.

    Raises:
        ValueError: If an argument is out of range or the image too small.

    Examples:
        >>> import torch
        >>> net = AlexNet(num_classes=10, image_size=64, width=0.25)
        >>> net(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    @staticmethod
    def stages(image_size: int) -> tuple[Stage, ...]:
        """Lists the five convolutional stages.

        Args:
            image_size: Height and width of the images in pixels.

        Returns:
            The stages, in order.
        """
        stride = 4 if image_size >= 128 else 2 if image_size >= 48 else 1
        return (
            Stage(96, 11, stride, padding=2, after=("norm", "pool")),
            Stage(256, 5, padding=2, groups=2, after=("norm", "pool")),
            Stage(384, 3, padding=1),
            Stage(384, 3, padding=1, groups=2),
            Stage(256, 3, padding=1, groups=2, after=("pool",)),
        )
