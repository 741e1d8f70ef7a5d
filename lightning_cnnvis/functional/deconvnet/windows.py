"""The part of an image that suffices to compute one unit exactly, forward and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cnnvis.functional.network.receptive_field import ReceptiveField


@dataclass(frozen=True)
class Windows:
    """Windows of one size that contain the receptive fields of the units of a layer.

    On its window, a unit has the same activation and projection as on the whole image. For that, a window
    contains the field as far as it lies in the image; begins at a multiple of the layer's stride, so that every
    layer below has its units at the same pixels; and where the field leaves the image, ends where the image ends,
    so that the padding is the image's own.

    Attributes:
        field: The layer's receptive field.
        cropped: Whether only the positions that lead to a unit are computed, instead of the whole window; see
            `CroppedForward`.
        one_by_one: Whether each unit must be computed by itself, because its image decides which way the forward pass
            takes.
        channel_dim: Dimension of the layer's output that holds its channels; see `channels_first`.
    """

    field: ReceptiveField
    cropped: bool = False
    one_by_one: bool = False
    channel_dim: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every window in pixels, at most the image's."""
        height, width = (self._axis(axis)[0] for axis in (0, 1))
        return height, width

    @property
    def field_size(self) -> tuple[int, int]:
        """Height and width of the field, or of the image where that is smaller."""
        height, width = (min(n, m) for n, m in zip(self.field.size, self.field.input_size, strict=True))
        return height, width

    def corners(self, positions: Tensor) -> Tensor:
        """Computes the corners of the windows of units.

        Args:
            positions: ``(N, 2)``, row and column of each unit.

        Returns:
            ``(N, 2)``, top and left pixel of each window.
        """
        field = self.field
        corners = []
        for axis in (0, 1):
            size, stride = self._axis(axis)
            first = field.offset[axis] + field.stride[axis] * positions[:, axis]
            aligned = first.div(stride, rounding_mode="floor") * stride
            corners.append(aligned.clamp(0, field.input_size[axis] - size))
        return torch.stack(corners, dim=1)

    def positions_within(self, positions: Tensor, corners: Tensor) -> Tensor:
        """Computes the positions of units in the maps of their windows.

        Args:
            positions: ``(N, 2)``, row and column of each unit in the map of the whole image.
            corners: ``(N, 2)``, the corners of their windows, from `corners`.

        Returns:
            ``(N, 2)``, row and column of each unit in the map of its window.
        """
        strides = torch.tensor([self._axis(axis)[1] for axis in (0, 1)], device=positions.device)
        return positions - corners // strides if not self.field.whole_image else positions

    def field_corners(self, positions: Tensor) -> Tensor:
        """Computes the corners of the receptive fields, moved into the image where they begin or end outside.

        Args:
            positions: ``(N, 2)``, row and column of each unit.

        Returns:
            ``(N, 2)``, top and left pixel of each field.
        """
        field = self.field
        return torch.stack(
            [
                (field.offset[axis] + field.stride[axis] * positions[:, axis]).clamp(
                    0, field.input_size[axis] - self.field_size[axis]
                )
                for axis in (0, 1)
            ],
            dim=1,
        )

    def boxes(self, positions: Tensor) -> Tensor:
        """Computes the receptive fields, cut off at the image's borders.

        Args:
            positions: ``(N, 2)``, row and column of each unit.

        Returns:
            ``(N, 4)``, top, left, bottom and right of each field in pixels; bottom and right are exclusive.
        """
        field = self.field
        offset, stride, size, limit = (
            torch.tensor(pair, device=positions.device)
            for pair in (field.offset, field.stride, field.size, field.input_size)
        )
        start = offset + stride * positions
        # a field may lie wholly in the padding
        return torch.cat([torch.minimum(edge.clamp(min=0), limit) for edge in (start, start + size)], dim=1)

    def _axis(self, axis: int) -> tuple[int, int]:
        """Computes the size of the window along an axis and the stride to which it is aligned."""
        image, size = self.field.input_size[axis], self.field.size[axis]
        stride = self.field.stride[axis] or image
        # the field begins at this distance after a multiple of the stride, wherever the unit is
        enough = size + self.field.offset[axis] % stride
        if enough >= image:
            return image, stride
        # the last aligned window must end at the image's edge
        return enough + (image - enough) % stride, stride


def cut(images: Tensor, corners: Tensor, size: tuple[int, int], indices: Tensor | None = None) -> Tensor:
    """Cuts windows of one size out of images.

    Args:
        images: ``(M, C, H, W)``.
        corners: ``(N, 2)``, top and left pixel of each window, which must lie inside its image.
        size: Height and width of the windows.
        indices: ``(N,)``, the image of each window; None takes window n from image n.

    Returns:
        ``(N, C, *size)``.

    Examples:
        >>> images = torch.arange(16.0).view(1, 1, 4, 4)
        >>> cut(images, torch.tensor([[1, 2]]), (2, 2))
        tensor([[[[ 6.,  7.],
                  [10., 11.]]]])
    """
    device = images.device
    if indices is None:
        indices = torch.arange(len(images), device=device)
    if device.type == "cpu":
        # On a CPU, a selection along one dimension copies row by row, whereas indices of several go value by value. So
        # the windows are numbered by the value that they begin with.
        sample, channel, row, column = images.stride()
        within = (images.shape[1] - 1) * channel + (size[0] - 1) * row + (size[1] - 1) * column
        values = 1 + sum((n - 1) * stride for n, stride in zip(images.shape, images.stride(), strict=True))
        windows = images.as_strided((values - within, images.shape[1], *size), (1, channel, row, column))
        return windows.index_select(0, indices * sample + corners[:, 0] * row + corners[:, 1] * column)
    # a view of every possible window, of which the index copies some
    windows = images.unfold(2, size[0], 1).unfold(3, size[1], 1)
    return windows[indices, :, corners[:, 0], corners[:, 1]]
