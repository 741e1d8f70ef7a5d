"""Analyses, training runs and commands on networks whose layers have their channels last."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import timm
import torch
import torchvision
from channels_last import make
from PIL import Image
from runs import IMAGES, SPEC, Classifier, fit, loader, pictures
from torch import nn

from lightning_cnnvis import (
    ActivationMaximization,
    DeconvNetProjection,
    DeepDream,
    FeatureInversion,
    VisualizationCheckpoint,
    analyze,
    evolve,
)
from lightning_cnnvis.cli import main
from lightning_cnnvis.functional import DreamOptions
from lightning_cnnvis.report import ReportOptions, report

# a layer with 12 channels, where another dimension is shorter than the channel that is shown
LAYERS = [("swin", "features.1"), ("vit of timm", "blocks.1"), ("pvt", "stages.1.blocks.0")]
ONE_STEP = DreamOptions(octaves=1, steps=1)


@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_analyses(name, layer):
    shown = analyze(make(name), IMAGES, input_spec=SPEC)
    row = next(row for row in shown.layers() if row.name == layer)
    assert row.shape[0] in (12, 16)
    top = shown.deconv([layer], channels=[10], k=2, rule="gradient").tops[layer]
    with torch.no_grad():
        outputs = []
        net = make(name)
        net.get_submodule(layer).register_forward_hook(lambda _, __, output: outputs.append(output))
        net(IMAGES)
    strongest = outputs[0][..., 10].flatten(1).amax(1).topk(2)
    torch.testing.assert_close(top.values[0], strongest.values, rtol=1e-4, atol=1e-4)
    assert torch.equal(top.sample_ids[0], strongest.indices)
    assert shown.maximize([layer], channels=[10], steps=2).features[layer].targets == (10,)
    assert list(shown.dream([layer], options=ONE_STEP).pictures) == [f"deepdream/{layer}"]
    assert shown.invert([layer], steps=2).pictures


class OfNetwork(Classifier):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.model = network


@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_callbacks(tmp_path, name, layer):
    shared = {"input_spec": SPEC, "on_error": "raise", "every_n_epochs": 1, "layers": [layer]}
    callbacks = [
        DeconvNetProjection(channels=[10, 3], k=2, rule="gradient", **shared),
        ActivationMaximization(channels=[10], steps=2, **shared),
        DeepDream(options=ONE_STEP, **shared),
        FeatureInversion(steps=2, probes=1, restarts=1, **shared),
    ]
    module = OfNetwork(make(name))
    fit(tmp_path, *callbacks, module=module)
    plain = OfNetwork(make(name))
    fit(tmp_path / "plain", module=plain)
    assert torch.equal(torch.stack(module.losses), torch.stack(plain.losses))
    shown = pictures(tmp_path)
    for tag in ("deconvnet_gradient", "activation_maximization", "deepdream", "inversion"):
        assert any(f"{tag}/" in path for path in shown), tag


class Data(pl.LightningDataModule):
    input_spec = SPEC

    def train_dataloader(self):
        return loader()

    def val_dataloader(self):
        return loader()


@pytest.mark.parametrize(("name", "layer"), LAYERS[:2])
def test_evolve_and_report(tmp_path, name, layer):
    def callbacks():
        return [
            DeconvNetProjection(channels=[10, 3], k=2, rule="gradient", layers=[layer], input_spec=SPEC, epochs=[1, 2]),
            ActivationMaximization(channels=[10], steps=2, layers=[layer], input_spec=SPEC, epochs=[1, 2]),
        ]

    module = OfNetwork(make(name))
    fit(tmp_path / "run", *callbacks(), VisualizationCheckpoint(), module=module, logger=True)
    (run,) = (tmp_path / "run").glob("lightning_logs/*")
    evolve(run, Data(), model=OfNetwork(make(name)), callbacks=callbacks()).save(tmp_path / "again")
    live, again = pictures(run / "cnnvis"), pictures(tmp_path / "again")
    again.pop("curves.png", None)
    assert live
    assert again == live
    options = ReportOptions(show=["maximize", "dream", "invert"], steps=2)
    page = report(make(name), tmp_path, IMAGES, layers=[layer], options=options, input_spec=SPEC)
    assert layer in page.read_text()


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"photos/{number}.png")
    return "photos"


@pytest.mark.parametrize(
    ("named", "layer", "channel"),
    [("torchvision:swin_t", "features.1", 90), ("timm:deit_tiny_patch16_224", "blocks.0", 191)],
)
def test_commands(photos, capsys, named, layer, channel):
    library, _, model = named.partition(":")
    create = torchvision.models.get_model if library == "torchvision" else timm.create_model
    torch.save(create(model).state_dict(), "weights.pth")
    of_network = ["weights.pth", f"--model={named}", "--data", photos, "--device=cpu", f"--layers={layer}"]
    main(["maximize", *of_network, f"--channels={channel}", "--steps=1"])
    main(["deconv", *of_network, f"--channels={channel}", "--k=1", "--rule=gradient"])
    main(["invert", *of_network, "--steps=1", "--restarts=1"])
    assert len(capsys.readouterr().out.split()) >= 3
