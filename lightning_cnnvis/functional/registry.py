"""A table of named choices that other packages can add to: presets, rules, inversion methods."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar, overload

T = TypeVar("T")
S = TypeVar("S")


class Registry(Generic[T]):
    """Named entries, in the order in which they were registered.

    Args:
        kind: Name of the arguments that take an entry's name, such as ``"preset"``, for error messages.

    Examples:
        >>> colors = Registry[str]("color")
        >>> colors.register("red", "#ff0000")
        '#ff0000'
        >>> colors.get("red"), colors.names
        ('#ff0000', ('red',))
        >>> colors.get("rad")
        Traceback (most recent call last):
        ...
        ValueError: color='rad': there is no such color. Did you mean 'red'? There are 'red'.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    @overload
    def register(self, name: str, *, overwrite: bool = ...) -> Callable[[S], S]: ...

    @overload
    def register(self, name: str, entry: T, *, overwrite: bool = ...) -> T: ...

    def register(self, name: str, entry: object = None, *, overwrite: bool = False) -> object:
        """Adds an entry; as a decorator if no entry is given.

        Args:
            name: Its name, a non-empty string.
            entry: The entry. None returns a decorator that registers what it decorates and returns it unchanged.
            overwrite: Replaces an entry of the same name instead of refusing it.

        Returns:
            The entry, or the decorator.

        Raises:
            ValueError: If the name is empty, or taken while ``overwrite`` is False.
        """
        if not name:
            raise ValueError(f"{self.kind}={name!r} is not a name. Give a string that is not empty.")
        if name in self._entries and not overwrite:
            raise ValueError(
                f"{self.kind}={name!r} is registered already. Choose another name, or pass overwrite=True."
            )

        def add(entry: T) -> T:
            self._entries[name] = entry
            return entry

        return add if entry is None else add(entry)  # type: ignore[arg-type]

    def get(self, name: str) -> T:
        """Looks an entry up.

        Args:
            name: Its name.

        Returns:
            The entry.

        Raises:
            ValueError: If there is none of this name. The message lists the names, the near ones first.
        """
        if isinstance(name, str) and name in self._entries:
            return self._entries[name]
        near = difflib.get_close_matches(name, self._entries, n=3) if isinstance(name, str) else []
        hint = f" Did you mean {_listed(near)}?" if near else ""
        known = f" There are {_listed(self.names)}." if self._entries else " None is registered."
        raise ValueError(f"{self.kind}={name!r}: there is no such {self.kind}.{hint}{known}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order in which they were registered."""
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        """Whether there is an entry of this name."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """The names, in the order in which they were registered."""
        return iter(self._entries)

    def __len__(self) -> int:
        """The number of entries."""
        return len(self._entries)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
