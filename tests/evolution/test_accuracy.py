"""Error against accuracy: the table, the correlation against SciPy and by hand, the plot, and the callback's end."""

import math

import numpy as np
import pytest
from scipy import stats

from lightning_cnnvis.evolution.accuracy import (
    Measurement,
    correlations,
    find_accuracy,
    rank_correlation,
    read_csv,
    to_csv,
)
from lightning_cnnvis.figures.accuracy import plot


@pytest.fixture
def measurements():
    noise = np.random.default_rng(0).uniform(0.95, 1.05, 100)
    return [
        Measurement(run, epoch, layer, float(noise[epoch + 10 * n] / epoch), 0.1 * epoch)
        for run in ("narrow", "wide, 1/2")
        for epoch in range(1, 7)
        for n, layer in enumerate(["relu1", "relu2"])
    ]


def test_table_comes_back(measurements, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(to_csv(measurements))
    assert read_csv(path) == measurements


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run,epoch\na,1\n", r"no column layer, error, accuracy\. Pass a table that to_csv wrote"),
        ("run,epoch,layer,error,accuracy\na,one,relu1,0.1,0.2\n", r"line 2.*'one'\. Correct the line or delete it"),
    ],
)
def test_table_that_is_not_one(text, message, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_csv(path)


def test_correlation_is_spearmans():
    x, y = np.random.default_rng(1).normal(size=(2, 30))
    y[:5] = y[0]  # ties
    found = rank_correlation(x, y + x)
    assert found.rho == pytest.approx(stats.spearmanr(x, y + x).statistic)
    assert -1 <= found.low < found.rho < found.high <= 1
    assert found == rank_correlation(x, y + x)
    # about as wide as Fisher's approximation has it
    half = math.tanh(1.96 * 1.03 / math.sqrt(30 - 3))
    assert (found.high - found.low) / 2 == pytest.approx(half * (1 - found.rho**2), rel=0.5)


def test_points_of_a_run_hang_together():
    """The interval over several runs, against a two-stage bootstrap written out, and of repeated points."""
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(2, 5, 8)) + 2 * generator.normal(size=(2, 5, 1))
    names = np.repeat([f"run {n}" for n in range(5)], 8)
    found = rank_correlation(x.ravel(), y.ravel(), runs=names, resamples=4000)
    drawn = []
    for _ in range(4000):
        runs = generator.integers(5, size=5)
        points = generator.integers(8, size=(5, 8))
        drawn.append(stats.spearmanr(x[runs[:, None], points].ravel(), y[runs[:, None], points].ravel()).statistic)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.05)
    assert (found.count, found.runs) == (40, 5)
    assert str(found).endswith("], n 40 of 5 runs")
    # the order of the points is of no matter to rho, and it is that of all points
    assert found.rho == pytest.approx(stats.spearmanr(x.ravel(), y.ravel()).statistic)

    # eight times the same point is one point: the interval is that of five
    once = rank_correlation(x[:, 0], y[:, 0], resamples=4000)
    repeated = rank_correlation(np.repeat(x[:, 0], 8), np.repeat(y[:, 0], 8), runs=names, resamples=4000)
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=0.1)
    pooled = rank_correlation(np.repeat(x[:, 0], 8), np.repeat(y[:, 0], 8), resamples=4000)
    assert pooled.high - pooled.low < 0.6 * (repeated.high - repeated.low)


def test_correlation_that_is_not_defined():
    assert math.isnan(rank_correlation([1, 2, 3], [1, 2, 3]).rho)
    assert math.isnan(rank_correlation([1, 2, 3, 4, 5], [1, 1, 1, 1, 1]).rho)
    few = rank_correlation([1, 2, 3, math.nan, 5], [1, 2, 3, 4, math.inf])
    assert math.isnan(few.rho)
    assert few.count == 3
    assert str(few) == "too few points to correlate, n 3"
    with pytest.raises(ValueError, match=r"x has 3 values and y has 2\. Pass as many of one as of the other"):
        rank_correlation([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match=r"runs has 1 names for 2 pairs\. Name the run of every pair"):
        rank_correlation([1, 2], [1, 2], runs=["a"])


def test_each_layer_is_correlated_and_plotted(measurements):
    found = correlations(measurements)
    assert list(found) == ["relu1", "relu2"]
    assert all(correlation.rho < -0.9 for correlation in found.values())
    assert all((correlation.count, correlation.runs) == (12, 2) for correlation in found.values())
    picture = plot(measurements)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert len(np.unique(picture)) > 20
    with pytest.raises(ValueError, match=r"no measurements to plot\. Invert features"):
        plot([])


def test_the_accuracy_is_found_under_other_names():
    assert find_accuracy({"val_acc": [2.0], "mine": [0.5]}, "mine") == "mine"
    assert find_accuracy({"val/loss": [2.0], "train/acc": [0.5], "Val/Acc": [0.5, 1.0]}) == "Val/Acc"


def test_an_accuracy_that_is_in_doubt_is_none():
    assert find_accuracy({"val_acc1": [0.5], "val_acc5": [0.5]}) is None
    assert find_accuracy({"val/acc": [0.5, 70.0]}) is None
