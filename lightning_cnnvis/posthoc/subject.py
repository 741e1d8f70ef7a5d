"""What methods look at after a training: a network, and images that are looked for when a method needs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.methods.subject import Follower, Subject
from lightning_cnnvis.posthoc.images import Images
from lightning_cnnvis.posthoc.partial import PartialResults, Position
from lightning_cnnvis.posthoc.progress_bar import watched_images
from lightning_cnnvis.posthoc.source import ImageSource


@dataclass(frozen=True, eq=False, kw_only=True)
class AnalysisSubject(Subject):
    """A network with images that are looked for when a method needs them.

    Attributes:
        source: Where the images come from.
        progress: Whether to show the progress of going through them.
        partial: File in which the results of a pass over the images are kept while it goes on; None for nowhere.
    """

    source: ImageSource
    progress: bool = False
    partial: Path | None = None

    @property
    def has_images(self) -> bool:
        """Whether there are images to show the network."""
        return self.source.found is not None

    @property
    def images_used(self) -> bool:
        """Whether a method has looked at the images."""
        return "images" in vars(self.source)

    @property
    def images(self) -> _Watched:
        """The images.

        Raises:
            DataError: If there are none.
        """
        return _Watched(self.source.images, self.progress)

    def show_images(self, network: nn.Module, follower: Follower, settings: Mapping[str, object]) -> int:
        """Runs a network on all images, and keeps what the follower gathers where a file for it is named.

        Args:
            network: The network, which the follower follows.
            follower: What gathers the results.
            settings: What the results depend on beyond the network and the images.

        Returns:
            The number of images.
        """
        images, spec = self.source.images, self.input_spec
        if self.partial is None:
            return super().show_images(network, follower, settings)
        kept = PartialResults(self.partial, network, images, spec, follower, settings)
        position = kept.resume()
        batches = images.numbered(spec, position.batches)
        with torch.no_grad():
            for number, batch in watched_images(batches, images.number, shown=self.progress, before=position.images):
                network(self.to_network(batch))
                position = Position(number, position.images + len(batch))
                kept.keep(position)
        kept.complete(position)
        return position.images


@dataclass(frozen=True)
class _Watched:
    """Images whose batches are gone through with a progress bar."""

    images: Images
    progress: bool

    def batches(self, spec: InputSpec) -> Iterator[Tensor]:
        batches = watched_images(self.images.numbered(spec), self.images.number, shown=self.progress)
        return (batch for _, batch in batches)

    def first(self, count: int, spec: InputSpec) -> Tensor:
        return self.images.first(count, spec)

    def photograph(self, spec: InputSpec) -> Tensor:
        return self.images.photograph(spec)

    def labelled(self, spec: InputSpec) -> Iterator[tuple[Tensor, Sequence[int | str] | None]]:
        return self.images.labelled(spec)

    def __len__(self) -> int:
        return len(self.images)
