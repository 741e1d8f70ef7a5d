"""Accentuation as a method of `analyze`, as a callback, in a report and as a command."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from runs import IMAGES, SPEC, fit, network, pictures
from torch import nn

from lightning_cnnvis import Accentuation, analyze
from lightning_cnnvis.report import ReportOptions, collect


def analysis(net=None):
    return analyze(network() if net is None else net, IMAGES, input_spec=SPEC)


def test_the_own_class_and_three_layers_by_default():
    found = analysis().accentuate(steps=2)
    assert list(found.pictures) == ["accentuation/targets"]
    with torch.no_grad():
        own = int(network().eval()(IMAGES[:1]).argmax())
    assert found.accentuations.labels[0] == SPEC.class_name(own)
    assert len(found.accentuations.labels) > 1


def test_what_is_named():
    found = analysis().accentuate(["2"], channels=[0, 1], classes=["dog"], steps=2)
    assert found.accentuations.labels == ("dog", "2 #0", "2 #1")


def test_a_network_that_is_not_a_classifier():
    net = nn.Sequential(*list(network())[:3])
    found = analysis(net).accentuate(steps=2)
    assert all(label[0].isdigit() for label in found.accentuations.labels)
    with pytest.raises(ValueError, match="is not a classifier"):
        analysis(net).accentuate(classes=[0])


def test_the_strip_has_the_same_rows_at_every_epoch(tmp_path):
    fit(tmp_path, Accentuation(steps=2, every_n_epochs=1, input_spec=SPEC, on_error="raise"))
    tags = {path.rsplit("/", 1)[0].partition("cnnvis/")[2] for path in pictures(tmp_path)}
    assert tags == {"accentuation/targets", "accentuation/evolution"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1}, "weight=-1"),
        ({"steps": 0}, "steps=0"),
        ({"channels": [1]}, "requires layers"),
        ({"image": "nowhere.png"}, "nowhere.png"),
    ],
)
def test_bad_options_are_refused_at_once(options, message):
    with pytest.raises(MisconfigurationException, match=message):
        Accentuation(**options)


@pytest.mark.parametrize("options", [{"layers": ["nowhere"]}, {"classes": [99]}, {"keep": "nowhere"}])
def test_what_the_network_lacks_is_refused_before_the_training(tmp_path, options):
    with pytest.raises(MisconfigurationException, match=r"nowhere|99"):
        fit(tmp_path, Accentuation(input_spec=SPEC, every_n_epochs=1, **options))


def test_the_report():
    found = collect(analysis(), options=ReportOptions(show=["accentuate"], steps=2))
    assert any(section.title == "Accentuated" for section in found.sections)
