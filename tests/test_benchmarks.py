"""The figures of the docs are those of docs/benchmarks.json, and the benchmarks are one command."""

from __future__ import annotations

import json

import pytest
from benchmarks import __main__ as benchmarks
from benchmarks import tables

FIGURES = json.loads(benchmarks.FIGURES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_figures(page):
    text = page.read_text(encoding="utf-8")
    assert tables.rendered(text, FIGURES) == text, "python -m tests.benchmarks --only --markdown"


def test_every_table_is_in_the_docs():
    text = "".join(page.read_text(encoding="utf-8") for page in tables.PAGES)
    for name in (tables.MEASURED, *tables.TABLES):
        assert text.count(f"<!-- benchmark: {name} -->") == 1
    listed = text[: text.index(f"<!-- benchmark: {tables.MEASURED} -->")]
    for name in tables.TABLES:
        assert f"| `{name}` |" in listed


def test_every_benchmark_was_measured():
    assert set(FIGURES) == set(tables.TABLES)
    for entry in FIGURES.values():
        assert {"date", "device", "torch", "lightning_cnnvis", "command", "figures"} == set(entry)


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Puts the figures of the docs in place of a measurement; the names of what was to be measured."""
    names = []

    def measuring(name):
        if name == "class_visualization":
            raise ModuleNotFoundError("No module named 'lucent'")
        names.append(name)
        return lambda: FIGURES[name]["figures"]

    monkeypatch.setattr(benchmarks, "benchmark", measuring)
    return names


def test_one_command_measures_all_but_what_lacks_a_package(measured, tmp_path, capsys):
    file = tmp_path / "figures.json"
    assert benchmarks.main(["--output", str(file)]) == 1
    assert measured == [name for name in tables.TABLES if name != "class_visualization"]
    written = json.loads(file.read_text())
    assert list(written) == measured
    assert {name: entry["figures"] for name, entry in written.items()} == {n: FIGURES[n]["figures"] for n in measured}
    printed = capsys.readouterr()
    assert tables.deepdream(FIGURES["deepdream"]["figures"]) in printed.out
    assert "class_visualization was left out: No module named 'lucent'" in printed.err


def test_one_alone_leaves_the_others(measured, tmp_path):
    file = tmp_path / "figures.json"
    assert benchmarks.main(["--only", "deepdream", "--output", str(file)]) == 0
    first = file.read_text()
    assert benchmarks.main(["--only", "harvest", "--output", str(file)]) == 0
    assert measured == ["deepdream", "harvest"]
    assert json.loads(file.read_text())["deepdream"] == json.loads(first)["deepdream"]


def test_markdown_goes_into_the_pages(monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Before\n\n<!-- benchmark: deepdream -->\nold\n<!-- end -->\n\nafter\n")
    monkeypatch.setattr(benchmarks, "PAGES", [page])
    assert benchmarks.main(["--only", "--markdown"]) == 0
    text = page.read_text()
    assert tables.deepdream(FIGURES["deepdream"]["figures"]) in text
    assert text.startswith("Before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_benchmark_has_its_function(name):
    assert callable(benchmarks.benchmark(name))
