"""The statistics of `information_study`: pure functions of arrays, with scipy and statsmodels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

SAMPLES = 2000
PERMUTATIONS = 10_000
LEVEL = 0.95
SEED = 17


@dataclass(frozen=True)
class Effect:
    """A number with its interval and its p-value.

    Attributes:
        value: The estimate; NaN where it cannot be computed.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        p: Two-sided, before any correction.
        count: Number of images or runs.
        holm: The p-value after Holm's correction over the layers; that before, where there is none.
    """

    value: float
    low: float
    high: float
    p: float
    count: int
    holm: float = float("nan")


def corrected(effects: Sequence[Effect]) -> list[Effect]:
    """Corrects a family, which is all layers of a network or a data set, by Holm's method.

    Args:
        effects: The effects. Those without a p-value are not counted.

    Returns:
        The same, with ``holm`` set.
    """
    from statsmodels.stats.multitest import multipletests

    p = np.array([effect.p for effect in effects])
    known = np.isfinite(p)
    adjusted = np.full(len(p), np.nan)
    if known.any():
        adjusted[known] = multipletests(p[known], method="holm")[1]
    return [replace(effect, holm=float(value)) for effect, value in zip(effects, adjusted, strict=True)]


def spearman(x: Floats, y: Floats, controls: Sequence[Floats] = ()) -> float:
    """Spearman's correlation, with other variables held fixed.

    Args:
        x: ``(n,)``.
        y: ``(n,)``.
        controls: Variables ``(n,)`` whose ranks are regressed out of the ranks of both.

    Returns:
        The correlation; NaN if one of the two does not vary.
    """
    design = np.column_stack([np.ones(len(x)), *map(stats.rankdata, controls)])

    def rest(values: Floats) -> Floats:
        ranks = stats.rankdata(values)
        left: Floats = ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]
        return left if np.linalg.norm(left) > 1e-9 * np.linalg.norm(ranks) else np.zeros_like(left)

    a, b = rest(x), rest(y)
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else float("nan")


def p_of_correlation(value: float, count: int, controls: int = 0) -> float:
    """Two-sided p-value of a (partial) correlation by Student's t."""
    freedom = count - 2 - controls
    if not np.isfinite(value) or freedom < 1:
        return float("nan")
    t = value * np.sqrt(freedom / max(1 - value * value, 1e-12))
    return float(2 * stats.t.sf(abs(t), freedom))


def bootstrap(
    estimate: Callable[[npt.NDArray[np.int64]], float], groups: Sequence[Sequence[int]], samples: int = SAMPLES
) -> tuple[float, float]:
    """Percentile interval of an estimate, by drawing the members of each group again.

    Args:
        estimate: Computes the estimate from the numbers of the members.
        groups: The numbers of the members of each group; one group draws all alike.
        samples: Number of draws.

    Returns:
        The ends of the 95 % interval.
    """
    generator = np.random.default_rng(SEED)
    values = [
        estimate(np.concatenate([generator.choice(np.asarray(group), len(group)) for group in groups]))
        for _ in range(samples)
    ]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail]) if np.isfinite(values).any() else (np.nan, np.nan)
    return float(low), float(high)


def partial_correlation(x: Floats, y: Floats, controls: Sequence[Floats] = ()) -> Effect:
    """Spearman's (partial) correlation over independent images."""
    value = spearman(x, y, controls)
    low, high = bootstrap(lambda i: spearman(x[i], y[i], [control[i] for control in controls]), [range(len(x))])
    return Effect(value, low, high, p_of_correlation(value, len(x), len(controls)), len(x))


def larger_where_wrong(error: Floats, right: npt.NDArray[np.bool_]) -> Effect:
    """Probability that the error of a wrong image is larger than that of a right one (Mann & Whitney).

    Args:
        error: ``(n,)``.
        right: ``(n,)``, whether the network is right.

    Returns:
        The area under the ROC curve; ½ says nothing. The interval draws wrong and right images again, each by itself.
    """

    def area(i: npt.NDArray[np.int64]) -> float:
        wrong, good = error[i][~right[i]], error[i][right[i]]
        ranks = stats.rankdata(np.concatenate([wrong, good]))[: len(wrong)]
        return float((ranks.sum() - len(wrong) * (len(wrong) + 1) / 2) / (len(wrong) * len(good)))

    groups = [np.flatnonzero(~right), np.flatnonzero(right)]
    if min(map(len, groups)) == 0:
        return Effect(np.nan, np.nan, np.nan, np.nan, len(error))
    p = stats.mannwhitneyu(error[~right], error[right]).pvalue
    low, high = bootstrap(area, [group.tolist() for group in groups])
    return Effect(area(np.concatenate(groups)), low, high, float(p), len(error))


