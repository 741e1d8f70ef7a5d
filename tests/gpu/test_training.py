"""Trainings on a GPU: the run with every callback is the run without, and its pictures are those of the CPU."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from gpu.cases import classifier
from PIL import Image
from runs import SPEC, every_callback, fit, loader, pictures
from torch import nn

from lightning_cnnvis import ClassVisualization, DeconvNetProjection, VisualizationCheckpoint
from lightning_cnnvis.callbacks.base import VisualizationCallback

pytestmark = pytest.mark.gpu


def accelerator(device: torch.device) -> dict[str, object]:
    return {"accelerator": "cpu" if device.type == "cpu" else "gpu", "devices": 1}


def outcome(folder, device, *callbacks, make, **options):
    """The weights, losses, states of the optimizer and of every generator after a run."""
    pl.seed_everything(1, verbose=False)
    module = make()
    trainer = fit(folder, *callbacks, module=module, **{**accelerator(device), **options})
    tensors = {name: value.clone() for name, value in module.state_dict().items()}
    for name, entry in trainer.optimizers[0].state_dict()["state"].items():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in entry.items() if value is not None}
    tensors |= {f"loss {i}": loss for i, loss in enumerate(module.losses)}
    tensors["torch rng"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors |= {f"cuda rng {i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    others = random.getstate(), str(np.random.get_state()), [m.training for m in module.modules()]  # noqa: NPY002
    cudnn = torch.backends.cudnn
    flags = cudnn.enabled, cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    return {name: tensor.cpu() for name, tensor in tensors.items()}, others, flags


def assert_same(one, other):
    assert one[0].keys() == other[0].keys()
    for name, tensor in one[0].items():
        assert torch.equal(tensor, other[0][name]) or tensor.isnan().all(), name
    assert one[1:] == other[1:]


def channels_last():
    module = classifier(pooling=False)
    module.model = module.model.to(memory_format=torch.channels_last)
    return module


def compiled():
    torch._dynamo.reset()
    module = classifier(pooling=False)
    module.model.compile(backend="aot_eager")
    return module


def with_dropout():
    """Draws from the generator of the GPU in every training step."""
    module = classifier(pooling=False)
    module.model[7] = nn.Sequential(nn.Flatten(), nn.Dropout())
    return module


def plain():
    return classifier(pooling=False)


RUNS = {
    "32-true": {"make": plain},
    "bf16-mixed": {"make": plain, "precision": "bf16-mixed"},
    "16-mixed": {"make": plain, "precision": "16-mixed"},
    "bf16-true": {"make": plain, "precision": "bf16-true"},
    "channels_last": {"make": channels_last},
    "channels_last, bf16-mixed": {"make": channels_last, "precision": "bf16-mixed"},
    "compiled": {"make": compiled},
    "dropout": {"make": with_dropout},
    "max-pooling": {"make": classifier, "deterministic": "warn"},
    "accumulated, clipped": {"make": plain, "accumulate_grad_batches": 2, "gradient_clip_val": 0.5},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_with_every_callback_is_the_run_without(tmp_path, device, name):
    options = {"deterministic": True, **RUNS[name]}
    if device.type == "cpu" and options.get("precision") == "16-mixed":
        pytest.skip("needs CUDA")
    callbacks = [*every_callback(), VisualizationCheckpoint()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*deterministic")
        result = outcome(tmp_path / "with", device, *callbacks, **options)
        assert_same(result, outcome(tmp_path / "without", device, **options))
    assert all(c.state_dict()["shown"] == [1, 2] for c in callbacks if isinstance(c, VisualizationCallback))
    assert pictures(tmp_path / "with")


@pytest.mark.parametrize("name", ["32-true", "bf16-mixed", "dropout"])
def test_with_a_default_device(tmp_path, device, name):
    options = {"deterministic": True, **RUNS[name]}
    make = options.pop("make")

    def made():
        torch.set_default_device(None)
        module = make()
        torch.set_default_device(device)
        return module

    try:
        # both: a loader draws the seed of its workers on the default device
        result = outcome(tmp_path / "with", device, *every_callback(), make=made, **options)
        expected = outcome(tmp_path / "without", device, make=made, **options)
    finally:
        torch.set_default_device(None)
    assert_same(result, expected)
    assert pictures(tmp_path / "with")


@pytest.mark.parametrize("benchmark", [True, False])
def test_cudnn_flags_are_those_of_the_trainer(tmp_path, device, benchmark):
    result = outcome(tmp_path, device, *every_callback(), make=plain, benchmark=benchmark)
    try:
        assert result[2][1] is benchmark
    finally:
        torch.backends.cudnn.benchmark = False


class Still(pl.Callback):
    """Keeps the weights, so that both devices show the same network."""

    def on_train_start(self, trainer, pl_module):
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = 0.0


def still():
    module = classifier()
    module.model[1].momentum = 0.0
    return module.double()


def shown(folder: Path, device: torch.device) -> dict[str, np.ndarray]:
    pl.seed_everything(1, verbose=False)
    batches = loader()
    batches.dataset.tensors = (batches.dataset.tensors[0].double(), batches.dataset.tensors[1])
    fit(
        folder, *every_callback(), Still(), module=still(), train=batches, val=batches, precision="64-true",
        max_epochs=1, **accelerator(device),
    )  # fmt: skip
    return {name: np.asarray(Image.open(folder / name).convert("RGB")).astype(int) for name in pictures(folder)}


def test_pictures_are_those_of_the_cpu(tmp_path, device):
    mine, expected = shown(tmp_path / "gpu", device), shown(tmp_path / "cpu", torch.device("cpu"))
    assert mine.keys() == expected.keys()
    for name, picture in expected.items():
        assert picture.shape == mine[name].shape, name
        assert np.abs(picture - mine[name]).max() <= 1, name  # of 255 levels: one is rounding


def test_the_result_of_a_run_stays_on_no_gpu(tmp_path, device):
    callbacks = [
        DeconvNetProjection(num_channels=2, k=2, input_spec=SPEC, on_error="raise"),
        ClassVisualization(steps=2, input_spec=SPEC, on_error="raise"),
    ]
    fit(tmp_path, *callbacks, module=classifier(), max_epochs=1, **accelerator(device))

    def tensors(held):
        if isinstance(held, torch.Tensor):
            yield held
        elif isinstance(held, dict | list | tuple):
            for value in held.values() if isinstance(held, dict) else held:
                yield from tensors(value)

    for callback in callbacks:
        assert {t.device.type for t in tensors(callback.state_dict())} <= {"cpu"}
