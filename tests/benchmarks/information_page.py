"""Makes the tables and figures of docs/what_a_layer_knows.md from the CSV files of `information_study`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .information_images import SUBJECTS, read
from .information_runs import LAYERS, SETS
from .information_statistics import (
    Effect,
    Floats,
    MixedModel,
    corrected,
    larger_where_wrong,
    mean_of_runs,
    mixed_model,
    over_runs,
    partial_correlation,
    spearman,
)
from .tables import DOCS, table

PAGE, STUDY, IMAGES = DOCS / "what_a_layer_knows.md", DOCS / "study", DOCS / "images"
NAMES = {
    "squeezenet": "SqueezeNet",
    "efficientnet_lite0": "EfficientNet-Lite 0",
    "photocrops": "PhotoCrops",
    "tiny10": "tiny10",
}
CHANCE = {"photocrops": 1 / 11, "tiny10": 1 / 10}
FEWEST_IMAGES = 6
_BLOCK = re.compile(r"(<!-- study: (\w+) -->\n).*?(\n<!-- end -->)", re.S)

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class OfImages:
    """What part (a) finds at one layer of one network."""

    layer: str
    count: int
    error: float
    ssim: float
    primary: Effect
    plain: Effect
    of_ssim: Effect
    wrong: Effect


@dataclass(frozen=True)
class OfRuns:
    """What parts (b) and (c) find at one layer on one data set."""

    layer: str
    primary: Effect
    any_width: Effect
    model: MixedModel
    within: Effect
    deviation: Effect


def column(rows: Rows, name: str) -> Floats:
    """The numbers of a column."""
    return np.array([float(row[name]) for row in rows])


def of_images(rows: Rows) -> dict[str, list[OfImages]]:
    """Part (a): each network's layers, in order of depth."""
    found = {}
    for network, subject in SUBJECTS.items():
        layers: list[tuple[str, int, float, float]] = []
        effects: dict[str, list[Effect]] = {"primary": [], "plain": [], "of_ssim": [], "wrong": []}
        for layer in subject.layers:
            own = [row for row in rows if row["network"] == network and row["layer"] == layer]
            own = [row for row in own if np.isfinite(float(row["error"])) and float(row["error"]) > 0]
            error, ssim, margin = (column(own, name) for name in ("error", "ssim", "margin"))
            controls = [np.log(column(own, name)) for name in ("norm", "gradient", "bytes")]
            layers.append((layer, len(own), float(np.median(error)), float(np.median(ssim))))
            effects["primary"].append(partial_correlation(error, margin, controls))
            effects["plain"].append(partial_correlation(error, margin))
            effects["of_ssim"].append(partial_correlation(ssim, margin, controls))
            effects["wrong"].append(larger_where_wrong(error, column(own, "right") > 0))
        families = {name: corrected(family) for name, family in effects.items()}
        found[network] = [
            OfImages(*facts, **{name: family[place] for name, family in families.items()})
            for place, facts in enumerate(layers)
        ]
    return found


@dataclass(frozen=True)
class Trainings:
    """The runs of one data set at one layer, as ``(runs, epochs)``.

    Attributes:
        width: ``(runs,)``.
        accuracy: In [0, 1].
        log_error: NaN where too few images have an error.
    """

    width: Floats
    accuracy: Floats
    log_error: Floats

    @property
    def logit(self) -> Floats:
        """The logit of the accuracy, which is kept from 0 and 1 by half of one of 500 images."""
        kept = self.accuracy.clip(0.001, 0.999)
        result: Floats = np.log(kept / (1 - kept))
        return result


def trainings(rows: Rows, data: str, layer: str) -> Trainings:
    """The runs of a data set that learned something, at one layer."""
    own = [row for row in rows if row["data"] == data and row["layer"] == layer]
    runs = sorted({(float(row["width"]), int(row["seed"])) for row in own})
    by_run = [
        sorted(
            (row for row in own if (float(row["width"]), int(row["seed"])) == run), key=lambda row: int(row["epoch"])
        )
        for run in runs
    ]
    learned = [place for place, run in enumerate(by_run) if float(run[-1]["accuracy"]) >= 2 * CHANCE[data]]
    return Trainings(
        np.array([runs[place][0] for place in learned]),
        np.array([column(by_run[place], "accuracy") for place in learned]),
        np.array([
            np.where(
                column(by_run[place], "images") >= FEWEST_IMAGES, column(by_run[place], "log_error"), np.nan
            )
            for place in learned
        ]),
    )  # fmt: skip


