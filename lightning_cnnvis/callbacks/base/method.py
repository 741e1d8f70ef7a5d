"""The callback that any method has: what its row says, at the chosen epochs, shared out over the processes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.callbacks.base.callback import VisualizationCallback
from lightning_cnnvis.callbacks.base.context import VisualizationContext
from lightning_cnnvis.callbacks.base.distributed import gather_results, own_share
from lightning_cnnvis.callbacks.base.fixed_images import FixedImages, ImagesWithFixed
from lightning_cnnvis.callbacks.base.interruption import stop_on_sigterm
from lightning_cnnvis.callbacks.base.own_images import OwnImages
from lightning_cnnvis.callbacks.base.run_images import validation_is_sure
from lightning_cnnvis.callbacks.base.run_page import RunPage
from lightning_cnnvis.evolution.strips import PictureColumn, PictureStrip
from lightning_cnnvis.functional.optimization.parameterizations import ImageStatistics
from lightning_cnnvis.functional.tensors import to_cpu
from lightning_cnnvis.inputs.batches import images_of
from lightning_cnnvis.layers import naming_layer
from lightning_cnnvis.methods.method import Drawings, Method, Parts
from lightning_cnnvis.methods.own_statistics import wants_own, with_statistics
from lightning_cnnvis.methods.registry import get_method
from lightning_cnnvis.methods.results import Animation
from lightning_cnnvis.methods.subject import Images
from lightning_cnnvis.viewer.content import NetworkLayer
from lightning_cnnvis.viewer.encode import About, encode, encode_network

_CALLBACKS: dict[str, type[MethodCallback]] = {}


class MethodCallback(VisualizationCallback):
    """Shows a method's pictures at the chosen epochs: that of any name, also one that was registered from outside.

    The package's own methods have subclasses with their options as arguments, such as `ClassVisualization`.

    Args:
        method: The method, or its name.
        options: The method's options by name; the defaults if None.
        **schedule: What every visualisation takes: ``epochs``, ``every_n_epochs``, ``seed``, ``input_spec``,
            ``on_error`` and more; see `VisualizationCallback`.

    Raises:
        MisconfigurationException: If there is no such method, or an option is out of range; before training starts, if
            the method cannot be used on the network.

    Examples:
        >>> callback = MethodCallback("dream", {"layers": ["relu2"]}, epochs=[1, 10])
    """

    method: Method[..., Any]
    """The method."""

    def __init_subclass__(cls, method: Method[..., Any] | None = None, **kwargs: Any) -> None:
        """Makes a subclass the callback of its method: ``class MeanImage(MethodCallback, method=MEAN_IMAGE)``."""
        super().__init_subclass__(**kwargs)
        if method is not None:  # not where a class is derived from one of a method
            cls.method, cls.name, cls.needs_output = method, method.tag, method.needs_output
            _CALLBACKS[method.name] = cls

    def __init__(
        self, method: str | Method[..., Any], options: Mapping[str, Any] | None = None, **schedule: Any
    ) -> None:
        try:
            self.method = get_method(method) if isinstance(method, str) else method
            self.options = self.method.options_from(options or {})
        except (ValueError, TypeError, AttributeError) as error:  # of a wrong type
            raise MisconfigurationException(str(error)) from error
        self.name, self.needs_output = self.method.tag, self.method.needs_output
        if "seed" in self.method.fields:
            schedule.setdefault("seed", self.options.seed)
            self.options = replace(self.options, seed=schedule["seed"])
        self._fixed = FixedImages(self.method.probes(self.options))
        self._own = OwnImages()
        self._parts: Parts = {}
        self._strips: dict[str, PictureStrip] = {}
        self._network_known = False  # to the viewer
        self._drawn: Drawings = {}  # of the part that is being shown
        self._page = RunPage()
        self._numbers: dict[str, float] = {}  # of the epoch that is being shown
        super().__init__(self._named_layers(), **schedule)

    def check(self, context: VisualizationContext) -> None:
        """Refuses what the method cannot show, and tries it out where that takes a moment."""
        options = self.options_in(context)
        self._parts = self.method.work(context, options)
        if self.method.trial is not None:
            trial, prepared = self.method.trial(context, options)
            for part, items in self._parts.items():
                with naming_layer(part) if part else nullcontext():
                    self.method.run(context, trial, part, items, prepared)

    def visualize(self, context: VisualizationContext) -> bool:
        """Runs the method, each process on its share of the items, and draws what came of it."""
        if wants_own(self.options):
            self._own.measure(context)
        options, shown = self.options_in(context), 0
        self._numbers = {}
        prepared = self._on_all(lambda: self.prepare(context, options, self._parts))
        for part, items in self._parts.items():
            stop_on_sigterm(context.trainer)
            if self._announcer is not None:
                self._announcer.part(part)
            with self.guarded(context.epoch, part or None):
                result = self.show_part(context, options, part, items, prepared)
                shown += result is not None
                if result is not None and self.viewer:
                    self._show_in_viewer(context, options, part, result)
                self._drawn = {}
        context.sinks.scalars(self._numbers, context.epoch, single=self.single_scalars)
        return shown > 0

    # What a subclass may override.

    def prepare(self, context: VisualizationContext, options: Any, parts: Parts) -> Any:
        """Finds what all parts of the method's work need; by default as the method itself does.

        Args:
            context: What to work on.
            options: The method's options.
            parts: The parts that are to be shown.

        Returns:
            What the method's ``run`` takes as ``prepared``.
        """
        return self.method.prepare(context, options, parts)

    def lasting_state(self) -> dict[str, Any]:
        """The statistics of the run's images, if they were asked for."""
        return self._own.state_dict()

    def know_statistics(self, statistics: ImageStatistics | None) -> None:
        """Settles what ``statistics="own"`` means, before any image is seen.

        Args:
            statistics: Those that a run has measured; None leaves it to be found out.
        """
        self._own.settle(statistics)

    def show_part(
        self, context: VisualizationContext, options: Any, part: str, items: Sequence[Any], prepared: Any
    ) -> Any:
        """Runs one part of the work, and gives its pictures and numbers to the sinks.

        Args:
            context: What to work on.
            options: The method's options.
            part: Name of the part.
            items: Its items.
            prepared: What `prepare` returned.

        Returns:
            The result of the part, the same on every process; None if there was nothing to show.
        """
        result = self._run(context, options, part, items, prepared)
        if result is None:
            return None
        drawn = self.method.draw(context, options, part, result, lambda shown: f"{shown} · epoch {context.epoch}")
        self._drawn = drawn
        for tag, drawing in drawn.items():
            if isinstance(drawing, Animation):
                context.sinks.animation(
                    self._tagged(tag), drawing.frames, context.epoch, seconds_per_frame=drawing.seconds_per_frame
                )
            else:
                context.sinks.picture(self._tagged(tag), drawing, context.epoch)
        for tag, value in self.method.scalars(options, part, result).items():
            own = tag.startswith(f"{self.method.tag}/")
            self._numbers[self._tagged(tag) if own else tag] = value
        for tag, table in self.method.tables(options, part, result).items():
            context.sinks.table(self._tagged(tag), table)
        for tag, lines in self.method.texts(options, part, result).items():
            context.sinks.text(self._tagged(tag), lines, context.epoch)
        for name, content in self.method.documents(options, part, result).items():
            context.sinks.document(self._tagged(name), content)
        self._show_strip(context, options, part, result)
        return result

    def evolution_of(self, part: str) -> Mapping[str, Any]:
        """What was gathered over the epochs about a part that has just been shown, as `evolutions`, for the viewer.

        Args:
            part: Name of the part.

        Returns:
            What the method's sections take; nothing by default.
        """
        return {}

    def numbers_of(self, options: Any, part: str, result: Any) -> Mapping[str, float]:
        """The numbers that the viewer draws of a part.

        Args:
            options: The method's options.
            part: Name of the part.
            result: What came of it.

        Returns:
            Numbers by tag; by default those of the method.
        """
        return self.method.scalars(options, part, result)

    # The rest.

    def options_in(self, context: VisualizationContext) -> Any:
        """The method's options, with the layers as the network calls them, and statistics that were measured."""
        options = with_statistics(self.options, self._own.statistics)
        layers = context.layers
        if layers is not None and getattr(options, "content_layer", None) is not None:
            options, layers = replace(options, content_layer=layers[-1]), layers[:-1] or None
        if "layers" in self.method.fields:
            return replace(options, layers=layers)
        if self._named_layers() is not None and context.layers is not None:
            return replace(options, layer=context.layers[0])
        return options

    def _named_layers(self) -> Sequence[str] | None:
        """The layers that the options name: several, or the one of a method that looks at one; a content layer last."""
        layer: str | None = getattr(self.options, "layer", None)
        layers: Sequence[str] | None = getattr(self.options, "layers", None if layer is None else [layer])
        content: str | None = getattr(self.options, "content_layer", None)
        return layers if content is None else [*(layers or ()), content]

    def _run(self, context: VisualizationContext, options: Any, part: str, items: Sequence[Any], prepared: Any) -> Any:
        run = partial(self.method.run, context, options, part)
        if self.method.merge is None:
            return self._on_all(lambda: to_cpu(run(items, prepared)))
        share = items[own_share(len(items))]
        results = gather_results(lambda: to_cpu(run(share, prepared)) if share else None)
        shares = [result for result in results if result is not None]
        return self.method.merge(shares) if len(shares) > 1 else shares[0] if shares else None

    @staticmethod
    def _on_all(work: Callable[[], Any]) -> Any:
        """Does work that is not shared out on every process; a failure on one is a failure on all."""
        results: list[Any] = []
        gather_results(lambda: results.append(work()))
        return results[0]

    @property
    def _who(self) -> str:
        own = type(self) is not MethodCallback
        return type(self).__name__ if own else f"MethodCallback of {self.method.name!r}"

    def _tagged(self, tag: str) -> str:
        """A tag of the method under the label of this callback, which differs between two of a method."""
        own = self.method.tag
        return self.label + tag[len(own) :] if tag.startswith((f"{own}/", f"{own}_")) else tag

    def _show_strip(self, context: VisualizationContext, options: Any, part: str, result: Any) -> None:
        column = self.method.strip(options, part, result)
        if column is None:
            return
        strip = self._strips.setdefault(part, PictureStrip())
        strip.add(PictureColumn(context.epoch, column.pictures, tuple(column.captions)))
        picture = figures.picture_strip(strip, column.labels, column.title, original=column.original, side=column.side)
        context.sinks.picture(self._tagged(column.tag), picture, context.epoch)

    def _show_in_viewer(self, context: VisualizationContext, options: Any, part: str, result: Any) -> None:
        """Gives the sections of a report on this part alone, as they are at this epoch, to what the viewer reads."""
        give = self._page.taking(context.sinks)
        if give is None:
            return
        peers: list[pl.Callback] = context.trainer.callbacks  # type: ignore[attr-defined]
        if not any(peer._network_known for peer in peers if isinstance(peer, MethodCallback)):
            self._network_known = True
            give(encode_network(_leaves(context)), context.epoch)
        # as they were shown a moment ago: drawing them again would double what they cost
        pictures = {tag: drawing for tag, drawing in self._drawn.items() if not isinstance(drawing, Animation)}
        whole = self.method.result(pictures, parts={part: result})
        numbers = self.numbers_of(options, part, result)
        for n, section in enumerate(self.method.sections(context, options, whole, self.evolution_of(part))):
            about = About(self.label, part, n, context.epoch, numbers if n == 0 else {}, self.method.plots)
            give(encode(section, about), context.epoch)

    def _images_of(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Images:
        return ImagesWithFixed(super()._images_of(trainer, pl_module), self._fixed)

    # Lightning's hooks.

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begins anew."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._parts, self._strips, self._fixed.taken, self._network_known = {}, {}, None, False
            self._own.forget()
            self._page = RunPage()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Takes the first images, if the method looks at some."""
        if not trainer.sanity_checking:
            self._take(trainer, partial(images_of, batch, self.get_images))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Takes the first images if no validation is sure to come before they are needed."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if wants_own(self.options) and self._own.wanted:
            with self.guarded(trainer.current_epoch + 1), suppress(ValueError):  # a batch without images
                self._own.take(images_of(batch, self.get_images))
        if self._observation is None and self._needs_a_training_batch(trainer):
            self._take(trainer, partial(images_of, batch, self.get_images))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes the first images of the first batch, once it is known what the network makes of them."""
        first = self._observation
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if first is not None and self._needs_a_training_batch(trainer):
            self._take(trainer, lambda: first.images)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives the loggers that take one a page of all that the run has shown; the first of its callbacks does."""
        super().on_fit_end(trainer, pl_module)
        every: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        peers = [peer for peer in every if isinstance(peer, MethodCallback)]
        if peers[0] is self:
            with self.guarded(trainer.current_epoch), self._sinks as sinks:
                RunPage.of([peer._page for peer in peers]).give(sinks, type(pl_module).__name__)

    def _needs_a_training_batch(self, trainer: pl.Trainer) -> bool:
        sure = not self._fixed.wanted or validation_is_sure(trainer)
        return not sure and self.scheduled(trainer.current_epoch + 1, trainer)

    def _take(self, trainer: pl.Trainer, find: Callable[[], Tensor]) -> None:
        if self._fixed.wanted and self._spec is not None and trainer.state.fn == "fit":
            with self.guarded(trainer.current_epoch + 1):
                self._fixed.take(self._batch_spec or self._spec, self._spec, find)

    def state_dict(self) -> dict[str, Any]:
        """Adds the strips, the images that were taken, and the statistics that were measured."""
        strips = {part: strip.state_dict() for part, strip in self._strips.items()}
        # that of a method with one part has a key of its own
        whole = strips.pop("", PictureStrip().state_dict())
        state = {**super().state_dict(), **self.lasting_state()}
        return {**state, "strip": whole, "strips": strips, "probes": self._fixed.taken}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up where a checkpoint left off."""
        super().load_state_dict(state_dict)
        strips = {"": state_dict["strip"], **state_dict["strips"]}
        known = {part: PictureStrip.from_state_dict(state) for part, state in strips.items()}
        self._strips = {part: strip for part, strip in known.items() if strip.columns}
        self._fixed.taken = state_dict["probes"]
        self._own.load_state_dict(state_dict)


def _leaves(context: VisualizationContext) -> list[NetworkLayer]:
    """The modules that do something themselves, in the order in which they run."""
    calls, _ = context.calls()
    modules = dict(context.network.named_modules())
    return [
        NetworkLayer(name, type(modules[name]).__name__, tuple(call.shape or ()))
        for name, call in calls.items()
        if name in modules and not any(modules[name].children())
    ]


def callback_class(method: str | Method[..., Any]) -> type[MethodCallback]:
    """Finds the class of callbacks that show a method.

    Args:
        method: The method, or its name.

    Returns:
        The method's own class. For a method that has none, a class is made: ``MeanImage`` for ``"mean_image"``, whose
        arguments are the method's options and what every visualisation takes.

    Raises:
        ValueError: If there is no such method.

    Examples:
        >>> callback_class("classes").__name__
        'ClassVisualization'
    """
    row = get_method(method) if isinstance(method, str) else method
    if row.name not in _CALLBACKS or _CALLBACKS[row.name].method is not row:

        def __init__(self: MethodCallback, **options: Any) -> None:  # noqa: N807 - it becomes one
            general = inspect.signature(VisualizationCallback).parameters.keys() - {"layers"}
            schedule = {name: options.pop(name) for name in list(options) if name in general}
            MethodCallback.__init__(self, row, options, **schedule)

        def __reduce__(self: MethodCallback) -> tuple[Any, ...]:  # noqa: N807 - it becomes one
            return _remade, (self.method, self.__dict__)

        name = "".join(word.capitalize() for word in row.name.split("_"))
        attributes = {
            "__init__": __init__,
            "__reduce__": __reduce__,
            "__doc__": row.options.__doc__,
            "__module__": row.run.__module__,
            "__signature__": _signature(row),
        }
        _CALLBACKS[row.name] = type(name, (MethodCallback,), attributes, method=row)
    return _CALLBACKS[row.name]


def _signature(row: Method[..., Any]) -> inspect.Signature:
    """The method's options, then what every visualisation takes; all by name."""
    every = inspect.signature(VisualizationCallback).parameters | inspect.signature(row.options).parameters
    return inspect.Signature([one.replace(kind=one.KEYWORD_ONLY) for one in every.values()])


def _remade(row: Method[..., Any], state: dict[str, Any]) -> MethodCallback:
    callback = object.__new__(callback_class(row))
    callback.__dict__.update(state)
    return callback


def callback_of(method: str | Method[..., Any], **options: Any) -> MethodCallback:
    """Makes a callback that shows a method.

    Args:
        method: The method, or its name.
        **options: Arguments of its class. Layers and a seed are left out where the method has none.

    Returns:
        The callback.

    Raises:
        ValueError: If there is no such method.
        MisconfigurationException: If an option is out of range.

    Examples:
        >>> type(callback_of("classes", steps=8)).__name__
        'ClassVisualization'
    """
    row = get_method(method) if isinstance(method, str) else method
    without = {"layers", "seed"} - row.fields
    return callback_class(row)(**{name: value for name, value in options.items() if name not in without})
