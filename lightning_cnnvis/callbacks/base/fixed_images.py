"""A few images of a run that stay the same over its epochs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lightning_cnnvis.callbacks.base.distributed import gather_results
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.feeding import pictures
from lightning_cnnvis.methods.subject import Images


class FixedImages:
    """The first images that a run shows to the network, kept, so that two epochs differ by the weights only.

    Args:
        count: The number of images to take; 0 takes none.

    Attributes:
        taken: ``(N, C, H, W)`` in [0, 1], on the CPU; None before there were any.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken: Tensor | None = None

    @property
    def wanted(self) -> bool:
        """Whether images have still to be taken."""
        return self.taken is None and self.count > 0

    def take(self, batch_spec: InputSpec, spec: InputSpec, find: Callable[[], Tensor]) -> None:
        """Takes images. Every process must call this, and works on what the first one found.

        Args:
            batch_spec: Format of the images in the batches.
            spec: Format of the network's input.
            find: Returns the images of a batch.
        """

        def first() -> Tensor:
            return pictures(find()[: self.count].detach().float().cpu(), batch_spec, spec).clamp(0, 1)

        self.taken = gather_results(first)[0]


class ImagesWithFixed:
    """Images of a run of which the first are fixed.

    Args:
        images: The images of the run.
        fixed: The first of them.
    """

    def __init__(self, images: Images, fixed: FixedImages) -> None:
        self._images = images
        self._fixed = fixed
        self.batches, self.labelled = images.batches, images.labelled

    def first(self, count: int, spec: InputSpec) -> Tensor:
        """The fixed images, ``(N, C, H, W)`` in [0, 1]. Every process must ask."""
        if self._fixed.wanted:
            self._fixed.count = max(self._fixed.count, count)
            found = gather_results(lambda: self._images.first(self._fixed.count, spec))[0]
            self._fixed.taken = found
        if self._fixed.taken is None or count > self._fixed.count:
            return self._images.first(count, spec)
        return self._fixed.taken[:count]

    def photograph(self, spec: InputSpec) -> Tensor:
        """The first of the fixed images, ``(C, H, W)`` in [0, 1]. Every process must ask."""
        return self.first(1, spec)[0]

    def __len__(self) -> int:
        """The number of batches, 0 if it is not known."""
        return len(self._images)
