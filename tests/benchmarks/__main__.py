"""Measures what docs/benchmarks.md shows, and writes it there.

    python -m tests.benchmarks [--only NAME ...] [--output FILE.json] [--markdown]

The figures go into a JSON file, docs/benchmarks.json by default, beside the date, the device and the versions; entries
of benchmarks that are not measured stay. ``--markdown`` makes the tables of the docs anew from docs/benchmarks.json or
the file that ``--output`` names; with an empty ``--only``, from what was measured before.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from .machine import describe
from .tables import DOCS, PAGES, TABLES, rendered

FIGURES = DOCS / "benchmarks.json"
FUNCTIONS = {
    "random_classes": "class_visualization:random_classes",
    "inversion_batch": "inversion:batched",
    "inversion_rates": "inversion:rates",
}
"""Where a benchmark is, if not in the function `measure` of the script of its name."""


def benchmark(name: str) -> Callable[[], dict[str, Any]]:
    """The function that measures something, imported when it is asked for: some scripts need further packages."""
    module, _, function = FUNCTIONS.get(name, f"{name}:measure").partition(":")
    found: Callable[[], dict[str, Any]] = getattr(import_module(f".{module}", __package__), function)
    return found


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="*", choices=TABLES, default=list(TABLES), metavar="NAME", help=", ".join(TABLES)
    )
    parser.add_argument("--output", type=Path, default=FIGURES, help="the JSON file to write or to add to")
    parser.add_argument("--markdown", action="store_true", help="make the tables of the docs anew")
    options = parser.parse_args(args)
    warnings.filterwarnings("ignore")
    entries = json.loads(options.output.read_text()) if options.output.is_file() else {}
    failed = []
    for name in options.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            figures = benchmark(name)()
        except (ModuleNotFoundError, FileNotFoundError) as error:
            print(f"{name} was left out: {error}", file=sys.stderr)
            failed.append(name)
            continue
        command = f"python -m tests.benchmarks --only {name}"
        entries[name] = {**describe(figures.get("device", "cpu")), "command": command, "figures": figures}
        # after each, so that a later failure costs nothing
        options.output.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(TABLES[name](figures), flush=True)
    if options.markdown:
        for page in PAGES:
            page.write_text(rendered(page.read_text(encoding="utf-8"), entries), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
