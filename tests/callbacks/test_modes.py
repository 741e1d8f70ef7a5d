"""Every callback works wherever Lightning runs."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EMAWeightAveraging, WeightAveraging
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from runs import IMAGES, KINDS, LABELS, Classifier, every_callback, fit, loader, network, pictures, trainer_of
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_cnnvis import DeconvNetProjection, FeatureConvergence, MethodCallback
from lightning_cnnvis.callbacks.base import VisualizationCallback


class Manual(Classifier):
    """Two optimizers, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, _):
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        children = list(self.model)
        return [torch.optim.SGD(nn.Sequential(*part).parameters(), 0.1) for part in (children[:4], children[4:])]


class BatchOf(Classifier):
    """Takes its images out of batches of any kind."""

    def __init__(self, images) -> None:
        super().__init__()
        self.images = images

    def training_step(self, batch, _):
        return self.model(self.images(batch)).square().mean()

    def validation_step(self, batch, _):
        self.model(self.images(batch))


def nested(batch):
    """What a user names by its dotted name."""
    return batch["views"]["left"].image


class View:
    def __init__(self, image: torch.Tensor) -> None:
        self.image = image


def batches(collate) -> DataLoader:
    return DataLoader(IMAGES, 4, collate_fn=lambda images: collate(torch.stack(images)))


class Stream(IterableDataset):
    """Images without a length."""

    def __iter__(self):
        yield from zip(IMAGES, LABELS, strict=True)


