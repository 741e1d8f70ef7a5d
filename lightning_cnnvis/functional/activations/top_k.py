"""The strongest activations of every feature map over a stream of images, with the image windows that caused them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cnnvis.channel_dim import as_maps, channels_first
from lightning_cnnvis.functional.activations.window_store import WindowStore
from lightning_cnnvis.functional.deconvnet.projection import Projections, Start, project_windows
from lightning_cnnvis.functional.deconvnet.rules import Rule
from lightning_cnnvis.functional.deconvnet.windows import Windows, cut
from lightning_cnnvis.functional.network.canonical import LRNRule
from lightning_cnnvis.functional.network.chunks import chunk_size, in_chunks
from lightning_cnnvis.functional.network.receptive_field import ReceptiveField
from lightning_cnnvis.isolation import isolated

NO_SAMPLE = -1
"""The sample id of a place that no image has taken."""

_STATE = ("_values", "_strengths", "_sample_ids", "_positions", "_windows")


class TopActivations:
    """The k strongest activations of each feature map, at most one from an image.

    It takes batch by batch and needs no image twice: the window of the input that a new winner needs is cut out
    of the batch; see `WindowStore`. Everything stays on the device of the batches. The state takes at most
    ``maps * k * (C * h * w * itemsize + 56)`` bytes for windows of ``C * h * w`` values, and less as long as the images
    so far do; twice as much for the moment in which kept images are cut up.

    Activations at the upper bound of a rectifier, such as a ReLU6's, are ranked by what they would be without it. Equal
    ones are ranked by sample id, and within an image the first place in reading order counts. So the
    result does not depend on how the images are batched or distributed.

    Args:
        windows: The windows of the layer's units.
        channels: ``(maps,)``, the channels of the layer to follow.
        k: Number of activations to keep of each.

    Raises:
        ValueError: If k is below 1.
    """

    def __init__(self, windows: Windows, channels: Tensor, k: int = 9) -> None:
        if k < 1:
            raise ValueError(f"k={k} is not positive. Keep at least 1 activation of each feature map.")
        self.geometry = windows
        self.channels = channels
        maps, device = len(channels), channels.device
        # The places of a map are in no order, so that a new winner replaces the weakest without moving the others.
        # float32 whatever the default type is, which Lightning may have changed; float64 once activations are
        self._values = torch.full((maps, k), -torch.inf, dtype=torch.float32, device=device)
        self._strengths = self._values.clone()  # by which they are ranked
        self._sample_ids = torch.full((maps, k), NO_SAMPLE, device=device)
        self._positions = torch.zeros(maps, k, 2, dtype=torch.long, device=device)
        self._store = WindowStore(windows, maps * k, device)

    @property
    def k(self) -> int:
        """Number of activations that are kept of each map."""
        return self._values.shape[1]

    @property
    def values(self) -> Tensor:
        """``(maps, k)``, the activations from the strongest down; -inf where there were fewer images."""
        return self._ranked(self._values)

    @property
    def sample_ids(self) -> Tensor:
        """``(maps, k)``, the ids of the images that they come from; -1 where there were fewer."""
        return self._ranked(self._sample_ids)

    @property
    def positions(self) -> Tensor:
        """``(maps, k, 2)``, their rows and columns in the layer's map."""
        return self._ranked(self._positions)

    @property
    def windows(self) -> Tensor:
        """``(maps, k, C, h, w)``, the parts of the input that suffice to compute each; see `Windows`."""
        return self._ranked(self._windows)

    @property
    def patches(self) -> Tensor:
        """``(maps, k, C, h, w)``, the receptive fields cut out of the input; zero where there were fewer images."""
        patches = cut(self.windows.flatten(0, 1), self._within(), self.geometry.field_size)
        return patches.view(*self._values.shape, *patches.shape[1:])

    def would_keep(self, inputs: Tensor) -> bool:
        """Tells whether `update` would keep a batch of images if it were allowed to.

        Args:
            inputs: ``(N, C, H, W)``, the images.

        Returns:
            Whether there is room for them.
        """
        return self._store.has_room(inputs)

    def update(
        self,
        output: Tensor,
        inputs: Tensor,
        sample_ids: Tensor,
        *,
        keep: bool = False,
        unsaturated: Tensor | None = None,
    ) -> None:
        """Takes in a batch.

        Args:
            output: ``(N, K, H', W')``, ``(N, K)`` or tokens, the layer's output as the layer returns it.
            inputs: ``(N, C, H, W)``, the network's input.
            sample_ids: ``(N,)``, a unique number for each image, the same whenever it comes. Images with a negative
                number are skipped.
            keep: Whether ``inputs`` may be kept, because nothing will write into it.
            unsaturated: The output as it would be without an upper bound, of the same shape, by which it is ranked;
                see `Unsaturated`. None if there is no bound.

        Raises:
            ValueError: If the images do not have the size that the windows were planned for.
        """
        size = (inputs.shape[2], inputs.shape[3])
        if size != self.geometry.field.input_size:
            raise ValueError(
                f"Images of {size} after images of {self.geometry.field.input_size}: top activations need images of "
                "one size."
            )
        maps = self._maps(output)
        ranked = maps if unsaturated is None else self._maps(unsaturated)
        has_map = maps.ndim == 4
        strongest = maps.amax((2, 3)) if has_map else maps
        strengths = strongest if unsaturated is None else ranked.amax((2, 3)) if has_map else ranked

        def enter(places: Tensor, rows: Tensor, samples: Tensor) -> None:
            positions = rows.new_zeros(len(rows), 2)
            if has_map:

                def best(part: slice) -> Tensor:
                    return ranked[samples[part], rows[part]].flatten(1).argmax(dim=1)

                places_in_map = torch.cat(list(in_chunks(best, len(rows), chunk_size(ranked))))
                width = ranked.shape[3]
                positions = torch.stack([places_in_map // width, places_in_map % width], dim=1)
            self._positions.flatten(0, 1)[places] = positions
            self._store.put(places, inputs.detach(), samples, self.geometry.corners(positions), keep=keep)

        self._admit(strongest.T, strengths.T, sample_ids.expand(len(self.channels), -1), enter)

    def _maps(self, output: Tensor) -> Tensor:
        """The maps ``(N, maps, H', W')`` of the channels that are followed, or their units ``(N, maps)``."""
        maps = as_maps(channels_first(output.detach(), self.geometry.channel_dim))
        return maps if len(self.channels) == maps.shape[1] else maps.index_select(1, self.channels)

    def merge(self, other: TopActivations) -> None:
        """Takes in other top activations of the same layer and channels; an image that both have seen counts once.

        Args:
            other: The other top activations, on the same device.

        Raises:
            ValueError: If they are of other channels.
        """
        if not torch.equal(self.channels, other.channels):
            raise ValueError("Only the top activations of the same channels can be merged.")

        def enter(places: Tensor, rows: Tensor, columns: Tensor) -> None:
            self._positions.flatten(0, 1)[places] = other._positions[rows, columns]
            windows = other._windows

            def copy(part: slice) -> None:
                self._store.set(places[part], windows[rows[part], columns[part]])

            # a few at a time: all of them would take as much memory again
            for _ in in_chunks(copy, len(rows), chunk_size(windows[0])):
                pass

        self._admit(other._values, other._strengths, other._sample_ids, enter)

    @property
    def batches(self) -> list[Tensor]:
        """Kept batches of images ``(N, C, H, W)``, out of which windows need not be cut yet."""
        return self._store.batches

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the state takes, apart from the kept `batches`."""
        return (
            sum(x.nbytes for x in (self._values, self._strengths, self._sample_ids, self._positions))
            + self._store.nbytes
        )

    def __len__(self) -> int:
        """The number of feature maps."""
        return len(self.channels)

    def __getitem__(self, maps: slice | Sequence[int] | Tensor) -> TopActivations:
        """A part of the feature maps: a slice of them, or their row numbers, in any order, or a mask ``(maps,)``."""
        rows = maps if isinstance(maps, slice) else torch.as_tensor(maps, device=self.channels.device)
        # an empty list has no dtype of its own, and there are no windows before the first image
        rows = rows.long() if isinstance(rows, Tensor) and not len(rows) else rows
        return self._copy(lambda state: state[rows] if len(state) else state)

    def to(self, device: torch.device | str) -> TopActivations:
        """Copies the top activations to another device.

        Args:
            device: The device.

        Returns:
            The same top activations there.
        """
        return self._copy(lambda state: state.to(device))

    def best(self, k: int) -> TopActivations:
        """Selects the strongest activations of each feature map.

        Args:
            k: Number of activations to keep of each.

        Returns:
            The k strongest, at most as many as there are.
        """
        order = _rank(self._strengths, self._sample_ids)[:, :k]
        rows = torch.arange(len(order), device=order.device)[:, None]
        return self._copy(lambda state: state if state is self.channels else state[rows, order])

    def where(self, keep: Tensor, other: TopActivations) -> TopActivations:
        """Replaces some of the feature maps by those of other top activations.

        Args:
            keep: ``(maps,)`` bool, the feature maps to keep.
            other: Top activations of the same layer and channels, from which the other maps are taken.

        Returns:
            The combination.
        """
        copy = self._copy(torch.clone)
        for name in _STATE:
            getattr(copy, name)[~keep] = getattr(other, name)[~keep]
        return copy

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as tensors on the CPU and builtins.

        Returns:
            The state, for `from_state_dict`.
        """
        state = {name: getattr(self, name).cpu() for name in ("channels", *_STATE)}
        return {"geometry": asdict(self.geometry), **state}

    @staticmethod
    def from_state_dict(state: dict[str, Any]) -> TopActivations:
        """Restores top activations.

        Args:
            state: A state from `state_dict`.

        Returns:
            The top activations, on the device of the state's tensors.
        """
        geometry = {**state["geometry"], "field": ReceptiveField(**state["geometry"]["field"])}
        top = TopActivations(Windows(**geometry), state["channels"])
        for name in _STATE:
            setattr(top, name, state[name])
        return top

    def _copy(self, change: Callable[[Tensor], Tensor]) -> TopActivations:
        copy = TopActivations(self.geometry, change(self.channels), self.k)
        for name in _STATE:
            setattr(copy, name, change(getattr(self, name)))
        return copy

    def project(
        self,
        model: nn.Module,
        layer: str,
        *,
        rule: str | Rule = "deconvnet",
        start: Start = "activation",
        lrn: LRNRule = "identity",
    ) -> Projections:
        """Projects all of them back to pixels.

        Args:
            model: The network. It runs in evaluation mode and is left as it was.
            layer: Dotted name of the layer.
            rule: Rule of the way down, a name or a `Rule`; see `project`.
            start: Value at which the way down begins, ``"activation"`` or ``"one"``.
            lrn: Backward pass of local response normalisation, ``"identity"`` or ``"gradient"``.

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
        with isolated(model) as network:
            pixels, values = project_windows(
                network,
                windows,
                layer,
                channels,
                self.geometry.positions_within(positions, corners),
                rule=rule,
                start=start,
                lrn=lrn,
                geometry=self.geometry,
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

    @property
    def _windows(self) -> Tensor:
        windows = self._store.windows()
        return windows.view(*self._values.shape, *windows.shape[1:]) if windows.numel() else windows

    @_windows.setter
    def _windows(self, windows: Tensor) -> None:
        cut_out = windows.flatten(0, 1) if windows.numel() else None
        self._store = WindowStore(self.geometry, self._values.numel(), windows.device, cut_out)

    def _within(self) -> Tensor:
        """Computes top and left pixel of the fields in their windows, ``(maps * k, 2)``."""
        positions = self.positions.flatten(0, 1)
        return self.geometry.field_corners(positions) - self.geometry.corners(positions)

    def _ranked(self, state: Tensor) -> Tensor:
        order = _rank(self._strengths, self._sample_ids)
        return state[torch.arange(len(order), device=order.device)[:, None], order]

    def _admit(
        self, values: Tensor, strengths: Tensor, sample_ids: Tensor, enter: Callable[[Tensor, Tensor, Tensor], None]
    ) -> None:
        """Admits the strongest of the candidates ``(maps, n)``.

        ``enter(places, rows, columns)`` sets positions and windows of those that get a place, numbered map by map.
        """
        k = self.k
        values, strengths = (x.to(torch.promote_types(x.dtype, self._values.dtype)) for x in (values, strengths))
        self._values, self._strengths = (x.to(values.dtype) for x in (self._values, self._strengths))
        known = (sample_ids[:, :, None] == self._sample_ids[:, None, :]).any(2)
        strengths = strengths.masked_fill(known | (sample_ids < 0), -torch.inf)
        candidates = torch.cat([self._strengths, strengths], 1), torch.cat([self._sample_ids, sample_ids], 1)
        chosen = torch.zeros_like(candidates[0], dtype=torch.bool)
        chosen.scatter_(1, _rank(*candidates)[:, :k], True)
        # an empty place may stay empty
        chosen[:, k:] &= strengths != -torch.inf
        entering, leaving = chosen[:, k:], ~chosen[:, :k]
        # where candidates are fewer than empty places, only the first of these are taken
        leaving &= leaving.cumsum(1) <= entering.sum(1, keepdim=True)
        rows, columns = entering.nonzero(as_tuple=True)
        if not len(rows):
            return
        # as many, row by row: a second `nonzero` would wait for the device once more
        places = leaving.flatten().byte().argsort(descending=True, stable=True)[: len(rows)]
        self._values.view(-1)[places] = values[rows, columns]
        self._strengths.view(-1)[places] = strengths[rows, columns]
        self._sample_ids.view(-1)[places] = sample_ids[rows, columns]
        enter(places, rows, columns)


def _rank(values: Tensor, sample_ids: Tensor) -> Tensor:
    """Sorts each row, strongest first and equal ones by sample id; NaN counts as strongest."""
    by_id = sample_ids.argsort(dim=1)
    by_value = values.gather(1, by_id).argsort(dim=1, descending=True, stable=True)
    return by_id.gather(1, by_value)
