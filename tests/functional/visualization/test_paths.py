"""The way of optimised images through the layers, beside that of real ones."""

from __future__ import annotations

import pytest
import torch
from runs import IMAGES, LABELS, SPEC, network
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis import analyze
from lightning_cnnvis.figures import path_curve
from lightning_cnnvis.functional import Visualizations, path_similarity
from lightning_cnnvis.layers import LayerError

GRID = torch.zeros(1, 3, 16, 16)
GRID[..., ::2] = 1
REAL = GRID + 0.2 * torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def conv() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU())


def test_a_real_image_is_in_the_band_and_noise_is_not():
    images = torch.cat([REAL[:1], torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))])
    found = path_similarity(conv(), images, REAL, ["1", "3"])
    assert found.similarities.shape == (2, 2)
    assert found.real.shape == (2, 5)
    assert found.as_real.tolist() == [[True, False]] * 2
    assert (found.verdict(0), found.verdict(1)) == ("as real ones: 2 of 2 layers", "as real ones: 0 of 2 layers")
    low, high = found.band
    assert (low <= high).all()
    assert (high <= 1).all()


def test_an_image_does_not_depend_on_the_others():
    both = path_similarity(conv(), REAL[:2], REAL[2:], ["3"])
    alone = path_similarity(conv(), REAL[1:2], REAL[2:], ["3"])
    torch.testing.assert_close(both.similarities[:, 1:], alone.similarities)
    torch.testing.assert_close(both.real, alone.real)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"real": REAL[:2]}, ValueError, "real has 2 images"),
        ({"real": REAL[..., :8]}, ValueError, "both are"),
        ({"images": REAL[0]}, ValueError, "both are"),
        ({"layers": []}, ValueError, r"layers=\[\]"),
        ({"layers": "1"}, ValueError, "layers='1'"),
        ({"layers": ["conv"]}, LayerError, "no layer 'conv'"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        path_similarity(conv(), **{"images": REAL[:1], "real": REAL, "layers": ["1"], **change})


def test_the_curve_shows_the_band_and_the_image():
    found = path_similarity(conv(), REAL[:1], REAL[1:], ["1", "3"])
    curve = path_curve(found, 0, (48, 64))
    assert curve.shape == (3, 48, 64)
    assert curve.dtype == torch.uint8
    assert len(curve.flatten(1).unique(dim=1).T) > 10
    assert (path_curve(None, 0, (48, 64)) == 255).all()


def test_classes_show_their_paths_where_it_is_asked_for():
    analysis = analyze(network(), data=DataLoader(TensorDataset(IMAGES, LABELS), 4), input_spec=SPEC)
    plain, shown = (analysis.classes([0, "dog"], steps=2, real=real) for real in (0, 3))
    assert plain.visualizations.paths is None
    assert "class_visualization/paths" not in plain.pictures
    paths = shown.visualizations.paths
    assert [path.layers for path in paths] == [("2", "5")] * 2
    assert paths[0].real.shape == (2, 3)
    assert "class_visualization/paths" in shown.pictures
    torch.testing.assert_close(shown.visualizations.images, plain.visualizations.images)
    joined = Visualizations.cat([shown.visualizations, shown.visualizations])
    assert len(joined.paths) == 4
    with pytest.raises(ValueError, match="real=2 must be 0, or at least 3"):
        analysis.classes([0], real=2)
    with pytest.raises(ValueError, match="there are no 3 labelled images"):
        analyze(network(), data=IMAGES, input_spec=SPEC).classes([0], steps=2, real=3)
