"""The Trainer's progress bar says what is being shown, and has its own text again afterwards."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar, TQDMProgressBar
from runs import Classifier, loader

from lightning_cnnvis import ClassVisualization, InputSpec
from lightning_cnnvis.callbacks.base import announcing


@pytest.mark.parametrize("kind", [TQDMProgressBar, RichProgressBar])
@pytest.mark.parametrize("validated", [True, False])
def test_the_bar_tells_of_steps(tmp_path, monkeypatch, kind, validated):
    if kind is RichProgressBar:
        pytest.importorskip("rich")
    monkeypatch.setattr(announcing, "INTERVAL", 0)
    said, before = [], []
    found = announcing._description

    def noted(trainer):
        write, text = found(trainer)
        before.append(text)
        return (lambda new: (said.append(new), write(new))[1]), text

    monkeypatch.setattr(announcing, "_description", noted)
    classes = ClassVisualization(epochs=[1, 2], classes=[0], steps=2, input_spec=InputSpec(size=(16, 16)))
    trainer = pl.Trainer(
        default_root_dir=tmp_path, callbacks=[classes, kind()], accelerator="cpu", max_epochs=2, logger=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Classifier(), loader(), loader() if validated else None)
    assert any(text.startswith("ClassVisualization: step 2 of ") for text in said)
    assert any(text.startswith("Epoch 1") for text in before)
    assert said[-1] == before[-1] != ""


def test_no_bar_no_word(tmp_path):
    write, text = announcing._description(pl.Trainer(enable_progress_bar=False, accelerator="cpu", logger=False))
    assert text == ""
    write("nothing happens")
