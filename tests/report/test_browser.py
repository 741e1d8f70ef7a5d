"""The page in Chromium, from the disk: what a reader sees and does. `pytest -m browser` runs these."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image
from report_contents import EPOCHS, content, picture

from lightning_cnnvis.report.page import render
from lightning_cnnvis.viewer.content import Gallery, Section, Tile

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
            lambda request: (
                None
                if request.url.startswith((url.split("#", maxsplit=1)[0], "data:", "blob:"))
                else complaints.append(request.url)
            ),
        )
        page.goto(url)
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()
    assert complaints == []


def ready(page, selector: str = ".cell"):
    page.locator(selector).first.wait_for()
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_opens_and_fits(open_page, size, scheme, tmp_path):
    page = ready(open_page(size, scheme))
    assert page.locator("h1").text_content() == content().title
    # nothing but the strip and the rows of reconstructions scrolls sideways
    assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]
    picture = tmp_path / "page.png"
    page.screenshot(path=picture)
    shown = Image.open(picture).convert("L")
    paper = shown.getpixel((SIZES[size][0] - 3, 3))
    assert paper > 240 if scheme == "light" else paper < 40


def test_the_slider_goes_through_the_epochs_of_every_layer(open_page):
    page = ready(open_page())
    assert page.locator("output").text_content() == f"Epoch {EPOCHS[-1]}"
    assert page.locator(".cell").count() == 12
    page.locator("#epoch").focus()
    page.keyboard.press("ArrowLeft")
    page.locator("output", has_text=f"Epoch {EPOCHS[-2]}").wait_for()
    # at the others, those maps that are followed
    page.wait_for_function("document.querySelectorAll('.cell').length === 2")
    assert "similarity 0.5" in page.locator(".cell").first.text_content()
    page.locator(".layers button").nth(1).click()
    page.locator("h2", has_text="onmouseover").wait_for()
    assert page.locator("output").text_content() == f"Epoch {EPOCHS[-2]}"
    page.get_by_role("button", name="Classes").click()
    page.locator(".late").wait_for()
    assert page.locator(".tile").count() == 6


def test_a_map_opens_with_its_top_9_and_its_epochs(open_page):
    page = ready(open_page())
    page.locator(".cell").nth(1).click()
    page.locator(".map .frame").first.wait_for()
    assert page.locator(".map .top figure").count() == 9
    assert page.locator(".map .top figcaption").all_text_contents()[:2] == ["9", "8"]
    assert page.locator(".map .frame").count() == len(EPOCHS)
    tiles = page.locator(".map .top .sprite")
    places = {tiles.nth(n).evaluate("e => getComputedStyle(e).backgroundPosition") for n in range(18)}
    assert len(places) == 18
    page.keyboard.press("Escape")
    page.locator(".map").wait_for(state="detached")
    assert page.locator(".cell").last.is_disabled()


def test_an_address_is_kept_in_the_file(open_page, address):
    page = ready(open_page(url=f"{address}#page=section%2FTraining"), ".curve")
    assert page.locator("h2").text_content() == "Training"
    assert page.locator(".curve .u-wrap").count() == 2
    page.keyboard.press("]")
    page.locator("h2", has_text="Classes").wait_for()
    page.go_back()
    page.locator("h2", has_text="Training").wait_for()


def test_what_was_made_of_an_image_opens_beside_it(open_page):
    page = ready(open_page())
    page.locator(".others button").nth(2).click()
    page.locator(".row .zoom").first.click()
    assert page.locator("dialog option").all_text_contents() == ["original"]
    assert page.locator("dialog .sprite").count() == 2
    page.get_by_role("button", name="Close").click()
    page.locator("dialog").wait_for(state="detached")


def test_a_map_has_the_image_that_was_optimised_for_it(open_page, tmp_path):
    made = content()
    layer = next(section.title for section in made.sections if section.layer)
    tiles = (
        Tile(picture(2, 2, 71), "first", "peak 12 · 2.1× real", of=(layer, 1)),
        Tile(picture(2, 2, 72), "of another", "", of=("elsewhere", 2)),
        Tile(picture(2, 2, 73), "of none", ""),
    )
    section = Section("What feature maps respond to most", (Gallery(tiles),))
    path = tmp_path / "optimised.html"
    path.write_text(render(replace(made, sections=(*made.sections, section))), encoding="utf-8")
    page = ready(open_page(url=path.as_uri()))
    seen = page.locator(".cell").nth(1).locator(".sprite").nth(1)
    patch = seen.evaluate("e => getComputedStyle(e).backgroundImage")
    page.get_by_label("Beside each").select_option("the image optimised for it")
    page.wait_for_function("location.hash.includes('beside=optimised')")
    optimised = page.locator(".cell .sprite[aria-label^='Image optimised']")
    optimised.first.wait_for()
    assert optimised.count() == 1
    assert seen.get_attribute("aria-label") == "Image optimised for map 1"
    assert seen.evaluate("e => getComputedStyle(e).backgroundImage") != patch
    page.locator(".cell").nth(1).click()
    page.locator(".map .optimised").wait_for()
    assert page.locator(".map .optimised figcaption").text_content() == (
        f"Optimised for this map peak 12 · 2.1× real · epoch {EPOCHS[-1]}"
    )
    page.locator(".cell").nth(2).click()
    page.locator(".map h3", has_text="Map 2").wait_for()
    assert page.locator(".map .optimised").count() == 0
    # where no image was optimised for the layer, there is nothing to choose
    page.locator(".layers button").nth(1).click()
    page.locator("h2", has_text="onmouseover").wait_for()
    assert page.get_by_label("Beside each").count() == 0


def test_two_epochs_side_by_side(open_page):
    page = ready(open_page())
    page.get_by_label("Beside").select_option("another epoch")
    page.locator(".pane").nth(1).wait_for()
    assert page.locator(".which").all_text_contents() == [f". · epoch {epoch}" for epoch in (EPOCHS[-1], EPOCHS[0])]


def test_a_thousand_maps_over_20_epochs_are_small_and_soon_there(open_page, tmp_path):
    epochs = tuple(range(1, 21))
    path = tmp_path / "large.html"
    path.write_text(render(content(features=250, layers=4, epochs=epochs, noise=True)), encoding="utf-8")
    assert path.stat().st_size < 25_000_000
    page = ready(open_page(url=path.as_uri()))
    seconds = page.evaluate("performance.now()") / 1000
    assert seconds < 4  # on a machine that does other things, too
    assert page.locator(".cell").count() == 250
