"""The page as text: what is in it, and that nothing can get out of its place."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report_contents import HOSTILE, content, picture

from lightning_cnnvis.report.content import Curves, ReportContent
from lightning_cnnvis.report.page import data_uri, render
from lightning_cnnvis.report.svg import svg


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text of each kind of element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        self.texts.setdefault(tag, []).append("")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag and attributes.items() <= attrs.items()]


@pytest.fixture(scope="module")
def html() -> str:
    return render(content())


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_names_stay_text(page):
    assert page.texts["title"] == page.texts["h1"] == [HOSTILE[0]]
    # one script of ours, the others are pictures
    assert [attrs for attrs in page.all("script") if attrs.get("type") != "application/json"] == [{}]
    assert not [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]
    assert not [attrs for attrs in page.all("img") if "src" in attrs]
    layers = {attrs["data-layer"] for attrs in page.all("button", type="button") if "data-layer" in attrs}
    assert layers == {HOSTILE[n] + str(n) for n in range(3)}


def test_nothing_points_outside(page):
    addresses = [
        attrs[name] for _, attrs in page.elements for name in ("href", "src", "xlink:href", "action") if name in attrs
    ]
    assert addresses
    assert all(address.startswith(("#", "data:,")) for address in addresses)
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; img-src data:;")


def test_ids_are_unique_and_links_arrive(page):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for attrs in page.all("a")]
    assert {link[1:] for link in links} <= set(ids)
    assert {f"#layer-{n}" for n in range(3)} <= set(links)


def test_every_picture_is_in_the_page_once(html):
    stores = re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', html, re.DOTALL)
    made = content()
    wanted = {"pictures-section-0-0": [tile.picture for tile in made.sections[0].blocks[0].tiles]}
    for n, section in enumerate(section for section in made.sections if section.layer):
        tracks, features = section.blocks
        wanted[f"pictures-layer-{n}-0"] = [track.sprite for track in tracks.tracks]
        wanted[f"pictures-layer-{n}-1"] = [feature.sprite for feature in features.features]
    found = {store: json.loads(pictures) for store, pictures in stores}
    assert set(found) == {*wanted, "pictures-section-1-0"}
    for store, pictures in wanted.items():
        assert found[store] == [data_uri(picture) for picture in pictures]


def test_few_colours_are_kept_exactly():
    tiles = picture(2, 9, seed=3)
    kind, _, data = data_uri(tiles).partition(",")
    assert kind == "data:image/webp;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), tiles)


def test_what_is_empty_is_left_out():
    html = render(ReportContent("net", (), (), ()))
    page = Page(html)
    assert not page.all("section")
    assert page.texts["h1"] == ["net"]


def test_plots_hold_numbers_alone_and_take_the_pages_colours():
    drawn = svg(Curves(HOSTILE[0], "epoch", dict.fromkeys(HOSTILE, ((1, 0.1), (2, 0.9))), HOSTILE[4]))
    page = Page(drawn)
    assert page.elements[0][0] == "svg"
    assert {text for text in page.texts["text"] if not re.fullmatch(r"[\d.−-]+", text)} == {"epoch"}
    assert "var(--line-0)" in drawn
    assert "var(--ink)" in drawn
    assert not re.search(r"#[0-9a-f]{6}", drawn)


def test_the_same_content_makes_the_same_page(html):
    assert render(content()) == html
