"""The page in Chromium, from the disk: what a reader sees and does. `pytest -m browser` runs these."""

from __future__ import annotations

import pytest
from PIL import Image
from report_contents import EPOCHS, content

from lightning_cnnvis.report.page import render

pytestmark = pytest.mark.browser

SIZES = {"laptop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("a report #1") / "report.html"
    path.write_text(render(content(features=12)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def open_page(chromium, address):
    """Opens the page at a size, and fails if it says anything on the console or asks for anything."""
    complaints: list[str] = []
    pages = []

    def open_(size: str = "laptop", scheme: str = "light", url: str = address):
        width, height = SIZES[size]
        page = chromium.new_page(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith((url, "data:")) else complaints.append(request.url),
        )
        page.goto(url)
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()
    assert complaints == []


def sprite(locator) -> str:
    return locator.evaluate("e => getComputedStyle(e).backgroundImage")


def place(locator) -> str:
    return locator.evaluate("e => getComputedStyle(e).backgroundPosition")


def scroll_to(page, selector: str):
    element = page.locator(selector).first
    element.scroll_into_view_if_needed()
    page.wait_for_function(
        "e => e.style.getPropertyValue('--sprite').startsWith('url(\"data:image')", arg=element.element_handle()
    )
    return element


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_opens_and_fits(open_page, size, scheme, tmp_path):
    page = open_page(size, scheme)
    assert page.title() == content().title
    # nothing but the strip and the rows of reconstructions scrolls sideways
    assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]
    picture = tmp_path / "page.png"
    page.screenshot(path=picture)
    shown = Image.open(picture).convert("L")
    paper = shown.getpixel((SIZES[size][0] - 3, 3))
    assert paper > 240 if scheme == "light" else paper < 40


def test_the_slider_changes_the_pictures_of_every_layer(open_page):
    page = open_page()
    track = scroll_to(page, "#layer-0 .track")
    tiles = [track.locator(".sprite").nth(n) for n in range(4)]
    slider = page.locator("#layer-0 input[type=range]")
    last = [place(tile) for tile in tiles]
    assert page.locator("#layer-0 output").text_content() == str(EPOCHS[-1])
    assert track.locator(".similarity").text_content() == "0.75"
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#layer-0 output").text_content() == str(EPOCHS[-2])
    assert all(place(tile) != before for tile, before in zip(tiles, last, strict=True))
    assert track.locator(".similarity").text_content() == "0.50"
    assert "changed" in track.get_attribute("class")
    assert slider.get_attribute("aria-valuetext") == f"epoch {EPOCHS[-2]}"
    assert page.locator("#layer-2 output").text_content() == str(EPOCHS[-2])
    page.keyboard.press("Home")
    assert page.locator("#layer-0 output").text_content() == str(EPOCHS[0])
    assert track.locator(".similarity").text_content() == ""


def test_a_click_on_a_feature_shows_its_top_9(open_page):
    page = open_page()
    feature = scroll_to(page, "#layer-1 .feature")
    feature.click()
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert dialog.locator("h2").text_content() == f"{feature.get_attribute('data-layer')}, map 0"
    assert dialog.locator("figure").count() == 9
    tiles = dialog.locator(".sprite")
    assert {sprite(tiles.nth(n)) for n in range(18)} == {sprite(feature.locator(".sprite").first)}
    assert len({place(tiles.nth(n)) for n in range(18)}) == 18
    assert dialog.locator("figcaption").all_text_contents()[:2] == ["9", "8"]
    dialog.locator("#close").click()
    assert not dialog.is_visible()


def test_works_with_the_keyboard_alone(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    feature = scroll_to(page, "#layer-0 .feature")
    feature.focus()
    page.keyboard.press("ArrowRight")
    focused = "document.activeElement.dataset.channel"
    assert page.evaluate(focused) == "1"
    page.keyboard.press("Enter")
    title = page.locator("#top-title")
    assert title.text_content().endswith("map 1")
    page.keyboard.press("ArrowRight")
    assert title.text_content().endswith("map 2")
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    # the focus returns to the map that was looked at last
    assert page.evaluate(focused) == "2"


def test_the_strip_leads_to_a_layer(open_page):
    page = open_page()
    page.locator(".strip a").nth(2).click()
    page.wait_for_function("document.querySelectorAll('.strip a')[2].hasAttribute('aria-current')")
    top = page.locator("#layer-2 h2").bounding_box()["y"]
    assert 0 < top < SIZES["laptop"][1] / 2


def test_a_dead_map_cannot_be_opened(open_page):
    page = open_page()
    assert page.locator("#layer-0 .feature").last.is_disabled()
    assert "never active" in page.locator("#layer-0 .feature").last.text_content()


def test_a_thousand_features_are_shown_as_they_come_near(open_page, tmp_path):
    path = tmp_path / "large.html"
    path.write_text(render(content(features=250, layers=4)), encoding="utf-8")
    page = open_page(url=path.as_uri())
    shown = "document.querySelectorAll('.feature[style*=\"--sprite\"]').length"
    assert page.locator(".feature").count() == 1000
    assert page.evaluate(shown) == 0
    scroll_to(page, "#layer-3 .feature:nth-child(240)")
    assert 0 < page.evaluate(shown) < 500
