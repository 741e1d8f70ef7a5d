"""Arithmetic of kernels that slide along one axis: the rows or columns of a map that lead to a unit."""

from __future__ import annotations

from dataclasses import dataclass


class NotLocal(Exception):  # noqa: N818 - a finding, not an error
    """The network has an operation that may mix positions."""


@dataclass(frozen=True)
class Extent:
    """A range of rows, or columns, of a map. It moves with the unit to which it leads.

    Attributes:
        step: Distance by which the range moves in the map when the unit moves by one.
        first: First row of the range for the unit at 0; negative before the map begins.
        last: Last row of the range for the unit at 0, inclusive.
        limit: Number of rows of the whole map.
    """

    step: int
    first: int
    last: int
    limit: int

    def __len__(self) -> int:
        """The number of rows in the range."""
        return self.last - self.first + 1

    def within(self, low: int, high: int) -> Extent:
        """Restricts the range to rows that lie in the map for at least one of several units.

        Args:
            low: Position of the first unit.
            high: Position of the last unit, inclusive.

        Returns:
            The part of the range.

        Raises:
            NotLocal: If the part is empty.
        """
        first = max(self.first, -self.step * high)
        last = min(self.last, self.limit - 1 - self.step * low)
        if last < first:
            raise NotLocal
        return Extent(self.step, first, last, self.limit)

    def overlap(self, other: Extent) -> Extent:
        """Intersects the range with another one of the same map.

        Args:
            other: The other range.

        Returns:
            The rows that are in both.

        Raises:
            NotLocal: If there are none, or if the two belong to different maps.
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
        stride: Distance by which it moves.
        before: Padding before the map.
        behind: Padding after the map.
        dilation: Distance between its elements.
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
        """Distance between the kernel's first and last element."""
        return self.dilation * (self.kernel - 1)

    def output(self, extent: Extent) -> Extent:
        """Finds the part of the output that can be computed from a part of the input only.

        Args:
            extent: The rows of the input.

        Returns:
            The rows of the output.

        Raises:
            NotLocal: If there are none, or if they do not move with the unit by whole rows.
        """
        first = -((-extent.first - self.before) // self.stride)
        last = (extent.last + self.before - self.reach) // self.stride
        if last < first or extent.step % self.stride:
            raise NotLocal
        return Extent(extent.step // self.stride, first, last, self._limit(extent.limit))

    def input(self, output: Extent, extent: Extent) -> Extent:
        """Finds the part of the input from which a part of the output is computed.

        Args:
            output: The rows of the output.
            extent: Any rows of the input.

        Returns:
            The rows of the input, padding included.
        """
        first = output.first * self.stride - self.before
        last = output.last * self.stride - self.before + self.reach
        return Extent(extent.step, first, last, extent.limit)

    def leaves(self, limit: int) -> tuple[bool, bool]:
        """Tells whether the kernel reads beyond the ends of a map.

        Args:
            limit: Number of rows of the map.

        Returns:
            Whether it reads before the map, and whether it reads after it.
        """
        end = (self._limit(limit) - 1) * self.stride - self.before + self.reach
        return self.before > 0, end >= limit

    def _limit(self, limit: int) -> int:
        room = limit + self.before + self.behind - self.reach - 1
        if not self.ceil_mode:
            return room // self.stride + 1
        output = -(-room // self.stride) + 1
        # the last place must begin in the map or before it
        return output - 1 if (output - 1) * self.stride >= limit + self.before else output
