"""DeconvNetProjection and FeatureConvergence in real training runs."""

from __future__ import annotations

import warnings
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

from lightning_cnnvis.callbacks import DeconvNetProjection, FeatureConvergence
from lightning_cnnvis.functional.activations.harvest import top_activations
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.inputs import InputSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*(does not have many workers|log_every_n_steps|isinstance\\(treespec)")
IMAGES = torch.rand(24, 3, 24, 24, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 3
SPEC = InputSpec(size=(24, 24))


class Classifier(pl.LightningModule):
    def __init__(self, validate: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential()
        for name, module in {
            "conv1": nn.Conv2d(3, 6, 3, padding=1),
            "bn1": nn.BatchNorm2d(6),
            "relu1": nn.ReLU(inplace=True),
            "pool1": nn.MaxPool2d(2),
            "conv2": nn.Conv2d(6, 8, 3),
            "relu2": nn.ReLU(),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(8 * 100, 3),
        }.items():
            self.model.add_module(name, module)
        if not validate:
            self.validation_step = None

    def training_step(self, batch, _):
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, _):
        self.log("val_loss", F.cross_entropy(self.model(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def loader(shuffle: bool = False) -> DataLoader:
    return DataLoader(TensorDataset(IMAGES, LABELS), batch_size=5, shuffle=shuffle)


def fit(tmp_path, *callbacks, module=None, val=True, **options):
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        **{"max_epochs": 2, "enable_checkpointing": False, **options},
    )
    trainer.fit(module or Classifier(), loader(shuffle=True), loader() if val else None)
    return trainer


def projection(**options) -> DeconvNetProjection:
    return DeconvNetProjection(**{"num_channels": 4, "k": 3, "input_spec": SPEC, "on_error": "raise", **options})


def pictures(trainer) -> list[str]:
    folder = trainer.loggers[0].log_dir
    return sorted(p.relative_to(Path(folder) / "cnnvis").as_posix() for p in Path(folder).rglob("*.png"))


def test_pictures_are_in_files_and_in_tensorboard(tmp_path):
    trainer = fit(tmp_path, projection())
    expected = [
        f"{kind}/{layer}/epoch_000{epoch}.png"
        for kind in ("deconvnet", "deconvnet_evolution")
        for layer in ("relu1", "relu2")
        for epoch in (1, 2)
    ]
    assert pictures(trainer) == expected
    events = EventAccumulator(trainer.logger.log_dir, size_guidance={"images": 0}).Reload()
    assert sorted(events.Tags()["images"]) == sorted({f"cnnvis/{name.rsplit('/', 1)[0]}" for name in expected})
    assert [event.step for event in events.Images("cnnvis/deconvnet/relu1")] == [1, 2]
    scalars = events.Tags()["scalars"]
    assert {"cnnvis/dead_maps", "cnnvis/projection_similarity", "cnnvis/top_overlap"} <= set(scalars)
    assert not [tag for tag in scalars if "relu" in tag]
    assert len(events.Scalars("cnnvis/projection_similarity")) == 1  # from the second epoch on


def test_harvest_finds_what_a_pass_over_the_validation_set_finds(tmp_path):
    callback, found = projection(epochs=[2]), {}

    def spy(context, layer, top):
        found[layer] = top

    callback._show_layer = spy
    module = Classifier()
    fit(tmp_path, callback, module=module)
    for layer, top in found.items():
        expected = top_activations(module.model, loader(), [layer], k=3, channels=top.channels.tolist())[layer]
        torch.testing.assert_close(top.values, expected.values)
        assert torch.equal(top.sample_ids, expected.sample_ids)
        assert torch.equal(top.positions, expected.positions)


def test_no_image_is_kept_where_the_validation_is_followed(tmp_path, monkeypatch):
    def kept(*_):
        raise AssertionError("kept an image")

    monkeypatch.setattr("lightning_cnnvis.callbacks.harvest.EpochHarvest.keep", kept)
    monkeypatch.setattr("lightning_cnnvis.callbacks.harvest.EpochHarvest._pass", kept)
    fit(tmp_path, projection(every_n_epochs=1))


@pytest.mark.parametrize("shuffled", [False, True])
def test_training_is_bit_identical_with_and_without(tmp_path, shuffled):
    def run(*callbacks):
        pl.seed_everything(3)
        module = Classifier()
        trainer = fit(tmp_path, *callbacks, module=module)
        state = {**module.state_dict(), "rng": torch.get_rng_state()}
        state |= {f"o{i}": t for i, t in enumerate(trainer.optimizers[0].state_dict()["state"].values() or [])}
        return state, trainer.callback_metrics

    (plain, metrics), (watched, watched_metrics) = run(), run(projection())
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    assert all(torch.equal(metrics[name], watched_metrics[name]) for name in ("loss", "val_loss"))


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("no validation", {"val": False}),
        ("fast_dev_run", {"fast_dev_run": True}),
        ("half validation", {"limit_val_batches": 1}),
        ("twice an epoch", {"val_check_interval": 0.5}),
        ("by batches", {"check_val_every_n_epoch": None, "val_check_interval": 3}),
        ("every second epoch", {"check_val_every_n_epoch": 2, "max_epochs": 3}),
        ("max_steps", {"max_steps": 7, "max_epochs": -1}),
        ("bf16-true", {"precision": "bf16-true"}),
        ("bf16-mixed", {"precision": "bf16-mixed"}),
        ("64-true", {"precision": "64-true"}),
        ("deterministic", {"deterministic": True}),
        ("no logger", {"logger": False}),
    ],
)
def test_runs_wherever_lightning_runs(tmp_path, monkeypatch, case, options):
    monkeypatch.chdir(tmp_path)
    callback = projection(every_n_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings(
            "ignore", ".*(workers|log_every_n_steps|isinstance|logger|checkpoint|inference|max_e|val_data).*"
        )
        trainer = fit(tmp_path, callback, **options)
    assert callback._shown == list(range(1, trainer.current_epoch + 1 if "max_steps" not in options else 3))
    for module in trainer.lightning_module.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_compiled_network_and_two_validation_loaders(tmp_path):
    module = Classifier()
    module.model.compile(backend="eager")
    callback = projection(epochs=[1])
    fit(tmp_path, callback, module=module, max_epochs=1)
    assert callback._shown == [1]

    class TwoLoaders(Classifier):
        def validation_step(self, batch, _, dataloader_idx=0):
            self.model(batch[0])

    callback = projection(epochs=[1])
    trainer = pl.Trainer(
        default_root_dir=tmp_path, max_epochs=1, callbacks=[callback], accelerator="cpu", enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(TwoLoaders(), loader(), [loader(), loader()])
    assert callback._shown == [1]


def test_early_stop_shows_the_last_epoch(tmp_path):
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 2

    callback = projection(epochs=[1])
    trainer = fit(tmp_path, callback, Stop(), max_epochs=9)
    assert callback._shown == [1, 3]
    assert "deconvnet/relu2/epoch_0003.png" in pictures(trainer)


def test_a_failing_layer_costs_its_picture_only_and_leaves_no_hook(tmp_path, monkeypatch):
    callback = projection(on_error="warn")
    original = TopActivations.project

    def fail(self, network, layer, **options):
        if layer == "relu1":
            raise RuntimeError("no luck")
        return original(self, network, layer, **options)

    monkeypatch.setattr(TopActivations, "project", fail)
    with pytest.warns(UserWarning, match=r"failed at epoch 1 on layer 'relu1'.*no luck"):
        trainer = fit(tmp_path, callback)
    assert [name for name in pictures(trainer) if "relu1" in name] == []
    assert "deconvnet/relu2/epoch_0002.png" in pictures(trainer)


def second_of(batch):
    return batch[0][1]


def test_get_images_tells_which_of_several_maps_the_images_are(tmp_path):
    """A network that takes a mask before the image: the activations are those of the image."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()

        def forward(self, images, other=None):
            return self.relu(self.conv(images if other is None else other)).mean((2, 3))

    class Segmenter(Classifier):
        def __init__(self):
            super().__init__()
            self.model = Masked()

        def training_step(self, batch, _):
            return F.cross_entropy(self.model(*batch[0]), batch[1])

        def validation_step(self, batch, _):
            self.model(*batch[0])

    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = [((torch.zeros(3, 32, 32), image), n % 2) for n, image in enumerate(images)]
    callback = projection(layers=["relu"], get_images=second_of, every_n_epochs=1, input_spec=InputSpec(size=(32, 32)))
    module = Segmenter()
    loaders = [DataLoader(data, 4), DataLoader(data, 4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pl.Trainer(
            default_root_dir=tmp_path, callbacks=[callback], max_epochs=1, accelerator="cpu", logger=False,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        ).fit(module, *loaders)  # fmt: skip
    with torch.no_grad():
        strongest = module.model.relu(module.model.conv(images)).amax((0, 2, 3))
    _, found = callback._strongest["relu"]
    assert found == pytest.approx(dict(enumerate(strongest.tolist())), rel=1e-5)


def test_an_exception_in_the_validation_leaves_no_hook(tmp_path):
    class Broken(Classifier):
        def validation_step(self, batch, _):
            if not self.trainer.sanity_checking:
                raise RuntimeError("broken")

    module = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, projection(), module=module)
    for submodule in module.modules():
        assert not submodule._forward_hooks


def test_resumed_run_continues_the_strip(tmp_path):
    whole = projection(every_n_epochs=1)
    pl.seed_everything(0)
    fit(tmp_path / "whole", whole, max_epochs=4)
    pl.seed_everything(0)
    first = projection(every_n_epochs=1)
    trainer = fit(tmp_path / "first", first, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "two.ckpt", weights_only=False)
    assert torch.load(tmp_path / "two.ckpt", weights_only=True)["callbacks"]
    second = projection(every_n_epochs=1)
    trainer = pl.Trainer(
        default_root_dir=tmp_path / "second", max_epochs=4, callbacks=[second], accelerator="cpu",
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Classifier(), loader(shuffle=True), loader(), ckpt_path=tmp_path / "two.ckpt")
    for layer, evolution in second._evolutions.items():
        assert [column.epoch for column in evolution.columns] == [1, 2, 3, 4]
        for column, expected in zip(evolution.columns[:2], whole._evolutions[layer].columns, strict=False):
            assert torch.equal(column.projections, expected.projections)
            assert torch.equal(column.fixed, expected.fixed)
        assert torch.equal(evolution.fixed.windows, whole._evolutions[layer].fixed.windows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["relu9"]}, "no layer 'relu9'. Did you mean"),
        ({"layers": ["fc"]}, "'fc' has no feature map.*such as 'relu1', 'relu2'"),
        ({"input_spec": InputSpec(size=(24, 24), channels=1)}, "channel"),
    ],
)
def test_bad_layers_are_refused_before_training_starts(tmp_path, options, message):
    module = Classifier()
    before = module.model.conv1.weight.clone()
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, projection(**options), module=module)
    assert torch.equal(module.model.conv1.weight, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": [0, 2]}, "contains 0"),
        ({"epochs": [1], "every_n_epochs": 2}, "Choose one"),
        ({"num_channels": 0}, "num_channels=0"),
        ({"k": 0}, "k=0"),
        ({"rule": "plain"}, "rule='plain': there is no such rule. There are 'deconvnet', 'guided', 'gradient'"),
        ({"lrn": "skip"}, "lrn='skip'"),
        ({"max_images": 0}, "max_images=0"),
    ],
)
def test_bad_arguments_are_refused_at_once(options, message):
    with pytest.raises(MisconfigurationException, match=message):
        DeconvNetProjection(**options)


def test_feature_convergence_marks_and_stops(tmp_path):
    class Frozen(Classifier):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    convergence = FeatureConvergence(layers=["relu2"], patience=2, stop=True)
    module = Frozen()
    for module_ in module.model:
        if isinstance(module_, nn.BatchNorm2d):
            module_.momentum = 0.0
    trainer = fit(tmp_path, projection(every_n_epochs=1), convergence, module=module, max_epochs=9)
    assert convergence.settled == {"relu2": 2}
    assert trainer.current_epoch == 3
    copy = FeatureConvergence()
    copy.load_state_dict(convergence.state_dict())
    assert copy.settled == {"relu2": 2}


def test_feature_convergence_bad_input(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"similarity=2 is out of range\. Pass more than 0"):
        FeatureConvergence(similarity=2)
    with pytest.raises(MisconfigurationException, match=r"patience=0 is out of range\. Pass at least 1"):
        FeatureConvergence(patience=0)
    with pytest.raises(MisconfigurationException, match=r"needs a DeconvNetProjection before it .* Add Deconv"):
        fit(tmp_path, FeatureConvergence(), projection())
    with pytest.raises(MisconfigurationException, match=r"does not show 'relu7'\. It shows 'relu1', 'relu2'"):
        fit(tmp_path, projection(), FeatureConvergence(layers=["relu7"]))


def test_pictures_are_readable(tmp_path):
    trainer = fit(tmp_path, projection(epochs=[1]), max_epochs=1)
    for name in pictures(trainer):
        with Image.open(f"{trainer.logger.log_dir}/cnnvis/{name}") as picture:
            assert picture.mode == "RGB"
            assert picture.width > 300


def test_a_rule_of_a_checkpoint_is_kept(tmp_path):
    callback = DeconvNetProjection(num_channels=2, k=2, input_spec=SPEC)
    trainer = pl.Trainer(
        max_epochs=1, callbacks=[callback], default_root_dir=tmp_path, logger=False, enable_checkpointing=False
    )
    trainer.fit(
        Classifier(), DataLoader(TensorDataset(IMAGES, LABELS), 8), DataLoader(TensorDataset(IMAGES, LABELS), 8)
    )
    state = callback.state_dict()
    assert state["rule"] == "deconvnet"
    old = {name: value for name, value in state.items() if name != "rule"}
    resumed = DeconvNetProjection(num_channels=2, k=2, input_spec=SPEC)
    resumed.load_state_dict(old)
    assert resumed.state_dict()["rule"] == "deconvnet"
