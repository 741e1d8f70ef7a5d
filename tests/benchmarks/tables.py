"""The tables of the docs, rendered from measured figures; each function takes what its benchmark returns.

In a page, a table stands between ``<!-- benchmark: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Figures = Mapping[str, Any]

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (DOCS / "benchmarks.md", DOCS / "inversion.md")
MEASURED = "measured"
"""The name of the table that says of all benchmarks when and where they ran."""

_BLOCK = re.compile(r"(<!-- benchmark: (\w+) -->\n).*?(\n<!-- end -->)", re.S)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; an empty cell is one space wide."""
    lines = [header, None, *rows]
    return "\n".join(
        "|---" * len(header) + "|" if cells is None else "|" + "|".join(f" {c} " if c else " " for c in cells) + "|"
        for cells in lines
    )


def bold(text: str, if_true: bool = True) -> str:
    """The text, set bold if it is the better one."""
    return f"**{text}**" if if_true else text


def signed_percent(share: float) -> str:
    """A share as a percentage, with a typographic minus."""
    return f"{share * 100:+.1f} %".replace("-", "−")


def times(ratio: float) -> str:
    """How many times as long, to two digits or more."""
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.1f}×"


def short(number: float) -> str:
    """One significant digit, as in 4e-7."""
    return "0" if number == 0 else f"{number:.0e}".replace("e-0", "e-")


def measured(benchmarks: Mapping[str, Figures]) -> str:
    """When, where and with what each benchmark ran."""
    return table(
        ["figures", "date", "device", "torch", "command"],
        [
            [f"`{name}`", entry["date"], entry["device"], entry["torch"], f"`{entry['command']}`"]
            for name, entry in benchmarks.items()
        ],
    )


def deconvnet(figures: Figures) -> str:
    """Projections: milliseconds a unit, and the totals over all units of ZFNet."""

    def ours(row: Figures) -> list[str]:
        return [row["layer"], str(row["units"]), f"{row['field']} px", f"{row['ours'] * 1e3:.2f}"]

    def other(row: Figures, side: str) -> str:
        return "" if row[side] is None else f"{row[side] * 1e3:.2f} ({times(row[f'{side}_ratio'])})"

    def error(row: Figures) -> str:
        return "" if row["error"] is None else short(row["error"])

    def total(side: str) -> str:
        if all_units[side] is None:
            return ""
        ratio = bold(f"{all_units[f'{side}_ratio']:.1f}×")
        return f"{all_units[side]:.1f} s ({ratio})"

    all_units = figures["all"]
    rows = [
        [*ours(row), other(row, "whole_images"), other(row, "captum"), f"{row['gflops']:.0f}", error(row)]
        for row in figures["layers"]
    ]
    ours_in_all = bold(f"{all_units['ours']:.1f} s")
    rows.append(["all", str(all_units["units"]), "", ours_in_all, total("whole_images"), total("captum"), "", ""])
    header = ["layer", "units", "field", "ours", "whole images", "captum", "ours, GFLOP/s"]
    return (
        table([*header, "largest difference to captum"], rows)
        + f"\n\n{all_units['units_per_second']:.0f} units a second, {all_units['attainable_share']:.0%} of the "
        f"attainable FLOP rate, {figures['attainable_gflops']:.0f} GFLOP/s.".replace("%", " %", 1)
    )


def harvest(figures: Figures) -> str:
    """What picking up top activations adds to a validation pass."""
    rows = [["plain", f"{figures['plain']['seconds']:.1f}", "", "", ""]]
    titles = {"some_maps": "{maps} maps in each of 5 layers", "every_map": "every map ({maps:,})"}
    for name, title in titles.items():
        case = figures[name]
        added = signed_percent(case["added"])
        after = case["seconds_after"]
        rows.append(
            [
                title.format(maps=case["maps"]),
                f"{case['seconds']:.1f}",
                # to take less time than nothing is chance
                f"{added}, within the noise" if case["added"] < 0 else bold(added),
                f"{after:.1f} s" if after >= 1 else f"{after:.2f} s",
                f"{case['bytes_held'] / 2**20:,.0f} MiB",
            ]
        )
    return table(["", "seconds", "", "then cuts windows in", "holds at most"], rows)


