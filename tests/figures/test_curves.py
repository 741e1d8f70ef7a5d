"""Plots of numbers over the epochs."""

from __future__ import annotations

import pytest

from lightning_cnnvis.figures import curves


def test_without_matplotlib_there_is_a_warning_and_no_plot(monkeypatch):
    monkeypatch.setattr(curves, "module_available", lambda name: False)
    with pytest.warns(UserWarning, match="A plot needs Matplotlib"):
        assert curves.curves_picture({"loss": {1: 0.5}}) is None


def test_without_numbers_there_is_no_plot():
    assert curves.curves_picture({}) is None