def centred(values: Floats, groups: npt.NDArray[Any]) -> Floats:
    """Values less the mean of their group."""
    out = np.array(values, dtype=np.float64)
    for group in np.unique(groups):
        out[groups == group] -= out[groups == group].mean()
    return out


def over_runs(x: Floats, y: Floats, groups: npt.NDArray[Any] | None = None) -> Effect:
    """Spearman's correlation over runs, after the means of their groups are taken off.

    Args:
        x: ``(runs,)``.
        y: ``(runs,)``.
        groups: ``(runs,)``, such as the width of each; None takes all as one.

    Returns:
        The correlation; p by permutation of the runs within their groups, the interval by drawing them again within
        these.
    """
    groups = np.zeros(len(x)) if groups is None else groups
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]

    def estimate(i: npt.NDArray[np.int64]) -> float:
        return spearman(centred(x[i], groups[i]), centred(y[i], groups[i]))

    value = estimate(np.arange(len(x)))
    if not np.isfinite(value):
        return Effect(value, np.nan, np.nan, np.nan, len(x))
    generator = np.random.default_rng(SEED)
    a, b = (stats.rankdata(centred(values, groups)) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    # a permutation within groups leaves their means: only the pairs change
    order = np.tile(np.arange(len(x)), (PERMUTATIONS, 1))
    for own in members:
        order[:, own] = generator.permuted(order[:, own], axis=1)
    found = (a[order] @ b) / (np.linalg.norm(a) * np.linalg.norm(b))
    p = (1 + (np.abs(found) >= abs(value) - 1e-12).sum()) / (1 + PERMUTATIONS)
    low, high = bootstrap(estimate, [own.tolist() for own in members])
    return Effect(value, low, high, float(p), len(x))


def mean_of_runs(correlations: Floats) -> Effect:
    """The mean of the correlations within runs, against 0 by Wilcoxon's signed-rank test; NaNs are left out."""
    known = correlations[np.isfinite(correlations)]
    if len(known) < 2 or not known.any():
        return Effect(float(known.mean()) if len(known) else np.nan, np.nan, np.nan, np.nan, len(known))
    low, high = bootstrap(lambda i: float(known[i].mean()), [range(len(known))])
    return Effect(float(known.mean()), low, high, float(stats.wilcoxon(known).pvalue), len(known))


@dataclass(frozen=True)
class MixedModel:
    """What a linear mixed model says of the accuracy: a slope between runs and one within.

    Attributes:
        between: Change of the logit accuracy with the mean log error of a run, at the same epoch and width.
        within: The same with the deviation of an epoch from the run's mean.
    """

    between: Effect
    within: Effect


def mixed_model(logit: Floats, log_error: Floats, epoch: Floats, width: Floats, run: npt.NDArray[Any]) -> MixedModel:
    """Fits logit accuracy on epoch and width, both categorical, and on the error, with a random intercept a run."""
    import pandas as pd
    import statsmodels.formula.api as smf

    within = centred(log_error, run)
    frame = pd.DataFrame({
        "logit": logit, "epoch": epoch, "width": width, "run": run, "within": within, "between": log_error - within
    })  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance of the intercepts at 0 is an answer
        fitted = smf.mixedlm("logit ~ C(epoch) + C(width) + between + within", frame, groups="run").fit(reml=True)
    ends = fitted.conf_int(1 - LEVEL)

    def effect(name: str) -> Effect:
        low, high = (float(end) for end in ends.loc[name])
        return Effect(float(fitted.params[name]), low, high, float(fitted.pvalues[name]), len(np.unique(run)))

    return MixedModel(effect("between"), effect("within"))
