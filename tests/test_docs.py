"""The pages of the site are small, complete, and ask nothing of the network. The build itself is in .ci/run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from lightning_cnnvis.callbacks import callback_class
from lightning_cnnvis.methods import get_method
from lightning_cnnvis.methods.registry import BUILTIN

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def pages(entry: object) -> set[str]:
    """The files that a part of the navigation names."""
    if isinstance(entry, str):
        return {entry}
    parts = entry.values() if isinstance(entry, dict) else entry
    return set().union(*map(pages, parts))


def test_every_page_is_in_the_navigation():
    assert pages(CONFIG["nav"]) == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


@pytest.mark.parametrize("picture", sorted((DOCS / "images").iterdir()), ids=lambda path: path.name)
def test_pictures_are_small_and_shown(picture):
    assert picture.stat().st_size < 400_000
    shown = [page for page in DOCS.rglob("*.md") if f"images/{picture.name}" in page.read_text()]
    assert shown, "no page shows it"


def test_every_public_method_is_in_the_api():
    import lightning_cnnvis
    from lightning_cnnvis import functional

    documented = set(re.findall(r"^::: .*\.(\w+)$", "\n".join(p.read_text() for p in (DOCS / "api").iterdir()), re.M))
    modules_in_full = {"InputSpec"}
    assert set(functional.__all__) <= documented | modules_in_full
    assert {name for name in lightning_cnnvis.__all__ if name[0].isupper()} <= documented | modules_in_full


def test_no_font_or_script_is_fetched():
    assert CONFIG["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css"} & set(CONFIG)


@pytest.mark.parametrize("name", BUILTIN)
def test_every_method_is_documented(name):
    """In the table of commands, in the API, and by its callback."""
    method = get_method(name)
    assert f"\n| `{name}` | " in (DOCS / "posthoc.md").read_text()
    assert f"::: {method.options.__module__}.{method.options.__name__}\n" in (DOCS / "api/methods.md").read_text()
    kind = callback_class(name)
    assert f"::: {kind.__module__}.{kind.__name__}\n" in (DOCS / "api/callbacks.md").read_text()
