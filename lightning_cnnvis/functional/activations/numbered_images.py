"""The images that a network is called with, numbered over the forward passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lightning_cnnvis.inputs.batches import values_of


class NumberedImages:
    """Finds the images among the arguments of each call of a network, and numbers them.

    Attributes:
        next_id: The id of the next image.

    Examples:
        >>> import torch
        >>> images = NumberedImages()
        >>> images.number(first=1, step=2, stop=6)
        >>> [list(images.take([torch.zeros(2, 3, 8, 8)], {})[1]) for _ in range(2)]
        [[1, 3], [5]]
    """

    def __init__(self) -> None:
        self.number()
        self._expected: Tensor | None = None

    def number(self, first: int = 0, step: int = 1, stop: int | None = None) -> None:
        """Sets the sample ids of the coming images: by default 0, 1, 2 and so on.

        Args:
            first: Id of the next image.
            step: Stride between image ids: the world size.
            stop: Images with this id or above are skipped: those that a distributed sampler adds to even out the
                processes. None counts every image.
        """
        self.next_id, self._step, self._stop = first, step, stop

    def expect(self, images: Tensor | None) -> None:
        """Tells which tensor of the coming call the images are, where the network takes several maps.

        Args:
            images: ``(N, C, H, W)``, or a tensor of the same shape; None forgets it.
        """
        self._expected = images

    def take(self, args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[Tensor, range]:
        """Takes the images of a call.

        Args:
            args: The positional arguments of the call.
            kwargs: The others.

        Returns:
            The images ``(N, C, H, W)``, and the ids of those that count, which are the first.

        Raises:
            ValueError: If there is no batch of images among them.
        """
        images = _image_batch([*args, *kwargs.values()], self._expected)
        end = self.next_id + self._step * len(images)
        ids = range(self.next_id, end if self._stop is None else min(end, self._stop), self._step)
        self.next_id = end
        return images, ids


def _image_batch(arguments: Sequence[object], expected: Tensor | None) -> Tensor:
    """The images among the arguments of a call: those expected, or like them, else the first that may be images."""
    found = [value for value in values_of(arguments) if isinstance(value, Tensor) and value.ndim == 4]
    if not found:
        raise ValueError("The network was called without a batch of images (N, C, H, W): there is nothing to follow.")
    if expected is None:
        return found[0]
    return min(found, key=lambda value: (value is not expected, value.shape != expected.shape))
