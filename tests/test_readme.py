"""Every code block of the README, CONTRIBUTING.md and the docs runs."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

import pytest
import toy
from PIL import Image

from lightning_cnnvis.cli import POSTHOC, main
from lightning_cnnvis.cli.arguments import parser_of
from lightning_cnnvis.functional.visualization.presets import PRESETS
from lightning_cnnvis.methods import method_names
from lightning_cnnvis.sinks import loggers

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(language, textwrap.dedent(code), id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, (language, code) in enumerate(re.findall(r"^ *```(\w+)\n(.*?)^ *```", page.read_text(), re.M | re.S))
]
SAFE = tuple(
    ["python", "-m", module]
    for module in (
        "venv",
        "tests.benchmarks",
        "tests.benchmarks.first_layer",
        "tests.benchmarks.first_layer_page",
        "tests.benchmarks.information_study",
    )
)
SHORT = "--trainer.max_epochs 1 --trainer.limit_train_batches 1 --trainer.limit_val_batches 1 --trainer.accelerator cpu"


@pytest.mark.parametrize(
    ("language", "code"), [block for block in BLOCKS if block.values[0] == "python" and block.values[1] != toy.SOURCE]
)
def test_python_block(language, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_TRAINER_FAST_DEV_RUN", "1")
    # what a block registers goes with it
    monkeypatch.setattr(PRESETS, "_entries", dict(PRESETS._entries))
    monkeypatch.setattr(loggers, "_KINDS", list(loggers._KINDS))
    exec(compile(code, "block", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(("language", "code"), [block for block in BLOCKS if block.values[0] == "bash"])
def test_bash_block(language, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (80, 80), (number, 99, 0)).save(tmp_path / "photos" / split / label / f"{number}.png")
    for command in re.split(r"&&|\n", code):
        words = shlex.split(command)
        if words[:3] == ["python", "-m", "lightning_cnnvis"] and words[3] in {*POSTHOC, *method_names()}:
            parser_of(words[3]).parse_args(words[4:])  # tests/cli runs them
        elif words[:3] == ["python", "-m", "lightning_cnnvis"]:
            main([*words[3:], *SHORT.split()])
            printed = capsys.readouterr().out
            assert "tensorboard --logdir" in printed
            assert list(tmp_path.rglob("deconvnet/*/epoch_0001.png"))
        else:
            # installing is done before the tests run, and the tests are running
            assert not words or words[0] in {"pip", "pre-commit", "pytest", "source"} or words[:3] in SAFE
