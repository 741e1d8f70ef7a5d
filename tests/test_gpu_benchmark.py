"""The run of all benchmarks on a GPU: what it keeps when parts fail, and its tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.results import TARGETS, Figures, Settings, Target, lookup, markdown


def fails():
    raise ValueError("no luck")


def test_a_figure_that_fails_costs_only_itself(tmp_path):
    figures = Figures(tmp_path / "figures.json")
    figures.attempt("first", lambda: {"seconds": 1.5})
    figures.attempt("second", fails)
    figures.attempt("third", lambda: 3)
    kept = json.loads((tmp_path / "figures.json").read_text())
    assert kept["first"] == {"seconds": 1.5}
    assert kept["second"]["error"] == "ValueError: no luck"
    assert "in fails" in kept["second"]["traceback"]
    assert kept["third"] == 3


@pytest.mark.parametrize(
    ("found", "at_least", "expected"),
    [
        (0.5, False, ["t", "0.5 s", "≤ 1 s", "met"]),
        (1234.5, False, ["t", "1,234 s", "≤ 1 s", "**missed**"]),
        (0.5, True, ["t", "0.5 s", "≥ 1 s", "**missed**"]),
        (None, False, ["t", "not measured", "≤ 1 s", ""]),
        ({"error": "no luck"}, False, ["t", "not measured", "≤ 1 s", ""]),
    ],
)
def test_targets(found, at_least, expected):
    target = Target("t", ("part", "a", "b"), 1, at_least)
    assert target.row({"part": {"figures": {"a": {"b": found}}}}) == expected


def test_targets_name_parts():
    assert {target.path[0] for target in TARGETS} <= set(PARTS)
    assert lookup({"part": {"figures": {"error": "no luck"}}}, ("part", "error", "seconds")) is None


def run_of(**part) -> dict:
    whole = {"outcome": "done", "seconds": 3.0, "figures": {}, "output": "", **part}
    about = {"device": "NVIDIA H100", "date": "2026-11-26", "torch": "2.11", "lightning_cnnvis": "0.1"}
    return {**about, "command": "python", "quick": False, "parts": {"harvest": whole}}


def test_the_page_has_targets_parts_and_figures():
    text = markdown(run_of(figures={"resnet50": {"added": 0.0123, "layers": [{"a": 1}]}, "peak_mib": 512.0}))
    assert text.startswith("# NVIDIA H100\n")
    assert "| harvest of ResNet-50, share of a validation | 0.0123 | ≤ 0.02 | met |" in text
    assert "| harvest | done | 3 | 512 |" in text
    assert "| `resnet50.layers.0.a` | 1 |" in text
    assert "smoke" not in text


def test_the_page_shows_why_a_part_failed():
    assert "the end of the log" in markdown(run_of(outcome="failed, status 1", output="the end of the log\n"))


def test_a_part_that_crashes_or_has_no_time_is_recorded(tmp_path, monkeypatch):
    settings = Settings("cpu", True, tmp_path)
    assert gpu.in_process("harvest", settings, 1)["outcome"] == "left out: no time"
    monkeypatch.setattr(gpu, "MODULE", "no.such.package")
    crashed = gpu.in_process("harvest", settings, 60)
    assert crashed["outcome"] == "failed, status 1"
    assert "no.such.package" in crashed["output"] or "No module named" in crashed["output"]


@pytest.mark.slow
def test_a_smoke_run_on_the_cpu(tmp_path):
    args = ["--output", str(tmp_path), "--device", "cpu", "--quick", "--limit", "3600"]
    args += ["--parts", "synchronizations", "harvest"]
    assert gpu.main(args) == 0
    run = json.loads((tmp_path / "gpu.json").read_text())
    assert [part["outcome"] for part in run["parts"].values()] == ["done", "done"]
    assert "smoke run" in (tmp_path / "gpu.md").read_text()
    assert not list(Path(tmp_path).glob("*.figures.json"))
