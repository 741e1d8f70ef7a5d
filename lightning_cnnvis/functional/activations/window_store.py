"""Image windows of the strongest activations, cut out no earlier than memory demands."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cnnvis.functional.deconvnet.windows import Windows, cut
from lightning_cnnvis.functional.network.chunks import chunk_size, in_chunks


class WindowStore:
    """Windows of images in numbered places, each replaced whenever a stronger activation takes its place.

    Most of the first batches' windows are soon replaced. So batches are kept whole, and nothing is cut out of them, as
    long as they take no more memory than the windows of all places would. After that, or when the windows are
    requested, each place's window is cut out once, and later ones as they come.

    Args:
        geometry: The windows of the layer's units.
        places: Number of windows.
        device: Device of the images.
        windows: ``(places, C, h, w)``, windows that were cut earlier; None if there are none.
    """

    def __init__(self, geometry: Windows, places: int, device: torch.device, windows: Tensor | None = None) -> None:
        self._geometry = geometry
        # empty until the first cut
        self._windows = torch.empty(0, dtype=torch.float32, device=device) if windows is None else windows
        self._kept: list[Tensor] = []
        self._images = torch.full((places,), -1, device=device)  # among those of the kept batches; -1 once cut
        self._corners = torch.zeros(places, 2, dtype=torch.long, device=device)

    @property
    def batches(self) -> list[Tensor]:
        """Kept batches of images ``(N, C, H, W)``."""
        return list(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the windows take, apart from the kept batches."""
        return self._windows.nbytes + self._images.nbytes + self._corners.nbytes

    def has_room(self, images: Tensor) -> bool:
        """Tells whether a batch would be kept.

        Args:
            images: ``(N, C, H, W)``, the batch.

        Returns:
            Whether it fits beside the other kept batches.
        """
        height, width = self._geometry.size
        whole = len(self._images) * images.shape[1] * height * width * images.itemsize
        return not self._windows.numel() and sum(batch.nbytes for batch in (*self._kept, images)) <= whole

    def put(self, places: Tensor, images: Tensor, samples: Tensor, corners: Tensor, *, keep: bool) -> None:
        """Sets the windows of some places.

        Args:
            places: ``(n,)``, each place once.
            images: ``(N, C, H, W)``.
            samples: ``(n,)``, the number of each window's image in the batch.
            corners: ``(n, 2)``, top and left pixel of each window in its image.
            keep: Whether the images may be kept, because nothing will write into them.
        """
        if keep and self.has_room(images):
            self._images[places] = sum(map(len, self._kept)) + samples
            self._corners[places] = corners
            self._kept.append(images)
        else:
            self._images[places] = -1
            self._cut_kept()
            self._cut(places, images, samples, corners)

    def set(self, places: Tensor, windows: Tensor) -> None:
        """Sets the windows of some places to windows that were cut elsewhere.

        Args:
            places: ``(n,)``, each place once.
            windows: ``(n, C, h, w)``, their windows.
        """
        self._images[places] = -1
        self._cut_kept()
        self._like(windows).index_copy_(0, places, windows)

    def windows(self) -> Tensor:
        """Returns the windows of all places.

        Returns:
            ``(places, C, h, w)``, zero where none was put; an empty tensor if none ever was.
        """
        self._cut_kept()
        return self._windows

    def _cut_kept(self) -> None:
        first = 0
        while self._kept:
            batch = self._kept.pop(0)
            samples = self._images - first
            (places,) = ((samples >= 0) & (samples < len(batch))).nonzero(as_tuple=True)
            self._cut(places, batch, samples[places], self._corners[places])
            first += len(batch)
        self._images.fill_(-1)

    def _cut(self, places: Tensor, images: Tensor, samples: Tensor, corners: Tensor) -> None:
        size = self._geometry.size
        windows = self._like(images[:1, :, : size[0], : size[1]])

        # a few at a time: all of them would take as much memory again, and would not fit the caches
        def copy(part: slice) -> None:
            windows.index_copy_(0, places[part], cut(images, corners[part], size, samples[part]))

        for _ in in_chunks(copy, len(places), chunk_size(windows)):
            pass

    def _like(self, window: Tensor) -> Tensor:
        if not self._windows.numel():
            self._windows = window.new_zeros(len(self._images), *window.shape[1:])
        return self._windows
