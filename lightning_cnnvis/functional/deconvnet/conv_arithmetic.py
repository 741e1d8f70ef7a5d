"""Which rows or columns of a map lead to a unit: the arithmetic of kernels that slide along one axis."""

from __future__ import annotations

from dataclasses import dataclass


class NotLocal(Exception):  # noqa: N818 - a finding, not an error
    """The network does something that is not known to keep positions apart."""


@dataclass(frozen=True)
class Extent:
    """Some rows, or columns, of a map. They move with the unit to which they lead.

    Attributes:
        step: How far they move in the map when the unit moves by one.
        first: The first of them for the unit at 0. Negative before the map begins.
        last: The last of them for the unit at 0.
        limit: How many the whole map has.
    """

    step: int
    first: int
    last: int
    limit: int

    def __len__(self) -> int:
        """How many they are."""
        return self.last - self.first + 1

    def within(self, low: int, high: int) -> Extent:
        """Those that lie in the map for any unit from ``low`` to ``high``.

        Raises:
            NotLocal: If there are none.
        """
        first = max(self.first, -self.step * high)
        last = min(self.last, self.limit - 1 - self.step * low)
        if last < first:
            raise NotLocal
        return Extent(self.step, first, last, self.limit)

    def overlap(self, other: Extent) -> Extent:
        """Those that are in both.

        Raises:
            NotLocal: If there are none, or if the two are of different maps.
        """
        first, last = max(self.first, other.first), min(self.last, other.last)
        if last < first or (self.step, self.limit) != (other.step, other.limit):
            raise NotLocal
        return Extent(self.step, first, last, self.limit)


@dataclass(frozen=True)
class Sliding:
    """A kernel that slides along an axis.

    Attributes:
        kernel: Number of its elements.
        stride: How far it moves.
        before: Padding before the map.
        behind: Padding behind the map.
        dilation: Distance of its elements.
        ceil_mode: Whether it may leave the padding at the end.
    """

    kernel: int = 1
    stride: int = 1
    before: int = 0
    behind: int = 0
    dilation: int = 1
    ceil_mode: bool = False

    @property
    def reach(self) -> int:
        """The distance between the kernel's first and last element."""
        return self.dilation * (self.kernel - 1)

    def output(self, extent: Extent) -> Extent:
        """What can be computed from an extent without a look beyond it.

        Raises:
            NotLocal: If that is nothing, or no unit's.
        """
        first = -((-extent.first - self.before) // self.stride)
        last = (extent.last + self.before - self.reach) // self.stride
        if last < first or extent.step % self.stride:
            raise NotLocal
        return Extent(extent.step // self.stride, first, last, self._limit(extent.limit))

    def input(self, output: Extent, extent: Extent) -> Extent:
        """The part of an extent's map that an output of it is computed from, padding included."""
        first = output.first * self.stride - self.before
        last = output.last * self.stride - self.before + self.reach
        return Extent(extent.step, first, last, extent.limit)

    def leaves(self, limit: int) -> tuple[bool, bool]:
        """Whether it reads from before, and from behind, a map of this length."""
        end = (self._limit(limit) - 1) * self.stride - self.before + self.reach
        return self.before > 0, end >= limit

    def _limit(self, limit: int) -> int:
        room = limit + self.before + self.behind - self.reach - 1
        if not self.ceil_mode:
            return room // self.stride + 1
        output = -(-room // self.stride) + 1
        # the last place must begin in the map or before it
        return output - 1 if (output - 1) * self.stride >= limit + self.before else output
