"""`evolve`: what a training drew, drawn again from its checkpoints."""

from __future__ import annotations

import csv
import shutil
import signal
import warnings

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import toy
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis import (
    ClassVisualization,
    DeconvNetProjection,
    DeepDream,
    FeatureConvergence,
    FeatureInversion,
    InputSpec,
    VisualizationCheckpoint,
    evolve,
)
from lightning_cnnvis.callbacks import callback_of
from lightning_cnnvis.checkpoints import CheckpointError
from lightning_cnnvis.cli import main
from lightning_cnnvis.functional import DreamOptions

pytestmark = pytest.mark.filterwarnings("ignore:.*(does not have many workers|log_every_n_steps|isinstance\\(treespec)")
SPEC = InputSpec(size=(24, 24), class_names=("ant", "bee", "cow"))


class Data(pl.LightningDataModule):
    input_spec = SPEC

    def loader(self, seed: int) -> DataLoader:
        images = torch.rand(20, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(images, torch.arange(20) % 3), batch_size=8)

    def train_dataloader(self):
        return self.loader(0)

    def val_dataloader(self):
        return self.loader(1)


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip

    def training_step(self, batch, _):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, _):
        logits = self.model(batch[0])
        self.log("val_loss", F.cross_entropy(logits, batch[1]))
        self.log("val_accuracy", (logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.3)


def trainer(tmp_path, *callbacks, **options) -> pl.Trainer:
    settings = {
        "max_epochs": 4,
        "default_root_dir": tmp_path,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
    }
    return pl.Trainer(callbacks=list(callbacks), **(settings | options))


def visualizations():
    toy.load()
    return [
        callback_of("mean_image", epochs=[1, 2], single_scalars=True),
        DeconvNetProjection(epochs=[1, 2], num_channels=3, k=3, single_scalars=True),
        FeatureConvergence(similarity=0.1, patience=1),
        ClassVisualization(epochs=[1, 2], steps=2, statistics="own", single_scalars=True),
        DeepDream(
            epochs=[1, 2], layers=["2"], options=DreamOptions(octaves=1, steps=1), zoom_frames=2, single_scalars=True
        ),
        FeatureInversion(epochs=[1, 2], layers=["2"], probes=2, steps=2, monitor="val_loss", single_scalars=True),
    ]


def files_of(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in {".png", ".gif", ".csv"}
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's folder, made once."""
    folder = tmp_path_factory.mktemp("run")
    pl.seed_everything(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(folder, *visualizations(), VisualizationCheckpoint()).fit(Classifier(), Data())
    return folder / "lightning_logs" / "version_0"


@pytest.fixture
def run(trained, tmp_path):
    """A run's folder, to do with as one likes."""
    return shutil.copytree(trained, tmp_path / "lightning_logs" / "version_0")


def test_pictures_are_those_of_the_training_to_the_byte(run, tmp_path):
    live = files_of(run / "cnnvis")
    assert {path.split("/")[0] for path in live} == {
        "deconvnet", "deconvnet_evolution", "class_visualization", "deepdream", "deepdream_zoom", "inversion",
        "mean_image",
    }  # fmt: skip
    # drawn at the end of the training
    assert "inversion/accuracy/epoch_0004.png" in live
    evolution = evolve(run, Data(), model=Classifier(), callbacks=visualizations())
    assert evolution.epochs == (1, 2, 4)
    evolution.save(tmp_path / "again")
    again = files_of(tmp_path / "again")
    assert again.pop("curves.png")
    assert again.pop("curves.csv")
    assert {"inversion/accuracy.csv", "inversion/accuracy/epoch_0004.png"} <= set(live)
    assert "deepdream_zoom/2/epoch_0002.gif" in live
    assert again == live
    assert evolution.tables.keys() == {"inversion/accuracy"}
    assert set(evolution.animations["deepdream_zoom/2"]) == {1, 2, 4}


def test_curves_are_those_of_the_training(run, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    live = events.EventAccumulator(str(run))
    live.Reload()
    evolution = evolve(run, Data(), model=Classifier(), callbacks=visualizations())
    costs = ("cnnvis/seconds", "cnnvis/overhead")
    logged = [tag for tag in live.Tags()["scalars"] if tag.startswith("cnnvis/") and not tag.startswith(costs)]
    tags = {tag: tag.removeprefix("cnnvis/") for tag in logged}
    assert any(tag.startswith("settled_epoch") for tag in tags.values())
    assert any(tag.startswith("inversion_error/") for tag in tags.values())
    for tag, own in tags.items():
        points = [event.value for event in live.Scalars(tag)]
        assert [torch.tensor(value).item() for value in evolution.curves[own].values()] == points
    logged = [event.value for event in live.Scalars("val_loss")]
    assert [evolution.curves["val_loss"][epoch] for epoch in (1, 2, 4)] == [logged[0], logged[1], logged[3]]
    evolution.save(tmp_path / "again")
    rows = list(csv.DictReader((tmp_path / "again" / "curves.csv").open()))
    assert {"tag": "val_loss", "epoch": "4", "value": str(evolution.curves["val_loss"][4])} in rows


def test_keeping_weights_changes_nothing_else(run, tmp_path):
    pl.seed_everything(0)
    plain = trainer(tmp_path / "plain", *visualizations())
    module = Classifier()
    plain.fit(module, Data())
    kept = sorted((run / "cnnvis" / "weights").iterdir())
    assert [path.name for path in kept] == ["epoch_0001.ckpt", "epoch_0002.ckpt", "epoch_0004.ckpt"]
    last = torch.load(kept[-1], weights_only=True)
    assert "optimizer_states" not in last
    assert all(torch.equal(value, last["state_dict"][key]) for key, value in module.state_dict().items())


def test_the_last_epoch_of_a_training_that_stopped_early_is_kept(tmp_path):
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 2

    show = DeconvNetProjection(epochs=[1], num_channels=1, k=1)
    trainer(tmp_path, show, VisualizationCheckpoint(), Stop(), max_epochs=9).fit(Classifier(), Data())
    kept = (tmp_path / "lightning_logs/version_0/cnnvis/weights").iterdir()
    assert sorted(path.name for path in kept) == ["epoch_0001.ckpt", "epoch_0003.ckpt"]


def test_without_a_visualization_no_weights_are_kept(tmp_path):
    trainer(tmp_path, VisualizationCheckpoint(), max_epochs=1).fit(Classifier(), Data())
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_folder_of_ordinary_checkpoints(tmp_path):
    every = ModelCheckpoint(tmp_path / "kept", filename="{epoch}", save_top_k=-1)
    trainer(tmp_path, every, max_epochs=3, logger=False).fit(Classifier(), Data())
    evolution = evolve(tmp_path / "kept", Data(), model=Classifier(), epochs=[3, 1])
    assert evolution.epochs == (1, 3)
    assert set(evolution.pictures["deconvnet_evolution/2"]) == {1, 3}
    assert [column.epoch for column in evolution.layers["2"].columns] == [1, 3]
    assert evolution._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(CheckpointError, match=r"no checkpoint of epoch 7: there are those of 1, 2, 3\."):
        evolve(tmp_path / "kept", Data(), model=Classifier(), epochs=[7])


def test_plain_weights_and_images(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    for number in (1, 2):
        nn.init.normal_(network[0].weight)
        torch.save(network.state_dict(), tmp_path / f"step{number}.pth")
    images = torch.rand(6, 3, 24, 24)
    evolution = evolve(tmp_path, images, model=network, input_spec=SPEC)
    assert evolution.epochs == (1, 2)
    assert evolution.curves["projection_similarity/1"][2] < 1


def test_a_run_of_the_command_line_needs_nothing_more(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lightning-cnnvis"])
    main(
        [
            "fit",
            "--model.width=0.05",
            "--data.image_size=32",
            "--data.train_size=22",
            "--data.val_size=22",
            "--trainer.max_epochs=3",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
        ]
    )
    main(["evolve", "cnnvis_runs/version_0", "--output=again", "--device=cpu"])
    live, again = files_of(tmp_path / "cnnvis_runs/version_0/cnnvis"), files_of(tmp_path / "again")
    pictures = [path.rpartition("/")[2] for path in live if path.endswith(".png")]
    assert set(pictures) == {"epoch_0001.png", "epoch_0002.png", "epoch_0003.png"}
    assert {path.partition("/")[0] for path in live} >= {"deconvnet", "class_visualization", "inversion", "diagnosis"}
    assert {"inversion/accuracy.csv", "inversion/accuracy/epoch_0003.png"} <= live.keys()
    measured = {path for path in again if path.startswith("curves")}
    assert {"curves.csv", "curves.png"} <= measured
    assert {path: again[path] for path in again.keys() - measured} == live
    main(["deconv", "cnnvis_runs/version_0", "--layers=relu1", "--output=out", "--device=cpu"])
    assert (tmp_path / "out/deconvnet/relu1.png").exists()


@pytest.mark.parametrize("trust", [False, True])
def test_every_file_is_read_once(run, tmp_path, reads, trust):
    evolve(run, Data(), model=Classifier(), callbacks=[DeconvNetProjection(num_channels=1, k=1)], trust=trust)
    assert reads == {run / "cnnvis" / "weights" / f"epoch_000{epoch}.ckpt": 1 for epoch in (1, 2, 4)}


def test_a_checkpoint_among_several_that_needs_trust(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    for epoch in (1, 2, 3):
        nn.init.normal_(network[0].weight)
        # as of a user whose hyperparameters are objects of their own
        more = {"hyper_parameters": {"data": Data}} if epoch == 2 else {}
        torch.save({"epoch": epoch - 1, "state_dict": network.state_dict(), **more}, tmp_path / f"{epoch}.ckpt")
    images = torch.rand(6, 3, 24, 24)
    for epochs in (None, [1]):
        with pytest.raises(CheckpointError, match=r"2\.ckpt contains more than tensors.*--trust"):
            evolve(tmp_path, images, model=network, input_spec=SPEC, epochs=epochs)
    evolution = evolve(tmp_path, images, model=network, input_spec=SPEC, trust=True)
    assert evolution.epochs == (1, 2, 3)


def test_the_input_is_told_by_a_checkpoint_that_needs_trust(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    (tmp_path / "weights").mkdir()
    torch.save({"epoch": 0, "state_dict": network.state_dict()}, tmp_path / "weights" / "epoch_0001.ckpt")
    state = {"Shows": {"input_spec": {"size": (24, 24), "channels": 3, "mean": (0.5,), "std": (0.5,)}}}
    content = {"epoch": 0, "state_dict": network.state_dict(), "callbacks": state, "hyper_parameters": {"data": Data}}
    torch.save(content, tmp_path / "last.ckpt")
    shows = [DeconvNetProjection(num_channels=1, k=1, evolution=False)]
    images = tmp_path / "photo.png"
    Image.new("RGB", (30, 30)).save(images)
    evolve(tmp_path, images, model=network, callbacks=shows, trust=True)
    assert shows[0].input_spec.mean == (0.5, 0.5, 0.5)


def test_an_empty_and_a_damaged_checkpoint_are_passed_over(run, tmp_path):
    kept = sorted((run / "cnnvis" / "weights").iterdir())
    kept[0].write_bytes(b"")
    kept[1].write_bytes(kept[1].read_bytes()[:3000])
    with pytest.warns(UserWarning, match="passed over") as warned:
        evolution = evolve(run, Data(), model=Classifier(), callbacks=[DeconvNetProjection(num_channels=1, k=1)])
    assert evolution.epochs == (4,)
    messages = [str(w.message) for w in warned if "passed over" in str(w.message)]
    assert len(messages) == 2
    assert "epoch_0001.ckpt is empty" in messages[0]
    assert "epoch_0002.ckpt is damaged" in messages[1]


def test_whole_networks_are_evolved_one_after_the_other(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    weights = []
    for number in (1, 2):
        nn.init.normal_(network[0].weight)
        weights.append(network[0].weight.detach().clone())
        torch.save(network, tmp_path / f"epoch_{number}.pt")
    evolution = evolve(tmp_path, torch.rand(6, 3, 24, 24), input_spec=SPEC, trust=True)
    assert evolution.curves["projection_similarity/1"][2] < 1


def test_photographs_are_shown_to_the_network_of_a_module(run, tmp_path):
    for number in range(3):
        Image.effect_noise((40, 30), 80).convert("RGB").save(tmp_path / f"{number}.png")
    photos = sorted(tmp_path.glob("*.png"))
    shows = [DeconvNetProjection(num_channels=2, k=1)]
    evolution = evolve(run, photos, model=Classifier(), callbacks=shows, input_spec=SPEC)
    assert evolution.epochs == (1, 2, 4)
    assert set(evolution.pictures["deconvnet/2"]) == {1, 2, 4}


@pytest.mark.parametrize(("limit", "max_images", "seen"), [(1.0, 10, 16), (1.0, 8, 8), (0.4, 16, 8), (1, 20, 8)])
def test_a_part_of_a_data_module_in_whole_batches(tmp_path, limit, max_images, seen):
    trainer(tmp_path, ModelCheckpoint(tmp_path), max_epochs=1).fit(Classifier(), Data())
    (tmp_path / "config.yaml").write_text(f"trainer:\n  limit_val_batches: {limit}\n")
    shows = DeconvNetProjection(layers=["5"], num_channels=8, k=1)
    drawn = evolve(tmp_path, Data(), model=Classifier(), callbacks=[shows], max_images=max_images)
    images = next(iter(DataLoader(Data().val_dataloader().dataset, 20)))[0][:seen]
    by_hand = Classifier()
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    by_hand.load_state_dict(torch.load(checkpoint)["state_dict"])
    strongest = by_hand.eval().model[:6](images).amax((2, 3)).argmax(0)
    assert torch.equal(drawn.layers["5"].columns[0].sample_ids, strongest)


def test_several_runs_are_not_one(tmp_path):
    for number in (0, 1):
        (tmp_path / f"version_{number}").mkdir()
        (tmp_path / f"version_{number}" / "config.yaml").write_text("{}")
        torch.save({}, tmp_path / f"version_{number}" / "some.ckpt")
    with pytest.raises(CheckpointError, match=r"contains 2 runs\. Name one of them"):
        evolve(tmp_path)


def test_sigterm_is_the_callers(run):
    seen = []

    class Looks(pl.Callback):
        def on_validation_batch_end(self, *_):
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    evolve(run, Data(), model=Classifier(), callbacks=[Looks()], epochs=[1, 2])
    assert set(seen) == {before}  # at every epoch, although each is a validation of its own
    assert signal.getsignal(signal.SIGTERM) is before
