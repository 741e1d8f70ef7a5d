"""The subject of a method: a network, the format of its input, and images to show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.defaults import choose_layers, number_of_classes
from lightning_cnnvis.functional.network.forward import blank_input, is_about_shapes, model_options
from lightning_cnnvis.functional.network.tracing import check_calls
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layer_patterns import ALL, expand, is_pattern
from lightning_cnnvis.layers import LayerCalls, LayerError, get_layer, trace_layers


class Images(Protocol):
    """Images, as often as they are asked for."""

    def batches(self, spec: InputSpec) -> Iterator[Tensor]:
        """Batches ``(N, C, H, W)``, normalised as the network expects them."""

    def first(self, count: int, spec: InputSpec) -> Tensor:
        """The first images, ``(N, C, H, W)`` in [0, 1], of the network's input size."""

    def photograph(self, spec: InputSpec) -> Tensor:
        """The first image, ``(C, H, W)`` in [0, 1], at its own size."""

    def labelled(self, spec: InputSpec) -> Iterator[tuple[Tensor, Sequence[int | str] | None]]:
        """Batches ``(N, C, H, W)`` in [0, 1], each with the number or name of its images' classes, where known."""

    def __len__(self) -> int:
        """The number of batches, 0 if it is not known."""


class Follower(Protocol):
    """What follows the forward passes of a network, and gathers results that can be kept and gone on from."""

    def state_dict(self) -> dict[str, Any]:
        """What was gathered, as tensors on the CPU and builtins."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what was gathered, before the next forward pass."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A network, and what a method needs to know of it. This one has no images; subclasses add them.

    Attributes:
        network: The network.
        input_spec: The format of its input.
        absent: Names of the network's last children where the weights lack them: it ends before.

    Examples:
        >>> subject = Subject(network=nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), input_spec=InputSpec(size=(16, 16)))
        >>> subject.rectified_layers(), subject.number_of_classes()
        (['1'], 0)
    """

    network: nn.Module
    input_spec: InputSpec
    absent: tuple[str, ...] = ()

    @property
    def has_images(self) -> bool:
        """Whether there are images to show the network."""
        return False

    @property
    def images(self) -> Images:
        """The images.

        Raises:
            ValueError: If there are none.
        """
        raise ValueError("There are no images to show the network. Give some.")

    def show_images(self, network: nn.Module, follower: Follower, settings: Mapping[str, object]) -> int:
        """Runs a network on all images.

        Args:
            network: The network, which the follower follows.
            follower: What gathers the results; subclasses may keep them, and go on from them.
            settings: What the results depend on beyond the network and the images, for JSON.

        Returns:
            The number of images.
        """
        seen = 0
        with torch.no_grad():
            for batch in self.images.batches(self.input_spec):
                network(self.to_network(batch))
                seen += len(batch)
        return seen

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the network's weights, which its input must have."""
        return model_options(self.network).dtype

    def to_network(self, images: Tensor) -> Tensor:
        """A detached copy of the images on the network's device, in its dtype; never an inference tensor."""
        return images.detach().to(model_options(self.network), copy=True)

    def blank(self) -> Tensor:
        """Zeros ``(1, C, H, W)`` for the network."""
        return blank_input(self.network, self.input_spec)

    def calls(self) -> tuple[dict[str, LayerCalls], list[str]]:
        """Runs the network once, and reports the modules that take part.

        Returns:
            The calls by layer name, and the layers that hold a convolution's rectified output; see `trace_layers`.

        Raises:
            LayerError: If the network does not run on its input.
            RuntimeError: If it fails for another reason.
        """
        with isolated(self.network) as network:
            try:
                return trace_layers(network, self.blank())
            except Exception as error:
                if not is_about_shapes(error):
                    raise
                raise LayerError(
                    f"The network does not run on an image of shape {self.input_spec.shape}: {error}. Say what its "
                    "input looks like: input_spec=InputSpec(size=..., channels=...)."
                ) from error

    def rectified_layers(self) -> list[str]:
        """Finds the layers that hold the rectified output of a convolution.

        Returns:
            Their names, in the order in which they run.

        Raises:
            LayerError: If there are none.
        """
        _, rectified = self.calls()
        self._check_convolutional(rectified)
        return rectified

    def default_layers(self) -> list[str]:
        """Chooses the layers that are shown where none are named; see `choose_layers`.

        Returns:
            Their names, at most six, in the order in which they run.

        Raises:
            LayerError: If there is no convolution.
        """
        calls, rectified = self.calls()
        self._check_convolutional(rectified)
        return choose_layers(rectified, calls)

    def expanded(self, layers: Sequence[str]) -> list[str]:
        """Puts layers in the place of patterns and of "all"; see `lightning_cnnvis.layer_patterns`.

        Args:
            layers: Dotted names and patterns, such as ``"layer*.1"``.

        Returns:
            The names; those that are not patterns are not checked.

        Raises:
            LayerError: If a pattern matches no layer; the message lists the names nearest to it.
        """
        named = [layers] if isinstance(layers, str) else list(layers)
        modules = [name for name, _ in self.network.named_modules() if name]
        if not any(is_pattern(layer, modules) for layer in named):
            return named
        calls, rectified = self.calls()
        if ALL in named and ALL not in modules:
            self._check_convolutional(rectified)
        return expand(named, calls, rectified, modules)

    def _check_convolutional(self, rectified: Sequence[str]) -> None:
        if not rectified:
            raise LayerError(f"{type(self.network).__name__} has no convolution: name the layers to look at.")

    def known_layers(self, layers: Sequence[str]) -> list[str]:
        """Checks that layers are there.

        Args:
            layers: Dotted names, see `get_layer`; and patterns, see `expanded`.

        Returns:
            The names, each once.

        Raises:
            LayerError: If one is not; the message lists the names nearest to it. Also if one runs several times and
                its name does not say which call is meant; the message lists the calls.
        """
        layers = self.expanded(layers)
        for layer in layers:
            if self.is_absent(layer):
                raise LayerError(
                    f"The weights lack {', '.join(self.absent)}, so there is no layer {layer!r} to look at: name one "
                    "before it, or give weights of the whole network."
                )
            get_layer(self.network, layer)
        with isolated(self.network) as network:
            check_calls(network, layers, self.blank())
        return list(dict.fromkeys(layers))

    def is_absent(self, layer: str) -> bool:
        """Whether a layer lies in a part of the network whose weights are missing."""
        return any(layer == absent or layer.startswith((f"{absent}.", f"{absent}@")) for absent in self.absent)

    def number_of_classes(self) -> int:
        """The number of logits that the network returns, 0 if it is not a classifier, or if its end is missing."""
        return 0 if self.absent else number_of_classes(self.network, self.input_spec)
