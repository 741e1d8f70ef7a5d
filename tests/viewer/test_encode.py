"""The viewer's data: what is put in comes out, in a browser's terms."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image
from report_contents import EPOCHS, HOSTILE, SIDE, K, content, picture

from lightning_cnnvis.viewer.content import FeatureMap, FeatureMaps, Gallery, NetworkLayer, Section, Series, Tile
from lightning_cnnvis.viewer.encode import SHEET_SIDE, About, encode, encode_network


def decoded(view):
    sheets = [np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB")) for sheet in view.sheets]
    body = json.loads(view.body)
    assert body["sheets"] == [[sheet.shape[1], sheet.shape[0]] for sheet in sheets]
    assert json.loads(view.head)["sheets"] == len(sheets)
    return body["blocks"], lambda place: sheets[place[0]][
        place[2] : place[2] + place[4], place[1] : place[1] + place[3]
    ]


def test_pictures_come_out_as_they_went_in_without_their_magnification():
    maps = tuple(FeatureMap(n, (2.0, 1.0), picture(2, 2, n)) for n in range(3))
    original = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    row = Series(original, (Tile(picture(1, 1, 9), "grey"),))
    blocks, cut = decoded(encode(Section("conv1", (FeatureMaps(maps, 9), row), layer=True), About("deconv", epoch=1)))
    assert [block["kind"] for block in blocks] == ["features", "series"]
    assert blocks[0]["total"] == 9
    for one, found in zip(maps, blocks[0]["maps"], strict=True):
        assert found["activations"] == [2.0, 1.0]
        assert np.array_equal(cut(found["picture"]), one.sprite[::SIDE, ::SIDE])
    assert np.array_equal(cut(blocks[1]["original"]), original)


def test_tracks_are_cut_at_the_epoch():
    (section,) = (section for section in content(layers=1).sections if section.layer)
    for n, epoch in enumerate(EPOCHS):
        blocks, cut = decoded(encode(section, About("deconv", epoch=epoch)))
        tracks = next(block for block in blocks if block["kind"] == "tracks")
        first = section.blocks[0].tracks[0]
        assert tracks["maps"][0]["similarity"] == (pytest.approx(first.similarities[n], abs=1e-5) if n else None)
        assert tracks["maps"][0]["changed"] == first.changed[n]
        column = first.sprite[:, n * SIDE : (n + 1) * SIDE]
        assert np.array_equal(cut(tracks["maps"][0]["picture"]), column[::SIDE, ::SIDE])
    blocks, _ = decoded(encode(section, About("deconv", epoch=77)))
    assert [block["kind"] for block in blocks] == ["features"]


def test_large_pictures_are_spread_over_sheets():
    noise = np.random.default_rng(0).integers(0, 256, (SHEET_SIDE // 2 - 1, 3, 3), dtype=np.uint8)
    blocks, cut = decoded(encode(Section("x", (Gallery((Tile(noise, "a"),) * 5),)), About("x")))
    places = [tile["picture"] for tile in blocks[0]["tiles"]]
    assert [place[0] for place in places] == [0, 0, 1, 1, 2]
    assert all(np.array_equal(cut(place), noise) for place in places)


def test_what_is_not_a_number_is_left_out():
    numbers = {"a/x": float("nan"), "a/y": 1 / 3, "b/x": float("inf"), "c": 1.0}
    plots = {"a": ("A", "", False), "b": ("B", "note", True)}
    maps = FeatureMaps((FeatureMap(0, (float("inf"), float("nan")), picture(2, 2, 0)),), 1)
    view = encode(Section("x", (maps,), layer=True), About("x", numbers=numbers, plots=plots))
    head = json.loads(view.head)
    assert head["numbers"] == {"a/y": 0.333333}
    assert head["plots"]["a"] == ["A", "", False]
    assert json.loads(view.body)["blocks"][0]["maps"][0]["activations"] == [None, None]


@pytest.mark.parametrize("name", [*HOSTILE, "\ud800", "\x00", "猫" * 500])
def test_names_may_hold_anything(name):
    view = encode(Section(name, (Gallery((Tile(picture(1, 1, 0), name, name),)),), name), About(name, name))
    assert view.head.isascii()
    assert view.body.isascii()
    assert json.loads(view.head)["title"] == name
    network = json.loads(encode_network([NetworkLayer(name, name, (3, 4, 4))]).head)
    assert network["layers"][0]["name"] == name


def test_a_layer_takes_tens_of_kilobytes():
    rng = np.random.default_rng(0)
    windows = rng.integers(0, 256, (16, 2 * 13, K * 13, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    maps = tuple(FeatureMap(n, (1.0,) * K, sprite) for n, sprite in enumerate(windows))
    view = encode(Section("conv1", (FeatureMaps(maps, 96),), layer=True), About("deconv"))
    assert sum(map(len, view.sheets)) + len(view.body) < 200_000  # of noise, which nothing compresses
