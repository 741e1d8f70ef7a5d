"""What a run on a GPU found: kept in a file after every figure, and rendered as tables."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..tables import table


@dataclass(frozen=True)
class Settings:
    """What every part is told.

    Attributes:
        device: ``"cuda"``, or ``"cpu"`` to try the script out.
        quick: Whether to do as little as can be, for a smoke run.
        folder: Where a part may leave files.
    """

    device: str
    quick: bool
    folder: Path

    def pick(self, full: Any, quick: Any) -> Any:
        """A size of the work: the full one, or that of a smoke run."""
        return quick if self.quick else full


class Figures(dict[str, Any]):
    """The figures of a part; each one set is on the disk at once, so that a part that is stopped loses none."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        write(self.path, self)

    def attempt(self, key: str, work: Callable[[], Any]) -> None:
        """Sets a figure, or the error that came instead; the next one is measured in any case."""
        try:
            self[key] = work()
        except Exception as error:
            self[key] = {"error": f"{type(error).__name__}: {str(error)[:500]}", "traceback": traceback_of(error)}


def traceback_of(error: BaseException) -> str:
    """The traceback, from its end up to some length."""
    return "".join(traceback.format_exception(error))[-4000:]


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON as a whole: a reader never sees half a file."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    os.replace(part, path)


@dataclass(frozen=True)
class Target:
    """A figure with a limit.

    Attributes:
        title: What is measured.
        path: Where it is: the part, then keys of its figures.
        limit: Its limit.
        at_least: Whether the limit is the lowest value, not the highest.
        unit: What follows the number.
    """

    title: str
    path: tuple[str, ...]
    limit: float
    at_least: bool = False
    unit: str = "s"

    def row(self, parts: Mapping[str, Any]) -> list[str]:
        """The line of the table."""
        found = lookup(parts, self.path)
        limit = f"{'≥' if self.at_least else '≤'} {number(self.limit)} {self.unit}".strip()
        if not isinstance(found, int | float):
            return [self.title, "not measured", limit, ""]
        met = found >= self.limit if self.at_least else found <= self.limit
        return [self.title, f"{number(found)} {self.unit}".strip(), limit, "met" if met else "**missed**"]


def lookup(parts: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The value at the end of a path: the part, then keys of its figures; None if something on the way is missing."""
    part, *keys = path
    found: Any = parts.get(part, {}).get("figures", {})
    for key in keys:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def number(value: float) -> str:
    """Three significant digits or all digits of a large number."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


TARGETS = (
    Target("all 12,384 projections of ZFNet at 224 px", ("projections", "all_units", "seconds"), 1),
    Target("captum's time over ours", ("projections", "captum_over_all_units"), 100, True, "×"),
    Target("16 class images, share of lucent's time", ("class_images", "share_of_lucent"), 0.1, unit=""),
    Target("harvest of ResNet-50, share of a validation", ("harvest", "resnet50", "added"), 0.02, unit=""),
    Target("harvest of ZFNet, share of a validation", ("harvest", "zfnet", "some_maps", "added"), 0.02, unit=""),
    *(
        Target(f"ResNet-50, all callbacks, {name}, an epoch shown", ("training", name, "an_epoch_shown"), 60)
        for name in ("32-true", "bf16-mixed", "16-mixed")
    ),
)


def markdown(run: Mapping[str, Any]) -> str:
    """The whole run as a page: targets, parts, figures."""
    parts = run["parts"]
    lines = [
        f"# {run['device']}",
        "",
        f"{run['date']}, torch {run['torch']}, lightning_cnnvis {run['lightning_cnnvis']}; `{run['command']}`"
        + (". **A smoke run: its figures mean nothing.**" if run["quick"] else ""),
        "",
        table(["", "measured", "target", ""], [target.row(parts) for target in TARGETS]),
        "",
        table(
            ["part", "outcome", "seconds", "peak memory, MiB"],
            [[name, part["outcome"], number(part["seconds"]), part_peak(part)] for name, part in parts.items()],
        ),
    ]
    for name, part in parts.items():
        rows = [[f"`{key}`", value] for key, value in flattened(part["figures"])]
        lines += ["", f"## {name}", "", table(["figure", "value"], rows)] if rows else []
        if part.get("output") and part["outcome"] != "done":
            lines += ["", "```", part["output"].strip()[-3000:], "```"]
    return "\n".join(lines) + "\n"


def part_peak(part: Mapping[str, Any]) -> str:
    """The most memory that torch held in a part."""
    peak = part["figures"].get("peak_mib")
    return "" if peak is None else number(peak)


def flattened(figures: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested figures as dotted names and texts; tracebacks are in the JSON only."""
    if isinstance(figures, Mapping):
        found = [
            row
            for key, value in figures.items()
            if key not in {"traceback", "peak_mib"}
            for row in flattened(value, f"{prefix}{key}.")
        ]
        return found
    if isinstance(figures, list | tuple) and any(isinstance(value, Mapping | list) for value in figures):
        return [row for i, value in enumerate(figures) for row in flattened(value, f"{prefix}{i}.")]
    text = number(figures) if isinstance(figures, float) else str(figures).replace("\n", " ").replace("|", "\\|")
    return [(prefix.rstrip("."), text)]
