"""The strongest activations of every feature map over a stream of images, with the image windows that caused them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_cnnvis.functional.deconvnet import Projections, Seed, plan_windows, project_windows
from lightning_cnnvis.functional.rectification import LRNRule, Rule
from lightning_cnnvis.functional.windows import Windows, cut
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import get_layer

NO_SAMPLE = -1
"""The sample id of a place that no image has taken."""


class TopActivations:
    """The k strongest activations of each feature map, at most one from an image.

    It is fed batch by batch and needs no image twice: the window of the input that a new winner needs is cut out
    of the batch. Everything stays on the device of the batches. The state takes
    ``maps * k * (C * h * w * itemsize + 28)`` bytes for windows of ``C * h * w`` values, plus the new winners' windows
    while a batch is taken in.

    Equal activations are ranked by sample id, and within an image the first place in reading order counts. So the
    result does not depend on how the images are batched or shared out.

    Args:
        windows: The windows of the layer's units.
        channels: ``(maps,)``, the channels of the layer to follow.
        k: How many activations to keep of each.

    Raises:
        ValueError: If k is below 1.
    """

    def __init__(self, windows: Windows, channels: Tensor, k: int = 9) -> None:
        if k < 1:
            raise ValueError(f"k={k}: keep at least 1 activation of each feature map.")
        self.geometry = windows
        self.channels = channels
        maps, device = len(channels), channels.device
        # The places of a map are in no order, so that a new winner replaces the weakest without moving the others.
        self._values = torch.full((maps, k), -torch.inf, device=device)
        self._sample_ids = torch.full((maps, k), NO_SAMPLE, device=device)
        self._positions = torch.zeros(maps, k, 2, dtype=torch.long, device=device)
        self._windows = torch.empty(0, device=device)

    @property
    def k(self) -> int:
        """How many activations of each map are kept."""
        return self._values.shape[1]

    @property
    def values(self) -> Tensor:
        """``(maps, k)``, the activations from the strongest down; -inf where there were fewer images."""
        return self._ranked(self._values)

    @property
    def sample_ids(self) -> Tensor:
        """``(maps, k)``, the images they come from; -1 where there were fewer."""
        return self._ranked(self._sample_ids)

    @property
    def positions(self) -> Tensor:
        """``(maps, k, 2)``, their rows and columns in the layer's map."""
        return self._ranked(self._positions)

    @property
    def windows(self) -> Tensor:
        """``(maps, k, C, h, w)``, the parts of the input that are enough to compute each; see `Windows`."""
        return self._ranked(self._windows)

    @property
    def patches(self) -> Tensor:
        """``(maps, k, C, h, w)``, the receptive fields cut out of the input; zero where there were fewer images."""
        patches = cut(self.windows.flatten(0, 1), self._within(), self.geometry.field_size)
        return patches.view(*self._values.shape, *patches.shape[1:])

    def update(self, output: Tensor, inputs: Tensor, sample_ids: Tensor) -> None:
        """Takes in a batch.

        Args:
            output: ``(N, K, H', W')`` or ``(N, K)``, what the layer computed.
            inputs: ``(N, C, H, W)``, what the network was given.
            sample_ids: ``(N,)``, a number of its own for each image, the same whenever it comes. Images with
                a negative number are passed over.
        """
        output = output.detach()
        if len(self.channels) != output.shape[1]:
            output = output.index_select(1, self.channels)
        has_map = output.ndim == 4
        strongest = output.amax((2, 3)) if has_map else output

        def fetch(rows: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
            width = output.shape[3] if has_map else 1
            places = output[samples, rows].reshape(len(rows), -1).argmax(dim=1)
            positions = torch.stack([places // width, places % width], dim=1)
            corners = self.geometry.corners(positions)
            return positions, cut(inputs.detach(), corners, self.geometry.size, samples)

        self._admit(strongest.float().T, sample_ids.expand(len(self.channels), -1), fetch)

    def merge(self, other: TopActivations) -> None:
        """Takes in what another has seen, of the same layer and channels; an image that both saw counts once.

        Args:
            other: The other one, on the same device.

        Raises:
            ValueError: If it follows other channels.
        """
        if not torch.equal(self.channels, other.channels):
            raise ValueError("Only the top activations of the same channels can be merged.")

        def fetch(rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
            return other._positions[rows, places], other._windows[rows, places]

        self._admit(other._values, other._sample_ids, fetch)

    def project(
        self,
        model: nn.Module,
        layer: str,
        *,
        rule: Rule = "deconvnet",
        seed: Seed = "activation",
        lrn: LRNRule = "identity",
    ) -> Projections:
        """Projects all of them back to pixels.

        The model must be isolated and in evaluation mode.

        Args:
            model: The network.
            layer: Dotted name of the layer.
            rule: As for `project`.
            seed: As for `project`.
            lrn: As for `project`.

        Returns:
            ``maps * k`` projections, map by map, each from the strongest down. They are zero where there were fewer
            images than k.

        Raises:
            ValueError: If an activation is not finite.
        """
        positions = self.positions.flatten(0, 1)
        windows = self.windows.flatten(0, 1)
        corners = self.geometry.corners(positions)
        channels = self.channels.repeat_interleave(self.k)
        pixels, values = project_windows(
            model,
            windows,
            layer,
            channels,
            self.geometry.positions_within(positions, corners),
            rule=rule,
            seed=seed,
            lrn=lrn,
        )
        taken = (self.sample_ids.flatten() != NO_SAMPLE).view(-1, 1, 1, 1)
        return Projections(
            pixels=cut(pixels, self._within(), self.geometry.field_size) * taken,
            patches=self.patches.flatten(0, 1),
            corners=self.geometry.field_corners(positions),
            boxes=self.geometry.boxes(positions),
            channels=channels,
            positions=positions,
            activations=values,
            image_size=self.geometry.field.input_size,
        )

    def _within(self) -> Tensor:
        """Top and left pixel of the fields in their windows, ``(maps * k, 2)``."""
        positions = self.positions.flatten(0, 1)
        return self.geometry.field_corners(positions) - self.geometry.corners(positions)

    def _ranked(self, state: Tensor) -> Tensor:
        order = _rank(self._values, self._sample_ids)
        return state[torch.arange(len(order), device=order.device)[:, None], order]

    def _admit(
        self, values: Tensor, sample_ids: Tensor, fetch: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> None:
        """Lets candidates ``(maps, n)`` in; ``fetch`` gives positions and windows of those that get a place."""
        k = self.k
        known = (sample_ids[:, :, None] == self._sample_ids[:, None, :]).any(2)
        values = values.masked_fill(known | (sample_ids < 0), -torch.inf)
        candidates = torch.cat([self._values, values], 1), torch.cat([self._sample_ids, sample_ids], 1)
        chosen = torch.zeros_like(candidates[0], dtype=torch.bool)
        chosen.scatter_(1, _rank(*candidates)[:, :k], True)
        # a place that is empty may stay so
        chosen[:, k:] &= values != -torch.inf
        entering, leaving = chosen[:, k:], ~chosen[:, :k]
        # where candidates are fewer than empty places, only the first of these are taken
        leaving &= leaving.cumsum(1) <= entering.sum(1, keepdim=True)
        rows, columns = entering.nonzero(as_tuple=True)
        places = leaving.nonzero(as_tuple=True)
        if not len(rows):
            return
        positions, windows = fetch(rows, columns)
        if not self._windows.numel():
            self._windows = windows.new_zeros(*self._values.shape, *windows.shape[1:])
        self._values[places] = values[rows, columns]
        self._sample_ids[places] = sample_ids[rows, columns]
        self._positions[places] = positions
        self._windows[places] = windows


class Harvest:
    """Follows the forward passes that a network makes anyway, and keeps the top activations of some layers.

    Used as a context: the hooks are there inside it only.

    Args:
        model: The network.
        channels: The channels to follow, by layer; all of them where None.
        k: How many activations to keep of each feature map.
        rule: The projection rule that the layers must allow.
        first_id: Sample id of the first image.
        id_step: Distance between the sample ids of images that follow each other: the number of processes, where each
            sees every so manieth image.
        samples: How many different images there are; later ones, which a distributed sampler adds to even out the
            processes, are passed over. None if there is no limit.

    Attributes:
        tops: `TopActivations` by layer, once the network has run.

    Raises:
        LayerError: In the first forward pass, if a layer cannot be followed or projected; see `project`.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> with Harvest(net, {"1": None}, k=2) as harvest, torch.no_grad():
        ...     for batch in torch.rand(3, 4, 3, 16, 16):
        ...         _ = net(batch)
        >>> harvest.tops["1"].values.shape, harvest.tops["1"].patches.shape
        (torch.Size([8, 2]), torch.Size([8, 2, 3, 3, 3]))
    """

    def __init__(
        self,
        model: nn.Module,
        channels: Mapping[str, Sequence[int] | None],
        k: int = 9,
        *,
        rule: Rule = "deconvnet",
        first_id: int = 0,
        id_step: int = 1,
        samples: int | None = None,
    ) -> None:
        self.model = model
        self.channels = channels
        self.k = k
        self.rule: Rule = rule
        self.tops: dict[str, TopActivations] = {}
        self._next_id, self._id_step, self._samples = first_id, id_step, samples
        self._inputs: Tensor | None = None
        self._sample_ids = torch.empty(0)
        self._planning = False
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Harvest:
        """Begins to follow the network."""
        modules = {layer: get_layer(self.model, layer) for layer in self.channels}
        self._handles = [self.model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for layer, module in modules.items():
            self._handles.append(module.register_forward_hook(self._hook_of(layer)))
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._inputs = None

    def _begin(self, _: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        if self._planning:
            return
        images = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.ndim == 4), None)
        if images is None:
            raise ValueError("The network was called without a batch of images (N, C, H, W): nothing to follow.")
        if not self.tops:
            self._plan(images)
        ids = self._next_id + self._id_step * torch.arange(len(images), device=images.device)
        self._next_id += self._id_step * len(images)
        if self._samples is not None:
            ids = ids.masked_fill(ids >= self._samples, NO_SAMPLE)
        self._inputs, self._sample_ids = images, ids

    def _plan(self, images: Tensor) -> None:
        self._planning = True
        try:
            with isolated(self.model):
                for layer, channels in self.channels.items():
                    windows = plan_windows(self.model, layer, images, rule=self.rule)
                    followed = range(windows.field.map_shape[0]) if channels is None else channels
                    self.tops[layer] = TopActivations(
                        windows, torch.tensor(list(followed), device=images.device), self.k
                    )
        finally:
            self._planning = False

    def _hook_of(self, layer: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            if self._inputs is None or self._planning:
                return
            top = self.tops[layer]
            size = (self._inputs.shape[2], self._inputs.shape[3])
            if size != top.geometry.field.input_size:
                raise ValueError(
                    f"The network was given images of {size[0]}×{size[1]} after images of "
                    f"{top.geometry.field.input_size}: top activations need images of one size."
                )
            top.update(output, self._inputs, self._sample_ids)

        return hook


def top_activations(
    model: nn.Module,
    loader: Iterable[object],
    layers: Sequence[str],
    k: int = 9,
    channels: Sequence[int] | None = None,
) -> dict[str, TopActivations]:
    """The strongest activations of every feature map over a data set.

    Args:
        model: The network. It runs in evaluation mode and is left as it was.
        loader: Batches of images ``(N, C, H, W)``, or tuples and lists that begin with them, normalised as the network
            expects them. They are moved to the model's device.
        layers: Dotted module names.
        k: How many activations to keep of each feature map, at most one from an image.
        channels: The channels to follow in every layer; all if None.

    Returns:
        The top activations, by layer.

    Raises:
        LayerError: If a layer is not there, does not run exactly once, or has neither a map nor a vector.
        ValueError: If there are fewer images than ``k``, or an activation is not a number.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> top = top_activations(net, torch.rand(3, 4, 3, 16, 16), ["1"], k=2)["1"]
        >>> top.values.shape
        torch.Size([8, 2])
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    count = 0
    with (
        isolated(model),
        Harvest(model, dict.fromkeys(layers, channels), k, rule="gradient") as harvest,
        torch.no_grad(),
    ):
        for batch in loader:
            images = batch[0] if isinstance(batch, list | tuple) else batch
            if not isinstance(images, Tensor):
                raise ValueError(f"The loader gave a {type(images).__name__}, not a tensor of images (N, C, H, W).")
            count += len(images)
            model(images.to(device))
    if count < k:
        raise ValueError(f"k={k} exceeds the {count} images that the loader gave: lower k, or give more images.")
    for layer, top in harvest.tops.items():
        if top.values.isnan().any():
            raise ValueError(f"Layer {layer!r} has activations that are NaN: check the images and the weights.")
    return harvest.tops


def _rank(values: Tensor, sample_ids: Tensor) -> Tensor:
    """The order of each row, strongest first and equal ones by sample id; NaN counts as strongest."""
    by_id = sample_ids.argsort(dim=1)
    by_value = values.gather(1, by_id).argsort(dim=1, descending=True, stable=True)
    return by_id.gather(1, by_value)
