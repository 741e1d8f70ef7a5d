"""How the ability to rebuild an image from a layer goes with the ability to classify it.

Mahendran & Vedaldi (2016, arXiv 1512.02017) show what a trained layer still knows of an image. Over the epochs of a
run, or over several runs, `Measurement`s set that beside the validation accuracy: as a table, as rank correlations with
confidence intervals, and as a plot. `FeatureInversion` collects them while the network trains.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lightning_utilities.core.imports import module_available

FEWEST = 4
"""A rank correlation of fewer points says nothing."""


@dataclass(frozen=True)
class Measurement:
    """What one layer knew at one epoch of one run.

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
    """Spearman's rank correlation, and how sure it is.

    Attributes:
        rho: In [-1, 1]; NaN where it is not defined: of fewer than four points, or if one side never changes.
        low: Lower end of the confidence interval.
        high: Upper end.
        count: Number of points.
        runs: Number of runs that they are of.
    """

    rho: float
    low: float
    high: float
    count: int
    runs: int = 1

    def __str__(self) -> str:
        """Such as ``ρ -0.82 [-0.97, -0.41], n 12``, or ``n 36 of 3 runs``."""
        points = f"n {self.count}" if self.runs < 2 else f"n {self.count} of {self.runs} runs"
        if math.isnan(self.rho):
            return f"ρ unknown, {points}"
        return f"ρ {self.rho:+.2f} [{self.low:+.2f}, {self.high:+.2f}], {points}"


def to_csv(measurements: Sequence[Measurement]) -> str:
    """The table, a line a measurement.

    Example:
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
    """Reads what `to_csv` wrote.

    Raises:
        ValueError: If a column is missing or a value is no number.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = [field.name for field in fields(Measurement) if field.name not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} has no column {', '.join(missing)}: give a table that to_csv wrote.")
        try:
            return [
                Measurement(r["run"], int(r["epoch"]), r["layer"], float(r["error"]), float(r["accuracy"]))
                for r in rows
            ]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {rows.line_num}: {error}.") from error


def rank_correlation(
    x: Sequence[float],
    y: Sequence[float],
    *,
    runs: Sequence[str] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> RankCorrelation:
    """Spearman's rank correlation with a bootstrap confidence interval (percentiles), by SciPy.

    The points of a run hang together. So where there are several runs, each resample draws runs, and then points of
    each of these (two-stage bootstrap, Davison & Hinkley 1997, Sec. 3.8). The interval then tells what another set of
    runs might have shown, as far as a few runs can. Within a single run, points are drawn as if they were independent:
    over the epochs of a training that interval is too narrow.

    Args:
        x: Values.
        y: As many.
        runs: The run that each point is of; None is one run.
        confidence: Of the interval, between 0 and 1.
        resamples: Bootstrap samples.
        seed: Of the bootstrap.

    Returns:
        The correlation; pairs with a value that is not finite are left out.

    Raises:
        ValueError: If the lengths differ.
        ModuleNotFoundError: If SciPy is missing.

    Example:
        >>> rank_correlation([1, 2, 3, 4, 5, 6], [1, 4, 9, 16, 25, 36]).rho
        1.0
        >>> rank_correlation([1, 2, 3, 4, 5, 6], [1, 3, 2, 5, 4, 6], runs=["a", "a", "a", "b", "b", "b"]).runs
        2
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values beside {len(y)}: give pairs.")
    if runs is not None and len(runs) != len(x):
        raise ValueError(f"{len(runs)} runs for {len(x)} pairs: name the run of each.")
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
    """The rank correlation of error and accuracy for each layer, in the order of the measurements."""
    found = {}
    for layer in dict.fromkeys(m.layer for m in measurements):
        own = [m for m in measurements if m.layer == layer]
        found[layer] = rank_correlation(
            [m.error for m in own], [m.accuracy for m in own], runs=[m.run for m in own], seed=seed
        )
    return found


def require(*packages: str) -> None:
    """Says which package is missing, and how to get it.

    Raises:
        ModuleNotFoundError: If one of the packages is not installed.
    """
    missing = [package for package in packages if not module_available(package)]
    if missing:
        raise ModuleNotFoundError(
            f"The analysis needs {' and '.join(missing)}: python -m pip install 'lightning-cnnvis[posthoc]'",
            name=missing[0],
        )
