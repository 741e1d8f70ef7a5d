"""Kill -9 costs no more than the work since the last checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import pictures


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_run_killed_20_times_goes_on_without_a_hole_or_a_double(tmp_path):
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_run.py"), tmp_path, "20", "12", "0"],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        timeout=600,
        capture_output=True,
    )
    # each checkpoint that a kill left behind loaded, or the report would not have been written
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["reached"]) == 21
    assert report["reached"] == sorted(report["reached"])
    assert len(report["strips"]) == len(report["whole"]) >= 6
    assert all(strip == list(range(1, 13)) for strip in report["strips"])
    assert pictures(tmp_path / "parts" / "cnnvis") == pictures(tmp_path / "whole" / "cnnvis")
    assert not list((tmp_path / "parts" / "cnnvis").rglob(".*"))
