"""Occlusion as a method of `analyze`, as a callback, in a report and as a command."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from runs import IMAGES, SIDE, SPEC, Classifier, fit, network
from torch import nn

from lightning_cnnvis import Occlusion, analyze
from lightning_cnnvis.callbacks import callback_class
from lightning_cnnvis.cli import main
from lightning_cnnvis.functional import occlusion
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.methods import get_method
from lightning_cnnvis.methods.occlusion import OcclusionOptions
from lightning_cnnvis.report import ReportOptions, collect

METHOD = get_method("occlusion")


def analysis(net=None, images=IMAGES, spec=SPEC):
    return analyze(network() if net is None else net, images, input_spec=spec)


def test_the_first_images_with_squares_that_fit_the_input():
    found = analysis().occlusion()
    expected = occlusion(network().eval(), IMAGES[:3], input_spec=SPEC, patch=2, stride=1)
    assert found.occlusion.layer == "5"
    torch.testing.assert_close(found.occlusion.probabilities, expected.probabilities)
    torch.testing.assert_close(found.images, IMAGES[:3])
    assert list(found.pictures) == ["occlusion/images"]
    assert found.parts[""].projections.channels.tolist() == found.occlusion.channels.tolist()
    drops = expected.drops
    assert found.scalars["occlusion_largest_drop"] == pytest.approx(float(drops.amax(1).mean()), abs=1e-5)
    assert found.scalars["occlusion_mean_drop"] == pytest.approx(float(drops.mean()), abs=1e-5)


def test_fewer_images_than_were_asked_for_and_shares_of_them():
    found = analysis(images=IMAGES[:2]).occlusion(count=5, patch=6, stride=5)
    assert len(found.images) == 2
    subject, options = analysis().subject, OcclusionOptions(count=3, patch=6, stride=5, classes=["dog", 0, 2])
    images = IMAGES[:2]
    shares = [METHOD.run(subject, options, "", share, images) for share in ([0], [1], [2])]
    assert shares[2] is None
    joined, whole = METHOD.merge(shares[:2]), METHOD.run(subject, options, "", [0, 1, 2], images)
    assert joined.occlusion.classes.tolist() == [1, 0]
    assert joined.class_names == ("dog", "cat")
    assert torch.equal(joined.occlusion.probabilities, whole.occlusion.probabilities)
    assert torch.equal(joined.projections.pixels, whole.projections.pixels)


NETWORKS = {
    "grey": (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 10 * 16, 4)), (1, 12, 18)),
    "one class": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 1)), (3, 8, 8)),
    "not a classifier": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (3, 9, 8)),
    "no convolution": (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), (3, 8, 8)),
    "cannot be projected": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)),
        (3, 8, 8),
    ),
    "negative": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.Conv2d(4, 2, 1)), (3, 8, 8)),
    "many classes": (nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 20, 20)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_pictures_of_any_network(name):
    net, shape = NETWORKS[name]
    images = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    shown = analyze(net, images, input_spec=InputSpec(size=shape[1:], channels=shape[0]))
    found = shown.occlusion(patch=3, stride=2)
    assert found.pictures["occlusion/images"].shape[2] == 3
    (section,) = collect(shown, options=ReportOptions(show=["occlusion"])).sections
    cells = {"no convolution": 3, "not a classifier": 3, "negative": 3, "cannot be projected": 4}.get(name, 5)
    assert len(section.blocks[0].tiles) == cells
    strip = METHOD.strip(OcclusionOptions(), "", found.parts[""])
    assert strip.pictures.shape[:2] == (1, 3)
    assert len(strip.captions) == len(strip.labels) == 1


def test_photographs_of_ones_own(tmp_path):
    for n in range(2):
        Image.fromarray(np.full((20, 30, 3), 90 * n, np.uint8)).save(tmp_path / f"{n}.png")
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    assert len(analysis(images=None).occlusion(images=files, patch=6).images) == 2
    assert len(analysis(images=None).occlusion(images=IMAGES[:4], patch=6).images) == 4


def callback(**options):
    return Occlusion(every_n_epochs=1, input_spec=SPEC, on_error="raise", patch=6, stride=5, **options)


def test_the_callback_shows_the_same_images_at_every_epoch(tmp_path):
    shown = callback(layer="model.2", probes=2)
    assert callback_class("occlusion") is Occlusion
    fit(tmp_path, shown, module=Classifier())
    assert shown.layers == ("model.2",)
    folder = tmp_path / "cnnvis" / "occlusion"
    assert len(list((folder / "images").glob("*.png"))) == 2
    assert (folder / "evolution").is_dir()
    state = shown.state_dict()
    assert torch.equal(state["probes"], IMAGES[:2])
    assert len(state["strip"]["columns"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 17}, f"patch=17 is larger than the image of {SIDE} × {SIDE} pixels"),
        ({"layer": "convolution"}, "no layer 'convolution'"),
        ({"classes": ["cow"]}, "There is no class named 'cow'"),
        ({"classes": [0, 1]}, "There are 2 classes for 3 images"),
    ],
)
def test_refused_before_the_training(tmp_path, options, message):
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, Occlusion(**options, every_n_epochs=1, input_spec=SPEC))
    with pytest.raises(ValueError, match=message):
        analysis().occlusion(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "patch=0 must be at least 1"),
        ({"stride": 0}, "stride=0 must be at least 1"),
        ({"count": 0}, "count=0 must be at least 1"),
        ({"images": "photo.png"}, "is one name, not a list"),
        ({"images": []}, "leaves nothing to show"),
        ({"images": torch.zeros(3, 8, 8)}, r"images of shape \(3, 8, 8\)"),
        ({"rule": "guess"}, "guess"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        OcclusionOptions(**options)


def test_as_a_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(Classifier().state_dict(), "weights.pth")
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save("photo.png")
    of_network = ["weights.pth", "--model=runs.Classifier", "--input_size", "16", "--device=cpu"]
    main(["occlusion", *of_network, "--images", "photo.png", "--patch=6", "--stride=5", "--layer=2", "--output=out"])
    assert "out/occlusion/images.png" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["occlusion", *of_network, "--images", "photo.png", "--patch=40"])
    assert "patch=40 is larger than the image of 16 × 16 pixels. Give at most 16." in capsys.readouterr().err
