"""What every feature map does, gathered from the forward passes that a network makes anyway."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_cnnvis.channel_dim import channels_first
from lightning_cnnvis.functional.activations.numbered_images import NumberedImages
from lightning_cnnvis.functional.diagnosis.statistics import MapStatistics
from lightning_cnnvis.functional.network.forward import model_options
from lightning_cnnvis.layers import get_layer, hook_layer

KEPT_IMAGES = 32
"""Number of images that are kept, to be shown the network again."""


def _order(number: int) -> int:
    return zlib.crc32(number.to_bytes(8, "little"))


class Census:
    """Follows the forward passes that a network makes anyway, and takes the statistics of the maps of some layers.

    It is a context manager: the network has the hooks only inside of it.

    Args:
        model: The network.
        channel_dims: The layers to follow, each with the dimension of its output that holds the channels.
        guard: A function of a layer's name that returns a context in which the layer's work is done. If the context
            swallows an exception, the layer is dropped. By default exceptions pass.

    Attributes:
        model: The network.
        statistics: `MapStatistics` by layer, after the network has run.

    Raises:
        LayerError: On entry, if a layer does not exist.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> with Census(net, {"1": 1}) as census, torch.no_grad():
        ...     for batch in torch.rand(3, 4, 3, 16, 16):
        ...         _ = net(batch)
        >>> census.statistics["1"].images, census.images.shape
        (12, torch.Size([12, 3, 16, 16]))
    """

    def __init__(
        self,
        model: nn.Module,
        channel_dims: Mapping[str, int],
        *,
        guard: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.model = model
        self.statistics: dict[str, MapStatistics] = {}
        self._dims = dict(channel_dims)
        self._guard = guard
        self._numbered = NumberedImages()
        self._ids: range | None = None
        self._kept: dict[int, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def number(self, first: int = 0, step: int = 1, stop: int | None = None) -> None:
        """Sets the sample ids of the coming images; see `NumberedImages.number`.

        Args:
            first: Id of the next image.
            step: Stride between image ids: the world size.
            stop: Images with this id or above are skipped.
        """
        self._numbered.number(first, step, stop)

    def expect(self, images: Tensor) -> None:
        """Tells which tensor of the coming call the images are, where the network takes several maps.

        Args:
            images: ``(N, C, H, W)``, or a tensor of the same shape.
        """
        self._numbered.expect(images)

    @property
    def images(self) -> Tensor:
        """``(n, C, H, W)``, some of the images, as the network was given them; at most 32, spread over the data set.

        Raises:
            ValueError: If there were none.
        """
        if not self._kept:
            raise ValueError("There were no images. Give a loader of batches (N, C, H, W) with at least two.")
        first = [self._kept[number] for number in sorted(self._kept, key=_order)[:KEPT_IMAGES]]
        return torch.stack([image for image in first if image.shape == first[0].shape])

    def merge(self, other: Census) -> None:
        """Takes in the census of other images, on the same device; layers that are not in both are dropped.

        Args:
            other: A census of the same network.
        """
        self.statistics = {layer: own for layer, own in self.statistics.items() if layer in other.statistics}
        for layer, own in self.statistics.items():
            own.merge(other.statistics[layer])
        self._kept |= other._kept

    def on_cpu(self) -> Census:
        """Copies what was gathered to the CPU, without the network.

        Returns:
            The copy, which another process can be sent.
        """
        copied = Census(nn.Identity(), self._dims)
        copied.statistics = {layer: own.to("cpu") for layer, own in self.statistics.items()}
        copied._kept = {number: image.cpu() for number, image in self._kept.items()}
        return copied

    def state_dict(self) -> dict[str, Any]:
        """Returns what was gathered, as tensors on the CPU and builtins.

        Returns:
            The state, for `load_state_dict`.
        """
        copied = self.on_cpu()
        statistics = {layer: vars(own) for layer, own in copied.statistics.items()}
        return {"statistics": statistics, "kept": copied._kept, "next_id": self._numbered.next_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what was gathered by a census of the same layers.

        Args:
            state: A state from `state_dict`.
        """
        device = model_options(self.model).device
        for layer, values in state["statistics"].items():
            own = MapStatistics(len(values["highest"]), torch.device("cpu"))
            vars(own).update(values)
            self.statistics[layer] = own.to(device)
        self._kept = {number: image.to(device) for number, image in state["kept"].items()}
        self.number(state["next_id"])

    def __enter__(self) -> Census:
        """Begins to follow the network."""
        for layer in self._dims:
            get_layer(self.model, layer)  # before there is a hook
        self._handles = [self.model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for layer in self._dims:
            self._handles += hook_layer(self.model, layer, self._hook_of(layer))
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._ids = [], None
        self._numbered.expect(None)

    def _begin(self, model: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self._ids = None
        for layer in list(self._dims)[:1]:
            with self._guard(layer):
                images, self._ids = self._numbered.take(args, kwargs)
                self._keep(images, self._ids)

    def _keep(self, images: Tensor, ids: range) -> None:
        """Keeps the images whose numbers come first in an order that has nothing to do with that of the data."""
        kept = sorted([*self._kept, *ids], key=_order)[:KEPT_IMAGES]
        places = {number: place for place, number in enumerate(ids)}
        self._kept = {
            number: self._kept[number] if number in self._kept else images[places[number]].detach().clone()
            for number in kept
        }

    def _hook_of(self, layer: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            if self._ids is None or layer not in self._dims:
                return
            done = False
            with self._guard(layer):
                values = channels_first(output, self._dims[layer])
                if layer not in self.statistics:
                    self.statistics[layer] = MapStatistics(values.shape[1], values.device)
                self.statistics[layer].update(values, self._ids)
                done = True
            if not done:
                del self._dims[layer]
                self.statistics.pop(layer, None)

        return hook