class Several(Classifier):
    """Two optimizers that take turns, and a schedule."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, index):
        optimizer = self.optimizers()[index % 2]
        self.toggle_optimizer(optimizer)
        self.manual_backward(F.cross_entropy(self.model(batch[0]), batch[1]))
        optimizer.step()
        optimizer.zero_grad()
        self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        parts = nn.Sequential(*list(self.model)[:4]), nn.Sequential(*list(self.model)[4:])
        optimizers = [torch.optim.SGD(part.parameters(), 0.1) for part in parts]
        return optimizers, [torch.optim.lr_scheduler.StepLR(optimizer, 1) for optimizer in optimizers]


def compiled_network() -> Classifier:
    torch._dynamo.reset()
    module = Classifier()
    module.model = torch.compile(module.model, backend="eager")
    return module


def compiled_module():
    torch._dynamo.reset()
    return torch.compile(Classifier(), backend="eager")


MODES = {
    "precision 32-true": {"precision": "32-true"},
    "precision bf16-mixed": {"precision": "bf16-mixed"},
    "precision bf16-true": {"precision": "bf16-true"},
    # Lightning turns it into bf16-mixed on a CPU, and warns
    "precision 16-mixed": {"precision": "16-mixed"},
    "precision 16-true": {"precision": "16-true"},
    "precision 64-true": {"precision": "64-true"},
    "deterministic": {"deterministic": True},
    "accumulation": {"accumulate_grad_batches": 3},
    "manual optimization": {"module": Manual},
    "limit_val_batches": {"limit_val_batches": 1},
    "limit_train_batches": {"limit_train_batches": 1},
    "overfit_batches": {"overfit_batches": 2},
    "val_check_interval below 1": {"val_check_interval": 1 / 3},
    "validation that misses the epoch's end": {"val_check_interval": 2},
    "rare validation": {"check_val_every_n_epoch": 2},
    "validation by steps": {"val_check_interval": 5, "check_val_every_n_epoch": None},
    "sanity check": {"num_sanity_val_steps": 1},
    "several validation loaders": {"val": lambda: [loader(), loader(5)]},
    "validation loaders by name": {"val": lambda: {"one": loader(), "two": loader(5)}},
    "several training loaders": {
        "train": lambda: {"labelled": loader(), "other": loader(2)},
        "module": lambda: BatchOf(lambda batch: (batch["labelled"] if isinstance(batch, dict) else batch)[0]),
    },
    "no validation": {"val": False},
    "max_steps": {"max_epochs": -1, "max_steps": 6},
    "inference mode off": {"inference_mode": False},
    "batches of tensors": {
        "module": lambda: BatchOf(lambda batch: batch),
        "train": lambda: batches(lambda images: images),
        "val": lambda: batches(lambda images: images),
    },
    "batches of dicts": {
        "module": lambda: BatchOf(lambda batch: batch["images"]),
        "train": lambda: batches(lambda images: {"names": ["a"] * len(images), "images": images}),
        "val": lambda: batches(lambda images: {"names": ["a"] * len(images), "images": images}),
    },
    "the user's own batches": {
        "get_images": f"{nested.__module__}.{nested.__qualname__}",
        "module": lambda: BatchOf(nested),
        "train": lambda: batches(lambda images: {"views": {"left": View(images)}}),
        "val": lambda: batches(lambda images: {"views": {"left": View(images)}}),
    },
    "data without a length": {"train": lambda: DataLoader(Stream(), 4), "val": lambda: DataLoader(Stream(), 4)},
    "data without a length, nor validation": {"train": lambda: DataLoader(Stream(), 4), "val": False},
    "two optimizers in turn": {"module": Several},
    "compiled network": {"module": compiled_network},
    "compiled module": {"module": compiled_module},
    "exponentially averaged weights": {"peers": lambda: [EMAWeightAveraging(decay=0.5)]},
    "averaged weights": {"peers": lambda: [WeightAveraging()]},
    "averaged weights, before": {"peers_before": lambda: [WeightAveraging()]},
    "reloaded loaders": {"reload_dataloaders_every_n_epochs": 1},
    "barebones": {"barebones": True, "num_sanity_val_steps": None},
    "detect_anomaly": {"detect_anomaly": True},
    "gradient clipping": {"gradient_clip_val": 0.1},
}

# the runs of test_harmless.py have these, too
AGAIN = {
    "precision bf16-mixed", "precision bf16-true", "precision 64-true", "deterministic", "accumulation",
    "no validation", "compiled module", "exponentially averaged weights", "averaged weights",
}  # fmt: skip


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.slow if mode in AGAIN else ()) for mode in MODES]
)
def test_every_callback_shows_its_epochs(tmp_path, mode):
    options = {name: value() if callable(value) else value for name, value in MODES[mode].items()}
    before, after = options.pop("peers_before", []), options.pop("peers", [])
    arguments = {name: options.pop(name) for name in ("get_images",) if name in options}
    callbacks = every_callback(**arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for about in ("AMP with fp16 is not supported", "batch_size", "treespec", "overfit", "multiple", "barebones",
                      "deterministic", "Anomaly", "dataloader", "step", "The .grad attribute"):  # fmt: skip
            warnings.filterwarnings("ignore", f".*{about}")
        trainer = fit(tmp_path, *before, *callbacks, *after, **options)
    for callback in callbacks:
        if isinstance(callback, VisualizationCallback):
            assert callback.state_dict()["shown"] == [1, 2]
    kinds = {path.split("/")[1] for path in pictures(tmp_path)}
    assert kinds == KINDS
    for module in trainer.lightning_module.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_a_fast_dev_run_tries_everything_and_writes_nothing(tmp_path):
    callbacks = every_callback()
    fit(tmp_path, *callbacks, fast_dev_run=True)
    assert callbacks[0].state_dict()["shown"] == [1]
    assert not list(tmp_path.rglob("*.png"))


def test_both_packages(tmp_path):
    package = pytest.importorskip("lightning.pytorch")

    class Other(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = network()

        training_step, validation_step, losses = Classifier.training_step, Classifier.validation_step, []
        configure_optimizers = Classifier.configure_optimizers

    fit(tmp_path / "one", *every_callback())
    fit(tmp_path / "other", *every_callback(), package=package, module=Other())
    assert pictures(tmp_path / "one") == pictures(tmp_path / "other")


@pytest.mark.parametrize("after_fit", [False, True])
def test_nothing_is_shown_outside_of_training(tmp_path, after_fit):
    class Tested(Classifier):
        test_step = Classifier.validation_step

        def predict_step(self, batch):
            return self.model(batch[0])

    callbacks, module = every_callback(), Tested()
    trainer = fit(tmp_path, *callbacks, module=module) if after_fit else trainer_of(tmp_path, *callbacks)
    before = pictures(tmp_path), {name: value.clone() for name, value in module.state_dict().items()}
    states = [str(callback.state_dict().get("shown")) for callback in callbacks]
    for what, options in {"validate": {"verbose": False}, "test": {"verbose": False}, "predict": {}}.items():
        getattr(trainer, what)(module, loader(), **options)
        assert pictures(tmp_path) == before[0], what
        assert all(torch.equal(value, before[1][name]) for name, value in module.state_dict().items()), what
        assert states == [str(callback.state_dict().get("shown")) for callback in callbacks], what
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules()), what


def test_averaged_weights_are_left_alone_and_the_trained_ones_are_shown(tmp_path):
    def run(folder, *callbacks):
        module = Classifier()
        fit(folder, *callbacks, module=module)
        return module.state_dict()

    plain = run(tmp_path / "none", WeightAveraging())
    for name, callbacks in {
        "before": [WeightAveraging(), *every_callback()],
        "after": [*every_callback(), WeightAveraging()],
    }.items():
        averaged = run(tmp_path / name, *callbacks)
        assert all(torch.equal(value, averaged[key]) for key, value in plain.items())
    run(tmp_path / "trained", *every_callback())
    # the activations too, though the validation ran on the averaged weights
    shown = pictures(tmp_path / "trained")
    assert pictures(tmp_path / "before") == shown
    assert pictures(tmp_path / "after") == shown


def test_two_callbacks_of_one_class(tmp_path):
    # a method without a seed is the same twice
    others = [
        callback
        for callback in every_callback(seed=7)
        if not isinstance(callback, MethodCallback) or "seed" in callback.method.fields
    ]
    callbacks = [*every_callback(), *others]
    _, second = (n for n, callback in enumerate(callbacks) if isinstance(callback, FeatureConvergence))
    callbacks[second] = FeatureConvergence(patience=1)
    fit(tmp_path, *callbacks, max_epochs=1)
    kinds = {path.split("/")[1] for path in pictures(tmp_path)}
    assert {"deconvnet", "deconvnet-2", "deconvnet-2_evolution", "inversion-2", "deepdream-2"} <= kinds
    assert len({callback.state_key for callback in callbacks}) == len(callbacks)


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy])
def test_sharded_weights_are_refused_at_set_up(tmp_path, monkeypatch, strategy):
    class Own(strategy):
        """A user's own, which cannot be made without DeepSpeed."""

        def __init__(self):
            pass

    trainer = trainer_of(tmp_path, DeconvNetProjection())
    monkeypatch.setattr(type(trainer), "strategy", Own())
    with pytest.raises(MisconfigurationException, match=rf"{strategy.__name__} splits .* Use strategy='ddp'"):
        DeconvNetProjection().setup(trainer, Classifier(), "fit")


def test_a_second_fit_of_one_trainer_goes_on(tmp_path):
    callbacks = every_callback()
    trainer = fit(tmp_path, *callbacks)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(trainer.lightning_module, loader(), loader())
    assert callbacks[0].state_dict()["shown"] == [3, 4]
