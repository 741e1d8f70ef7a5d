"""``python -m lightning_cnnvis``."""

from __future__ import annotations

import runpy
import sys

import pytest


@pytest.mark.parametrize(("command", "stays"), [("layers", False), ("fit", True)])
def test_the_current_folder_is_searched_for_ones_own_training_only(command, stays, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lightning_cnnvis", command, "--help"])
    monkeypatch.setattr(sys, "path", ["here", *sys.path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("lightning_cnnvis", run_name="__main__")
    assert ended.value.code == 0
    assert ("here" in sys.path) == stays
    assert "usage" in capsys.readouterr().out.lower()
