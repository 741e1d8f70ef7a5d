"""One row a method: its name, its options, how it runs, how its result is drawn, which numbers it gives."""

from __future__ import annotations

import importlib
import inspect
import keyword
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from types import UnionType
from typing import (
    Any,
    Generic,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from torch import Tensor

from lightning_cnnvis.methods.registry import get_method
from lightning_cnnvis.methods.results import Animation, Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.pictures import Picture
from lightning_cnnvis.viewer.content import Gallery, Section, Tile

P = ParamSpec("P")
R = TypeVar("R", bound=Result)

Parts = Mapping[str, Sequence[Any]]
"""The parts of a method's work by name, such as a layer's, and the items of each, such as its feature maps."""

Title = Callable[[str], str]
"""Makes the title of a picture from what it shows: adds the epoch or the network's name."""

Drawings = Mapping[str, "Picture | Animation"]
"""Pictures and animations by tag. Tags begin with the method's own."""


class Strip(NamedTuple):
    """One epoch of pictures that are set side by side over the epochs.

    Attributes:
        tag: Tag of the strip.
        title: Title of the strip.
        labels: What each row shows.
        pictures: ``(R, 3, h, w)``, ``uint8``, one a row; small, since checkpoints keep them.
        captions: The line above each picture.
        original: ``(C, H, W)`` in [0, 1], the image that all rows were made from, if there is one.
        side: Length of a tile's longer side in pixels.
    """

    tag: str
    title: str
    labels: Sequence[str]
    pictures: Tensor
    captions: Sequence[str]
    original: Tensor | None = None
    side: int = 96


class ScalarPlot(NamedTuple):
    """The plot of a number over the epochs.

    Attributes:
        title: The title.
        note: A sentence on how to read it.
        settles: Whether it is near 1 where a layer has settled.
    """

    title: str
    note: str = ""
    settles: bool = False


class Looks(Protocol):
    """Whatever methods can be called on: it runs a method with options."""

    def look(self, method: Method[..., R], options: Any) -> R:
        """Runs the method."""


class BoundMethod(Generic[P, R]):
    """A method of an object that runs methods; its signature and its docstring are those of the method's options.

    Args:
        method: The method.
        owner: The object that runs it.
    """

    def __init__(self, method: Method[P, R], owner: Looks) -> None:
        self.method = method
        self.owner = owner
        self.__name__ = self.__qualname__ = method.name
        self.__doc__ = inspect.getdoc(method.options)
        self.__signature__ = inspect.signature(method.options).replace(return_annotation=method.result)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the method with its options."""
        given = inspect.signature(self.method.options).bind(*args, **kwargs).arguments
        return self.owner.look(self.method, self.method.options_from(given))

    def __repr__(self) -> str:
        """The signature."""
        return f"{self.__name__}{self.__signature__}"


class MethodAttribute(Generic[P, R]):
    """An attribute of a class by which its objects run a method.

    Args:
        method: The method.
    """

    def __init__(self, method: Method[P, R]) -> None:
        self.method = method

    @overload
    def __get__(self, owner: None, kind: type | None = None) -> Method[P, R]: ...
    @overload
    def __get__(self, owner: Looks, kind: type | None = None) -> BoundMethod[P, R]: ...
    def __get__(self, owner: Looks | None, kind: type | None = None) -> Method[P, R] | BoundMethod[P, R]:
        """The method, or the method of an object; that which has taken its place, if another was registered."""
        method: Any = get_method(self.method.name)
        return method if owner is None else BoundMethod(method, owner)


RESERVED_OPTIONS = frozenset(
    ("checkpoint", "model", "data", "output", "device", "trust", "config", "input_size", "mean", "std", "help")
)
"""Names of flags that every command has."""


def dataclass_in(hint: Any) -> Any:
    """The dataclass that an option of this type holds, if it holds nothing else but None."""
    union = get_origin(hint) in {Union, UnionType}  # a list of dataclasses is none
    kinds = [kind for kind in (get_args(hint) if union else (hint,)) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and is_dataclass(kinds[0]) else None


def _method_of(module: str, name: str) -> Method[..., Any]:
    if module != "__main__":
        importlib.import_module(module)  # registers it
    return get_method(name)


def _nothing_prepared(subject: Subject, options: Any, parts: Parts) -> None:
    return None


@dataclass(frozen=True, eq=False)
class Method(Generic[P, R]):
    """A method of looking at a network: a row of the registry, from which all that can be done with it follows.

    These are a callback, a method of `Analysis`, a command with its flags and help page, the choices of ``evolve`` and
    of the report. The functions are pure: they work on what they are given, leave the network as it was, and write
    nothing. ``subject`` is a `Subject`, ``options`` an instance of the method's dataclass.

    Args:
        name: Name in Python and on the command line, an identifier.
        tag: First part of the tags of its pictures.
        summary: What it does, a sentence in the imperative. As a rule the docstring of its module, whose first line is
            taken.
        options: A frozen dataclass. Its docstring is that of the method, and its ``Args`` are the help of the flags. A
            field ``layers``, or ``layer`` where there is one, is given the names that the user chose; ``seed``,
            ``steps``, ``k`` and ``num_channels`` mean the same in every method.
        parts: ``(subject, options)`` -> the work by parts. Each part is shown on its own, and fails on its own; a
            method that shows one picture of everything has one part, ``""``. The items of a part are shared out over
            the processes of a run. Refuses what cannot be shown with a ValueError.
        run: ``(subject, options, part, items, prepared)`` -> the result of these items of a part.
        draw: ``(subject, options, part, result, title)`` -> pictures and animations by tag.
        merge: Puts the results of several shares of a part together, in order. Left out, a part is not shared out.
        prepare: ``(subject, options, parts)`` -> what all parts need, such as the images.
        trial: ``(subject, options)`` -> quick options and what `prepare` would give, to try the settings out with
            before a training; None: `parts` finds out all that can be wrong.
        scalars: ``(options, part, result)`` -> numbers by tag.
        tables: ``(options, part, result)`` -> tables by tag, the lines of CSV files. A later epoch's takes the place of
            an earlier one's.
        texts: ``(options, part, result)`` -> sentences by tag, the first of which sums the others up. Loggers show
            them, a command prints them.
        documents: ``(options, part, result)`` -> files of text by name, with the suffix, such as JSON.
        verdict: ``(options, result)`` -> why a command should end with status 1; empty if it should not.
        plots: What the numbers are called in plots over the epochs, and how to read them, by the first part of their
            tags.
        error: First part of the tags of an error that is set against the accuracy; empty if there is none.
        measured: ``state`` -> numbers by tag and epoch that the state of a callback in a checkpoint holds.
        strip: ``(options, part, result)`` -> the pictures to set side by side over the epochs; None: no strip.
        probes: ``options`` -> how many images of the data it is shown at every epoch; they stay the same.
        result: What `Analysis` returns: `Result`, or a subclass that gives names to what is in it.
        section: ``(subject, options, result, evolutions)`` -> the sections of a report; by default all pictures.
        report: The options that differ in a report; None leaves the method out.
        evolve: The options with which ``evolve`` and ``report`` show it over the epochs of a run that did not; None: it
            must be asked for.
        training: The options with which `visualizations`, and the command ``fit``, show it during a training; None: it
            must be asked for.
        refuse_layer: ``(network, layer, image)``: raises a ValueError that says why the method cannot be used on a
            layer.
        suits: ``(subject, layer)`` -> whether the method is for such a layer. A report on layers that it is not for
            leaves it out.
        needs_output: Whether weights that end before the network does are of no use to it.

    Examples:
        See "Add a method" in CONTRIBUTING.md.
    """

    name: str
    tag: str
    summary: str
    options: Callable[P, Any]
    parts: Callable[[Subject, Any], Parts]
    run: Callable[[Subject, Any, str, Sequence[Any], Any], Any]
    draw: Callable[[Subject, Any, str, Any, Title], Drawings]
    merge: Callable[[Sequence[Any]], Any] | None = None
    prepare: Callable[[Subject, Any, Parts], Any] = _nothing_prepared
    trial: Callable[[Subject, Any], tuple[Any, Any]] | None = None
    scalars: Callable[[Any, str, Any], Mapping[str, float]] = lambda options, part, result: {}
    tables: Callable[[Any, str, Any], Mapping[str, str]] = lambda options, part, result: {}
    texts: Callable[[Any, str, Any], Mapping[str, Sequence[str]]] = lambda options, part, result: {}
    documents: Callable[[Any, str, Any], Mapping[str, str]] = lambda options, part, result: {}
    verdict: Callable[[Any, Any], str] = lambda options, result: ""
    plots: Mapping[str, ScalarPlot] = field(default_factory=dict)
    error: str = ""
    measured: Callable[[Mapping[str, Any]], Mapping[str, Mapping[int, float]]] = lambda state: {}
    strip: Callable[[Any, str, Any], Strip | None] = lambda options, part, result: None
    probes: Callable[[Any], int] = lambda options: 0
    result: type[R] = field(default=Result)  # type: ignore[assignment]
    section: Callable[[Subject, Any, Any, Mapping[str, Any]], Sequence[Section]] | None = None
    report: Mapping[str, Any] | None = field(default_factory=dict)
    evolve: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None
    refuse_layer: Callable[[Any, str, Tensor], None] | None = None
    suits: Callable[[Subject, str], bool] = lambda subject, layer: True
    needs_output: bool = False

    def __post_init__(self) -> None:
        """Checks the name, and takes the first line of the summary."""
        if not self.name.isidentifier() or keyword.iskeyword(self.name) or self.name.startswith("_"):
            raise ValueError(f"name={self.name!r} is not a public identifier. Python and the command line need one.")
        if not self.tag or "/" in self.tag:
            raise ValueError(f"tag={self.tag!r} is not the first part of a tag. Choose a word.")
        taken = sorted(self.fields & RESERVED_OPTIONS)
        if taken:
            raise ValueError(f"The option {taken[0]!r} of {self.name!r} is one that every command has. Rename it.")
        object.__setattr__(self, "summary", self.summary.strip().partition("\n")[0].rstrip("."))

    @property
    def fields(self) -> frozenset[str]:
        """The names of its options."""
        return frozenset(inspect.signature(self.options).parameters)

    def options_from(self, given: Mapping[str, Any]) -> Any:
        """Its options from a mapping, in which the name of one layer may stand for a list of it.

        Args:
            given: Values by name.

        Returns:
            The options.

        Raises:
            ValueError: If it has no option of a name, or a value is out of range.
        """
        hints = get_type_hints(self.options)
        values = dict(given)
        for name, value in given.items():
            kind = dataclass_in(hints.get(name))
            if kind is not None and isinstance(value, Mapping):  # as a YAML file has it
                values[name] = kind(**value)
            if name == "layers" and isinstance(value, str):
                values[name] = [value]
            if name not in self.fields:
                known = ", ".join(sorted(self.fields))
                raise ValueError(f"{name}={value!r} is not an option of {self.name!r}. It has {known}.")
        return self.options(**values)  # type: ignore[call-arg]

    def options_of(self, known: Mapping[str, Any]) -> Any:
        """Its options, with those values that it has a field for.

        Args:
            known: Values by name.

        Returns:
            The options.

        Raises:
            ValueError: If a value is out of range.
        """
        return self.options(**{name: value for name, value in known.items() if name in self.fields})  # type: ignore[call-arg]

    def work(self, subject: Subject, options: Any) -> Parts:
        """The parts of the work that have items.

        Args:
            subject: What to look at.
            options: How.

        Returns:
            The items by part.

        Raises:
            ValueError: If there is nothing to show.
        """
        parts = {part: items for part, items in self.parts(subject, options).items() if len(items)}
        if not parts:
            raise ValueError(f"There is nothing to show of {type(subject.network).__name__}. Name layers or classes.")
        return parts

    def __reduce__(self) -> tuple[Any, ...]:
        """Travels to other processes by its name: its functions need not be picklable."""
        return _method_of, (self.run.__module__, self.name)

    def sections(self, subject: Subject, options: Any, result: R, evolutions: Mapping[str, Any]) -> Sequence[Section]:
        """The sections of a report on a result.

        Args:
            subject: What was looked at.
            options: How.
            result: What came of it.
            evolutions: What a callback of the method gathered over the epochs, by layer.

        Returns:
            The sections.
        """
        if self.section is not None:
            return self.section(subject, options, result, evolutions)
        tiles = tuple(Tile(picture, tag.partition("/")[2] or tag) for tag, picture in result.pictures.items())
        return [Section(self.summary, blocks=(Gallery(tiles),))] if tiles else []