def of_runs(rows: Rows) -> dict[str, list[OfRuns]]:
    """Parts (b) and (c): each data set's layers, in order of depth."""
    found = {}
    for data in SETS:
        effects: dict[str, list[Effect]] = {
            name: [] for name in ("primary", "any_width", "between", "slope", "within", "deviation")
        }
        for layer in LAYERS:
            runs = trainings(rows, data, layer)
            whole = np.isfinite(runs.log_error).all(1)
            width, logit, error = runs.width[whole], runs.logit[whole], runs.log_error[whole]
            accuracy = runs.accuracy[whole]
            ahead = (logit - logit.mean(0)).mean(1)
            known = (error - error.mean(0)).mean(1)
            effects["primary"].append(over_runs(known, ahead, width))
            effects["any_width"].append(over_runs(known, ahead))
            epochs = error.shape[1]
            model = mixed_model(
                logit.ravel(),
                error.ravel(),
                np.tile(np.arange(epochs, dtype=float), len(error)),
                np.repeat(width, epochs),
                np.repeat(np.arange(len(error)), epochs),
            )
            effects["between"].append(model.between)
            effects["slope"].append(model.within)
            pairs = zip(error, accuracy, strict=True)
            effects["within"].append(mean_of_runs(np.array([spearman(x, y) for x, y in pairs])))
            deviations = zip(error - error.mean(0), accuracy - accuracy.mean(0), strict=True)
            effects["deviation"].append(mean_of_runs(np.array([spearman(x, y) for x, y in deviations])))
        families = {name: corrected(family) for name, family in effects.items()}
        found[data] = [
            OfRuns(
                layer,
                families["primary"][place],
                families["any_width"][place],
                MixedModel(families["between"][place], families["slope"][place]),
                families["within"][place],
                families["deviation"][place],
            )
            for place, layer in enumerate(LAYERS)
        ]
    return found


def _number(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def written(effect: Effect, sign: bool = True) -> str:
    """An effect with its interval, bold where the corrected p-value is below 5 %, and that value."""
    if not np.isfinite(effect.value):
        return "not defined"
    shape: Callable[[float], str] = _number if sign else (lambda value: f"{value:.2f}")
    text = f"{shape(effect.value)} [{shape(effect.low)}, {shape(effect.high)}]"
    p = "< .001" if effect.holm < 0.001 else f"= {effect.holm:.3f}".replace("0.", ".")
    return f"**{text}**, p {p}" if effect.holm < 0.05 else f"{text}, p {p}"


def images_table(network: str, found: Sequence[OfImages]) -> str:
    """Part (a) of one network."""
    header = [
        NAMES[network], "images", "error", "SSIM", "error and margin, controlled", "without controls",
        "SSIM and margin, controlled", "larger where wrong",
    ]  # fmt: skip
    rows = [
        [
            f"`{one.layer}`", str(one.count), f"{one.error:.3f}", f"{one.ssim:.2f}", written(one.primary),
            written(one.plain), written(one.of_ssim), written(one.wrong, sign=False),
        ]
        for one in found
    ]  # fmt: skip
    return table(header, rows)


def runs_table(data: str, found: Sequence[OfRuns]) -> str:
    """Part (b) of one data set."""
    header = [NAMES[data], "runs", "same width", "any width", "mixed model, between runs", "mixed model, within a run"]
    rows = [
        [
            f"`{one.layer}`", str(one.primary.count), written(one.primary), written(one.any_width),
            written(one.model.between), written(one.model.within),
        ]
        for one in found
    ]  # fmt: skip
    return table(header, rows)


def epochs_table(found: dict[str, list[OfRuns]]) -> str:
    """Part (c) of both data sets."""
    header = ["", *(f"{NAMES[data]}, {what}" for data in found for what in ("as it trains", "beyond the mean run"))]
    rows = [
        [f"`{layer}`", *(written(e) for own in found.values() for e in (own[place].within, own[place].deviation))]
        for place, layer in enumerate(LAYERS)
    ]
    return table(header, rows)


def accuracies(images: Rows, runs: Rows) -> str:
    """How good the networks are."""
    rows = []
    for network in SUBJECTS:
        own = {row["image"]: row["right"] for row in images if row["network"] == network}
        right = sum(value == "1" for value in own.values())
        rows.append([NAMES[network], f"{right} of {len(own)} photographs right"])
    for data in SETS:
        found = trainings(runs, data, LAYERS[0])
        last = [f"{100 * found.accuracy[found.width == w, -1].mean():.0f} %" for w in np.unique(found.width)]
        rows.append([
            f"ZFNets on {NAMES[data]}",
            f"{len(found.width)} runs; mean accuracy after the last epoch, by width: {', '.join(last)}",
        ])  # fmt: skip
    return table(["", "how good"], rows)


def forest(groups: dict[str, list[tuple[str, Effect]]], title: str, path: Path, columns: int) -> None:
    """Draws effects with their intervals, filled where the corrected p-value is below 5 %."""
    from matplotlib.figure import Figure

    tall = max(len(group) for group in groups.values())
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(4.4 * columns, lines * (0.32 * tall + 1.0)), dpi=110, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    for axis, (name, group) in zip(axes, groups.items(), strict=True):
        for place, (_, effect) in enumerate(group):
            axis.plot([effect.low, effect.high], [place, place], color="#4269d0", linewidth=2)
            face = "#4269d0" if effect.holm < 0.05 else "white"
            axis.plot(effect.value, place, "o", color="#4269d0", markerfacecolor=face, markersize=7)
        axis.axvline(0, color="#777777", linewidth=0.8)
        axis.set(
            title=name,
            xlim=(-1, 1),
            xticks=(-1, -0.5, 0, 0.5, 1),
            yticks=range(len(group)),
            ylim=(len(group) - 0.5, -0.5),
        )
        axis.set_yticklabels([layer for layer, _ in group])
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-columns:]:
        axis.set_xlabel("Spearman's correlation")
    figure.suptitle(title)
    figure.savefig(path)


