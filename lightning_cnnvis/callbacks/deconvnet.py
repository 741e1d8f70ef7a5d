"""Deconvnet projections of the top activations, while the network trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_cnnvis import figures
from lightning_cnnvis.callbacks.base.context import VisualizationContext
from lightning_cnnvis.callbacks.base.distributed import gather_results
from lightning_cnnvis.callbacks.harvest import EpochHarvest, FollowingCallback, Guard
from lightning_cnnvis.evolution.features import Convergence, LayerEvolution
from lightning_cnnvis.functional.activations.harvest import Harvest
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.functional.deconvnet.rules import Rule, get_rule
from lightning_cnnvis.functional.deconvnet.windows import Windows
from lightning_cnnvis.functional.network.canonical import LRNRule
from lightning_cnnvis.functional.network.defaults import choose_layers
from lightning_cnnvis.layers import LayerError
from lightning_cnnvis.methods.deconv import AUTO, DECONV, LayerProjections, plan, rule_suffix, with_rule
from lightning_cnnvis.methods.maximize import Strongest
from lightning_cnnvis.methods.method import Parts

STRIP_ROWS = 8
"""How many feature maps an evolution strip shows."""


class DeconvNetProjection(FollowingCallback[Harvest], method=DECONV):
    """Shows what excites the feature maps: their top activations, projected back to pixels by a deconvnet.

    For a seeded random choice of feature maps of each layer, the strongest activations over the validation set are
    projected to pixels, with the image patches that caused them beside (Zeiler & Fergus 2013, Fig. 2, arXiv 1311.2901).
    The activations are picked up from the forward passes that the validation makes anyway. Where there is no
    validation, the images of the training batches are kept, ``max_images`` of them, and seen once more.

    Pictures: ``deconvnet/<layer>``; and ``deconvnet_evolution/<layer>``, the strip of the epochs so far (Fig. 4), with
    a second track of projections from images that stay the same.

    Scalars, means over the feature maps: ``projection_similarity/<layer>``, the cosine similarity of the projections
    from the fixed images to those of the epoch shown before; ``top_overlap/<layer>``, the Jaccard overlap of the images
    of the top activations; ``dead_maps/<layer>``, the share of maps that no image activates. With ``trust``,
    ``projection_dependence/<layer>``.

    Args:
        layers: Dotted names of the layers, and patterns, such as ``"layer*.1"``, or ``"all"``; at most six rectified
            convolutions, spread over the depth, if None.
        channels: Numbers of the feature maps to show of each layer, from 0; a seeded random choice if None.
        num_channels: How many feature maps of each layer are shown; every one if None.
        k: How many activations of each are shown, at most one from an image.
        rule: Rule of the way down: ``"auto"``, which is ``"deconvnet"`` for a network with max-pooling and ``"guided"``
            for one without; ``"deconvnet"``, ``"guided"``, ``"gradient"`` or one that was registered; or a `Rule`. See
            `RectifiedBackward`. It is in the figures' titles, and in the tags of all but the deconvnet's:
            ``deconvnet_guided/<layer>``.
        lrn: Rule of local response normalisation: ``"identity"`` or ``"gradient"``; see `RectifiableForward`.
        trust: Whether to test how far the projections depend on the weights, which takes as long as they do: one number
            a layer, 0 if they are the same with random weights, 1 if they have nothing in common. See
            `weight_dependence`.
        evolution: Whether to draw the strip of the epochs so far for each layer, of its first eight feature maps shown.
        max_images: How many images to go through where there is no validation to pick activations up from, or where it
            ran on averaged weights (``WeightAveraging``), which are not those that are shown.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If an argument is out of range; before training starts, if a layer is not there, has
            no map, or lies behind something that a deconvnet cannot pass.

    Examples:
        >>> from pytorch_lightning import Trainer
        >>> callback = DeconvNetProjection(num_channels=4, every_n_epochs=5)
        >>> trainer = Trainer(callbacks=[callback], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        channels: Sequence[int] | None = None,
        num_channels: int | None = 16,
        k: int = 9,
        rule: str | Rule = AUTO,
        lrn: LRNRule = "identity",
        trust: bool = False,
        evolution: bool = True,
        max_images: int = 1024,
        **schedule: Any,
    ) -> None:
        projected = {
            "layers": layers,
            "channels": channels,
            "num_channels": num_channels,
            "k": k,
            "rule": rule,
            "lrn": lrn,
            "dependence": trust,
        }
        super().__init__(DECONV, projected, **schedule)
        if max_images < 1:
            raise MisconfigurationException(f"max_images={max_images} must be at least 1.")
        self.max_images = max_images
        self.evolution = evolution
        self._harvest = EpochHarvest[Harvest](max_images, self.get_images)
        self._windows: dict[str, Windows] = {}
        self._evolutions: dict[str, LayerEvolution] = {}
        self._convergence: dict[str, Convergence] = {}
        self._strongest: dict[str, Strongest] = {}
        self._rule: str | None = None  # that of a resumed run, or the one that "auto" was found to be
        self._tops: tuple[int, dict[str, TopActivations]] | None = None  # of which epoch, until they are shown

    def check(self, context: VisualizationContext) -> None:
        """Refuses layers that cannot be projected, and chooses the feature maps."""
        calls, rectified = context.calls()
        layers = choose_layers(rectified, calls) if context.layers is None else context.layers
        if not layers:
            raise MisconfigurationException(
                f"{type(self).__name__} found no convolution in {type(context.network).__name__}: name the layers."
            )
        for layer in layers:
            shape = calls[layer].shape if layer in calls else None
            if shape is not None and len(shape) not in (2, 3):  # tokens or maps
                maps = ", ".join(repr(name) for name in rectified[:12])
                raise LayerError(
                    f"Layer {layer!r} has no feature map: its output for one image has shape {shape}. "
                    f"Name one that has, such as {maps}."
                )
        options = self.options_in(context)
        if options.rule == AUTO:
            self._rule = str(with_rule(context, options).rule)
        planned = plan(context, self.options_in(context))
        self._followed, self._parts = context.trained, {layer: channels for layer, (channels, _) in planned.items()}
        self._windows = {layer: windows for layer, (_, windows) in planned.items()}

    @property
    def shown_layers(self) -> tuple[str, ...]:
        """The layers that are shown; empty before they are known, at the first training batch at the latest."""
        return tuple(self._parts)

    @property
    def convergence(self) -> dict[str, Convergence]:
        """How much each layer had changed when it was last shown."""
        return self._convergence

    @property
    def evolutions(self) -> dict[str, LayerEvolution]:
        """The epochs shown so far, by layer."""
        return self._evolutions

    def strongest(self, context: VisualizationContext) -> dict[str, Strongest]:
        """Finds the strongest activation of each feature map that is followed, for other callbacks.

        They are those of this epoch if it is shown, whichever callback comes first; else those of the epoch shown last.
        Every process must ask.

        Args:
            context: The context of the other callback. Nothing is known of another network than our own.

        Returns:
            The strongest activations by layer.
        """
        if context.trained is not self._followed:
            return {}
        epoch, trainer = context.epoch, context.trainer
        if epoch not in {self._tried, *self._shown} and self.scheduled(epoch, trainer):
            own = self._context(trainer, context.pl_module, epoch, context.network)
            self.prepare(own, self.options_in(own), self._parts)
        return dict(self._strongest)

    def visualize(self, context: VisualizationContext) -> bool:
        """Projects the top activations of the epoch and draws them."""
        try:
            return super().visualize(context)
        finally:
            self._tops = None

    def prepare(self, context: VisualizationContext, options: Any, parts: Parts) -> dict[str, TopActivations]:
        """Finds the top activations of the epoch, over all processes; a layer that failed on one of them is missing."""
        if self._tops is None or self._tops[0] != context.epoch:
            found = gather_results(partial(self._take_tops, context))
            whole = [layer for layer in self._parts if all(layer in part for part in found)]
            tops = {layer: _merged([part[layer] for part in found]) for layer in whole}
            for layer, top in tops.items():
                activations = zip(top.channels.tolist(), top.values[:, 0].tolist(), strict=True)
                self._strongest[layer] = Strongest(context.epoch, dict(activations))
            # planned anew for images of another size than the input's: the next epoch compares with these
            self._windows |= {layer: top.geometry for layer, top in tops.items()}
            self._tops = context.epoch, tops
        return self._tops[1]

    def options_in(self, context: VisualizationContext) -> Any:
        """The options, with the rule that was settled."""
        options = super().options_in(context)
        return replace(options, rule=self._rule) if options.rule == AUTO and self._rule else options

    def follower(self, network: nn.Module, guard: Guard | None = None) -> Harvest:
        """Makes what collects the top activations."""
        options = self.options
        rule = (self._rule or "deconvnet") if options.rule == AUTO else options.rule
        return Harvest(network, self._parts, options.k, rule=rule, windows=self._windows, guard=guard or nullcontext)

    def _take_tops(self, context: VisualizationContext) -> dict[str, TopActivations]:
        """The top activations of this process; on the CPU where processes exchange them."""
        tops = self._harvest.take(context, self.follower).tops
        return {layer: top.to("cpu") for layer, top in tops.items()} if context.trainer.world_size > 1 else dict(tops)

    def show_part(
        self, context: VisualizationContext, options: Any, part: str, items: Sequence[Any], prepared: Any
    ) -> LayerProjections | None:
        """Shows the projections of a layer, and how they have changed."""
        if part not in prepared:
            return None
        result: LayerProjections = super().show_part(context, options, part, items, prepared)
        top, evolution = result.top, self._evolutions.setdefault(part, LayerEvolution())
        weights = context.blank()
        fixed = evolution.fix(top[:STRIP_ROWS]).to(weights.device)
        projections = fixed.project(context.network, part, rule=options.rule, lrn=options.lrn).to("cpu")
        convergence = self._convergence[part] = evolution.advance(context.epoch, top, projections.pixels)
        for name, value in convergence.scalars().items():
            self._numbers[f"{name}/{part}"] = value
        if self.evolution:
            strongest = result.projections[:: options.k][:STRIP_ROWS]
            ids = top.sample_ids[:STRIP_ROWS, 0]
            evolution.add(figures.strip_column(convergence, strongest, ids, projections, context.input_spec))
            strip = figures.evolution_strip(
                evolution, context.input_spec, f"{part} · {get_rule(options.rule).name} · evolution"
            )
            context.sinks.picture(f"{self.label}{rule_suffix(options)}_evolution/{part}", strip, context.epoch)
        return result

    def evolution_of(self, part: str) -> Mapping[str, Any]:
        """The last two epochs of a layer: the viewer has those before."""
        evolution = self._evolutions.get(part)
        return {} if evolution is None else {part: replace(evolution, columns=evolution.columns[-2:])}

    def numbers_of(self, options: Any, part: str, result: Any) -> Mapping[str, float]:
        """How much the layer has changed."""
        convergence = self._convergence.get(part)
        return {} if convergence is None else {f"{name}/{part}": n for name, n in convergence.scalars().items()}

    # Lightning's hooks.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begins anew."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._windows, self._tops, self._rule = {}, None, None
            self._evolutions, self._convergence, self._strongest = {}, {}, {}

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keeps no image."""
        super().teardown(trainer, pl_module, stage)
        self._tops = None

    def state_dict(self) -> dict[str, Any]:
        """Adds the evolution of the layers, and their strongest activations."""
        evolutions = {layer: evolution.state_dict() for layer, evolution in self._evolutions.items()}
        strongest = {layer: tuple(known) for layer, known in self._strongest.items()}
        return {**super().state_dict(), "evolutions": evolutions, "strongest": strongest, "rule": self._rule}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where a checkpoint left off."""
        super().load_state_dict(state_dict)
        self._evolutions = {
            layer: LayerEvolution.from_state_dict(state) for layer, state in state_dict["evolutions"].items()
        }
        # strips of before there was a choice go on as they began
        self._rule = state_dict.get("rule", "deconvnet" if self._evolutions else None)
        self._strongest = {layer: Strongest(*known) for layer, known in state_dict["strongest"].items()}


def _merged(parts: Sequence[TopActivations]) -> TopActivations:
    first, *others = parts
    for other in others:
        first.merge(other)
    return first
