"""The layers of a network as a table: what one can ask a method for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html import escape

from torch import nn

from lightning_cnnvis.functional.network.defaults import choose_layers
from lightning_cnnvis.functional.network.forward import noise_image
from lightning_cnnvis.functional.network.receptive_field import read_field
from lightning_cnnvis.functional.network.tracing import trace
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layers import trace_layers
from lightning_cnnvis.methods.registry import all_methods


@dataclass(frozen=True)
class LayerInfo:
    """One layer of a network.

    Attributes:
        name: Dotted module name.
        kind: Class name of the module.
        shape: Shape of its output for one image: ``(K, H, W)`` for a map, ``(K,)`` for a vector.
        field: Height and width of the receptive field in pixels; None if it cannot be told.
        stride: Distance of neighbouring units' fields in pixels; ``(0, 0)`` where every unit sees the whole image.
        passable: Whether every method can be used on it. Some, such as projections, cannot pass every operation before.
        why_not: Why not; empty if they can.
        default: Whether the layer is among those shown where none is named; see `choose_layers`.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    field: tuple[int, int] | None
    stride: tuple[int, int] | None
    passable: bool
    why_not: str
    default: bool

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        whole = self.stride == (0, 0)
        return (
            self.name,
            self.kind,
            "×".join(map(str, self.shape)),
            "–" if self.field is None else "image" if whole else "×".join(map(str, self.field)),
            "–" if self.stride is None or whole else _one(self.stride),
            "yes" if self.passable else "no",
            "*" if self.default else "",
        )


def _heads() -> tuple[str, ...]:
    asked = "/".join(method.name for method in all_methods() if method.refuse_layer)
    return ("layer", "kind", "map", "field", "stride", asked, "default")


@dataclass(frozen=True)
class LayerTable:
    """The layers of a network, in the order in which they run.

    Attributes:
        rows: The layers.
    """

    rows: tuple[LayerInfo, ...]

    def __iter__(self) -> Iterator[LayerInfo]:
        """The layers."""
        return iter(self.rows)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.rows)

    def records(self) -> list[dict[str, object]]:
        """The layers as builtins, for JSON."""
        return [asdict(row) for row in self.rows]

    def __str__(self) -> str:
        """The table as text, and below it what stands in the way of methods."""
        heads = _heads()
        lines = [heads, *(row.cells() for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        text.insert(1, "  ".join("─" * width for width in widths))
        # one offender stops every layer after it
        reasons = dict.fromkeys(row.why_not for row in self.rows if row.why_not)
        return "\n".join([*(line.rstrip() for line in text), *reasons])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table for a notebook; the layers that are shown by default in bold."""
        heads = "".join(f"<th>{escape(head)}</th>" for head in _heads())
        rows = []
        for row in self.rows:
            cells = [escape(cell) for cell in row.cells()]
            if row.default:
                cells[0] = f"<b>{cells[0]}</b>"
            title = f' title="{escape(row.why_not)}"' if row.why_not else ""
            rows.append(f"<tr{title}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def layer_table(model: nn.Module, input_spec: InputSpec) -> Iterator[LayerInfo]:
    """Describes the layers that one would look at: each that runs once, returns a tensor and does something.

    Args:
        model: The network, isolated and in evaluation mode.
        input_spec: Its input.

    Yields:
        The layers, in the order in which they first run.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten())
        >>> print(LayerTable(tuple(layer_table(net, InputSpec(size=(15, 15))))))
        layer  kind     map    field  stride  deconv  default
        ─────  ───────  ─────  ─────  ──────  ──────  ───────
        0      Conv2d   8×7×7  3×3    2       yes
        1      ReLU     8×7×7  3×3    2       yes     *
        2      Flatten  392    image  –       yes
    """
    image = noise_image(model, input_spec.size, input_spec.channels)
    calls, rectified = trace_layers(model, image)
    shown = choose_layers(rectified, calls)
    for name, call in calls.items():
        if call.calls != 1 or not call.shape or isinstance(model.get_submodule(name.partition("@")[0]), _DOES_NOTHING):
            continue
        field = stride = None
        why_not = ""
        try:
            output, nodes = trace(model, name, image)
            found = read_field(output, nodes, input_spec.size)
            field, stride = found.size, found.stride
            for method in all_methods():
                if method.refuse_layer is not None:
                    method.refuse_layer(model, name, image)
        except ValueError as error:
            why_not = str(error)
        yield LayerInfo(name, call.kind, call.shape, field, stride, not why_not, why_not, name in shown)


_DOES_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
"""Modules that pass on in evaluation mode what they are given."""


def _one(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}×{pair[1]}"