def courses(runs: Rows, path: Path, layers: Sequence[str] = ("relu1", "relu3", "relu5", "fc7")) -> None:
    """Draws accuracy against error over the epochs of every training."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

    figure = Figure(figsize=(3 * len(layers), 5.6), dpi=110, layout="constrained")
    axes = figure.subplots(len(SETS), len(layers), sharey="row", squeeze=False)
    colors = ("#efb118", "#3ca951", "#4269d0")
    for line, data in zip(axes, SETS, strict=True):
        for axis, layer in zip(line, layers, strict=True):
            found = trainings(runs, data, layer)
            widths = np.unique(found.width).tolist()
            for width, accuracy, error in zip(found.width, found.accuracy, found.log_error, strict=True):
                color = colors[widths.index(width)]
                axis.plot(np.exp(error), accuracy, color=color, linewidth=1, alpha=0.7)
                axis.plot(np.exp(error[-1:]), accuracy[-1:], "o", color=color, markersize=4)
            axis.set(xscale="log", title=f"{NAMES[data]}, {layer}")
            axis.xaxis.set(major_locator=MaxNLocator(3), minor_locator=NullLocator(), major_formatter=ScalarFormatter())
            axis.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel("validation accuracy")
    for axis in axes[-1]:
        axis.set_xlabel("inversion error")
    names = [f"width {width:g}" for width in widths]
    handles = [axes[0, 0].plot([], [], color=color)[0] for color in colors[: len(widths)]]
    axes[0, 0].legend(handles, names, frameon=False, fontsize=8, loc="lower left")
    figure.savefig(path)


def make(page: Path = PAGE, study: Path = STUDY, images: Path = IMAGES) -> None:
    """Writes the tables into the page, and the figures beside it.

    Args:
        page: The page, with its blocks ``<!-- study: NAME -->`` … ``<!-- end -->``.
        study: The folder with images.csv and runs.csv.
        images: The folder of the figures.
    """
    photographs, runs = read(study / "images.csv"), read(study / "runs.csv")
    by_image, by_run = of_images(photographs), of_runs(runs)
    blocks = {
        "accuracies": accuracies(photographs, runs),
        "epochs": epochs_table(by_run),
        **{network: images_table(network, found) for network, found in by_image.items()},
        **{data: runs_table(data, found) for data, found in by_run.items()},
    }

    def fill(match: re.Match[str]) -> str:
        return match[1] + blocks[match[2]] + match[3]

    page.write_text(_BLOCK.sub(fill, page.read_text(encoding="utf-8")), encoding="utf-8")
    forest(
        {NAMES[network]: [(one.layer, one.primary) for one in found] for network, found in by_image.items()},
        "Inversion error and margin of the class, image by image",
        images / "study_images.png",
        2,
    )
    forest(
        {
            f"{NAMES[data]}: {what}": [(one.layer, effect(one)) for one in found]
            for what, effect in _OVER_RUNS.items()
            for data, found in by_run.items()
        },
        "Inversion error and accuracy of trainings",
        images / "study_runs.png",
        2,
    )
    courses(runs, images / "study_courses.png")


_OVER_RUNS: dict[str, Callable[[OfRuns], Effect]] = {
    "between runs": lambda one: one.primary,
    "as a run trains": lambda one: one.within,
}
