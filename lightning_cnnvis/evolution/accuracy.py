"""Relates how well a layer's images can be rebuilt to how well the network classifies.

Mahendran & Vedaldi (2016, arXiv 1512.02017) show which information about an image a trained layer retains.
`Measurement`s compare that with the validation accuracy, over the epochs of one run or of several: as a table, as rank
correlations with confidence intervals, and as a plot. `FeatureInversion` collects them while the network trains.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lightning_utilities.core.imports import module_available

FEWEST = 4
"""Smallest number of points for which a rank correlation is computed."""


@dataclass(frozen=True)
class Measurement:
    """Inversion error of one layer at one epoch of one run, and the accuracy of the network then.

    Attributes:
        run: Name of the run.
        epoch: The epoch, counted from 1.
        layer: Dotted name of the layer.
        error: Inversion error, ‖Φ(x) − Φ₀‖² / ‖Φ₀‖², mean over images and restarts.
        accuracy: Validation accuracy of the network at that epoch, in [0, 1].
    """

    run: str
    epoch: int
    layer: str
    error: float
    accuracy: float


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation with its confidence interval.

    Attributes:
        rho: The correlation, in [-1, 1]; NaN where it is undefined: for fewer than four points, or if one of the two
            variables is constant.
        low: Lower end of the confidence interval.
        high: Upper end of the confidence interval.
        count: Number of points.
        runs: Number of runs that the points come from.
    """

    rho: float
    low: float
    high: float
    count: int
    runs: int = 1

    def __str__(self) -> str:
        """A label such as ``ρ -0.82 [-0.97, -0.41], n 12`` or, for several runs, ``…, n 36 of 3 runs``."""
        points = f"n {self.count}" if self.runs < 2 else f"n {self.count} of {self.runs} runs"
        if math.isnan(self.rho):
            return f"too few points to correlate, {points}"
        return f"ρ {self.rho:+.2f} [{self.low:+.2f}, {self.high:+.2f}], {points}"


def find_accuracy(metrics: Mapping[str, Iterable[float]], monitor: str = "val_accuracy") -> str | None:
    """Finds the validation accuracy among the metrics of a training.

    Args:
        metrics: The values of each metric.
        monitor: The name that it should have.

    Returns:
        That name; where there is no metric of that name, that of the only one that is in [0, 1] and has ``val`` and
        ``acc`` in its name; None if there is none, or more than one.

    Examples:
        >>> find_accuracy({"val/loss": [2.0, 0.7], "val/acc": [0.5, 0.6]})
        'val/acc'
    """
    if monitor in metrics:
        return monitor
    alike = [
        name
        for name, values in metrics.items()
        if "val" in name.lower() and "acc" in name.lower() and all(0 <= value <= 1 for value in values)
    ]
    return alike[0] if len(alike) == 1 else None


def to_csv(measurements: Sequence[Measurement]) -> str:
    """Formats measurements as CSV, one line per measurement.

    Args:
        measurements: The measurements, in the order of the lines.

    Returns:
        The table with its header line; every line ends with a newline.

    Examples:
        >>> print(to_csv([Measurement("run", 1, "relu1", 0.01, 0.5)]))
        run,epoch,layer,error,accuracy
        run,1,relu1,0.01,0.5
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Measurement))
    writer.writerows(astuple(measurement) for measurement in measurements)
    return text.getvalue()


def read_csv(path: str | Path) -> list[Measurement]:
    """Reads a table that `to_csv` wrote.

    Args:
        path: The CSV file.

    Returns:
        The measurements, in the order of the lines.

    Raises:
        ValueError: If a column is missing or a value is not a number.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = [field.name for field in fields(Measurement) if field.name not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} has no column {', '.join(missing)}. Pass a table that to_csv wrote.")
        try:
            return [
                Measurement(r["run"], int(r["epoch"]), r["layer"], float(r["error"]), float(r["accuracy"]))
                for r in rows
            ]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {rows.line_num}: {error}. Correct the line or delete it.") from error


