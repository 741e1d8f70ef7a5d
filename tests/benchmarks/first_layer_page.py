"""Makes the tables and the pictures of docs/redesign.md from the figures that were kept.

    python -m tests.benchmarks.first_layer_page [--networks OUTPUT --data DATA]

The tables and the plot come from docs/redesign/runs.csv and maps.csv. With the networks that `first_layer` trained, and
the images, the pictures of kernels and projections are drawn again, too.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from .first_layer import ARMS, IMAGENET_ALEXNET
from .tables import DOCS, table

CONTROL = "7x7/4"
PAGE, FIGURES, IMAGES = DOCS / "redesign.md", DOCS / "redesign", DOCS / "images"
_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""97.5th percentile of Student's t by the number of values."""
_BLOCK = re.compile(r"(<!-- redesign: (\w+) -->\n).*?(\n<!-- end -->)", re.S)

Row = dict[str, Any]


def read(name: str) -> list[Row]:
    """The rows of a file, with numbers where there are any."""

    def value(text: str) -> float | str:
        try:
            return float(text)
        except ValueError:
            return text

    with (FIGURES / name).open(newline="", encoding="utf-8") as file:
        return [{key: value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean by Student's t.

    Args:
        values: 2 to 8 numbers.

    Returns:
        Its ends.
    """
    half = _T[len(values)] * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def of_seeds(rows: Sequence[Row], arm: str, measure: Callable[[list[Row]], float]) -> list[float]:
    """A number of the rows of each seed, in the order of the seeds."""
    own = [row for row in rows if row["network"] == arm]
    seeds = sorted({row["seed"] for row in own})
    return [measure([row for row in own if row["seed"] == seed]) for seed in seeds]


def _average(name: str) -> Callable[[list[Row]], float]:
    """The mean over the maps that are not dead, or the number of a network."""
    return lambda rows: mean(row[name] for row in rows if not row.get("dead"))


def _above(name: str, limit: float) -> Callable[[list[Row]], float]:
    return lambda rows: mean(row[name] >= limit for row in rows)


MEASURES: dict[str, tuple[str, Callable[[list[Row]], float], str]] = {
    "accuracy": ("runs.csv", _average("accuracy"), "%"),
    "labels that change if the image moves by 1–3 px": ("runs.csv", _average("changed_labels"), "%"),
    "layer 1: energy of a kernel above its stride's Nyquist frequency": ("maps.csv", _average("aliased_energy"), "%"),
    "layer 1: kernels with 90 % of their energy there": ("maps.csv", _above("aliased_energy", 0.9), "%"),
    "layer 1: energy of a kernel above ⅛ cycle per pixel": ("maps.csv", _average("energy_above_eighth"), "%"),
    "layer 1: share of the response that is aliased, own images": ("maps.csv", _average("aliased_response"), "%"),
    "layer 1: the same, sharp photographs": ("maps.csv", _average("aliased_response_sharp"), "%"),
    "layer 1: cosine of a kernel to the most similar other": ("maps.csv", _average("similarity"), ""),
    "layer 1: error of the map if the image moves": ("maps.csv", _average("shift_error"), ""),
    "layer 2: dead maps": ("runs.csv", lambda rows: mean(row["dead_2"] / row["maps_2"] for row in rows), "%"),
    "layer 2: error of the map if the image moves": ("runs.csv", _average("shift_error_2"), ""),
}
"""What the page compares: the file, the number of a network, and the unit."""


def _written(value: float, unit: str, sign: str = "") -> str:
    text = f"{100 * value:{sign}.1f}" if unit == "%" else f"{value:{sign}.2f}"
    return text.replace("-", "−")


def _with_interval(values: Sequence[float], unit: str, sign: str = "") -> str:
    low, high = (_written(end, unit, sign) for end in interval(values))
    middle = _written(median(values), unit, sign)
    return f"{middle} [{low}, {high}]" + (" %" if unit else "")


def comparison() -> str:
    """Both geometries side by side, with the difference of networks of one seed."""
    rows = []
    for name, (file, measure, unit) in MEASURES.items():
        found = read(file)
        of_arms = [of_seeds(found, arm, measure) for arm in ARMS]
        differences = [new - old for old, new in zip(*of_arms, strict=True)]
        real = of_seeds(found, IMAGENET_ALEXNET, measure)
        low, high = interval(differences)
        shown = _with_interval(differences, unit, "+")
        rows.append([
            name,
            *(_with_interval(values, unit) for values in of_arms),
            f"**{shown}**" if low > 0 or high < 0 else shown,
            _written(real[0], unit) + (" %" if unit else "") if real else "",
        ])  # fmt: skip
    return table(["", *map(_titled, ARMS), "difference", "AlexNet, ImageNet"], rows)


def control() -> str:
    """Both geometries and what lies between them: the smaller kernels with the larger stride."""
    arms = (ARMS[0], CONTROL, ARMS[1])
    rows = []
    for name, (file, measure, unit) in MEASURES.items():
        of_arms = [of_seeds(read(file), arm, measure) for arm in arms]
        seeds = min(map(len, of_arms))
        rows.append([name, *(_with_interval(values[:seeds], unit) for values in of_arms)])
    return table(["", *map(_titled, arms)], rows)


def _titled(arm: str) -> str:
    return arm.replace("x", "×").replace("/", ", stride ")


def dead() -> str:
    """Dead maps of each layer, over all seeds."""
    runs, maps = read("runs.csv"), read("maps.csv")
    rows = []
    for number in range(1, 6):
        cells = [f"conv{number}"]
        for arm in ARMS:
            own = [row for row in runs if row["network"] == arm]
            count, total = (int(sum(row[f"{name}_{number}"] for row in own)) for name in ("dead", "maps"))
            low, high = wilson(count, total)
            cells.append(f"{count} of {total} [{100 * low:.1f}, {100 * high:.1f}] %")
        real = [row for row in maps if row["network"] == IMAGENET_ALEXNET]
        cells.append(f"{int(sum(row['dead'] for row in real))} of {len(real)}" if number == 1 else "")
        rows.append(cells)
    return table(["layer", "11×11, stride 4", "7×7, stride 2", "AlexNet, ImageNet"], rows)


def runs() -> str:
    """Every network that was trained."""
    maps = read("maps.csv")
    rows = []
    for row in read("runs.csv"):
        own = [one for one in maps if (one["network"], one["seed"]) == (row["network"], row["seed"])]
        rows.append([
            _titled(row["network"]),
            f"{row['seed']:.0f}",
            f"{100 * row['accuracy']:.1f} %",
            f"{100 * row['changed_labels']:.1f} %",
            f"{row['dead_1']:.0f}",
            f"{100 * _average('aliased_energy')(own):.1f} %",
            f"{row['core_seconds']:.0f} s",
        ])  # fmt: skip
    head = ["first layer", "seed", "accuracy", "labels that change", "dead maps", "energy above Nyquist", "one core"]
    return table(head, rows)


TABLES = {"comparison": comparison, "control": control, "dead": dead, "runs": runs}


def rendered(text: str) -> str:
    """A page with its tables made anew."""
    return _BLOCK.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    from . import first_layer_pictures as pictures

    pictures.plot(read("maps.csv"), IMAGES / "redesign_energy.png")
    if options.networks and options.data:
        pictures.draw(options.networks, options.data, IMAGES)
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
