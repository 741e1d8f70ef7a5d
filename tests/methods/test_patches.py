"""Patches as a method of `analyze`, as a callback, in a report and as a command."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from runs import IMAGES, SIDE, SPEC, Classifier, fit, network
from torch import nn

from lightning_cnnvis import Patches, analyze
from lightning_cnnvis.callbacks import callback_class
from lightning_cnnvis.cli import main
from lightning_cnnvis.functional import patches
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.methods import get_method
from lightning_cnnvis.methods.patches import PatchesOptions
from lightning_cnnvis.report import ReportOptions, collect

METHOD = get_method("patches")
QUICK = {"patch": 6, "stride": 5}


def analysis(net=None, images=IMAGES, spec=SPEC):
    return analyze(network() if net is None else net, images, input_spec=spec)


def test_the_classes_of_the_output():
    found = analysis().patches(k=2, **QUICK)
    assert list(found.pictures) == ["patches/8"]
    expected = patches(network().eval(), [IMAGES], "8", k=2, **QUICK)
    torch.testing.assert_close(found.patches["8"].drops, expected.drops)
    assert torch.equal(found.patches["8"].sample_ids, expected.sample_ids)
    assert found.parts["8"].labels == ("cat", "dog", "emu")
    assert found.scalars["patches_area/8"] == pytest.approx(float(expected.regions.float().mean()))


DENSE = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 6),
    nn.ReLU(), nn.Linear(6, 3),
)  # fmt: skip
NETWORKS = {
    "dense": (DENSE, ["7", "8"]),
    "pooled": (nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)), ["2"]),
    "flattened": (nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), ["3"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_layers_without_a_map(name):
    net, layers = NETWORKS[name]
    found = analysis(net).patches(k=1, num_channels=2, **QUICK)
    assert list(found.patches) == layers
    labels = found.parts[layers[0]].labels
    assert all(label.startswith("#") for label in labels) == (name == "dense")


def test_networks_and_layers_that_have_maps():
    with pytest.raises(ValueError, match="Sequential has no layer that gives"):
        analysis(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())).patches()
    with pytest.raises(ValueError, match="Layer '2' has maps of 14 × 14"):
        analysis().patches(["2"])
    found = collect(analysis(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), options=ReportOptions(show=["patches"]))
    assert not found.sections


def test_a_report_on_layers_shows_those_without_a_map():
    shown = analysis()
    found = collect(shown, ["2", "8"], options=ReportOptions(show=["patches"]))
    assert {tile.label.split()[0] for tile in found.sections[0].blocks[0].tiles} == {"8"}
    found = collect(shown, ["2"], options=ReportOptions(show=["patches", "maximize"], steps=1))
    assert [section.title for section in found.sections] == ["What feature maps respond to most"]
    assert found.left_out == ("patches: There is no layer that it can be used on.",)


def test_images_in_grey_that_are_not_square():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 10 * 16, 4))
    images = torch.rand(3, 1, 12, 18, generator=torch.Generator().manual_seed(0))
    found = analyze(net, images, input_spec=InputSpec(size=(12, 18), channels=1)).patches(k=2, num_channels=1)
    assert found.patches["3"].images.shape == (2, 1, 12, 18)
    assert found.pictures["patches/3"].shape[2] == 3


def test_shares_of_the_units_are_put_together():
    subject, options = analysis().subject, PatchesOptions(k=2, **QUICK)
    tops = METHOD.prepare(subject, options, {"8": [0, 1, 2]})
    whole = METHOD.run(subject, options, "8", [0, 1, 2], tops)
    joined = METHOD.merge([METHOD.run(subject, options, "8", share, tops) for share in ([0, 1], [2])])
    assert torch.equal(joined.patches.drops, whole.patches.drops)
    assert torch.equal(joined.strongest, whole.strongest)
    assert joined.labels == whole.labels


def test_in_a_report():
    (section,) = collect(analysis(), options=ReportOptions(show=["patches"])).sections
    assert len(section.blocks[0].tiles) == 9


def test_the_callback(tmp_path):
    assert callback_class("patches") is Patches
    shown = Patches(layers=["model.8"], k=2, every_n_epochs=1, input_spec=SPEC, on_error="raise", **QUICK)
    fit(tmp_path, shown, module=Classifier())
    folder = tmp_path / "cnnvis"
    assert len(list((folder / "patches" / "8").glob("*.png"))) == 2
    assert (folder / "patches" / "evolution" / "8").is_dir()
    assert len(shown.state_dict()["strips"]["8"]["columns"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 17}, f"patch=17 is larger than the image of {SIDE} × {SIDE} pixels"),
        ({"layers": ["dense"]}, "no layer 'dense'"),
        ({"layers": ["8"], "channels": [3]}, "Channel 3 is not in layer '8'"),
        ({"patch": 0}, "patch=0 must be at least 1"),
        ({"stride": 0}, "stride=0 must be at least 1"),
        ({"k": 0}, "k=0 must be at least 1"),
        ({"layers": []}, "leaves nothing to show"),
    ],
)
def test_refused_before_the_training(tmp_path, options, message):
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, Patches(**options, every_n_epochs=1, input_spec=SPEC))
    with pytest.raises(ValueError, match=message):
        analysis().patches(**options)


def test_as_a_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for n in range(3):
        Image.fromarray(np.full((20, 30, 3), 60 * n, np.uint8)).save(f"photos/{n}.png")
    torch.save(Classifier().state_dict(), "weights.pth")
    of_network = ["weights.pth", "--model=runs.Classifier", "--input_size", "16", "--device=cpu", "--data", "photos"]
    main(["patches", *of_network, "--k=2", "--patch=6", "--output=out"])
    assert capsys.readouterr().out.split() == ["out/patches/8.png"]
