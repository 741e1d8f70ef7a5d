"""The statistics of the study of what a layer knows, and its page, from figures whose relation is known."""

from __future__ import annotations

import csv
from itertools import permutations

import numpy as np
import pytest
from benchmarks import information_page, information_statistics
from benchmarks.information_images import COLUMNS, SUBJECTS, margins, sample
from benchmarks.information_runs import COLUMNS as RUN_COLUMNS
from benchmarks.information_runs import LAYERS, SETS, WIDTHS
from benchmarks.information_statistics import (
    Effect,
    bootstrap,
    centred,
    corrected,
    larger_where_wrong,
    mean_of_runs,
    mixed_model,
    over_runs,
    partial_correlation,
    spearman,
)
from scipy import stats
from torch import tensor

pytestmark = pytest.mark.slow  # statsmodels comes with the extra "dev"


@pytest.fixture
def numbers():
    return np.random.default_rng(0)


def test_the_images_are_not_those_of_the_pilot():
    chosen = sample(range(500))
    assert len(set(chosen)) == 200
    assert not set(chosen) & set(range(0, 500, 62))
    assert chosen == sample(reversed(range(500)))


def test_margins():
    assert margins(tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]]), tensor([1, 0])).tolist() == [1, -2]


def test_a_partial_correlation_is_that_of_the_formula(numbers):
    x, y, z = numbers.normal(size=(3, 50))
    y = y + z
    xy, xz, yz = (stats.spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    assert spearman(x, y) == pytest.approx(xy)
    assert spearman(x, y, [z]) == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)))
    plain = partial_correlation(x, y)
    assert plain.p == pytest.approx(stats.spearmanr(x, y).pvalue)
    assert plain.low < plain.value < plain.high


def test_what_does_not_vary_has_no_correlation(numbers):
    x = numbers.normal(size=20)
    assert np.isnan(spearman(x, np.ones(20)))
    assert np.isnan(spearman(x, 2 * x, [x]))


def test_the_area_counts_pairs(numbers):
    error, right = numbers.normal(size=40).round(1), numbers.random(40) < 0.4
    pairs = error[~right][:, None] - error[right]
    found = larger_where_wrong(error, right)
    assert found.value == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
    assert found.low < found.value < found.high
    assert np.isnan(larger_where_wrong(error, np.ones(40, bool)).value)


def test_holm():
    effects = corrected([Effect(0, 0, 0, p, 9) for p in (0.01, 0.04, 0.03, np.nan)])
    assert [round(effect.holm, 6) for effect in effects[:3]] == [0.03, 0.06, 0.06]
    assert np.isnan(effects[3].holm)


def test_permutations_keep_runs_in_their_group():
    x, y = np.array([1.0, 2, 3, 11, 12, 13]), np.array([1.0, 3, 2, 31, 33, 32])
    groups = np.array([0, 0, 0, 1, 1, 1])
    a, b = centred(x, groups), centred(y, groups)
    all_of_them = [
        spearman(np.concatenate([first, second]), b) for first in permutations(a[:3]) for second in permutations(a[3:])
    ]
    exact = np.mean([abs(value) >= abs(spearman(a, b)) - 1e-12 for value in all_of_them])
    found = over_runs(x, y, groups)
    assert found.value == pytest.approx(spearman(a, b))
    assert found.p == pytest.approx(exact, abs=0.02)
    # the groups' own means, which agree, do not count
    assert over_runs(x, y).value > found.value


def test_the_interval_of_a_mean(numbers):
    values = numbers.normal(size=30)
    low, high = bootstrap(lambda i: float(values[i].mean()), [range(30)])
    half = 1.96 * values.std() / np.sqrt(30)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)


def test_the_mean_over_runs_leaves_out_what_is_not_known():
    found = mean_of_runs(np.array([0.5, np.nan, 0.7, 0.6]))
    assert (found.value, found.count) == (pytest.approx(0.6), 3)


def test_the_mixed_model_tells_runs_from_epochs(numbers):
    run = np.repeat(np.arange(15), 6)
    between, within = numbers.normal(size=15)[run], centred(numbers.normal(size=90), run)
    width, epoch = np.repeat([1.0, 2, 3], 30), np.tile(np.arange(6.0), 15)
    logit = -2 * between + 0.5 * within + width + epoch + 0.1 * numbers.normal(size=90)
    found = mixed_model(logit, between + within, epoch, width, run)
    assert found.between.value == pytest.approx(-2, abs=0.1)
    assert found.within.value == pytest.approx(0.5, abs=0.1)
    assert found.between.low < -2 < found.between.high


def test_the_page(tmp_path, monkeypatch, numbers):
    monkeypatch.setattr(information_statistics, "bootstrap", lambda estimate, groups: (-0.5, 0.5))
    with (tmp_path / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for network, subject in SUBJECTS.items():
            for image, margin in enumerate(numbers.normal(size=30)):
                about = {"network": network, "image": image, "right": int(margin > 0), "margin": margin}
                for layer in subject.layers:
                    error = np.exp(-margin) if layer == subject.layers[-1] else np.exp(numbers.normal())
                    looks = dict(zip(("norm", "gradient", "bytes", "ssim"), numbers.random(4), strict=True))
                    writer.writerow({**about, "layer": layer, "error": error, **looks})
    with (tmp_path / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, RUN_COLUMNS)
        writer.writeheader()
        for data in SETS:
            for width in WIDTHS:
                for seed in range(5):
                    for epoch in range(1, 7):
                        accuracy = 0.1 * epoch + 0.1 * numbers.random() if seed else 0.1  # the first learns nothing
                        for layer in LAYERS:
                            writer.writerow({
                                "data": data, "width": width, "seed": seed, "epoch": epoch, "layer": layer,
                                "log_error": epoch + numbers.normal(), "ssim": 0.5, "images": 8, "accuracy": accuracy,
                            })  # fmt: skip
    page = tmp_path / "page.md"
    names = ["accuracies", *SUBJECTS, *SETS, "epochs"]
    page.write_text("\n\n".join(f"<!-- study: {name} -->\n\n<!-- end -->" for name in names))
    information_page.make(page, tmp_path, tmp_path)
    text = page.read_text()
    assert "| ZFNets on tiny10 | 12 runs; " in text
    assert "| `classifier.2` | 30 | " in text
    assert "**−1.00 [−0.50, +0.50]**, p < .001" in text
    assert text.count("<!-- end -->") == len(names)
    for name in ("study_images.png", "study_runs.png", "study_courses.png"):
        assert (tmp_path / name).stat().st_size > 10_000
