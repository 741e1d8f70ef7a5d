"""The base of the callbacks: when it runs, on what, under which guard; and that training never notices."""

import random
import time
import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_cnnvis.callbacks.base import VisualizationCallback
from lightning_cnnvis.inputs import InputSpec

SPEC = InputSpec(size=(8, 8))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Threads cost more than they gain on networks this small, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Noisy(Dataset):
    """Augments with every global generator there is."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        image = torch.full((3, 8, 8), index / 8) + 0.1 * torch.rand(3, 8, 8)
        return image + 0.1 * random.random() + 0.1 * np.random.rand(), index % 2  # noqa: NPY002


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2)
        )
        self.loss = nn.CrossEntropyLoss()
        self.losses = []

    def forward(self, images):
        return self.model(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = self.loss(self(images), labels)
        self.log("loss", loss)
        self.losses.append(loss.detach().clone())
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_loss", self.loss(self(images), labels))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


class Recorder(VisualizationCallback):
    """Notes what it is asked to do."""

    name = "recorder"

    def __init__(self, layers=None, **options):
        super().__init__(layers, **{"input_spec": SPEC} | options)
        self._epochs = []
        self._checked = []

    def check(self, context):
        self._checked.append(context)

    def visualize(self, context):
        self._epochs.append(context.epoch)


class Disturber(Recorder):
    """Does all that a careless visualisation does to a model."""

    def visualize(self, context):
        super().visualize(context)
        random.random(), np.random.rand(), torch.rand(3)  # noqa: NPY002
        context.pl_module.train()
        inputs = torch.rand(2, 3, 8, 8).requires_grad_()
        context.network.register_forward_hook(lambda *_: None)
        score = context.network(inputs.to(context.dtype)).sum()
        torch.autograd.grad(score, inputs, retain_graph=True)
        score.backward()
        context.network.requires_grad_(False)
        context.sinks.picture(f"{self.label}/noise", np.zeros((8, 8, 3), np.uint8), context.epoch)


def trainer_of(tmp_path, *callbacks, max_epochs=1, package=pl, **options):
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 1,
    }
    return package.Trainer(
        max_epochs=max_epochs, callbacks=list(callbacks), default_root_dir=tmp_path, **defaults | options
    )


def loaders():
    return DataLoader(Noisy(), 4, shuffle=True), DataLoader(Noisy(), 4)


def fit(tmp_path, *callbacks, module=None, **options):
    trainer = trainer_of(tmp_path, *callbacks, **options)
    trainer.fit(module or Classifier(), *loaders())
    return trainer


# Schedule.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 2, 5, 7]),
        ({"epochs": [3]}, [3, 7]),
        ({"epochs": []}, [7]),
        ({"every_n_epochs": 3}, [3, 6, 7]),
    ],
)
def test_shows_the_scheduled_epochs_and_the_last(tmp_path, options, expected):
    recorder = Recorder(**options)
    fit(tmp_path, recorder, max_epochs=7)
    assert recorder._epochs == expected
    assert recorder.state_dict()["shown"] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": [1], "every_n_epochs": 2}, r"Both epochs=\[1\] and every_n_epochs=2 are given\. Choose one"),
        ({"epochs": [3, 0]}, "contains 0"),
        ({"epochs": [1.5]}, "contains 1.5"),
        ({"epochs": [True]}, "contains True"),
        ({"every_n_epochs": 0}, "every_n_epochs=0"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"max_overhead": 10}, "max_overhead=10"),
        ({"layers": "conv1"}, "layers=\\['conv1'\\]"),
    ],
)
def test_refuses_arguments_that_make_no_sense(options, message):
    with pytest.raises(MisconfigurationException, match=message):
        Recorder(**options)


def test_early_stop_shows_the_last_epoch(tmp_path):
    recorder = Recorder(epochs=[1])
    stopper = EarlyStopping("val_loss", patience=1, min_delta=1e9)
    fit(tmp_path, recorder, stopper, max_epochs=50)
    assert recorder._epochs == [1, stopper.stopped_epoch + 1]


def test_max_steps_shows_the_last_epoch(tmp_path):
    recorder = Recorder(epochs=[1])
    fit(tmp_path, recorder, max_epochs=-1, max_steps=5)
    assert recorder._epochs == [1, 3]


def test_stopping_at_a_shown_epoch_shows_it_once(tmp_path):
    recorder = Recorder()
    stop = LambdaCallback(on_train_batch_end=lambda trainer, *_: setattr(trainer, "should_stop", True))
    fit(tmp_path, recorder, stop, max_epochs=50)
    assert recorder._epochs == [1]


def test_validate_and_test_do_nothing(tmp_path):
    recorder = Recorder()
    trainer = trainer_of(tmp_path, recorder)
    trainer.validate(Classifier(), loaders()[1], verbose=False)
    assert not recorder._epochs
    assert not recorder._checked
    assert not recorder.scheduled(1, trainer)


def test_scheduled_during_validation_matches_what_is_shown(tmp_path):
    class Asks(Recorder):
        def on_validation_start(self, trainer, pl_module):
            self.asked = [*getattr(self, "asked", []), self.scheduled(trainer.current_epoch + 1, trainer)]

    asks = Asks(epochs=[2])
    fit(tmp_path, asks, max_epochs=3)
    assert asks.asked == [False, False, True, True]  # the first is the sanity check
    assert asks._epochs == [2, 3]


# Cost.


class Slow(Recorder):
    """Pretends to have taken ten minutes."""

    free_seconds = 60.0

    def visualize(self, context):
        super().visualize(context)
        self._cost._opened -= 600


def test_overhead_puts_off_says_so_once_and_shows_the_last(tmp_path):
    slow = Slow(every_n_epochs=1)
    with pytest.warns(UserWarning, match="postpones epoch 2: .* more than max_overhead=") as caught:
        fit(tmp_path, slow, max_epochs=4)
    assert slow._epochs == [1, 4]
    assert sum("postpones" in str(warning.message) for warning in caught) == 1


def test_what_was_put_off_is_made_up_for(tmp_path):
    slow = Slow(epochs=[1, 2])

    def age(trainer, _):
        if trainer.current_epoch == 3:
            slow._cost._started -= 100_000

    with pytest.warns(UserWarning, match="postpones epoch 2: .* more than max_overhead="):
        fit(tmp_path, slow, LambdaCallback(on_train_epoch_start=age), max_epochs=6)
    assert slow._epochs == [1, 4, 6]


def test_each_has_its_fair_share(tmp_path):
    slow, modest = Slow(every_n_epochs=1), Recorder(every_n_epochs=1)

    def age(trainer, _):
        modest._cost._started -= 1000

    with pytest.warns(UserWarning, match="Slow postpones epoch 2: .* more than its equal part of that") as caught:
        fit(tmp_path, slow, modest, LambdaCallback(on_train_start=age), max_epochs=4)
    assert slow._epochs == [1, 4]
    assert modest._epochs == [1, 2, 3, 4]
    assert sum("postpones" in str(warning.message) for warning in caught) == 1


def test_each_shows_its_first_epoch(tmp_path):
    early, late = Slow(epochs=[1]), Slow(every_n_epochs=2)
    with pytest.warns(UserWarning, match="postpones epoch 4"):
        fit(tmp_path, early, late, max_epochs=5)
    assert late._epochs == [2, 5]


def test_a_first_epoch_that_fails_is_no_excuse_for_the_next(tmp_path):
    class Failing(Slow):
        tries = 0

        def visualize(self, context):
            self.tries += 1
            super().visualize(context)
            raise RuntimeError("no luck")

    failing = Failing(every_n_epochs=1)
    with pytest.warns(UserWarning, match="postpones epoch 2"):
        fit(tmp_path, failing, max_epochs=4)
    assert failing.tries == 2  # the first epoch and the last


def test_short_runs_and_no_limit_are_never_put_off(tmp_path):
    slow, cheap = Slow(every_n_epochs=1, max_overhead=None), Recorder(every_n_epochs=1, max_overhead=0)
    fit(tmp_path, cheap, max_epochs=3)
    fit(tmp_path, slow, max_epochs=3)
    assert slow._epochs == cheap._epochs == [1, 2, 3]


def test_logs_cost_and_pictures_at_the_epoch(tmp_path):
    trainer = fit(tmp_path, Disturber(), logger=pl.loggers.TensorBoardLogger(tmp_path), max_epochs=3)
    events = EventAccumulator(trainer.log_dir, size_guidance={"images": 0}).Reload()
    for tag in ("cnnvis/seconds/recorder", "cnnvis/overhead"):
        assert [event.step for event in events.Scalars(tag)] == [event.step for event in events.Scalars("val_loss")]
        assert all(event.value > 0 for event in events.Scalars(tag))
    images = events.Images("cnnvis/recorder/noise")
    assert [image.step for image in images] == [1, 2, 3]
    for image in images:
        file = f"{trainer.log_dir}/cnnvis/recorder/noise/epoch_{image.step:04d}.png"
        with open(file, "rb") as written:
            assert written.read() == image.encoded_image_string


def test_the_overhead_of_all_is_logged_once_an_epoch(tmp_path):
    class Costly(Recorder):
        """Takes ten times as long as everything else."""

        def visualize(self, context):
            super().visualize(context)
            self._cost._opened -= 10 * self._cost.elapsed

    callbacks = [Disturber(every_n_epochs=1), Costly(epochs=[1, 3]), Disturber(["0"], epochs=[])]
    trainer = fit(tmp_path, *callbacks, logger=pl.loggers.TensorBoardLogger(tmp_path), max_epochs=4)
    events = EventAccumulator(trainer.log_dir).Reload()
    points = events.Scalars("cnnvis/overhead")
    steps = [point.step for point in events.Scalars("val_loss")]
    assert [point.step for point in points] == steps
    assert len(steps) == 4
    assert all(point.value > 1 for point in points)  # the second callback's cost is in the first point already
    assert [point.step for point in events.Scalars("cnnvis/seconds/recorder-2")] == [steps[n] for n in (0, 2, 3)]
    seconds = sum(point.value for tag in events.Tags()["scalars"] if "seconds" in tag for point in events.Scalars(tag))
    # no more than what was written after the others had their turn is missing
    assert seconds == pytest.approx(sum(callback._cost.seconds for callback in callbacks), rel=0.1)


def test_the_trial_before_the_training_is_part_of_the_time(tmp_path):
    class SlowTrial(Recorder):
        def check(self, context):
            time.sleep(0.2)

    slow = SlowTrial(every_n_epochs=1)
    fit(tmp_path, slow)
    assert 0.2 < slow._cost.seconds < slow._cost.elapsed


def test_says_at_the_end_what_was_spent(tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(tmp_path, Recorder(), max_epochs=2)
    assert "Recorder: 2 epochs shown in" in caplog.text
    assert str(tmp_path / "cnnvis") in caplog.text


# Errors.


class Failing(Recorder):
    def __init__(self, error, **options):
        super().__init__(**options)
        self._error = error

    def visualize(self, context):
        super().visualize(context)
        context.network.register_forward_hook(lambda *_: None)
        with self.guarded(context.epoch, "3"):
            raise self._error


def test_warn_lets_the_run_go_on_and_tries_again(tmp_path):
    failing = Failing(RuntimeError("no luck"), epochs=[1, 2])
    module = Classifier()
    with pytest.warns(UserWarning, match="Failing failed at epoch 1 on layer '3': RuntimeError: no luck"):
        trainer = fit(tmp_path, failing, module=module, max_epochs=3)
    assert trainer.current_epoch == 3
    assert failing._epochs == [1, 2, 3]
    assert not module.model._forward_hooks


def test_a_failed_epoch_does_not_count_as_shown(tmp_path):
    class FailsOnce(Recorder):
        def visualize(self, context):
            super().visualize(context)
            if context.epoch == 1:
                raise ValueError("not now")

    once = FailsOnce(epochs=[1, 2])
    with pytest.warns(UserWarning, match="not now"):
        fit(tmp_path, once, max_epochs=2)
    assert once.state_dict()["shown"] == [2]


@pytest.mark.parametrize("error", [RuntimeError("no luck"), torch.OutOfMemoryError("full")])
def test_raise_lets_the_error_through(tmp_path, error):
    module = Classifier()
    with pytest.raises(type(error)):
        fit(tmp_path, Failing(error, on_error="raise"), module=module)
    assert not module.model._forward_hooks


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_interrupts_pass_at_once(tmp_path, error):
    failing = Failing(error, every_n_epochs=1)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(tmp_path, failing, max_epochs=3)
    assert failing._epochs == [1]


def test_a_disk_that_fails_costs_one_warning_an_epoch(tmp_path):
    (tmp_path / "cnnvis").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="SinkError") as caught:
        trainer = fit(tmp_path, Disturber(), max_epochs=2)
    assert trainer.current_epoch == 2
    assert sum("SinkError" in str(warning.message) for warning in caught) == 2


@pytest.mark.parametrize("on_error", ["warn", "raise"])
def test_a_refusal_by_check_stops_the_run_before_training(tmp_path, on_error):
    class Refuses(Recorder):
        def check(self, context):
            raise ValueError("k=0 must be at least 1")

    module = Classifier()
    with pytest.raises(MisconfigurationException, match="Refuses: k=0 must be at least 1"):
        fit(tmp_path, Refuses(on_error=on_error), module=module)
    assert not module.losses


# Network and layers.


class TwoParts(Classifier):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2)

    def forward(self, images):
        return self.head(self.model(images))


def test_the_only_child_with_parameters_is_the_network(tmp_path):
    recorder, module = Recorder(["0", "model.2"]), Classifier()
    fit(tmp_path, recorder, module=module)
    (context,) = recorder._checked
    assert context.trained is module.model
    assert context.layers == ("0", "2")
    assert context.device == torch.device("cpu")
    assert context.epoch == 1


@pytest.mark.parametrize(("network", "layers"), [(None, ("model.0",)), ("model", ("0",))])
def test_several_parts_or_a_named_one(tmp_path, network, layers):
    recorder, module = Recorder(["model.0"], network=network), TwoParts()
    fit(tmp_path, recorder, module=module)
    assert recorder._checked[0].trained is (module.model if network else module)
    assert recorder._checked[0].layers == layers


def test_a_compiled_network_is_unwrapped(tmp_path):
    module = Classifier()
    inner, module.model = module.model, torch.compile(module.model, backend="eager")
    recorder = Recorder(["0", "model.2", "model._orig_mod.0"])
    fit(tmp_path, recorder, module=module)
    assert recorder._checked[0].trained is inner
    assert recorder._checked[0].layers == ("0", "2", "0")


def test_a_network_built_in_configure_model(tmp_path):
    class Late(Classifier):
        def __init__(self):
            super().__init__()
            self.model = None

        def configure_model(self):
            self.model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))

    recorder = Recorder(["1"])
    fit(tmp_path, recorder, module=Late())
    assert recorder._epochs == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["model.conv1"]}, "no layer 'conv1'"),
        ({"network": "backbone"}, "network='backbone' is not a module of Classifier. It has 'model', 'loss'"),
    ],
)
def test_unknown_names_are_refused(tmp_path, options, message):
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, Recorder(**options))


def test_strategies_that_shard_the_weights_are_refused():
    class FSDPStrategy:
        pass

    class Trainer:
        strategy = FSDPStrategy()
        callbacks = ()

    with pytest.raises(MisconfigurationException, match="FSDPStrategy splits them"):
        Recorder().setup(Trainer(), Classifier(), "fit")


# Input.


def test_the_input_is_found_out_from_the_first_batch(tmp_path):
    recorder = Recorder(input_spec=None)
    with pytest.warns(UserWarning, match="no Normalize for 3 channels"):
        fit(tmp_path, recorder, max_epochs=2)
    assert recorder._checked[0].input_spec.shape == (3, 8, 8)
    assert recorder._epochs == [1, 2]


def test_the_data_module_tells(tmp_path):
    class Data(pl.LightningDataModule):
        input_spec = InputSpec(size=(8, 8), class_names=("cat", "dog"))

        def train_dataloader(self):
            return loaders()[0]

    recorder = Recorder(input_spec=None)
    trainer_of(tmp_path, recorder).fit(Classifier(), datamodule=Data())
    assert recorder._checked[0].input_spec is Data.input_spec


def test_the_data_module_tells_the_names_alone(tmp_path):
    class Data(pl.LightningDataModule):
        class_names = ("cat", "dog")

        def train_dataloader(self):
            return loaders()[0]

    recorder = Recorder(input_spec=None)
    with pytest.warns(UserWarning, match="no Normalize for 3 channels"):
        trainer_of(tmp_path, recorder).fit(Classifier(), datamodule=Data())
    assert recorder._checked[0].input_spec.class_names == ("cat", "dog")


def test_a_batch_without_images_is_refused_before_training(tmp_path):
    class Text(Classifier):
        def training_step(self, batch, batch_idx):
            return self(torch.rand(2, 3, 8, 8)).sum()

    with pytest.raises(MisconfigurationException, match="batch contains no tensor"):
        trainer_of(tmp_path, Recorder(input_spec=None)).fit(Text(), DataLoader(range(4), 2))


# Harmless.


def outcome(tmp_path, *callbacks, frozen=False, compiled=False, **options):
    """Everything a training run leaves behind."""
    pl.seed_everything(1, verbose=False)
    module = Classifier()
    if frozen:
        module.model[1].eval()
        module.model[1].requires_grad_(False)
    if compiled:
        torch._dynamo.reset()
        module.model = torch.compile(module.model, backend="aot_eager")
    trainer = fit(tmp_path, *callbacks, module=module, max_epochs=3, **options)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer = trainer.optimizers[0].state_dict()["state"]
    state |= {f"{i}.{key}": value for i, entry in optimizer.items() for key, value in entry.items()}
    state |= {f"loss {i}": loss for i, loss in enumerate(module.losses)}
    state |= {"loss": trainer.logged_metrics["loss"], "rng": torch.get_rng_state()}
    state |= {name: value for name, value in trainer.logged_metrics.items() if name.startswith("val")}
    plain = (random.getstate(), str(np.random.get_state()))  # noqa: NPY002
    flags = [m.training for m in module.modules()] + [p.requires_grad for p in module.parameters()]
    hooks = [len(m._forward_hooks) for m in module.modules()]
    return state, plain, flags, hooks


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"frozen": True},
        {"compiled": True},
        {"accumulate_grad_batches": 3},
        {"precision": "bf16-mixed"},
        {"precision": "64-true"},
        {"precision": "bf16-true"},
        {"deterministic": True},
        {"val_check_interval": 0.5},
        {"limit_val_batches": 0},
    ],
    ids=str,
)
def test_training_is_bit_identical_with_and_without(tmp_path, options):
    disturber = Disturber(every_n_epochs=1, on_error="raise")
    plain = outcome(tmp_path / "without", **options)
    disturbed = outcome(tmp_path / "with", disturber, **options)
    assert disturber._epochs == [1, 2, 3]
    assert plain[0].keys() == disturbed[0].keys()
    for name, value in plain[0].items():
        assert torch.equal(value, disturbed[0][name]), name
    assert plain[1:] == disturbed[1:]


# Where Lightning runs.


def test_runs_in_the_lightning_package(tmp_path):
    package = pytest.importorskip("lightning.pytorch")

    class Module(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Classifier().model

        def training_step(self, batch, batch_idx):
            return self.model(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    disturber = Disturber(on_error="raise")
    logger = package.loggers.TensorBoardLogger(tmp_path)
    trainer = trainer_of(tmp_path, disturber, package=package, max_epochs=2, logger=logger)
    trainer.fit(Module(), loaders()[0])
    assert disturber._epochs == [1, 2]
    assert (tmp_path / "lightning_logs" / "version_0" / "cnnvis" / "recorder" / "noise" / "epoch_0002.png").exists()


def test_fast_dev_run_shows_but_writes_nothing(tmp_path):
    disturber = Disturber(on_error="raise")
    fit(tmp_path, disturber, fast_dev_run=True, max_epochs=5)
    assert disturber._epochs == [1]
    assert not list(tmp_path.rglob("*.png"))


def test_two_callbacks_of_one_class_keep_apart(tmp_path):
    first, second = Disturber(["0"], on_error="raise"), Disturber(["2"], on_error="raise")
    assert first.state_key != second.state_key
    assert first.state_key == Disturber(("0",), max_overhead=None).state_key
    fit(tmp_path, first, second)
    folders = {path.relative_to(tmp_path / "cnnvis").parts[0] for path in tmp_path.rglob("*.png")}
    assert folders == {"recorder", "recorder-2"}


def test_a_function_in_the_key_has_no_address():
    assert "0x" not in Recorder(get_images=Classifier.forward).state_key


def test_resuming_keeps_what_was_shown(tmp_path):
    keep = ModelCheckpoint(tmp_path, save_last=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tmp_path, Recorder(), Recorder(["0"], input_spec=None), keep, max_epochs=2, enable_checkpointing=True)
        checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
        first, second = Recorder(), Recorder(["0"], input_spec=None)
        trainer = trainer_of(tmp_path, first, second, max_epochs=5)
        trainer.fit(Classifier(), *loaders(), ckpt_path=tmp_path / "last.ckpt")
    for recorder in (first, second):
        saved = checkpoint["callbacks"][recorder.state_key]
        assert saved["shown"] == [1, 2]
        assert InputSpec(**saved["input_spec"]).size == (8, 8)
        assert recorder._epochs == [5]
        state = recorder.state_dict()
        assert state["shown"] == [1, 2, 5]
        assert state["seconds"] > saved["seconds"] > 0
        assert state["elapsed"] > saved["elapsed"]


def test_a_second_fit_starts_afresh(tmp_path):
    recorder = Recorder()
    fit(tmp_path, recorder, max_epochs=2)
    fit(tmp_path, recorder, max_epochs=2)
    assert recorder._epochs == [1, 2, 1, 2]
    assert recorder.state_dict()["shown"] == [1, 2]