def rank_correlation(
    x: Sequence[float],
    y: Sequence[float],
    *,
    runs: Sequence[str] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> RankCorrelation:
    """Computes Spearman's rank correlation with a bootstrap confidence interval (percentiles), by SciPy.

    The points of one run are not independent. With several runs, each resample therefore draws runs, and then points
    within each of them (two-stage bootstrap, Davison & Hinkley 1997, Sec. 3.8). The interval then estimates what
    another set of runs might have shown, as far as a few runs allow. Within a single run, points are drawn as if they
    were independent: over the epochs of one training, that interval is too narrow.

    Args:
        x: Values of one variable.
        y: Values of the other, as many as ``x``.
        runs: Name of the run that each point comes from. None counts all points as one run.
        confidence: Confidence level of the interval, between 0 and 1.
        resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        The correlation over all pairs of finite values.

    Raises:
        ValueError: If the lengths differ.
        ModuleNotFoundError: If SciPy is missing.

    Examples:
        >>> rank_correlation([1, 2, 3, 4, 5, 6], [1, 4, 9, 16, 25, 36]).rho
        1.0
        >>> rank_correlation([1, 2, 3, 4, 5, 6], [1, 3, 2, 5, 4, 6], runs=["a", "a", "a", "b", "b", "b"]).runs
        2
    """
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} values and y has {len(y)}. Pass as many of one as of the other.")
    if runs is not None and len(runs) != len(x):
        raise ValueError(f"runs has {len(runs)} names for {len(x)} pairs. Name the run of every pair.")
    require("scipy")
    from scipy import stats  # noqa: PLC0415 - optional, and slow to import

    finite = [n for n, (a, b) in enumerate(zip(x, y, strict=True)) if math.isfinite(a) and math.isfinite(b)]
    pairs = np.array([(x[n], y[n]) for n in finite], dtype=np.float64)
    members: dict[str, list[int]] = {}
    for place, n in enumerate(finite):
        members.setdefault("" if runs is None else runs[n], []).append(place)
    count = len(pairs)
    if count < FEWEST or min(len(set(column)) for column in pairs.T) < 2:
        return RankCorrelation(math.nan, math.nan, math.nan, count, len(members))
    generator = np.random.default_rng(seed)
    of_run = [np.array(places) for places in members.values()]

    def spearman(drawn: npt.NDArray[np.intp]) -> float:
        if len(of_run) > 1:
            drawn = np.concatenate([generator.choice(of_run[run], len(of_run[run])) for run in drawn])
        a, b = stats.rankdata(pairs[drawn], axis=0).T - (len(drawn) + 1) / 2
        norm = math.sqrt((a @ a) * (b @ b))
        # a resample of equal values has no correlation
        return float(a @ b) / norm if norm > 0 else 0.0

    found = stats.bootstrap(
        (np.arange(len(of_run) if len(of_run) > 1 else count),),
        spearman,
        vectorized=False,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        rng=generator,
    )
    low, high = found.confidence_interval
    rho = float(stats.spearmanr(*pairs.T).statistic)
    return RankCorrelation(rho, float(low), float(high), count, len(members))


def correlations(measurements: Sequence[Measurement], *, seed: int = 0) -> dict[str, RankCorrelation]:
    """Correlates error and accuracy by rank, layer by layer.

    Args:
        measurements: Measurements of any number of layers, epochs and runs.
        seed: Seed of the bootstrap; see `rank_correlation`.

    Returns:
        The correlation of each layer, in the order in which the measurements name the layers.

    Raises:
        ModuleNotFoundError: If SciPy is missing.
    """
    found = {}
    for layer in dict.fromkeys(m.layer for m in measurements):
        own = [m for m in measurements if m.layer == layer]
        found[layer] = rank_correlation(
            [m.error for m in own], [m.accuracy for m in own], runs=[m.run for m in own], seed=seed
        )
    return found


def require(*packages: str) -> None:
    """Checks that optional packages are installed, and names the extra that brings them otherwise.

    Args:
        *packages: Import names of the packages.

    Raises:
        ModuleNotFoundError: If one of the packages is not installed.
    """
    missing = [package for package in packages if not module_available(package)]
    if missing:
        raise ModuleNotFoundError(
            f"The analysis needs {' and '.join(missing)}. Run: python -m pip install 'lightning-cnnvis[posthoc]'",
            name=missing[0],
        )
