"""Notes on the tensors of a forward pass that depend on its image, passed on from operation to operation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

Note = TypeVar("Note")

# operations that do not consist of others
_elementary: set[Any] = set()


class Follower(TorchDispatchMode, Generic[Note]):  # type: ignore[no-untyped-call]
    """Keeps a note on each tensor that is computed from one with a note; what a note says is up to the subclass.

    It acts on the operations, so that every form of a layer is covered: modules, functions, in place, parametrised.

    Args:
        image: The network's input.
        note: The note on it; None for none.
    """

    def __init__(self, image: Tensor, note: Note | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._notes = WeakTensorKeyDictionary()
        if note is not None:
            self._notes[image] = note

    def note_on(self, value: object) -> Note | None:
        """Returns the note on a value.

        Args:
            value: A tensor, or anything else.

        Returns:
            The note; None if there is none.
        """
        note: Note | None = self._notes.get(value) if isinstance(value, Tensor) else None  # type: ignore[no-untyped-call]
        return note

    def pass_on(self, func: Any, args: Sequence[Any], read: list[Note], result: Tensor) -> Note | None:
        """Makes the note on the result of an operation.

        Args:
            func: The operation, of ``torch.ops.aten``.
            args: Its arguments.
            read: The notes on the tensors that it reads, at least one.
            result: Its result, or one of them.

        Returns:
            The note; None for none.
        """
        raise NotImplementedError

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation, and passes the notes on."""
        kwargs = kwargs or {}
        if func not in _elementary:
            with self:  # in inference mode, operations come whole that otherwise come in parts
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            _elementary.add(func)
        read = [note for tensor in _tensors((*args, *kwargs.values())) if (note := self.note_on(tensor)) is not None]
        result = func(*args, **kwargs)
        if read:
            written = args[:1] if func._schema.is_mutable else ()
            for tensor in _tensors((*(result if isinstance(result, tuple | list) else [result]), *written)):
                note = self.pass_on(func, args, read, tensor)
                if note is not None:
                    self._notes[tensor] = note
                elif tensor in self._notes:
                    del self._notes[tensor]
        return result


def _tensors(values: Iterable[object]) -> Iterator[Tensor]:
    """The tensors among the arguments of an operation, and in lists among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (item for item in value if isinstance(item, Tensor))
