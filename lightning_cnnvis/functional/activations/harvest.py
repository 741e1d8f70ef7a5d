"""Top activations collected from the forward passes that a network makes anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_cnnvis.functional.activations.numbered_images import NumberedImages
from lightning_cnnvis.functional.activations.top_k import NO_SAMPLE, TopActivations
from lightning_cnnvis.functional.deconvnet.projection import plan_windows
from lightning_cnnvis.functional.deconvnet.rules import Rule
from lightning_cnnvis.functional.deconvnet.windows import Windows
from lightning_cnnvis.functional.network.forward import model_options
from lightning_cnnvis.functional.network.saturation import Unsaturated
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import get_layer, hook_layer


class Harvest:
    """Follows the forward passes that a network makes anyway, and keeps the top activations of some layers.

    It is a context manager: the network has the hooks only inside of it.

    Args:
        model: The network.
        channels: The channels to follow, by layer; None takes all of the layer's.
        k: Number of activations to keep of each feature map.
        rule: The projection rule that the layers must allow; see `project`.
        windows: Plans that `plan_windows` made for some of the layers, by layer. Those layers are planned again only if
            the images do not have the plan's size.
        guard: A function of a layer's name that returns a context in which the layer's work is done. If the context
            swallows an exception, the layer is dropped. By default exceptions pass.

    Attributes:
        tops: `TopActivations` by layer, after the network has run.

    Raises:
        LayerError: On entry, if a layer does not exist; in the first forward pass, if it cannot be followed or
            projected, see `project`.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> with Harvest(net, {"1": None}, k=2) as harvest, torch.no_grad():
        ...     for batch in torch.rand(3, 4, 3, 16, 16):
        ...         _ = net(batch)
        >>> harvest.tops["1"].values.shape, harvest.tops["1"].patches.shape
        (torch.Size([8, 2]), torch.Size([8, 2, 3, 3, 3]))
    """

    # modules of networks that a harvest runs to plan their layers; no harvest of these networks may count such a pass
    _planned: ClassVar[set[nn.Module]] = set()

    def __init__(
        self,
        model: nn.Module,
        channels: Mapping[str, Sequence[int] | None],
        k: int = 9,
        *,
        rule: str | Rule = "deconvnet",
        windows: Mapping[str, Windows] | None = None,
        guard: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.model = model
        self.channels = channels
        self.k = k
        self.rule = rule
        self.tops: dict[str, TopActivations] = {}
        self._windows = dict(windows or {})
        self._guard = guard
        self._live = list(channels)
        self._numbered = NumberedImages()
        self._inputs: Tensor | None = None
        self._keep = False  # whether the inputs are the harvest's own copy
        self._sample_ids = torch.empty(0, dtype=torch.long, device="cpu")
        self._handles: list[RemovableHandle] = []
        self._unsaturated = Unsaturated()
        self._bounded: dict[str, list[RemovableHandle]] = {}  # layers whose outputs have, or may have, an upper bound

    def number(self, first: int = 0, step: int = 1, stop: int | None = None) -> None:
        """Sets the sample ids of the coming images: by default 0, 1, 2 and so on.

        Args:
            first: Id of the next image.
            step: Stride between image ids: the world size.
            stop: Images with this id or above are skipped: those that a distributed sampler adds to even out the
                processes. None counts every image.
        """
        self._numbered.number(first, step, stop)

    def expect(self, images: Tensor) -> None:
        """Tells which tensor of the coming call the images are, where the network takes several maps.

        Args:
            images: ``(N, C, H, W)``, or a tensor of the same shape.
        """
        self._numbered.expect(images)

    def state_dict(self) -> dict[str, Any]:
        """Returns what was gathered, as tensors on the CPU and builtins.

        Returns:
            The state, for `load_state_dict`. Kept batches are cut up, so that it takes no more than the windows do.
        """
        tops = {layer: top.state_dict() for layer, top in self.tops.items()}
        return {"tops": tops, "next_id": self._numbered.next_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what was gathered by a harvest of the same layers and channels.

        Args:
            state: A state from `state_dict`.
        """
        device = model_options(self.model).device
        self.tops = {layer: TopActivations.from_state_dict(top).to(device) for layer, top in state["tops"].items()}
        self.number(state["next_id"])

    def __enter__(self) -> Harvest:
        """Begins to follow the network."""
        for layer in self.channels:
            get_layer(self.model, layer)  # before there is a hook
        self._handles = [self.model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for layer in self.channels:
            module = get_layer(self.model, layer)
            if not any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):  # which may be fused
                self._bounded[layer] = [
                    module.register_forward_pre_hook(self._enter),
                    # before the hook that takes the output in, and also if the forward pass fails
                    module.register_forward_hook(self._leave, always_call=True),
                ]
            self._handles += hook_layer(self.model, layer, self._hook_of(layer))
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the hooks."""
        for handle in (*self._handles, *(handle for handles in self._bounded.values() for handle in handles)):
            handle.remove()
        self._handles, self._bounded = [], {}
        self._unsaturated.end()
        self._inputs = None
        self._numbered.expect(None)

    def _begin(self, model: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        if model in self._planned:
            return
        self._inputs = None
        for layer in self._live[:1]:
            with self._guard(layer):
                images, ids = self._numbered.take(args, kwargs)
                self._inputs = images
                self._sample_ids = torch.full((len(images),), NO_SAMPLE, device=images.device)
                self._sample_ids[: len(ids)] = ids.start + ids.step * torch.arange(len(ids), device=images.device)
        for layer in [layer for layer in self._live if layer not in self.tops and self._inputs is not None]:
            with self._guarded(layer):
                self.tops[layer] = self._begin_layer(layer)
        self._keep = False
        if self._inputs is not None and any(top.would_keep(self._inputs) for top in self.tops.values()):
            with self._guard(self._live[0]):
                # one copy for all layers: the caller may overwrite the batch
                self._inputs, self._keep = self._inputs.clone(), True

    def _begin_layer(self, layer: str) -> TopActivations:
        assert self._inputs is not None
        windows = self._windows.get(layer)
        if windows is None or windows.field.input_size != self._inputs.shape[2:]:
            windows = self._plan(layer, self._inputs)
        channels = self.channels[layer]
        followed = range(windows.field.map_shape[0]) if channels is None else channels
        return TopActivations(windows, torch.tensor(list(followed), device=self._inputs.device), self.k)

    def _plan(self, layer: str, images: Tensor) -> Windows:
        modules = set(self.model.modules())
        self._planned.update(modules)
        try:
            with isolated(self.model) as model:
                return plan_windows(model, layer, images, rule=self.rule)
        finally:
            self._planned.difference_update(modules)

    @contextmanager
    def _guarded(self, layer: str) -> Iterator[None]:
        """Drops a layer whose work failed without stopping the others, if the guard lets it."""
        done = False
        with self._guard(layer):
            yield
            done = True
        if not done:
            self._live.remove(layer)
            self.tops.pop(layer, None)

    def _enter(self, *_: object) -> None:
        self._unsaturated.__enter__()

    def _leave(self, *_: object) -> None:
        self._unsaturated.__exit__(None, None, None)

    def _hook_of(self, layer: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, _: object, output: Tensor) -> None:
            if self._inputs is None or module in self._planned or layer not in self._live:
                return
            with self._guarded(layer):
                unsaturated = self._unsaturated.of(output)
                if unsaturated is output:
                    # there is no upper bound: from now on, the layer runs as if it were not looked at
                    for handle in self._bounded.pop(layer, ()):
                        handle.remove()
                self.tops[layer].update(
                    output,
                    self._inputs,
                    self._sample_ids,
                    keep=self._keep,
                    unsaturated=None if unsaturated is output else unsaturated,
                )

        return hook


def top_activations(
    model: nn.Module,
    loader: Iterable[object],
    layers: Sequence[str],
    k: int = 9,
    channels: Sequence[int] | None = None,
) -> dict[str, TopActivations]:
    """Finds the strongest activations of every feature map over a data set (Zeiler & Fergus 2013, Fig. 2).

    Args:
        model: The network. It runs in evaluation mode and is left as it was.
        loader: Batches of images ``(N, C, H, W)``, or tuples and lists that begin with them, normalised as the network
            expects them. They are moved to the model's device.
        layers: Dotted module names.
        k: Number of activations to keep of each feature map, at most one from an image.
        channels: The channels to follow in every layer; None takes all.

    Returns:
        The top activations, by layer.

    Raises:
        LayerError: If a layer does not exist, does not stand for one call of a module, or its output is neither a
            map nor tokens nor a vector.
        ValueError: If there are fewer images than ``k``, or an activation is not a number.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> top = top_activations(net, torch.rand(3, 4, 3, 16, 16), ["1"], k=2)["1"]
        >>> top.values.shape
        torch.Size([8, 2])
    """
    device = model_options(model).device
    count = 0
    with (
        isolated(model) as network,
        Harvest(network, dict.fromkeys(layers, channels), k, rule="gradient") as harvest,
        torch.no_grad(),
    ):
        for batch in loader:
            images = batch[0] if isinstance(batch, list | tuple) else batch
            if not isinstance(images, Tensor):
                raise ValueError(f"The loader gave a {type(images).__name__}, not a tensor of images (N, C, H, W).")
            count += len(images)
            network(images.to(device))
    if count < k:
        raise ValueError(f"k={k} exceeds the {count} images that the loader gave: lower k, or give more images.")
    for layer, top in harvest.tops.items():
        if top.values.isnan().any():
            raise ValueError(f"Layer {layer!r} has activations that are NaN: check the images and the weights.")
    return harvest.tops
