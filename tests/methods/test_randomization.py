"""The method that tests projections, and the number that projections get."""

from __future__ import annotations

import pytest
import torch
from runs import IMAGES, SPEC, fit, network
from torch import nn

from lightning_cnnvis import DeconvNetProjection, analyze
from lightning_cnnvis.methods.randomization import RandomizationOptions
from lightning_cnnvis.methods.results import Result


def analysis(net: nn.Module):
    return analyze(net, data=IMAGES, input_spec=SPEC)


def test_rules_that_the_network_allows_are_tested():
    found = analysis(network()).randomization(["2", "5"], num_channels=2)
    assert {layer: tuple(tests) for layer, tests in found.randomizations.items()} == {
        "2": ("deconvnet", "guided", "gradient"), "5": ("deconvnet", "guided", "gradient"),
    }  # fmt: skip
    assert found.randomizations["5"]["guided"].layers == ("4", "0")
    assert set(found.pictures) == {"randomization/2", "randomization/5"}
    assert "weight_dependence/deconvnet/5" in found.scalars
    assert found.tables["randomization/5"].startswith("rule,stage,spearman,spearman_absolute,ssim,hog\ndeconvnet,4,")
    gelu = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    assert tuple(analysis(gelu).randomization(["3"], num_channels=1).randomizations["3"]) == ("gradient",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 0}, "stages=0"), ({"samples": 0}, "samples=0"), ({"noise": -0.1}, "noise=-0.1"),
        ({"rules": []}, "rules"), ({"rules": "guided"}, "one name"), ({"rules": ["guide"]}, "guide"),
        ({"lrn": "none"}, "lrn"), ({"num_channels": 0}, "num_channels=0"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RandomizationOptions(**options)


def deconv(net: nn.Module, **options) -> Result:
    return analysis(net).deconv(["5"], num_channels=3, k=2, **options)


def test_projections_get_a_number_where_it_is_asked_for():
    plain, tested = deconv(network()), deconv(network(), dependence=True)
    assert plain.parts["5"].dependence is None
    assert not plain.scalars
    torch.testing.assert_close(tested.projections["5"].pixels, plain.projections["5"].pixels)
    dependence = tested.parts["5"].dependence
    assert dependence.shape == (6,)
    assert ((dependence >= 0) & (dependence <= 1)).all()
    assert tested.scalars["projection_dependence/5"] == pytest.approx(float(dependence.mean()))
    assert tested.pictures["deconvnet/5"].shape[0] >= plain.pictures["deconvnet/5"].shape[0]


def test_a_unit_that_no_image_activates_has_no_number():
    net = network()
    net[4].bias.data[1] = -100
    dependence = analysis(net).deconv(["5"], [0, 1], k=2, dependence=True).parts["5"].dependence
    assert dependence.isnan().tolist() == [False, False, True, True]


def test_the_callback_calls_it_trust(tmp_path):
    callback = DeconvNetProjection(
        layers=["5"], num_channels=2, k=2, trust=True, every_n_epochs=1, input_spec=SPEC, on_error="raise"
    )
    assert callback.options.dependence
    trainer = fit(tmp_path, callback, max_epochs=1)
    assert 0 <= float(trainer.logged_metrics.get("projection_dependence/5", 0.5)) <= 1
