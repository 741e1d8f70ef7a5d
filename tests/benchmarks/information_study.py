"""How does what a layer knows of an image relate to the ability to classify it? See docs/what_a_layer_knows.md.

    python -m tests.benchmarks.information_study run TINY10   # inverts and trains: a few hours of a core
    python -m tests.benchmarks.information_study page         # tables and figures of the page, from the CSV files

TINY10 has images of ten classes, ``train/<class>/<image>`` and ``val/<class>/<image>``. What was measured goes to
images.csv and runs.csv, in docs/study by default, after every batch of images and every training; what is there is not
measured again.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

from .information_images import run_images
from .information_page import make
from .information_runs import SEEDS, run_runs
from .tables import DOCS

STUDY = DOCS / "study"


def run(folder: Path, output: Path) -> None:
    """Measures everything, a share of the images and the trainings of a seed by turns."""
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    output.mkdir(parents=True, exist_ok=True)
    for done, seed in enumerate(SEEDS, 1):
        run_images(output / "images.csv", done / len(SEEDS))
        run_runs(output / "runs.csv", folder, [seed])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run")
    command.add_argument("tiny10", type=Path)
    command.add_argument("--output", type=Path, default=STUDY)
    commands.add_parser("page")
    options = parser.parse_args()
    if options.command == "run":
        run(options.tiny10, options.output)
    else:
        make()


if __name__ == "__main__":
    main()
