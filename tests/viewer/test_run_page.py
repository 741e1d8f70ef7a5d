"""The page of a run that has ended, for loggers that take one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pytorch_lightning.loggers import Logger
from report_contents import embedded
from runs import SPEC, fit

from lightning_cnnvis import ClassVisualization, DeconvNetProjection


class Experiment:
    """Stands for a run of Weights & Biases."""

    id = "x7"

    def __init__(self) -> None:
        self.artifacts: dict[str, tuple[str, str, str]] = {}

    def log_artifact(self, path: str, name: str, type: str) -> None:
        self.artifacts[name] = (Path(path).name, type, Path(path).read_text(encoding="utf-8"))


class WandbLogger(Logger):
    """Stands for Lightning's logger for Weights & Biases."""

    name, version = "project", "x7"

    def __init__(self) -> None:
        super().__init__()
        self.experiment = Experiment()

    def log_image(self, key, images, step, caption):
        pass

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, *args, **kwargs):
        pass


def callbacks(**options) -> list:
    options = {"input_spec": SPEC, "on_error": "raise", "every_n_epochs": 1, **options}
    return [ClassVisualization(steps=1, **options), DeconvNetProjection(layers=["2"], **options)]


def test_weights_and_biases_gets_a_page_of_the_run(tmp_path):
    logger = WandbLogger()
    fit(tmp_path, *callbacks(), logger=logger)
    ((name, (file, kind, html)),) = logger.experiment.artifacts.items()
    assert (name, file, kind) == ("x7-cnnvis-report", "report.html", "report")
    data = embedded(html)
    assert data["index"]["title"] == "Classifier"
    heads = [entry["head"] for entry in data["index"]["runs"][0]["entries"]]
    assert [head["kind"] for head in heads].count("network") == 1
    shown = {(head["label"], head["epoch"]) for head in heads if head["kind"] == "section"}
    assert {epoch for _, epoch in shown} == {1, 2}
    assert len({label for label, _ in shown}) == 2
    assert {part for entry in data["index"]["runs"][0]["entries"] for part in (entry["body"], *entry["sheets"])} == set(
        data
    ) - {"index"}


def test_there_is_no_page_of_what_the_viewer_is_not_given(tmp_path):
    logger = WandbLogger()
    fit(tmp_path, *callbacks(viewer=False), logger=logger)
    assert logger.experiment.artifacts == {}


def test_a_page_that_cannot_be_sent_leaves_the_run_alone(tmp_path, monkeypatch):
    logger = WandbLogger()
    monkeypatch.setattr(Experiment, "log_artifact", lambda *args, **kwargs: json.loads("broken"))
    with pytest.warns(UserWarning, match="logger WandbLogger"):
        fit(tmp_path, *callbacks(on_error="warn"), logger=logger)
