"""What every visualisation callback shares: when to run, on what, under which guard, and at what cost."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lightning_cnnvis.accelerators import empty_cache, synchronize
from lightning_cnnvis.callbacks.base.announcing import Announcer, announcing
from lightning_cnnvis.callbacks.base.context import VisualizationContext
from lightning_cnnvis.callbacks.base.distributed import gather_results
from lightning_cnnvis.callbacks.base.failure import is_refusal, warn_of_failure
from lightning_cnnvis.callbacks.base.interruption import stop_on_sigterm
from lightning_cnnvis.callbacks.base.observation import Observation, has_several_labels, learn_formats
from lightning_cnnvis.callbacks.base.overhead import Pace
from lightning_cnnvis.callbacks.base.run_images import RunImages
from lightning_cnnvis.callbacks.base.schedule import Schedule
from lightning_cnnvis.callbacks.base.target import (
    builds_late,
    find_input,
    find_target,
    is_compiled,
    refuse_sharded_weights,
)
from lightning_cnnvis.callbacks.base.timing import CostAccount
from lightning_cnnvis.functional.optimization.progress import listening
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.inputs.batches import images_of
from lightning_cnnvis.isolation import check_has_values, isolated
from lightning_cnnvis.layer_patterns import ALL
from lightning_cnnvis.methods.subject import Images
from lightning_cnnvis.sinks import Sinks

__all__ = ["VisualizationCallback", "VisualizationContext"]


class VisualizationCallback(pl.Callback):
    """Base of the callbacks that show what a network has learnt, without changing what it learns.

    It decides when to run, finds the network and what its input looks like, runs `visualize` on a copy of the network
    that shares its weights (see `lightning_cnnvis.isolation.isolated`), turns a failure into a warning, and keeps
    account of the time. A subclass says what to show:

    - `visualize` makes the pictures of an epoch and gives them to ``context.sinks``;
    - `check` may refuse settings before the first training step;
    - `name` is the first part of its tags. Use ``self.label``, which differs between two callbacks of a class.

    It stores its constructor's arguments as public attributes of the same names, since they make up the key of
    its state in checkpoints, and anything else as private ones. State that must survive goes into `state_dict`:
    tensors and builtins only. Hooks of its own that do more than bookkeeping run inside `guarded`.

    Args:
        layers: Dotted names of the layers, relative to the network or to the LightningModule, and patterns, such as
            ``"layer*.1"``; or ``"all"``. None leaves the choice to the callback.
        epochs: Epochs after which to visualise, counted from 1. By default 1, 2, 5, 10, 20, 30, 40 and 64. The
            last epoch is always shown too, also when training stops early.
        every_n_epochs: Visualise after every n-th epoch instead.
        seed: Seed of the callback's own random generators.
        input_spec: What the network's input looks like. By default found out from the data module or the
            data set.
        on_error: ``"warn"`` turns a failure into a warning: the training goes on and the next scheduled epoch
            tries again. ``"raise"`` lets it through.
        max_overhead: Largest share of the training time that all visualisations together may take. Above it,
            a callback that has had more than its equal part of that share is put off, to the first epoch at which the
            share is small enough again. The first `free_seconds` of all, and of each callback the first epoch and the
            last, are exempt. None: no limit.
        network: Dotted name of the LightningModule's attribute that holds the network. By default its only
            child with parameters if there is one that holds them all, else the LightningModule itself.
        get_images: How to get the images out of a batch that is neither a tensor, nor a sequence or dict with
            them: a function, or its dotted name, ``"package.module.function"``.
        viewer: Whether to write what the tab in TensorBoard shows, beside the pictures. It costs little.
        single_scalars: Whether loggers get the numbers of each layer, class and image, in place of their means.

    Attributes:
        optional: Whether what cannot be shown of the network is left out with a warning, and is not an error before the
            first training step. False, but for what `visualizations` chooses itself.

    Raises:
        MisconfigurationException: If an argument makes no sense, or both ``epochs`` and ``every_n_epochs`` are
            given.

    Examples:
        >>> class WeightPicture(VisualizationCallback):
        ...     name = "weights"
        ...
        ...     def visualize(self, context):
        ...         weight = next(context.network.parameters()).detach().flatten(1)
        ...         grey = (255 * weight.sigmoid()).byte()[..., None].expand(-1, -1, 3)
        ...         context.sinks.picture(f"{self.label}/first", grey.cpu().numpy(), context.epoch)
        >>> callback = WeightPicture(every_n_epochs=5)  # goes into Trainer(callbacks=[...])
    """

    name: str = "visualization"
    """First part of the tags, and the callback's name in ``cnnvis/seconds/<name>``."""

    free_seconds: ClassVar[float] = 60.0
    """Visualisations that took no longer than this in all are never put off: a run of a few minutes should
    show its first epochs."""

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        *,
        epochs: Sequence[int] | None = None,
        every_n_epochs: int | None = None,
        seed: int = 0,
        input_spec: InputSpec | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        max_overhead: float | None = 0.1,
        network: str | None = None,
        get_images: str | Callable[[Any], Tensor] | None = None,
        viewer: bool = True,
        single_scalars: bool = False,
    ) -> None:
        super().__init__()
        if layers == ALL:
            layers = [ALL]
        if isinstance(layers, str):
            raise MisconfigurationException(f"layers={layers!r} is one name, not a list: give layers=[{layers!r}].")
        if on_error not in {"warn", "raise"}:
            raise MisconfigurationException(f"on_error={on_error!r} must be 'warn' or 'raise'.")
        if max_overhead is not None and not 0 <= max_overhead <= 1:
            raise MisconfigurationException(
                f"max_overhead={max_overhead} must be a share from 0 to 1, or None for no limit."
            )
        self._schedule = Schedule(epochs, every_n_epochs)
        self.layers = None if layers is None else tuple(layers)
        self.epochs = None if epochs is None else tuple(epochs)
        self.every_n_epochs = every_n_epochs
        self.seed = seed
        self.input_spec = input_spec
        self.batch_spec: InputSpec | None = None  # that of a training which is drawn again
        self.on_error = on_error
        self.max_overhead = max_overhead
        self.network = network
        self.get_images = get_images
        self.viewer = viewer
        self.single_scalars = single_scalars
        self.optional = False
        self._reset()

    def _reset(self) -> None:
        self.label = self.name
        self._shown: list[int] = []
        self._cost = CostAccount()
        self._pace = Pace(type(self).__name__, self._schedule, self.max_overhead, self.free_seconds)
        self._completed: int | None = None  # last epoch that ended, in this run
        self._tried: int | None = None  # last epoch that was visualised or failed to be
        self._overhead_grew = False  # since it was last logged
        self._announcer: Announcer | None = None  # while something is shown
        self._resumed = False
        self._check_passed = False
        self._left_out = False  # since it cannot be shown of the network
        self._sinks = Sinks()
        self._spec: InputSpec | None = None
        self._batch_spec: InputSpec | None = None  # known once the network was seen at work
        self._observation: Observation | None = None
        self._target: tuple[nn.Module, tuple[str, ...] | None] | None = None

    # What a subclass overrides.

    def check(self, context: VisualizationContext) -> None:
        """Refuses, before the first training step, settings that cannot work. Isolated like `visualize`.

        A ValueError or MisconfigurationException stops the run, whatever ``on_error`` says, unless the network raised
        it in its forward pass. Every rank calls it.

        Args:
            context: What the visualisations will work on; ``epoch`` is the first one to be trained.
        """

    def visualize(self, context: VisualizationContext) -> bool | None:
        """Makes the pictures of an epoch.

        Every rank calls it, in the same epochs; only rank 0 has sinks that write. The network is in eval mode,
        gradients are enabled, autocast and ``torch.compile`` are off.

        Args:
            context: What to work on.

        Returns:
            False if every part failed inside a guard of its own, so that there is nothing to see.
        """

    # What other callbacks, and what comes after the training, use.

    needs_output: bool = False
    """Whether weights that end before the network does are of no use to it."""

    @property
    def evolutions(self) -> Mapping[str, Any]:
        """What was gathered over the epochs, by layer: what a report shows beside the method's result."""
        return {}

    def lasting_state(self) -> dict[str, Any]:
        """What was measured once, and what `VisualizationCheckpoint` keeps beside the weights: tensors and builtins."""
        return {}

    def show_at(self, epochs: Sequence[int]) -> None:
        """Settles which epochs are shown, whatever was asked for and whatever it costs; call it before `setup`.

        Args:
            epochs: The epochs, counted from 1.
        """
        self._schedule = Schedule(epochs)
        self.max_overhead = None

    # What a subclass uses.

    def scheduled(self, epoch: int, trainer: pl.Trainer) -> bool:
        """Whether an epoch will be visualised.

        The answer for an epoch is found once and then kept, so that preparations at the start of the
        validation match. Every rank must ask, since the ranks agree on it.

        Args:
            epoch: The epoch, counted from 1.
            trainer: The trainer.

        Returns:
            True if the epoch is in the schedule, or is the last one, or makes up for one that was put off.
            False outside of ``fit`` and in the sanity check.
        """
        if trainer.state.fn != "fit" or trainer.sanity_checking or self._left_out:
            return False
        peers = [peer._cost for peer in _peers(trainer)]
        return self._pace.due(epoch, trainer, self._cost, peers, first=not self._shown and self._tried is None)

    @contextmanager
    def guarded(self, epoch: int, layer: str | None = None) -> Iterator[None]:
        """Counts the body's time as the callback's, and treats its exceptions as ``on_error`` says.

        `visualize` runs inside one. Open another for each layer to let the other layers live when one fails,
        and one in every hook that works on the model. ``KeyboardInterrupt`` and ``SystemExit`` always pass.

        Args:
            epoch: The epoch under way, counted from 1; for the warning.
            layer: The layer worked on; for the warning.

        Yields:
            Nothing.
        """
        with self._cost.counted():
            try:
                yield
            except Exception as error:
                if self.on_error == "raise":
                    raise
                warn_of_failure(self._who, error, epoch, layer, self._pace.next_try(epoch))

    # Lightning's hooks.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuses strategies that shard the weights, and unknown layers."""
        if stage != "fit":
            return
        self._reset()
        alike = [peer for peer in _peers(trainer) if peer.name == self.name]
        if self in alike[1:]:
            self.label = f"{self.name}-{alike.index(self) + 1}"
        refuse_sharded_weights(trainer, type(self).__name__)
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            self._pace.last_epoch = trainer.max_epochs
        if not builds_late(pl_module):
            self._find_target(pl_module)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock; finds the network, the folder, and the input if it is known by now; then checks."""
        self._cost.start()
        self._target = self._find_target(pl_module)
        try:
            check_has_values(self._target[0])  # only now: some strategies make the values
        except ValueError as error:
            raise MisconfigurationException(f"{self._who}: {error}") from error
        self._sinks = Sinks.of(trainer)
        known = getattr(getattr(trainer, "datamodule", None), "input_spec", None)
        known = known if isinstance(known, InputSpec) else None
        if self._batch_spec is None or known not in (None, self._batch_spec):
            self._spec, self._batch_spec = known or self._spec, None
        self._spec, self._batch_spec = self.input_spec or self._spec, self._batch_spec or self.batch_spec
        if self._spec is not None:
            self._check(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Makes up for an epoch whose checkpoint was written before its pictures."""
        # An epoch that is done and that Lightning will not come back to: its weights are the ones that were loaded.
        progress: Any = trainer.fit_loop.epoch_progress.current
        epoch, done = progress.processed, progress.processed == progress.ready
        if self._resumed and self._spec is not None and done and epoch and not self._pace.put_off:
            self._show_if_due(trainer, pl_module, epoch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Finds out from the first batch what the input looks like, if that is still unknown; then checks."""
        if self._spec is None:
            self._spec = find_input(trainer, batch, self.get_images, type(self).__name__)
            self._check(trainer, pl_module)
        if self._batch_spec is None and self._target is not None and not is_compiled(pl_module):
            with self.guarded(trainer.current_epoch + 1), suppress(ValueError):  # a batch without images
                self._observation = Observation(self._target[0], images_of(batch, self.get_images))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Finds out from the first batch what the network is really fed."""
        if self._observation is not None:
            observation = self._observation
            self._stop_observing()
            with self.guarded(trainer.current_epoch + 1):
                self._learn_from(observation, trainer, pl_module, batch)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Visualises after the last validation of a scheduled epoch: its checkpoints come next, and hold the result."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and trainer.is_last_batch:
            self._show_if_due(trainer, pl_module, trainer.current_epoch + 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Visualises if the epoch is scheduled, and was not shown after its last validation."""
        self._completed = trainer.current_epoch + 1
        self._show_if_due(trainer, pl_module, self._completed)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Visualises the last epoch if training stopped before its scheduled end; says what was spent."""
        if self._completed is not None:
            if not self._left_out and self._completed not in {self._tried, *self._shown}:
                self._show(trainer, pl_module, self._completed)
            self._log_overhead(trainer, self._completed)
        if self._tried is not None:
            where = f"; pictures in {self._sinks.folder}" if self._sinks.folder else ""
            rank_zero_info(f"{self._who}: {self._cost.summary(len(self._shown))}{self._excuse()}{where}")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leaves no hook behind."""
        self._stop_observing()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leaves no hook behind."""
        self._stop_observing()

    @property
    def state_key(self) -> str:
        """Differs between two callbacks of one class with different arguments."""
        arguments = {
            key: _stable(value)
            for key, value in vars(self).items()
            if not key.startswith("_") and key not in _NOT_ARGUMENTS
        }
        return self._generate_state_key(**arguments)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: tensors and builtins only. Subclasses add to it."""
        return {
            "shown": list(self._shown),
            **self._cost.state_dict(),
            **self._pace.state_dict(),
            "input_spec": None if self._spec is None else asdict(self._spec),
            "batch_spec": None if self._batch_spec is None else asdict(self._batch_spec),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where a checkpoint left off."""
        self._resumed = True
        self._shown = list(state_dict["shown"])
        self._cost.load_state_dict(state_dict)
        self._pace.load_state_dict(state_dict)
        self._spec, self._batch_spec = (
            None if state_dict.get(name) is None else InputSpec(**state_dict[name])
            for name in ("input_spec", "batch_spec")
        )

    # The rest.

    def _excuse(self) -> str:
        """Why more than ``max_overhead`` was spent, in words; empty if it was not, or if there is no limit."""
        share = self._cost.seconds / self._cost.elapsed
        if self.max_overhead is None or share <= self.max_overhead:
            return ""
        return (
            f" (more than max_overhead={self.max_overhead}: the first {self.free_seconds:.0f} s of all visualisations, "
            "the first epoch of each and the last, are shown whatever they cost)"
        )

    @property
    def _who(self) -> str:
        """The name of this callback in messages."""
        return type(self).__name__

    def _find_target(self, pl_module: pl.LightningModule) -> tuple[nn.Module, tuple[str, ...] | None]:
        return find_target(pl_module, self.network, self.layers, type(self).__name__)

    def _stop_observing(self) -> None:
        if self._observation is not None:
            self._observation.end()
            self._observation = None

    def _learn_from(
        self, observation: Observation, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any
    ) -> None:
        """Corrects the format of the input, or that of the batches, by what the network was fed."""
        assert self._spec is not None
        known = self._spec

        def formats() -> tuple[InputSpec, InputSpec]:
            spec, batch_spec = learn_formats(observation, known, of_input=self.input_spec is not None)
            several = spec.output_kind is None and has_several_labels(pl_module, batch)
            return replace(spec, output_kind="sigmoid") if several else spec, batch_spec

        # the processes see different images
        self._spec, self._batch_spec = gather_results(formats)[0]
        if self._spec.shape != known.shape:
            self._check(trainer, pl_module)

    @contextmanager
    def _isolated(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int
    ) -> Iterator[VisualizationContext]:
        """Yields what to work on: a copy of the network, and the run."""
        assert self._target is not None
        trained, _ = self._target
        with announcing(trainer, self._who) as announcer:

            def listen(done: int, total: int) -> None:
                stop_on_sigterm(trainer)
                announcer.step(done, total)

            self._announcer = announcer
            try:
                with listening(listen), isolated(trained, within=pl_module) as network:
                    yield self._context(trainer, pl_module, epoch, network)
            finally:
                self._announcer = None

    def _context(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int, network: nn.Module
    ) -> VisualizationContext:
        assert self._target is not None
        assert self._spec is not None
        trained, layers = self._target
        context = VisualizationContext(
            network=network,
            trained=trained,
            input_spec=self._spec,
            trainer=trainer,
            pl_module=pl_module,
            layers=layers,
            device=pl_module.device,
            epoch=epoch,
            sinks=self._sinks,
            run_images=self._images_of(trainer, pl_module),
            batch_spec=self._batch_spec,
        )
        return context if layers is None else replace(context, layers=tuple(context.expanded(layers)))

    def _images_of(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Images:
        return RunImages(trainer, pl_module.device, self.get_images, self._batch_spec)

    def _check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        refusal: Exception | None = None
        with self.guarded(epoch), self._isolated(trainer, pl_module, epoch) as context:
            try:
                self.check(context)
                self._check_passed = True
            except Exception as error:
                if not is_refusal(error):
                    raise
                refusal = error
        if refusal is not None and self.optional:
            self._left_out = True
            rank_zero_warn(f"{self._who} is left out: {refusal}")
            return
        if isinstance(refusal, MisconfigurationException):
            raise refusal
        if refusal is not None:
            raise MisconfigurationException(f"{self._who}: {refusal}") from refusal

    def _show_if_due(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        if epoch not in {self._tried, *self._shown} and self.scheduled(epoch, trainer):
            self._show(trainer, pl_module, epoch)
        self._log_overhead(trainer, epoch)

    def _show(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        self._tried = epoch
        if trainer.should_stop:
            self._pace.last_epoch = epoch
        synchronize(pl_module.device)  # what training has queued is not on our bill
        with self.guarded(epoch), self._sinks as sinks:
            with self._isolated(trainer, pl_module, epoch) as context:
                if not self._check_passed:  # which failed, of no fault of the settings, and settles what is shown
                    self.check(context)
                    self._check_passed = True
                something = self.visualize(context) is not False
            if something:
                self._shown.append(epoch)
            sinks.scalar(f"cnnvis/seconds/{self.label}", self._cost.report(), epoch)
        self._overhead_grew = True
        if pl_module.device.type != "cpu":
            empty_cache()

    def _log_overhead(self, trainer: pl.Trainer, epoch: int) -> None:
        """Logs what all visualisations have cost, once the last of them has had its turn: one point an epoch."""
        peers = _peers(trainer)
        if self is peers[-1] and any(peer._overhead_grew for peer in peers):
            for peer in peers:
                peer._overhead_grew = False
            spent = sum(peer._cost.seconds for peer in peers)
            with self.guarded(epoch), self._sinks as sinks:
                sinks.scalar("cnnvis/overhead", spent / self._cost.elapsed, epoch)


_NOT_ARGUMENTS = {
    "batch_spec",
    "label",
    "max_overhead",
    "method",
    "needs_output",
    "on_error",
    "optional",
    "single_scalars",
    "viewer",
}
"""Attributes that do not tell what a callback shows."""


def _peers(trainer: pl.Trainer) -> list[VisualizationCallback]:
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, VisualizationCallback)]


def _stable(value: object) -> object:
    """Something whose repr tells the value, and is the same in every process."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {zlib.crc32(value.detach().cpu().contiguous().numpy().tobytes())}"
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, {field.name: _stable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _stable(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_stable(held) for held in value]
    if value is None or isinstance(value, (str, int, float, Path)):
        return value
    return getattr(value, "__qualname__", None) or type(value).__qualname__
