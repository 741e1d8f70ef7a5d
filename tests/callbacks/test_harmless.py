"""A training run with every callback ends as it would have ended without: whatever the run does, whatever fails."""

from __future__ import annotations

import errno
import os
import pickle
import random
import re
import signal
import warnings
from functools import partial
from itertools import product
from pathlib import Path

import hidden_state
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger
from runs import (
    FIGURES,
    KINDS,
    OPTIMISATION,
    PROJECTION,
    SIDE,
    SPEC,
    Augmented,
    Classifier,
    NoLuck,
    break_functions,
    every_callback,
    fails,
    fit,
    loader,
    pictures,
)
from torch import nn
from torch.utils.data import DataLoader

from lightning_cnnvis import ClassVisualization, DeconvNetProjection, DeepDream, FeatureInversion, InputSpec
from lightning_cnnvis.callbacks import callback_class
from lightning_cnnvis.callbacks.base import VisualizationCallback
from lightning_cnnvis.callbacks.base.method import MethodCallback
from lightning_cnnvis.callbacks.visualization_checkpoint import VisualizationCheckpoint
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.functional.optimization import loop
from lightning_cnnvis.methods import method_names
from lightning_cnnvis.sinks import SinkError


def frozen_norm() -> Classifier:
    module = Classifier()
    module.model[1].eval().requires_grad_(False)
    return module


def compiled() -> Classifier:
    torch._dynamo.reset()
    module = Classifier()
    module.model.compile(backend="aot_eager")
    return module


def wrapped_by_compile() -> Classifier:
    torch._dynamo.reset()
    module = Classifier()
    module.model = torch.compile(module.model, backend="aot_eager")
    return module


def with_class_names() -> DataLoader:
    """Tells as much of the input as a data set can; the normalisation is guessed."""
    batches = loader()
    batches.dataset.classes = list(SPEC.class_names)
    return batches


def without_norm() -> Classifier:
    module = Classifier()
    module.model[1] = nn.Identity()
    return module


def saturated() -> Classifier:
    """Units at an upper bound, whose activation before the rectifier is noted while the validation runs."""
    module = Classifier()
    for name, child in module.model.named_children():
        if isinstance(child, nn.ReLU):
            module.model[int(name)] = nn.ReLU6(inplace=True)
    return module


