"""ClassVisualization, DeepDream and FeatureInversion in real training runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from lightning_fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis import (
    ActivationMaximization,
    ClassVisualization,
    DeconvNetProjection,
    DeepDream,
    FeatureInversion,
    InputSpec,
    analyze,
    figures,
)
from lightning_cnnvis.evolution.accuracy import read_csv
from lightning_cnnvis.functional import DreamOptions, maximize_activation
from lightning_cnnvis.functional.optimization.parameterizations import ImageStatistics
from lightning_cnnvis.methods.own_statistics import statistics_in, statistics_state

SPEC = InputSpec(size=(20, 20), class_names=("cat", "dog", "../emu"))
DATA = DataLoader(
    TensorDataset(torch.rand(6, 3, 20, 20, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3), 3
)
DREAM = DreamOptions(octaves=2, steps=2)


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip

    def training_step(self, batch, _):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.model(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(tmp_path, *callbacks, val=True, module=None, **options):
    trainer = pl.Trainer(
        default_root_dir=tmp_path, callbacks=list(callbacks), accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **{"max_epochs": 2, **options},
    )  # fmt: skip
    trainer.fit(module or Classifier(), DATA, DATA if val else None)
    return trainer


def classes(**options) -> ClassVisualization:
    return ClassVisualization(**{"steps": 3, "input_spec": SPEC, "on_error": "raise", "every_n_epochs": 1, **options})


def maximized(**options) -> ActivationMaximization:
    return ActivationMaximization(
        **{"steps": 3, "input_spec": SPEC, "on_error": "raise", "every_n_epochs": 1, **options}
    )


def dreams(**options) -> DeepDream:
    return DeepDream(**{"options": DREAM, "input_spec": SPEC, "on_error": "raise", "every_n_epochs": 1, **options})


def inversions(**options) -> FeatureInversion:
    fixed = {
        "steps": 3,
        "restarts": 2,
        "layers": ["2", "8"],
        "input_spec": SPEC,
        "on_error": "raise",
        "every_n_epochs": 1,
    }
    return FeatureInversion(**{**fixed, **options})


def test_pictures_and_scalars(tmp_path):
    trainer = fit(tmp_path, classes(samples_per_class=2, single_scalars=True), dreams(), inversions())
    events = EventAccumulator(trainer.logger.log_dir, size_guidance={"images": 0}).Reload()
    tags = {f"class_visualization/{what}" for what in ("classes", "forming", "evolution")} | {"deepdream/evolution"}
    tags |= {"inversion/layers", "inversion/restarts", "inversion/evolution", "deepdream/2", "deepdream/5"}
    assert {f"cnnvis/{tag}" for tag in tags} == set(events.Tags()["images"])
    for tag in events.Tags()["images"]:
        assert [event.step for event in events.Images(tag)] == [1, 2]
    wanted = {"class_probability/cat", "class_probability/_-5ec1f7e7/emu", "class_visualization/steps"}
    wanted |= {f"inversion_{what}" for what in ("error", "variance", "label_kept")}
    assert {f"cnnvis/{tag}" for tag in wanted} <= set(events.Tags()["scalars"])
    assert "cnnvis/inversion_error/2" not in events.Tags()["scalars"]
    folder = Path(trainer.logger.log_dir) / "cnnvis"
    assert all(folder in path.parents for path in tmp_path.rglob("*.png"))


def drawn(monkeypatch) -> list[tuple[str, list[str], list[str]]]:
    """Title, labels and states of every grid that is drawn from now on."""
    grids = []

    def watched(pictures, labels, states, title, note="", **options):
        grids.append((title, list(labels), [*states, note]))
        return labelled_pictures(pictures, labels, states, title, note, **options)

    labelled_pictures = figures.labelled_pictures
    monkeypatch.setattr(figures, "labelled_pictures", watched)
    return grids


def projections(**options) -> DeconvNetProjection:
    fixed = {"num_channels": 4, "k": 2, "input_spec": SPEC, "on_error": "raise", "every_n_epochs": 1}
    return DeconvNetProjection(**{**fixed, **options})


@pytest.mark.parametrize("first", ["maximized", "projections"])
@pytest.mark.parametrize("val", [True, False], ids=["validation", "no validation"])
def test_feature_maps_beside_their_strongest_activation(tmp_path, monkeypatch, first, val):
    """The same maps as the projections show, and the ratio of this epoch, whichever callback comes first."""
    grids = drawn(monkeypatch)
    module = Classifier()
    callbacks = [maximized(layers=["model.2", "5"], num_channels=4), projections()]
    trainer = fit(tmp_path, *(callbacks if first == "maximized" else callbacks[::-1]), module=module, val=val)
    assert list(Path(trainer.logger.log_dir).rglob("activation_maximization/2/epoch_0002.png"))
    network, images = module.model.eval(), DATA.dataset.tensors[0]
    for layer in ("2", "5"):
        (labels, states), *others = [grid[1:] for grid in grids if grid[0] == f"{layer} · epoch 2"]
        assert not others
        assert labels == [f"#{channel}" for channel in callbacks[1]._parts[layer]]
        channels = callbacks[1]._parts[layer]
        upto = network[: int(layer) + 1]
        with torch.no_grad():
            real = upto(images).amax((0, 2, 3))
        shown = maximize_activation(network, layer, channels, input_spec=SPEC, steps=3)
        with torch.no_grad():
            peaks = upto(shown.images).amax((2, 3))[torch.arange(len(channels)), channels]
        torch.testing.assert_close(shown.peaks, peaks)
        for n, channel in enumerate(channels):
            ratio = f" · {peaks[n] / real[channel]:.1f}× real" if real[channel] > 0 else ""
            assert states[n] == f"{peaks[n]:.3g}{ratio}\n{shown.states[n]}"
        assert states[-1].endswith("how many times the strongest activation on real images.")


def test_the_ratio_is_that_of_the_epoch_shown_last(tmp_path, monkeypatch):
    """Also after a resume; and unknown feature maps, layers and networks have none."""
    grids = drawn(monkeypatch)

    def callbacks():
        once = projections(layers=["2"], epochs=[1], every_n_epochs=None)
        return [maximized(layers=["2", "5"], channels=[1, 3]), once]

    shows, projects = callbacks()
    trainer = fit(tmp_path, shows, projects, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    torch.load(tmp_path / "one.ckpt", weights_only=True)
    grids.clear()
    trainer = pl.Trainer(
        default_root_dir=tmp_path, callbacks=callbacks(), accelerator="cpu", max_epochs=3, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, logger=False,
    )  # fmt: skip
    trainer.fit(Classifier(), DATA, DATA, ckpt_path=tmp_path / "one.ckpt")
    followed = projects._parts["2"]
    notes = {title: (labels, states) for title, labels, states in grids}
    labels, states = notes["2 · epoch 2"]
    assert labels == ["#1", "#3"]
    assert states[-1].endswith("on real images at epoch 1.")
    assert ["real" in state for state in states[:-1]] == [channel in followed for channel in (1, 3)]
    assert notes["5 · epoch 2"][1][-1].endswith("its peak.")
    # the last epoch is always shown
    assert notes["2 · epoch 3"][1][-1].endswith("on real images.")


def test_the_statistics_of_ones_own_images(tmp_path):
    statistics = ImageStatistics.measure(DATA.dataset.tensors[0])

    def pictures(**options):
        trainer = fit(tmp_path, classes(**options), max_epochs=1)
        return (Path(trainer.logger.log_dir) / "cnnvis/class_visualization/classes/epoch_0001.png").read_bytes()

    assert pictures() == pictures() != pictures(statistics=statistics)
    assert pictures(statistics="own") == pictures(statistics=statistics)


def test_own_statistics_are_measured_once_and_kept_in_checkpoints(tmp_path, monkeypatch):
    measured = []
    measure = ImageStatistics.measure.__func__
    monkeypatch.setattr(
        ImageStatistics, "measure", classmethod(lambda cls, images: measured.append(images) or measure(cls, images))
    )
    callback = classes(statistics="own", every_n_epochs=1)
    trainer = fit(tmp_path, callback)
    assert [images.shape for images in measured] == [(6, 3, 20, 20)]
    torch.testing.assert_close(measured[0], DATA.dataset.tensors[0])
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    kept = statistics_in(torch.load(tmp_path / "own.ckpt", weights_only=True)["callbacks"])
    assert kept == measure(ImageStatistics, DATA.dataset.tensors[0])
    again = classes(statistics="own", every_n_epochs=1)
    pl.Trainer(
        default_root_dir=tmp_path, callbacks=[again], accelerator="cpu", max_epochs=3, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, logger=False,
    ).fit(Classifier(), DATA, DATA, ckpt_path=tmp_path / "own.ckpt")  # fmt: skip
    assert len(measured) == 1
    assert again._own.statistics == kept
    shown = analyze(tmp_path / "own.ckpt", model=Classifier(), network="model", input_spec=SPEC)
    pictures = [shown.classes([0], steps=2, statistics=s).visualizations.images for s in ("own", kept, None)]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])
    assert len(measured) == 1
    analyze(Classifier().model, DATA.dataset.tensors[0], input_spec=SPEC).classes([0], steps=2, statistics="own")
    assert len(measured) == 2
    with pytest.raises(MisconfigurationException, match="statistics='mine'"):
        classes(statistics="mine")
    assert classes(statistics=statistics_state(kept)).options.statistics == kept


def test_transparency_is_a_second_picture(tmp_path):
    trainer = fit(tmp_path, classes(transparency=True), maximized(layers=["2"], transparency=True), max_epochs=1)
    folder = Path(trainer.logger.log_dir) / "cnnvis"
    for opaque, masked in (
        ("class_visualization/classes", "class_visualization/transparency"),
        ("activation_maximization/2", "activation_maximization_transparency/2"),
    ):
        assert (folder / opaque / "epoch_0001.png").read_bytes() != (folder / masked / "epoch_0001.png").read_bytes()
    shown = analyze(Classifier().model, input_spec=SPEC).classes([0, 1], steps=2, transparency=True)
    alpha = shown.visualizations.transparency[:, None]
    paper = figures.on_paper(shown.visualizations)
    torch.testing.assert_close(paper, 1 - alpha * (1 - shown.visualizations.images))
    plain = analyze(Classifier().model, input_spec=SPEC).classes([0, 1], steps=2)
    assert "class_visualization/transparency" in set(shown.pictures) - set(plain.pictures)


def test_units_of_a_vector(tmp_path, monkeypatch):
    grids = drawn(monkeypatch)
    trainer = fit(tmp_path, maximized(layers=["8"], num_channels=None, preset="none"), max_epochs=1)
    assert [labels for _, labels, _ in grids] == [["#0", "#1", "#2"]]
    folder = Path(trainer.logger.log_dir) / "cnnvis"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")} == {
        "activation_maximization/8/epoch_0001.png",
        "activation_maximization_evolution/8/epoch_0001.png",
    }


class Rising(Classifier):
    """Logs an accuracy that tells the epoch."""

    def validation_step(self, batch, _):
        self.log("val_accuracy", (self.current_epoch + 1) / 10)


def test_inversion_error_is_set_beside_the_accuracy(tmp_path):
    """At the end of the training, over all epochs, those before a resume included."""
    trainer = fit(tmp_path, inversions(), module=Rising(), max_epochs=3)
    trainer.save_checkpoint(tmp_path / "three.ckpt")
    callback = inversions()
    trainer = pl.Trainer(
        default_root_dir=tmp_path, callbacks=[callback], accelerator="cpu", max_epochs=5, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(Rising(), DATA, DATA, ckpt_path=tmp_path / "three.ckpt")
    log_dir = Path(trainer.logger.log_dir)
    table = read_csv(log_dir / "cnnvis" / "inversion" / "accuracy.csv")
    assert table == list(callback.measurements)
    assert [(m.epoch, m.layer) for m in table] == [(e, layer) for e in range(1, 6) for layer in ("2", "8")]
    assert [m.accuracy for m in table] == pytest.approx([m.epoch / 10 for m in table])
    events = EventAccumulator(str(log_dir), size_guidance={"images": 0, "scalars": 0}).Reload()
    logged = [event.value for event in events.Scalars("cnnvis/inversion_error")]
    errors = [[m.error for m in table if m.epoch == epoch] for epoch in (4, 5)]
    assert logged == pytest.approx([sum(both) / 2 for both in errors])
    assert [event.step for event in events.Images("cnnvis/inversion/accuracy")] == [5]


def test_the_zoom_is_an_animation(tmp_path):
    trainer = fit(tmp_path, dreams(layers=["5"], zoom_frames=3), max_epochs=1)
    (path,) = Path(trainer.logger.log_dir).rglob("*.gif")
    assert path.parts[-3:] == ("deepdream_zoom", "5", "epoch_0001.gif")
    with Image.open(path) as animation:
        assert animation.n_frames == 3
    with pytest.raises(MisconfigurationException, match="zoom_frames=-1"):
        dreams(zoom_frames=-1)


def test_training_is_bit_identical(tmp_path):
    def run(*callbacks):
        pl.seed_everything(1)
        module = Classifier()
        fit(tmp_path, *callbacks, module=module)
        return {**module.state_dict(), "rng": torch.get_rng_state()}

    plain, watched = run(), run(classes(), dreams(), inversions())
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def test_a_resumed_run_continues_the_strips(tmp_path):
    trainer = fit(tmp_path, classes(), dreams(), inversions(), max_epochs=2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    torch.load(tmp_path / "two.ckpt", weights_only=True)
    callbacks = [classes(), dreams(), inversions()]
    trainer = pl.Trainer(
        default_root_dir=tmp_path, callbacks=callbacks, accelerator="cpu", max_epochs=3, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(Classifier(), DATA, DATA, ckpt_path=tmp_path / "two.ckpt")
    for callback in callbacks:
        assert [column.epoch for column in callback._strips[""].columns] == [1, 2, 3]


def test_a_photograph_of_any_size_and_no_validation(tmp_path):
    Image.new("RGB", (50, 34), (200, 30, 90)).save(tmp_path / "photo.png")
    trainer = fit(tmp_path, dreams(layers=["model.2"], image=tmp_path / "photo.png"), val=False)
    assert list(Path(trainer.logger.log_dir).rglob("deepdream/2/epoch_0002.png"))
    fit(tmp_path, dreams(), inversions(images_from=[tmp_path / "photo.png"]), val=False)


def test_bad_input_is_refused_before_training(tmp_path):
    for callback, message in (
        (classes(classes=["cow"]), "no class named 'cow'. Known names: 'cat', 'dog'"),
        (classes(classes=[7]), "Class 7 is out of range: the model has classes 0 to 2"),
        (maximized(layers=["relu7"]), "no layer 'relu7'"),
        (maximized(layers=["5"], channels=[1, 8]), "Channel 8 is not in layer '5': it has channels 0 to 7"),
        (dreams(layers=["relu7"]), "no layer 'relu7'"),
        (inversions(layers=["relu7"]), "no layer 'relu7'"),
    ):
        with pytest.raises(MisconfigurationException, match=message):
            fit(tmp_path, callback)
    for build, message in (
        (lambda: classes(steps=0), "steps=0"),
        (lambda: classes(samples_per_class=0), "samples_per_class=0"),
        (lambda: maximized(num_channels=0), "num_channels=0"),
        (lambda: classes(classes="cat"), r"classes='cat' is one name.*classes=\['cat'\]"),
        (lambda: classes(classes=[]), r"classes=\[\] leaves nothing to show"),
        (lambda: maximized(channels=[1]), r"channels=\[1\] requires layers: name the layers"),
        (lambda: classes(preset="lucid"), "preset='lucid': there is no such preset. There are 'fourier'"),
        (lambda: inversions(restarts=0), "restarts=0"),
        (lambda: inversions(images_from=[tmp_path / "none.png"]), r"none.png' cannot be read"),
        (lambda: dreams(image=tmp_path / "none.png"), r"none.png' cannot be read"),
    ):
        with pytest.raises(MisconfigurationException, match=message):
            build()
