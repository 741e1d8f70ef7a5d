"""What the network is fed is seen at its own first pass, and what its output means as far as the training shows it."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis import ClassVisualization, DeconvNetProjection, FeatureInversion, InputSpec, analyze, evolve
from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD

MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
NORMALIZED = InputSpec((16, 16), mean=IMAGENET_MEAN, std=IMAGENET_STD)
PLAIN = InputSpec((16, 16))
BYTES = (255 * torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) ** 2).byte()
PIXELS = BYTES.float() / 255
LABELS = torch.arange(8) % 3


def normalized(x: torch.Tensor) -> torch.Tensor:
    return ((x / 255 if x.dtype == torch.uint8 else x) - MEAN) / STD


class Data(pl.LightningDataModule):
    """Gives images of one kind, and says so if it is told to."""

    def __init__(self, images: torch.Tensor = PIXELS, *, says: bool = False, val: bool = True, targets=LABELS) -> None:
        super().__init__()
        self.loader = DataLoader(TensorDataset(images, targets), 4)
        self.val_dataloader = (lambda: self.loader) if val else super().val_dataloader
        if says:
            self.input_spec = PLAIN

    def train_dataloader(self):
        return self.loader


class Training(pl.LightningModule):
    """Prepares the images itself, in a place of its choice."""

    def __init__(self, where: str = "step", prepare=None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
        self.where, self.prepare = where, prepare or normalized

    def _at(self, where, x):
        return self.prepare(x) if where == self.where else x

    def on_after_batch_transfer(self, batch, _):
        return self._at("transfer", batch[0]), batch[1]

    def forward(self, x):
        return self.net(self._at("forward", x))

    def training_step(self, batch, _):
        return self.loss(self(self._at("step", batch[0])), batch[1])

    def validation_step(self, batch, _):
        self(self._at("step", batch[0]))

    def loss(self, logits, targets):
        return F.cross_entropy(logits, targets) if targets.ndim == 1 else F.multilabel_soft_margin_loss(logits, targets)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Watched(DeconvNetProjection):
    """Keeps the patches that are shown, as pictures."""

    def show_part(self, context, options, part, items, prepared):
        result = super().show_part(context, options, part, items, prepared)
        self.pictures = context.input_spec.denormalize(result.projections.patches)
        self.shown_values = result.projections.activations
        return result


def projections(**options) -> Watched:
    return Watched(layers=["net.1"], k=1, every_n_epochs=1, on_error="raise", **options)


def inversion(**options) -> FeatureInversion:
    return FeatureInversion(layers=["net.1"], steps=2, every_n_epochs=1, on_error="raise", **options)


def fit(tmp_path, callback, module=None, data=None, **options):
    trainer = pl.Trainer(
        default_root_dir=tmp_path, callbacks=[callback], accelerator="cpu", enable_progress_bar=False, logger=False,
        enable_model_summary=False, **{"max_epochs": 1, "enable_checkpointing": False, **options},
    )  # fmt: skip
    trainer.fit(module or Training(), data or Data())
    return trainer


def assert_format(spec: InputSpec, expected: InputSpec, rtol: float = 1e-3) -> None:
    assert spec.size == expected.size
    torch.testing.assert_close(torch.tensor(spec.mean), torch.tensor(expected.mean), rtol=rtol, atol=1e-4)
    torch.testing.assert_close(torch.tensor(spec.std), torch.tensor(expected.std), rtol=rtol, atol=1e-4)


def is_part_of(patch: torch.Tensor, images: torch.Tensor) -> bool:
    windows = images.unfold(2, patch.shape[1], 1).unfold(3, patch.shape[2], 1)
    return bool(((windows - patch.view(1, 3, 1, 1, *patch.shape[1:])).abs().amax((1, 4, 5)) < 2e-3).any())


@pytest.mark.parametrize("where", ["step", "forward", "transfer"])
@pytest.mark.parametrize("val", [True, False])
@pytest.mark.parametrize("kind", ["pixels", "bytes", "a data module that says so"])
def test_colours_and_inputs_are_those_of_the_photographs(tmp_path, where, val, kind):
    data = Data(BYTES if kind == "bytes" else PIXELS, says=kind.startswith("a data"), val=val)
    if where == "transfer" and kind.startswith("a data"):
        pytest.skip("then it is not true")
    callback = projections()
    fit(tmp_path, callback, Training(where), data)
    if where != "transfer":  # a batch that comes normalised is described by a guess
        assert_format(callback._spec, NORMALIZED)
    assert all(is_part_of(patch, PIXELS) for patch in callback.pictures)


@pytest.mark.parametrize("where", ["step", "forward"])
@pytest.mark.parametrize("given", [None, NORMALIZED], ids=["found", "given"])
@pytest.mark.parametrize("val", [True, False])
def test_the_network_is_shown_what_it_is_trained_on(tmp_path, where, given, val):
    callback = inversion(input_spec=given)
    fit(tmp_path, callback, Training(where), Data(val=val))
    assert_format(callback._spec, NORMALIZED)
    assert_format(callback._batch_spec, PLAIN)
    torch.testing.assert_close(callback._fixed.taken, PIXELS[: len(callback._fixed.taken)], rtol=1e-3, atol=1e-3)


def test_images_that_are_resized_in_the_step(tmp_path):
    module = Training(prepare=lambda x: (F.interpolate(x, (32, 32), mode="bilinear", antialias=True) - MEAN) / STD)
    callback = inversion()
    fit(tmp_path, callback, module)
    assert callback._spec.size == (32, 32)
    assert callback._batch_spec.size == (16, 16)
    assert callback._fixed.taken.shape[2:] == (32, 32)


def test_mixtures_are_warned_of(tmp_path):
    module = Training(prepare=lambda x: x + 5 * torch.randn(x.shape))
    with pytest.warns(UserWarning, match="fed something else than the images of the batch"):
        fit(tmp_path, projections(input_spec=PLAIN), module)


def test_a_run_without_preparation_is_as_before(tmp_path):
    callback = inversion(input_spec=PLAIN)
    fit(tmp_path, callback, Training(prepare=lambda x: x))
    assert callback._spec == callback._batch_spec == PLAIN


def test_no_hook_is_left_where_the_first_step_fails(tmp_path):
    def fail(_):
        raise RuntimeError("no")

    module = Training(prepare=fail)
    with pytest.raises(RuntimeError, match="no"):
        fit(tmp_path, inversion(), module, num_sanity_val_steps=0)
    assert not module.net._forward_pre_hooks


def test_after_the_training_and_when_it_is_resumed(tmp_path):
    callback = projections()
    trainer = fit(tmp_path, callback, enable_checkpointing=True)
    path = trainer.checkpoint_callback.best_model_path
    assert_format(analyze(path, Data(), model=Training()).input_spec, NORMALIZED)
    again = projections()
    trainer = pl.Trainer(
        default_root_dir=tmp_path / "again", callbacks=[again], accelerator="cpu", enable_progress_bar=False,
        logger=False, enable_model_summary=False, enable_checkpointing=False, max_epochs=2,
    )  # fmt: skip
    trainer.fit(Training(), Data(says=True), ckpt_path=path)
    assert_format(again._spec, NORMALIZED)
    assert again._batch_spec == PLAIN


def test_afterwards_the_same_images_give_the_same_activations(tmp_path):
    callback = projections()
    trainer = fit(tmp_path, callback, enable_checkpointing=True)
    path = trainer.checkpoint_callback.best_model_path
    found = analyze(path, Data(), model=Training()).deconv(["1"], k=1, num_channels=None).projections["1"]
    torch.testing.assert_close(found.activations, callback.shown_values, rtol=1e-3, atol=1e-4)
    drawn = projections()
    evolve(tmp_path, Data(says=True), model=Training(), callbacks=[drawn])
    torch.testing.assert_close(drawn.pictures, callback.pictures, rtol=1e-3, atol=1e-3)


class WithLoss(Training):
    def __init__(self, criterion) -> None:
        super().__init__(prepare=lambda x: x)
        self.criterion = criterion

    def loss(self, logits, targets):
        return self.criterion(logits, F.one_hot(targets, 3).float() if targets.ndim == 1 else targets.float())


SEVERAL = torch.tensor([[1, 1, 0], [0, 0, 1]] * 4)


def test_a_sigmoid_at_the_end_is_not_taken_twice(tmp_path):
    module = WithLoss(F.binary_cross_entropy)
    module.net.append(nn.Sigmoid())
    callback = ClassVisualization(steps=2, every_n_epochs=1, on_error="raise", input_spec=PLAIN)
    fit(tmp_path, callback, module, Data(targets=SEVERAL))
    shown = analyze(module.net, input_spec=callback._spec).classes([1], steps=2).visualizations
    torch.testing.assert_close(shown.probabilities, shown.scores.exp())


@pytest.mark.parametrize(
    ("module", "targets", "kind"),
    [
        (WithLoss(nn.BCEWithLogitsLoss()), LABELS, "sigmoid"),
        (WithLoss(F.binary_cross_entropy_with_logits), LABELS, "sigmoid"),
        (WithLoss(nn.MultiLabelSoftMarginLoss()), SEVERAL, "sigmoid"),
        (WithLoss(lambda logits, targets: ((logits.sigmoid() - targets) ** 2).mean()), SEVERAL, "sigmoid"),
        (WithLoss(nn.CrossEntropyLoss()), LABELS, None),
        (WithLoss(nn.CrossEntropyLoss()), F.one_hot(LABELS, 3).float(), None),
    ],
    ids=["BCE", "a function", "soft margin", "targets", "cross entropy", "one-hot"],
)
def test_several_labels_show_in_the_training(tmp_path, module, targets, kind):
    callback = ClassVisualization(steps=2, every_n_epochs=1, on_error="raise", input_spec=PLAIN)
    fit(tmp_path, callback, module, Data(targets=targets))
    assert callback._spec.output_kind == kind