class Notes(DummyLogger):
    """Notes the losses that the run logs, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: dict[str, torch.Tensor] = {}

    def log_metrics(self, metrics, step=None):
        noted = {f"logged {name} at {step}": torch.tensor(value) for name, value in metrics.items() if "loss" in name}
        self.losses |= noted


def outcome(folder, *callbacks, make=Classifier, **options):
    """Everything that a training run leaves behind."""
    pl.seed_everything(1, verbose=False)
    module, notes = make(), Notes()
    trainer = fit(folder, *callbacks, module=module, **{"logger": notes, "log_every_n_steps": 1, **options})
    tensors = {name: value.clone() for name, value in module.state_dict().items()}
    for name, entry in trainer.optimizers[0].state_dict()["state"].items():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in entry.items() if value is not None}
    tensors |= {f"loss {i}": loss for i, loss in enumerate(module.losses)}
    tensors |= notes.losses
    tensors["torch rng"] = torch.get_rng_state()
    tensors |= {f"cuda rng {n}": state for n, state in enumerate(torch.cuda.get_rng_state_all())}
    others = {
        "python rng": random.getstate(),
        "numpy rng": str(np.random.get_state()),  # noqa: NPY002
        "modes": [m.training for m in module.modules()],
        "trainable": [p.requires_grad for p in module.parameters()],
        "gradients": [p.grad is None for p in module.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in module.modules()],
        "gathered": getattr(module, "gathered", list)(),
    }
    return tensors, others


def assert_same(outcome_, expected):
    (tensors, others), (expected_tensors, expected_others) = outcome_, expected
    assert tensors.keys() == expected_tensors.keys()
    for name, value in expected_tensors.items():
        assert torch.equal(tensors[name], value), name
    assert others == expected_others


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"make": without_norm}, id="plain"),
        pytest.param({}, id="batch norm"),
        pytest.param({"make": lambda: Classifier(dropout=True)}, id="dropout"),
        pytest.param({"make": frozen_norm}, id="frozen batch norm"),
        pytest.param({"make": saturated}, id="upper bounds"),
        pytest.param({"accumulate_grad_batches": 2}, id="accumulation"),
        pytest.param({"precision": "bf16-mixed"}, id="bf16-mixed"),
        pytest.param({"precision": "bf16-true"}, id="bf16-true"),
        pytest.param({"precision": "64-true"}, id="64-true"),
        pytest.param({"deterministic": True}, id="deterministic"),
        pytest.param(
            {"precision": "16-mixed", "accelerator": "gpu", "devices": 1, "deterministic": "warn"},
            id="16-mixed on a GPU",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: a CPU has no 16-mixed"),
        ),
        pytest.param({"make": compiled}, id="compiled"),
        pytest.param({"make": wrapped_by_compile}, id="compiled, wrapped", marks=pytest.mark.slow),
        pytest.param({"peer": WeightAveraging}, id="averaged weights"),
        pytest.param({"peer": lambda: EMAWeightAveraging(decay=0.5)}, id="exponentially averaged weights"),
        pytest.param({"shown": {"input_spec": None}, "train": with_class_names}, id="input found out"),
        pytest.param(
            {
                "make": lambda: Classifier(dropout=True),
                "train": lambda: DataLoader(Augmented(), 4, shuffle=True),
                "val": lambda: DataLoader(Augmented(), 4),
            },
            id="augmented and shuffled",
        ),
        pytest.param(
            {
                "train": lambda: DataLoader(Augmented(), 4, shuffle=True, num_workers=2, persistent_workers=True),
                "val": lambda: DataLoader(Augmented(), 4, num_workers=1, persistent_workers=True),
            },
            id="workers",
        ),
        pytest.param({"train": lambda: DataLoader(Augmented(), 4, shuffle=True), "val": False}, id="no validation"),
        pytest.param({"make": partial(hidden_state.drifting, *hidden_state.STATES)}, id="states of every kind"),
        *[
            pytest.param({"make": partial(hidden_state.drifting, kind)}, id=kind, marks=pytest.mark.slow)
            for kind in hidden_state.STATES
        ],
        *[
            pytest.param({"make": partial(hidden_state.gathering, kind)}, id=f"gathers in {kind}")
            for kind in hidden_state.GATHERERS
        ],
        pytest.param({"make": hidden_state.counting_class}, id="attributes of a class"),
        pytest.param({"make": hidden_state.lazy}, id="lazy"),
        pytest.param({"make": hidden_state.lazy, "num_sanity_val_steps": 2}, id="lazy, sanity check"),
        pytest.param({"make": hidden_state.logging}, id="logs in forward"),
        pytest.param({"make": hidden_state.logging, "val": False}, id="logs in forward, no validation"),
    ],
)
def test_a_run_with_every_callback_is_the_run_without(tmp_path, options):
    shown, peer = options.get("shown", {}), options.get("peer")

    def run(folder, *callbacks):
        # each run has loaders and peers of its own
        own = {name: make() for name, make in options.items() if name in {"train", "val"} and make}
        rest = {name: value for name, value in options.items() if name not in {"shown", "peer"}}
        return outcome(folder, *callbacks, *([peer()] if peer else []), **{**rest, **own})

    callbacks = [*every_callback(**shown), VisualizationCheckpoint()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*contain no Normalize")
        assert_same(run(tmp_path / "with", *callbacks), run(tmp_path / "without"))
    assert all(c.state_dict()["shown"] == [1, 2] for c in callbacks if isinstance(c, VisualizationCallback))
    assert {path.split("/")[1] for path in pictures(tmp_path / "with")} == KINDS
    assert len(list((tmp_path / "with").rglob("weights/*.ckpt"))) == 2


@pytest.mark.parametrize("make", [hidden_state.logging, hidden_state.Centred, partial(hidden_state.drifting, "slots")])
def test_planning_in_the_validation_step_is_not_seen(tmp_path, make):
    # images of another size than the input's are planned for when they come
    spec = InputSpec(size=(SIDE, SIDE + 4), class_names=SPEC.class_names)
    callback = DeconvNetProjection(num_channels=2, k=2, input_spec=spec, every_n_epochs=1, on_error="raise")
    assert_same(outcome(tmp_path / "with", callback, make=make), outcome(tmp_path / "without", make=make))
    assert callback.state_dict()["shown"] == [1, 2]


# What fails.


class BrokenLogger(DummyLogger):
    """Lets the run's own metrics pass, and nothing else."""

    def log_metrics(self, metrics, step=None):
        if any("/" in name for name in metrics):
            raise ConnectionError("no network")

    def log_image(self, key, images, caption=None):
        raise ConnectionError("no network")


