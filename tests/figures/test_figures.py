"""Figures: contrast, sizes, and labels of any text."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightning_cnnvis import InputSpec, figures
from lightning_cnnvis.evolution.features import LayerEvolution
from lightning_cnnvis.evolution.strips import PictureColumn, PictureStrip
from lightning_cnnvis.figures import layout
from lightning_cnnvis.functional import top_activations, visualize_classes
from lightning_cnnvis.isolation import isolated


def test_contrast_keeps_zero_grey_and_clips_outliers():
    picture = torch.zeros(1, 1, 20, 20)
    picture[0, 0, 0, :10] = 0.5
    picture[0, 0, 1, 0] = -1.0
    picture[0, 0, 2, 0] = 1000.0
    scaled = figures.contrast(picture)
    assert scaled[0, 0, 10, 10] == 0.5
    assert scaled[0, 0, 2, 0] == 1.0
    assert scaled[0, 0, 1, 0] < scaled[0, 0, 10, 10] < scaled[0, 0, 0, 0]


def test_contrast_of_a_small_part_is_that_of_the_part():
    part = torch.randn(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.pad(part, (40, 40, 40, 40))
    scaled = figures.contrast(picture)
    clipped = (scaled - 0.5).abs() == 0.5
    assert 0.02 < clipped.sum() / part.numel() < 0.06
    assert (scaled[..., :40] == 0.5).all()


def test_contrast_of_few_strokes_and_of_nothing():
    picture = torch.zeros(2, 3, 50, 50)
    picture[0, 0, 0, 0] = 2.0
    scaled = figures.contrast(picture)
    assert scaled[0, 0, 0, 0] == 1.0
    assert (scaled[1] == 0.5).all()


@pytest.mark.parametrize(("height", "width"), [(7, 7), (139, 139), (5, 90), (1, 1)])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_tiles_are_of_the_asked_size(height, width, channels):
    image = figures.tile(torch.rand(channels, height, width), 64)
    assert image.mode == "RGB"
    assert 32 < max(image.size) <= 64


def test_small_pictures_keep_hard_pixels():
    image = np.asarray(figures.tile(torch.tensor([[0.0, 1.0]]).expand(3, 1, 2), 64))
    assert set(np.unique(image)) == {0, 255}


def projected(rows: int = 3):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, rows, 3), nn.ReLU())
    with torch.no_grad():
        net[0].bias[0] = -100.0  # never active
    top = top_activations(net, [torch.rand(6, 3, 12, 12)], ["1"], k=4)["1"]
    with isolated(net):
        return top, top.project(net, "1")


def test_top_features_shows_dead_maps_as_such():
    _, projections = projected()
    picture = figures.top_features(projections, 4, InputSpec(size=(12, 12)), "a layer")
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert (picture == layout.EMPTY).all(axis=2).sum() > 4 * 70 * 70


def test_evolution_strip_grows_with_the_epochs_and_marks_new_images():
    top, projections = projected()
    spec, evolution, widths = InputSpec(size=(12, 12)), LayerEvolution(), []
    fixed = projections[::4]
    with pytest.raises(ValueError, match="no epoch yet"):
        figures.evolution_strip(evolution, spec, "a layer")
    evolution.fix(top)
    for epoch in (1, 2, 3, 4, 5, 6, 7, 8):
        convergence = evolution.advance(epoch, top, fixed.pixels)
        column = figures.strip_column(convergence, projections[::4], top.sample_ids[:, 0] + epoch // 8, fixed, spec)
        evolution.add(column)
        picture = figures.evolution_strip(evolution, spec, "a layer")
        widths.append(picture.shape[1])
        assert (picture == layout.MARK).all(axis=2).any() == (epoch == 8)
    assert widths == sorted(widths)


def test_labels_of_any_text_are_drawn():
    names = ["x" * 500, "a\nb\t\x00c", "<script>", "猫", ""]
    pictures = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
    assert figures.labelled_pictures(pictures, names, names, "\n" * 9 + "title", "note").shape[1] < 1200
    strip = PictureStrip([PictureColumn(1, pictures, tuple(names))])
    assert figures.picture_strip(strip, names, "title").shape[1] < 1200
    grid = figures.picture_grid([[torch.rand(3, 8, 8)] * 5] * 2, names, [names] * 2, "title")
    assert grid.shape[2] == 3


def test_a_strip_shows_what_it_was_made_from_beside_each_row():
    original = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, 8, 8)
    pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    strip = PictureStrip([PictureColumn(1, pictures, ("0.1", "0.2")), PictureColumn(2, pictures, ("0.1", "0.2"))])
    drawn = figures.picture_strip(strip, ["low", "high"], "title", original=original, side=20)
    red = (drawn == (255, 0, 0)).all(axis=2)
    black = (drawn == 0).all(axis=2)
    # in the rows of pixels of the pictures, and left of them
    assert (red.any(axis=1) == black.any(axis=1)).all()
    assert red.any(axis=0).nonzero()[0].max() < black.any(axis=0).nonzero()[0].min()
    assert red.sum() * 2 == black.sum() == 4 * 400


def test_letters_that_the_font_lacks_are_drawn_without_their_accents():
    assert layout.one_line("Café, 3 × 2\n− übermäßig …") == "Cafe, 3 x 2 - ubermaßig …"
    assert layout.one_line("猫") == "猫"  # nothing is like it
    box = bytes(layout.font(layout.TEXT).getmask("\uffff"))
    assert all(bytes(layout.font(layout.TEXT).getmask(c)) != box for c in layout.one_line("2.0× real · ↗3"))


def test_long_notes_go_on_several_lines():
    note = "Above: what was seen. " * 12
    lines = layout.wrapped(note, layout.TEXT, 300)
    assert len(lines) > 3
    assert " ".join(lines) == note.strip()
    assert max(map(layout.font(layout.TEXT).getlength, lines)) <= 300
    body = Image.new("RGB", (300, 40), layout.MARK)
    drawn = layout.figure(body, "title", note)
    assert drawn.shape[1] < 700
    assert (drawn == layout.MARK).all(axis=2).sum() == 300 * 40


def test_states_are_said():
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    shown = visualize_classes(net, [0, 1], input_spec=InputSpec(size=(12, 12)), steps=2)
    scores = torch.tensor([1.0, 6.0])
    states = dataclasses.replace(
        shown, states=("dead", "reached"), probabilities=torch.tensor([0.25, 0.5]), scores=scores
    )
    assert figures.state_of(states, 0) == "p 0.25 · 1\ndead"
    assert figures.state_of(states, 1) == "p 0.50 · 6\nreached"
    channels = dataclasses.replace(states, targets=(4, 7), probabilities=None, peaks=torch.tensor([3.0, 9.0]))
    assert figures.state_of(channels, 1, {7: 4.5, 4: 1.0}) == "9 · 2.0× real\nreached"
    assert figures.state_of(channels, 1, {4: 1.0}) == figures.state_of(channels, 1) == "9\nreached"
    assert figures.state_of(channels, 0, {4: 0.0}) == "3\ndead"  # no real image activates it
    assert figures.state_of(dataclasses.replace(channels, peaks=None), 1) == "6\nreached"


def test_a_long_state_is_not_cut_off():
    """Every line of a caption is drawn in full on the smallest tiles there are."""
    for line in ("not converged", "p 0.45 · 12.3", "12.3 · 0.5× real"):
        assert layout.font(layout.TEXT).getlength(line) <= 112
    assert layout.font(layout.TEXT).getlength("not converged") <= 96


def test_reconstructions_are_labelled_with_their_error_or_why_there_is_none():
    image = torch.zeros(3, 8, 8)
    nan = torch.tensor(torch.nan)
    errors = {0.0256: "0.026", 0.00118: "0.0012", 0.06: "0.060", 12.34: "12.3"}
    assert [figures.inversion_caption(image, torch.tensor(error)) for error in errors] == list(errors.values())
    assert figures.inversion_caption(image, nan) == "code is 0"
    assert figures.inversion_caption(image + nan, nan) == "diverged"
    assert figures.inversion_caption(image, torch.tensor(torch.inf)) == "diverged"


def test_white_patches_have_an_edge_on_white_paper():
    white = Image.new("RGB", (40, 24), (255, 255, 255))
    framed = layout.edged(white)
    assert [framed.getpixel(place) for place in ((0, 0), (39, 23), (20, 0))] == [layout.HAIRLINE] * 3
    assert framed.getpixel((1, 1)) == white.getpixel((0, 0)) == (255, 255, 255)
    assert layout.edged(white.resize((8, 8))).getcolors() == [(64, (255, 255, 255))]
