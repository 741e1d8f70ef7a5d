"""Style as a method of `analyze`, as a callback and as a command."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image
from runs import IMAGES, SPEC, fit, network

from lightning_cnnvis import Style, analyze
from lightning_cnnvis.callbacks import callback_class
from lightning_cnnvis.figures.style import style_caption
from lightning_cnnvis.functional import stylize
from lightning_cnnvis.methods.style import StyleOptions
from lightning_cnnvis.report import ReportOptions, collect

QUICK = {"layers": ["2"], "content_layer": "5", "steps": 2}


def analysis(images=IMAGES):
    return analyze(network(), images, input_spec=SPEC)


def test_the_images_that_follow():
    found = analysis().style(count=2, **QUICK)
    expected = stylize(
        network().eval(), IMAGES[0], IMAGES[1:3], input_spec=SPEC, style_layers=["2"], content_layer="5", steps=2
    )
    torch.testing.assert_close(found.style.images, expected.images)
    assert list(found.pictures) == ["style/picture"]
    assert found.scalars["style_distance/2"] == pytest.approx(float(expected.remaining[0, 0]), rel=1e-4)
    assert found.scalars["style_label_kept/picture"] in (0, 1)


def test_the_style_of_a_class(tmp_path):
    for number, image in enumerate((IMAGES * 255).byte()):
        folder = tmp_path / ("cat", "dog", "emu")[number % 3]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    shown = analyze(network(), tmp_path, input_spec=SPEC)
    by_name, by_number = (shown.style(style_class=wanted, count=3, **QUICK) for wanted in ("dog", 1))
    pictures = torch.stack(by_name.parts[""].pictures)
    expected = {tuple((IMAGES[n] * 255).byte().flatten().tolist()) for n in (1, 4, 7, 10)}
    assert {tuple((one * 255).round().byte().flatten().tolist()) for one in pictures} <= expected
    assert len(pictures) == 3
    assert torch.equal(by_name.style.images, by_number.style.images)


def test_large_pictures_are_scaled_down():
    photo = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    found = analysis().style(image=photo, style=photo[None].sqrt(), size=30, **QUICK)
    assert found.style.images.shape == (1, 3, 20, 30)


def test_a_distance_that_is_not_a_number():
    found = analysis().style(count=2, **QUICK).style
    assert style_caption(replace(found, after=found.after * torch.nan)) == "is not a number"


def test_in_a_report_where_it_is_asked_for():
    (section,) = collect(analysis(), ["2"], options=ReportOptions(show=["style"], steps=2)).sections
    assert section.title == "Style"


def test_as_a_callback(tmp_path):
    assert callback_class("style") is Style
    options = {**QUICK, "layers": ["model.2"], "content_layer": "model.5"}
    fit(tmp_path, Style(**options, style_class="dog", every_n_epochs=1, input_spec=SPEC, on_error="raise"))
    (folder,) = tmp_path.rglob("style")
    assert len(list((folder / "picture").glob("*.png"))) == 2
    assert (folder / "evolution").exists() or list(folder.glob("evolution*"))


BAD = {
    "count": ({"count": 0}, "count=0"),
    "size": ({"size": 0}, "size=0"),
    "steps": ({"steps": 0}, "steps=0"),
    "weight": ({"content_weight": -0.5}, "content_weight=-0.5"),
    "both": ({"style": IMAGES[:1], "style_class": 1}, "Both style and style_class"),
    "one file": ({"style": "sky.jpg"}, "one name, not a list"),
    "no file": ({"style": ["nowhere.jpg"]}, "nowhere"),
    "photograph": ({"image": IMAGES}, "give one photograph"),
}


@pytest.mark.parametrize("name", BAD)
def test_options_that_are_refused(name):
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        StyleOptions(**options)


def test_what_the_data_do_not_have():
    with pytest.raises(ValueError, match="There is one image"):
        analysis(IMAGES[:1]).style(**QUICK)
    with pytest.raises(ValueError, match="style_class='dog': the images have none"):
        analysis().style(style_class="dog", **QUICK)
    with pytest.raises(ValueError, match="no class named 'dot'"):
        analysis().style(style_class="dot", **QUICK)
    with pytest.raises(ValueError, match="22"):
        analysis().style(**{**QUICK, "content_layer": "22"})
