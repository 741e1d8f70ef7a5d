"""The diagnosis as a method of an analysis, a command, a callback and a section of the report."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from runs import IMAGES, SPEC, Classifier, fit, network
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_cnnvis import Diagnosis, FeatureConvergence, analyze
from lightning_cnnvis.callbacks import DeconvNetProjection
from lightning_cnnvis.cli import main
from lightning_cnnvis.report.collect import ReportOptions, collect
from lightning_cnnvis.viewer.content import Sentences


def faulty() -> nn.Sequential:
    """With a dead map, one that is always on, and strides."""
    net = network()
    net[0] = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    net[4].bias.data[1] = -100
    net[4].bias.data[2] = 100
    return net.eval()


def analysis(net: nn.Module | None = None):
    return analyze(net or faulty(), IMAGES, input_spec=SPEC)


def test_of_an_analysis(tmp_path):
    result = analysis().diagnose()
    found = {(one.kind, one.layer, channel) for one in result.diagnosis.findings for channel in one.channels}
    assert {("dead", "5", 1), ("always_on", "5", 2)} <= found
    assert str(result).startswith("Looked at 9 feature maps of 2 layers on 12 images")
    assert {"diagnosis/kernels/2", "diagnosis/spectra/2"} <= set(result.pictures)
    assert result.scalars["diagnosis_dead/5"] == pytest.approx(0.2)
    assert "diagnosis_aliased_energy/2" in result.scalars
    assert "diagnosis_aliased_energy/5" not in result.scalars  # it does not read the image
    files = {file.relative_to(tmp_path).as_posix() for file in result.save(tmp_path)}
    assert {"diagnosis/findings.csv", "diagnosis/findings.json", "diagnosis/findings.md", "diagnosis/maps.csv"} <= files
    known = json.loads((tmp_path / "diagnosis/findings.json").read_text())
    assert known["images"] == 12
    assert known["layers"]["5"]["dead"] == pytest.approx(0.2)
    assert (tmp_path / "diagnosis/findings.md").read_text().count("\n- ") == min(5, len(result.diagnosis.ranked))


def test_shows_what_excites_the_worst_maps():
    result = analysis().diagnose(k=2)
    (part,) = result.parts.values()
    (offenders,) = (one for one in part.offenders if one.layer == "5")
    # the dead one is left out: nothing excites it
    assert 2 in offenders.projections.channels.tolist()
    assert 1 not in offenders.projections.channels.tolist()
    assert len(offenders.projections) % 2 == 0
    assert "diagnosis/maps/5" in result.pictures
    assert not analysis().diagnose(num_channels=0).parts[""].offenders


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fail_on": ["dread"]}, "'dread' is not a kind of finding. There are dead,"),
        ({"fail_on": "dead"}, "is one name, not a list"),
        ({"k": 0}, "k=0"),
        ({"num_channels": -1}, "num_channels=-1"),
        ({"layers": ["relu"]}, "no layer 'relu'"),
        ({"layers": ["7"]}, None),
    ],
)
def test_bad_options(options, message):
    if message is None:
        assert analysis().diagnose(**options).diagnosis.layers["7"].maps == 20  # units without a map
        return
    with pytest.raises(ValueError, match=message):
        analysis().diagnose(**options)


def test_refused_before_the_training(tmp_path):
    with pytest.raises(MisconfigurationException, match="no layer 'relu'"):
        fit(tmp_path, Diagnosis(layers=["relu"], every_n_epochs=1, input_spec=SPEC))
    with pytest.raises(MisconfigurationException, match="max_images=1"):
        Diagnosis(max_images=1)

    class Dense(Classifier):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))

    with pytest.raises(MisconfigurationException, match="has no convolution"):
        fit(tmp_path, Diagnosis(every_n_epochs=1, input_spec=SPEC, on_error="raise"), module=Dense())


def test_as_a_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for n in range(3):
        Image.fromarray(np.full((20, 30, 3), 60 * n, np.uint8)).save(f"photos/{n}.png")
    module = Classifier()
    module.model = faulty()
    module.model[0] = nn.Conv2d(3, 4, 3)  # as the class makes it
    torch.save(module.state_dict(), "weights.pth")
    of_network = ["weights.pth", "--model=runs.Classifier", "--input_size", "16", "--device=cpu", "--data", "photos"]
    main(["diagnose", *of_network, "--output=out"])
    said = capsys.readouterr().out
    assert "Looked at 9 feature maps of 2 layers on 3 images" in said
    assert "dead: never above 0 on any of 3 images" in said
    assert "out/diagnosis/findings.csv" in said
    main(["diagnose", *of_network, "--output=out", "--fail-on", "could_go"])
    with pytest.raises(SystemExit) as ended:
        main(["diagnose", *of_network, "--output=out", "--fail-on", "dead", "noisy"])
    assert ended.value.code == 1
    assert "kinds that must not be: dead" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["diagnose", *of_network, "--output=out", "--fail-on", "dread"])
    assert ended.value.code == 2


class Faulty(Classifier):
    def __init__(self):
        super().__init__()
        self.model = faulty()
        self.model[4].bias.data[2] = 0  # whose gradients would do more damage

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-4)


def test_while_a_network_trains(tmp_path, caplog):
    callback = Diagnosis(every_n_epochs=1, input_spec=SPEC, on_error="raise", num_channels=2, k=2)
    logger = TensorBoardLogger(tmp_path, name="", version="")
    with caplog.at_level(logging.INFO, "pytorch_lightning"):
        shown = [
            DeconvNetProjection(layers=["2"], num_channels=1, k=1, every_n_epochs=1, input_spec=SPEC, evolution=False),
            FeatureConvergence(similarity=0.01, patience=1),
            callback,
        ]
        fit(tmp_path, *shown, module=Faulty(), logger=logger, max_epochs=2)
    assert callback.found is not None
    assert callback.found.images == 12
    assert callback.found.settled == {"2": 2}
    assert ("dead", "5", (1,)) in {(one.kind, one.layer, one.channels) for one in callback.found.findings}
    assert "Diagnosis: Looked at 9 feature maps" in caplog.text
    folder = tmp_path / "cnnvis" / "diagnosis"
    assert {
        "activity",
        "evolution",
        "kernels",
        "spectra",
        "findings.json",
        "findings.csv",
        "findings.md",
        "maps.csv",
    } <= {path.name for path in folder.iterdir()}
    for name in ("activity/2", "activity/5", "evolution/2", "kernels/2"):
        assert {path.name for path in (folder / name).iterdir()} == {"epoch_0001.png", "epoch_0002.png"}
    events = EventAccumulator(str(tmp_path)).Reload()
    assert "cnnvis/diagnosis_dead" in events.Tags()["scalars"]
    (text,) = (tag for tag in events.Tags()["tensors"] if tag.startswith("cnnvis/diagnosis/findings"))
    assert b"is dead" in events.Tensors(text)[-1].tensor_proto.string_val[0]


def test_equals_the_analysis_of_the_same_weights(tmp_path):
    callback, module = Diagnosis(epochs=[1], input_spec=SPEC, on_error="raise"), Faulty()
    fit(tmp_path, callback, module=module, max_epochs=1)
    result = analysis(module.model.eval()).diagnose()
    assert callback.found.sentences(50) == result.diagnosis.sentences(50)


def test_goes_on_where_a_checkpoint_left_off(tmp_path):
    first = Diagnosis(every_n_epochs=1, input_spec=SPEC, on_error="raise")
    saved = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True)
    fit(tmp_path, first, saved, module=Faulty(), max_epochs=2)
    second = Diagnosis(every_n_epochs=1, input_spec=SPEC, on_error="raise")
    fit(tmp_path, second, module=Faulty(), max_epochs=3, ckpt_path=tmp_path / "last.ckpt")
    assert list(second._activity["5"]) == [1, 2, 3]


def test_without_a_validation(tmp_path):
    callback = Diagnosis(every_n_epochs=1, input_spec=SPEC, on_error="raise")
    fit(tmp_path, callback, module=Faulty(), val=False)
    assert callback.found is not None
    assert callback.found.images == 12


def test_first_in_the_report():
    content = collect(analysis(), options=ReportOptions(show=["deconv", "diagnose"], num_channels=1, k=1))
    assert content.sections[0].title == "Diagnosis"
    assert isinstance(content.sections[0].blocks[0], Sentences)
