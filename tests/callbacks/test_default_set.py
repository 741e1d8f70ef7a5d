import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis import VisualizationCheckpoint, visualizations
from lightning_cnnvis.callbacks import MethodCallback
from lightning_cnnvis.inputs import InputSpec

SPEC = InputSpec(size=(16, 16))


class Autoencoder(pl.LightningModule):
    """A network that tells no classes apart."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))

    def training_step(self, batch, _):
        return (self.network(batch[0]) - batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def fit(tmp_path, callbacks):
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    trainer.fit(Autoencoder(), DataLoader(TensorDataset(torch.rand(8, 3, 16, 16)), 4))


def test_the_default_set():
    *shown, keeps = visualizations(epochs=[1, 3], layers=["layer*.1"])
    assert [callback.method.name for callback in shown] == ["deconv", "classes", "invert", "diagnose"]
    assert isinstance(keeps, VisualizationCheckpoint)
    assert all(callback.epochs == (1, 3) for callback in shown)
    assert [callback.layers for callback in shown] == [("layer*.1",), None, ("layer*.1",), ("layer*.1",)]


def test_methods_go_by_name_or_by_the_word_in_their_tags():
    shown = visualizations(["inversion", "dream", "invert"], keep_weights=False)
    assert [callback.method.name for callback in shown] == ["invert", "dream"]
    with pytest.raises(ValueError, match=r"no method 'dreams'\. Did you mean 'dream'\? There are deconv, classes,"):
        visualizations(["dreams"])


@pytest.mark.filterwarnings("ignore")
def test_what_a_network_does_not_allow_is_left_out(tmp_path):
    callbacks = visualizations(input_spec=SPEC)
    for callback in callbacks[:-1]:
        callback.on_error = "raise"
    with pytest.warns(UserWarning, match="ClassVisualization is left out: Sequential is not a classifier"):
        fit(tmp_path, [callbacks[1], callbacks[3]])
    pictures = {path.relative_to(tmp_path).parts[1] for path in tmp_path.rglob("*.png")}
    assert pictures == {"diagnosis"}


def test_what_was_asked_for_is_not_left_out(tmp_path):
    with pytest.raises(MisconfigurationException, match="is not a classifier"):
        fit(tmp_path, visualizations(["classes"], input_spec=SPEC))


def test_whether_it_is_optional_does_not_change_the_state():
    (asked,) = visualizations(["diagnose"], keep_weights=False)
    chosen = next(c for c in visualizations() if isinstance(c, MethodCallback) and c.method.name == "diagnose")
    assert chosen.optional
    assert not asked.optional
    assert asked.state_key == chosen.state_key


@pytest.mark.filterwarnings("ignore")
def test_what_is_spent_above_the_limit_is_explained(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("lightning_cnnvis.callbacks.base.callback.rank_zero_info", said.append)
    fit(tmp_path, visualizations(["diagnose"], input_spec=SPEC, max_overhead=0.0, keep_weights=False))
    expected = (
        "the first 60 s of all visualisations, the first epoch of each and the last, are shown whatever they cost"
    )
    assert any(expected in s for s in said)
    said.clear()
    fit(tmp_path, visualizations(["diagnose"], input_spec=SPEC, max_overhead=None, keep_weights=False))
    assert said
    assert not any("whatever they cost" in s for s in said)