def class_visualization(figures: Figures) -> str:
    """Class visualisation against lucent."""
    photographs, ours, lucent = (figures[name] for name in ("photographs", "ours", "lucent"))

    def off(row: Figures) -> float:
        return abs(row["decay"] - photographs["decay"])

    def cells(title: str, row: Figures, than: Figures, note: str = "") -> list[str]:
        return [
            title,
            bold(f"{row['seconds']:.1f}", row["seconds"] < than["seconds"]) + note,
            bold(f"{row['probability']:.3f}", row["probability"] > than["probability"]),
            bold(f"1 / f^{row['decay']:.2f}", off(row) < off(than)),
            bold(f"{row['distance']:.2f}", row["distance"] < than["distance"]),
        ]

    note = f" ({ours['seconds'] / lucent['seconds']:.2f} of lucent's)"
    rows = [
        ["photographs", "", "", f"1 / f^{photographs['decay']:.2f}", "0"],
        cells("ours", ours, lucent, note),
        cells("lucent", lucent, ours),
    ]
    header = ["", "seconds", "mean probability at 224²", "amplitude spectrum", "distance of the colour covariance"]
    return table(header, rows)


def random_classes(figures: Figures) -> str:
    """How many of randomly chosen classes are reached."""
    *others, last = (f"{probability:.2f}" for probability in sorted(figures["lowest"], reverse=True))
    return (
        f"Random classes that reach probability 0.9 at 224²: {figures['reached']} of {figures['classes']}, in "
        f"{figures['seconds']:.0f} seconds. The lowest have {', '.join(others)} and {last}."
    )


def presets(figures: Figures) -> str:
    """The presets of other papers at equal passes."""
    rows = [
        [
            name,
            f"{row['reached']:.2f}",
            f"{row['probability']:.2f}",
            f"{row['transfer']:.2f}",
            f"1 / f^{row['decay']:.2f}",
            f"{row['seconds']:.0f}",
        ]
        for name, row in figures["runs"].items()
    ]
    header = ["preset, passes for each image", "reached", "mean probability at 224²", "transfer", "spectrum", "seconds"]
    return table(header, rows)


def deepdream(figures: Figures) -> str:
    """DeepDream against the reference loop."""
    ours, port = figures["ours"], figures["port"]
    rows = [
        [
            "ours",
            f"{bold(format(ours['seconds'], '.2f'))} ({figures['ratio']:.2f} times as fast)",
            f"{ours['megapixel_steps_per_second']:.2f}",
        ],
        [
            "plain port of the reference loop",
            f"{port['seconds']:.2f}",
            f"{port['megapixel_steps_per_second']:.2f}",
        ],
    ]
    return table(["", "seconds", "megapixel-steps a second"], rows)


def inversion(figures: Figures) -> str:
    """The default inversion against the published methods."""
    methods = list(figures["layers"][0]["methods"])

    def cell(row: Figures, method: str) -> str:
        found = row["methods"][method]
        finite = found["photographs"] - found["diverged"]
        if not finite:
            return "diverges"
        best = min(m["error"] for m in row["methods"].values() if m["error"] is not None)
        text = f"{bold(format(found['error'], '.4f'), found['error'] == best)} / {found['ssim']:.3f}"
        others = f", the other {finite}" if found["diverged"] else ""
        return f"{text} / {found['seconds']:.1f} s{others}"

    rows = [[row["layer"], *(cell(row, method) for method in methods)] for row in figures["layers"]]
    return table(["layer", *(f'`"{method}"`' for method in methods)], rows)