def full_disk(patch):
    def write_bytes(path, data):
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(Path, "write_bytes", write_bytes)


EVERY = tuple(callback_class(name).__name__ for name in method_names())
OPTIMIZING = (
    "ClassVisualization",
    "ActivationMaximization",
    "DeepDream",
    "FeatureInversion",
    "UnitInvariance",
    "Style",
    "Accentuation",
)


STAGES = {
    "harvest": (
        lambda patch: patch.setattr(TopActivations, "update", fails),
        (*EVERY[:1], "Patches", "Randomization"),
        NoLuck,
    ),
    "projection": (lambda patch: break_functions(patch, *PROJECTION), EVERY[:1], NoLuck),
    "optimisation": (lambda patch: break_functions(patch, *OPTIMISATION), OPTIMIZING, NoLuck),
    "figure": (lambda patch: break_functions(patch, *FIGURES), EVERY, NoLuck),
    "logger": (lambda patch: None, (*EVERY, "FeatureConvergence"), SinkError),
    "disk": (full_disk, EVERY, SinkError),
}


@pytest.mark.parametrize("stage", STAGES)
def test_an_error_at_any_stage_costs_a_warning_and_the_picture(tmp_path, monkeypatch, stage):
    sabotage, who, error = STAGES[stage]
    options = {"max_epochs": 3, "logger": BrokenLogger()}
    again = "Training goes on; the next try is at epoch {}."
    outlooks = {1: again.format(2), 2: again.format(3), 3: "Training is not affected."}
    expected = outcome(tmp_path / "without", **options)
    sabotage(monkeypatch)
    if stage != "logger":
        options["logger"] = False
    callbacks = every_callback(on_error="warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = outcome(tmp_path / "with", *callbacks, **options)
    assert_same(result, expected)
    said = [str(w.message) for w in caught if "failed at epoch" in str(w.message)]
    for name, (epoch, outlook) in product(who, outlooks.items()):
        mine = [text for text in said if text.startswith(f"{name} failed at epoch {epoch}")]
        assert mine or (name == "FeatureConvergence" and epoch < 3), (name, epoch, said)
        assert len(mine) <= 2  # one for each layer at most
        for text in mine:
            assert error.__name__ in text
            assert outlook in text
            assert (
                "on_error='raise'" if error is NoLuck else "Check free space and permissions at the destination."
            ) in text
            of_layer = name not in {
                "ClassVisualization",
                "Patches",
                "Randomization",
            }  # which fail for all layers at once
            if stage in {"harvest", "projection", "optimisation"} and of_layer:
                assert re.search("on layer '[25]'", text)
    assert not [text for text in said if not text.startswith(tuple(who))]
    shown = {path.split("/")[1].removesuffix("_evolution") for path in pictures(tmp_path / "with")}
    broken = {"logger": 0}.get(stage, len(who))
    assert len(shown) == len(EVERY) - broken
    assert not list((tmp_path / "with").rglob("*.part"))


class Hungry(nn.Module):
    """Runs out of memory where a visualisation passes more than some images at a time; tells of those that passed."""

    def __init__(self, fits: int, tell=lambda _: None) -> None:
        super().__init__()
        self.fits = fits
        self.tell = tell

    def forward(self, x):
        if not self.training and torch.is_grad_enabled() and len(x) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if not self.training and torch.is_grad_enabled():
            self.tell(len(x))
        return x


def hungry(*arguments) -> Classifier:
    module = Classifier()
    module.model[3] = nn.Sequential(Hungry(*arguments), nn.MaxPool2d(2))
    return module


def test_out_of_memory_halves_the_chunk_down_to_one(tmp_path):
    sizes = []
    module = hungry(1, sizes.append)
    callbacks = [
        ClassVisualization(classes=[0, 1, 2], steps=2, input_spec=SPEC, on_error="raise"),
        FeatureInversion(layers=["5"], restarts=3, probes=2, steps=2, input_spec=SPEC, on_error="raise"),
        DeconvNetProjection(layers=["5"], input_spec=SPEC, on_error="raise"),
        DeepDream(layers=["5"], input_spec=SPEC, on_error="raise"),
    ]
    fit(tmp_path, *callbacks, module=module, max_epochs=1)
    assert len(pictures(tmp_path)) == 10
    assert set(sizes) == {1}


def test_out_of_memory_for_a_single_image_skips_the_picture(tmp_path):
    expected = outcome(tmp_path / "without")
    callbacks = [ClassVisualization(steps=2, input_spec=SPEC), FeatureInversion(layers=["8"], steps=2, input_spec=SPEC)]
    with pytest.warns(UserWarning, match="OutOfMemoryError.*Show fewer or smaller images at a time") as caught:
        result = outcome(tmp_path / "with", *callbacks, make=lambda: hungry(0))
    expected[1].clear(), result[1].clear()  # the network has a layer more
    assert_same(result, expected)
    assert not pictures(tmp_path / "with")
    # at the trial before the training, at epoch 1, at epoch 2
    assert len([w for w in caught if "OutOfMemoryError" in str(w.message)]) == 3 * len(callbacks)


def test_what_failed_in_the_trial_is_tried_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("lightning_cnnvis.methods.classes.visualize_classes", fails)
        callback = ClassVisualization(steps=2, input_spec=SPEC)

        class Repair(pl.Callback):
            def on_train_start(self, *_):
                patch.undo()

        with pytest.warns(UserWarning, match="failed at epoch 1: NoLuck"):
            fit(tmp_path, callback, Repair())
    assert callback.state_dict()["shown"] == [1, 2]


def cut_off(patch, folder):
    def save(self, checkpoint, path, storage_options=None):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(TorchCheckpointIO, "save_checkpoint", save)


def no_folder(patch, folder):
    folder.mkdir()
    (folder / "cnnvis").write_text("a file in its place")


def no_room_in_memory(patch, folder):
    patch.setattr(pl.Trainer, "save_checkpoint", fails)


@pytest.mark.parametrize("sabotage", [cut_off, no_folder, no_room_in_memory])
def test_weights_that_cannot_be_kept_cost_a_warning(tmp_path, monkeypatch, sabotage):
    expected = outcome(tmp_path / "without", max_epochs=3)
    sabotage(monkeypatch, tmp_path / "with")
    callbacks = [ClassVisualization(steps=1, input_spec=SPEC, epochs=[1]), VisualizationCheckpoint()]
    with pytest.warns(UserWarning, match="VisualizationCheckpoint failed at epoch") as caught:
        assert_same(outcome(tmp_path / "with", *callbacks, max_epochs=3), expected)
    own = [str(w.message) for w in caught if "VisualizationCheckpoint" in str(w.message)]
    assert len(own) == 2  # epochs 1 and 3
    assert "cnnvis/weights/epoch_0001.ckpt" in own[0]
    assert not [path for path in (tmp_path / "with").rglob("weights/*") if path.is_file()]


class Particular(nn.Module):
    """Raises an error of its own where it is not given what training gives it."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, images):
        if len(images) != 4 or not images.any():
            raise self.error
        return images


@pytest.mark.parametrize("error", [ValueError("wants four"), MisconfigurationException("wants four"), KeyError("four")])
@pytest.mark.parametrize("kind", [DeconvNetProjection, ClassVisualization, DeepDream, FeatureInversion])
def test_an_error_of_the_networks_own_is_no_refusal(tmp_path, kind, error):
    make = partial(hidden_state.placed, Particular(error))
    expected = outcome(tmp_path / "without", make=make)
    with pytest.warns(UserWarning, match=f"{kind.__name__} failed at epoch 1.*four"):
        assert_same(outcome(tmp_path / "with", kind(input_spec=SPEC), make=make), expected)
    with pytest.raises(type(error), match="four"):
        fit(tmp_path / "raise", kind(input_spec=SPEC, on_error="raise"), module=make())


# SIGTERM and Ctrl-C.


@pytest.mark.parametrize("when", ["steps", "layers"])
def test_sigterm_stops_between_two_steps_and_the_epoch_is_shown_by_the_run_that_goes_on(tmp_path, monkeypatch, when):
    def make():
        if when == "steps":
            return ClassVisualization(steps=5, preset="none", input_spec=SPEC, every_n_epochs=1, on_error="raise")
        return DeconvNetProjection(layers=["2", "5"], num_channels=1, k=1, input_spec=SPEC, every_n_epochs=1)

    fit(tmp_path / "whole", make(), max_epochs=3)
    work, name = (loop, "report") if when == "steps" else (MethodCallback, "show_part")
    original, done = getattr(work, name), []

    def terminated(*arguments):
        done.append(1)
        if len(done) == (1 + 5 + 3 if when == "steps" else 3):  # the trial's step, the first epoch's, the second's
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    saves = ModelCheckpoint(tmp_path / "checkpoints", save_last=True)
    with monkeypatch.context() as patch:
        patch.setattr(work, name, terminated)
        with pytest.raises(SystemExit):
            fit(tmp_path / "parts", make(), saves, max_epochs=3)
    assert len(done) == (9 if when == "steps" else 3)
    fit(tmp_path / "parts", make(), max_epochs=3, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert pictures(tmp_path / "parts") == pictures(tmp_path / "whole")


@pytest.mark.parametrize(
    "keep",
    [
        {},
        pytest.param({"save_on_exception": True}, marks=pytest.mark.slow),
        pytest.param({"save_on_train_epoch_end": False}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_ctrl_c_in_a_callback_stops_at_once_and_leaves_the_checkpoint_whole(tmp_path, monkeypatch, keep):
    fit(tmp_path / "whole", *every_callback(), max_epochs=3)
    saves = ModelCheckpoint(tmp_path / "checkpoints", save_top_k=-1, **keep)
    callbacks = every_callback()
    original, module = DeepDream.visualize, Classifier()

    def interrupt(self, context):
        if context.epoch == 2:
            raise KeyboardInterrupt
        original(self, context)

    with monkeypatch.context() as patch:
        patch.setattr(DeepDream, "visualize", interrupt)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            fit(tmp_path / "parts", *callbacks, saves, module=module, max_epochs=3)
    assert len(module.losses) == 6
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    last = max((tmp_path / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    torch.load(last, weights_only=True)
    fit(tmp_path / "parts", *every_callback(), max_epochs=3, ckpt_path=last)
    assert pictures(tmp_path / "parts") == pictures(tmp_path / "whole")


# Hostile input.

NAMES = ("../../evil", "/etc/passwd", 'a\n<script>alert("x")</script>', "con")


def test_no_name_of_a_class_or_layer_leaves_the_folder(tmp_path):
    class Hostile(Classifier):
        def __init__(self):
            super().__init__()
            names = ["..\\/evil\n", "<b>/x", "c:", "2", "3", "4", "5", "6", "7"]
            self.model = nn.Sequential()
            for name, child in zip(names, Classifier().model, strict=True):
                self.model._modules[f"{name}{'' if name.isdigit() else '/../..'}" if "." not in name else name] = child

    inside = tmp_path / "a" / "b" / "c"
    logger = TensorBoardLogger(inside, name=None, version="run")
    spec = InputSpec(size=SPEC.size, class_names=NAMES[:3])
    callbacks = [
        DeconvNetProjection(num_channels=2, k=2, input_spec=spec, on_error="raise"),
        ClassVisualization(steps=2, input_spec=spec, on_error="raise"),
    ]
    fit(inside, *callbacks, module=Hostile(), logger=logger, max_epochs=1)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    pngs = [path for path in files if path.suffix == ".png"]
    assert len(pngs) == 7
    for path in files:
        assert inside / "run" in path.parents
    for path in pngs:
        assert inside / "run" / "cnnvis" in path.parents
        assert not set(str(path.relative_to(inside))) & set('\n<>:"\\')


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_that_is_a_pickle_bomb_does_not_run(tmp_path):
    saves = ModelCheckpoint(tmp_path)
    callbacks = every_callback()
    fit(tmp_path, *callbacks, saves, max_epochs=1)
    good = torch.load(saves.best_model_path, weights_only=True)
    key = callbacks[0].state_key
    good["callbacks"][key]["evolutions"] = Bomb(tmp_path / "boom")
    torch.save(good, tmp_path / "bomb.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        fit(tmp_path, *every_callback(), ckpt_path=tmp_path / "bomb.ckpt")
    assert not (tmp_path / "boom").exists()
