"""The page as text: what is in it, and that nothing can get out of its place."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report_contents import EPOCHS, HOSTILE, SIDE, content, embedded

from lightning_cnnvis.report.content import ReportContent
from lightning_cnnvis.report.page import render
from lightning_cnnvis.viewer.bundle import bundled_script


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


def test_names_stay_text(html, page):
    assert page.texts["title"] == page.texts["h1"] == [HOSTILE[0]]
    # one script of ours, the others are data
    assert [attrs for attrs in page.all("script") if attrs.get("type") != "application/json"] == [{"type": "module"}]
    assert not [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]
    assert {name for name, _ in page.elements} == {
        *("html", "head", "meta", "title", "link", "style", "script", "body", "noscript", "p", "div", "h1")
    }
    index = embedded(html)["index"]
    assert index["title"] == HOSTILE[0]
    assert index["facts"][1] == [HOSTILE[1], HOSTILE[4]]
    layers = {entry["head"]["title"] for entry in index["runs"][0]["entries"] if entry["head"].get("layer")}
    assert layers == {HOSTILE[n] + str(n) for n in range(3)}


def test_nothing_points_outside(page):
    addresses = [attrs[name] for _, attrs in page.elements for name in ("href", "src", "action") if name in attrs]
    assert addresses == ["data:,"]
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; img-src data: blob:;")


def test_ids_are_unique_and_every_one_that_is_named_is_there(html, page):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    entries = embedded(html)["index"]["runs"][0]["entries"]
    assert {part for entry in entries for part in (entry["body"], *entry["sheets"])} == set(ids) - {"index"}


def test_every_layer_is_there_at_each_of_its_epochs_with_its_pictures(html):
    parts = embedded(html)
    made = [section for section in content().sections if section.layer]
    for section in made:
        found = {
            entry["head"]["epoch"]: entry
            for entry in parts["index"]["runs"][0]["entries"]
            if entry["head"].get("title") == section.title
        }
        assert set(found) == set(EPOCHS)
        for epoch, entry in found.items():
            kinds = [block["kind"] for block in parts[entry["body"]]["blocks"]]
            assert kinds == (["tracks", "features"] if epoch == EPOCHS[-1] else ["tracks"])
        last = found[EPOCHS[-1]]
        sheet, left, top, width, height = parts[last["body"]]["blocks"][1]["maps"][1]["picture"]
        file = base64.b64decode(parts[last["sheets"][sheet]])
        shown = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))[top : top + height, left : left + width]
        np.testing.assert_array_equal(shown, section.blocks[1].features[1].sprite[::SIDE, ::SIDE])


def test_what_is_of_no_epoch_has_the_number_0(html):
    heads = [entry["head"] for entry in embedded(html)["index"]["runs"][0]["entries"]]
    assert [head["epoch"] for head in heads if head.get("title") == "Training"] == [0]
    lone = embedded(render(ReportContent("net", (), (), content().sections[:1])))["index"]["runs"][0]["entries"]
    assert [entry["head"]["epoch"] for entry in lone] == [0]


def test_what_is_empty_is_left_out():
    index = embedded(render(ReportContent("net", (), (), ())))["index"]
    assert (index["title"], index["runs"], index["facts"]) == ("net", [], [])


def sizes_of_tracks(html: str) -> set[tuple[int, int]]:
    parts = embedded(html)
    bodies = [parts[entry["body"]] for entry in parts["index"]["runs"][0]["entries"]]
    blocks = [block for body in bodies for block in body.get("blocks", []) if block["kind"] == "tracks"]
    return {tuple(one["picture"][3:]) for block in blocks for one in block["maps"]}


def test_a_large_page_is_compressed_until_it_is_small_enough(monkeypatch):
    large = content(features=8, layers=1, epochs=(1, 2), noise=True)
    usual = render(large)
    assert sizes_of_tracks(usual) == {(32, 128)}
    monkeypatch.setattr("lightning_cnnvis.report.page.LARGEST", len(usual))
    assert render(large) == usual
    monkeypatch.setattr("lightning_cnnvis.report.page.LARGEST", len(usual) - 1)
    second = render(large)
    assert len(second) < len(usual)
    monkeypatch.setattr("lightning_cnnvis.report.page.LARGEST", len(second) - 1)
    third = render(large)
    assert len(third) < len(second)
    assert sizes_of_tracks(third) == {(20, 80)}
    assert embedded(third)["index"] == embedded(usual)["index"]


def test_the_script_needs_no_other():
    script = bundled_script()
    assert "</" not in script.replace("</g", "")
    lines = script.splitlines()
    assert not [line for line in lines if line.startswith(("import ", "export "))]
    assert sum(line.startswith("const module_") and line.endswith("(() => {") for line in lines) == len(
        {line.split()[1] for line in lines if line.startswith("const module_")}
    )


def test_the_same_content_makes_the_same_page(html):
    assert render(content()) == html
    assert json.loads(json.dumps(embedded(html)))