def inversion_batch(figures: Figures) -> str:
    """Layers, restarts and images in one call, and one after the other."""
    by_layer, by_image = figures["by_layer"], figures["by_image"]
    rows = [
        ["one call of `invert_layers`, in chunks of 16", f"{figures['chunks_of_16']:.1f}"],
        ["the same in one chunk of 96", f"{figures['one_chunk']:.1f}"],
        [
            "layer by layer, the 16 images of each in a batch",
            f"{by_layer:.1f} ({times(by_layer / figures['chunks_of_16'])})",
        ],
        ["layer by layer, image by image", f"{by_image:.1f} ({times(by_image / figures['chunks_of_16'])})"],
    ]
    return table(["", "seconds"], rows)


def inversion_rates(figures: Figures) -> str:
    """GFLOP/s of the way to a layer and back."""
    layers = list(figures["batches"][0]["gflops"])
    rows = [[str(b["images"]), *(f"{b['gflops'][layer]:.0f}" for layer in layers)] for b in figures["batches"]]
    return table(["images in a batch", *layers], rows)


def occlusion(figures: Figures) -> str:
    """Occlusion against captum's: milliseconds a square, and what covering what was found does."""
    rows = [
        [
            row["network"],
            str(row["squares"]),
            bold(f"{row['ours'] * 1e3:.1f}"),
            f"{row['whole'] * 1e3:.1f} ({times(row['whole_ratio'])})",
            f"{row['captum'] * 1e3:.1f} ({times(row['captum_ratio'])})",
            str(row["copies"]),
        ]
        for row in figures["speed"]
    ]
    harm = figures["harm"]
    header = ["network", "squares", "ours, ms a square", "whole copies", "captum", "captum's copies a pass"]
    return (
        table(header, rows)
        + f"\n\nCovering a tenth of each of {harm['photographs']} photographs on EfficientNet-Lite 0 lowers the "
        f"probability of the class by {harm['ours']:.3f} on average where ours is highest, by {harm['captum']:.3f} "
        f"where captum's is, and by {harm['random']:.3f} under random squares, which do less on "
        f"{harm['above_random']} of them."
    )


def viewer(figures: Figures) -> str:
    """What the viewer's data cost, and how a large report opens and scrolls."""
    run, page = figures["run"], figures["page"]
    pairs = f"pairs between {signed_percent(run['lowest'])} and {signed_percent(run['highest'])}"
    rows = [
        ["time added to a run", f"{bold(signed_percent(run['added']))} of {run['seconds']:.0f} s, {pairs}"],
        ["the same, an epoch", f"{run['per_epoch']:.2f} s"],
        [
            "bytes beside the PNGs'",
            f"{bold(format(run['bytes'] / run['png_bytes'], '.2f'))} of {run['png_bytes'] / 1e6:.1f} MB",
        ],
        ["size of a report of 1,000 maps × 20 epochs", f"{page['megabytes']:.1f} MB"],
        ["first paint", f"{page['first_paint']:.2f} s"],
        ["the wall is there", f"{page['usable']:.2f} s"],
        ["longest task while it scrolls", f"{page['scrolling_task'] * 1e3:.0f} ms"],
    ]
    return table(["", "measured"], rows)


TABLES: dict[str, Callable[[Figures], str]] = {
    function.__name__: function
    for function in (
        deconvnet,
        harvest,
        class_visualization,
        random_classes,
        presets,
        deepdream,
        inversion,
        inversion_batch,
        inversion_rates,
        occlusion,
        viewer,
    )
}


def rendered(page: str, benchmarks: Mapping[str, Figures]) -> str:
    """A page with its tables made anew.

    Args:
        page: The Markdown text.
        benchmarks: The measurements, by name.
    """

    def block(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        text = measured(benchmarks) if name == MEASURED else TABLES[name](benchmarks[name]["figures"])
        return begin + text + end

    return _BLOCK.sub(block, page)
