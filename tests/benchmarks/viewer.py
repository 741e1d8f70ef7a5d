"""What the viewer's data add to a run, and how soon a large report is there and how smoothly it scrolls.

    python -m tests.benchmarks.viewer [--rounds 5]

The run: ZFNet of a quarter of the width on photographs at 64 px, two epochs of 5,000 images, with `DeconvNetProjection`
at its defaults after each, and TensorBoard's logger, with ``viewer=True`` and ``viewer=False`` in turn in one process.
The added time is the median over the pairs, in the processor's time, which other processes do not lengthen. The data
are what the event files grow by, beside the bytes of the PNGs.

The page: a report of 1,000 maps, those of AlexNet's convolutions, all on one wall, each over 20 epochs. Pictures and
patches are real; the epochs are the top 9 in turn, so that no two neighbours are alike. It is opened from the disk in
Chromium at 1280 px, in a fresh context each time, and scrolled from top to bottom; medians over the rounds, of
the tasks the longest of any round. The weights and photographs are not part of the project.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from lightning_cnnvis import DeconvNetProjection, InputSpec, ZFNet, analyze
from lightning_cnnvis.report import ReportContent, ReportOptions, collect, render
from lightning_cnnvis.viewer.content import FeatureMap, FeatureMaps, Section, Track, Tracks

from . import tables
from .diagnosis import alexnet
from .real_models import IMAGENET, imagenet_photographs, photographs

EPOCHS = 20
MAPS = {"1": 64, "4": 192, "7": 248, "9": 248, "11": 248}
"""Of each rectified layer of AlexNet's convolutions: 1,000 maps in all."""

SCROLL = """async () => {
  const long = [];
  const watch = new PerformanceObserver((list) => long.push(...list.getEntries().map((e) => e.duration)));
  watch.observe({ type: "longtask" });
  for (let y = 0; y < document.documentElement.scrollHeight; y += 400) {
    window.scrollTo(0, y);
    await new Promise((next) => requestAnimationFrame(next));
  }
  await new Promise((next) => setTimeout(next, 200));
  return Math.max(0, ...long);
}"""


class Classifier(pl.LightningModule):
    """ZFNet of a quarter of the width."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = ZFNet(10, image_size=64, width=0.25)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def train(folder: Path, images: torch.Tensor, *, viewer: bool, epochs: int = 2) -> tuple[float, int, int]:
    """Seconds of the processor, and the bytes of the event files and of the PNGs."""
    data = TensorDataset(images, torch.arange(len(images)) % 10)
    show = DeconvNetProjection(
        viewer=viewer, every_n_epochs=1, max_overhead=None, input_spec=InputSpec(size=(64, 64)), on_error="raise"
    )
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=TensorBoardLogger(folder),
        callbacks=[show],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    began = time.process_time()
    trainer.fit(Classifier(), DataLoader(data, 50, sampler=RandomSampler(data, num_samples=5000)), DataLoader(data, 50))
    seconds = time.process_time() - began

    def size(pattern: str) -> int:
        return sum(file.stat().st_size for file in folder.rglob(pattern))

    found = seconds, size("events.out.*"), size("*.png")
    shutil.rmtree(folder)
    return found


def cost(rounds: int) -> dict[str, Any]:
    """What ``viewer=True`` adds to a run: the share of its time, and bytes."""
    images = photographs(200)
    added, per_epoch, seconds, viewer_bytes, png_bytes = [], [], [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "run", images, viewer=True, epochs=1)
        for n in range(rounds):
            # who comes first alternates
            pair = {
                on: train(Path(folder) / "run", images, viewer=on) for on in ((True, False) if n % 2 else (False, True))
            }
            added.append(pair[True][0] / pair[False][0] - 1)
            per_epoch.append((pair[True][0] - pair[False][0]) / 2)
            seconds.append(pair[False][0])
            viewer_bytes, png_bytes = pair[True][1] - pair[False][1], pair[True][2]
    return {
        "seconds": statistics.median(seconds),
        "added": statistics.median(added),
        "per_epoch": statistics.median(per_epoch),
        "lowest": min(added),
        "highest": max(added),
        "bytes": viewer_bytes,
        "png_bytes": png_bytes,
    }


def content() -> ReportContent:
    """A report of 1,000 real maps on one wall, each over 20 epochs."""
    images = IMAGENET.normalize(imagenet_photographs(100))
    analysis = analyze(nn.Sequential(alexnet("cpu")), images, input_spec=IMAGENET)
    features: list[FeatureMap] = []
    tracks: list[Track] = []
    for layer, count in MAPS.items():
        options = ReportOptions(show=["deconv"], num_channels=count, k=9)
        (section,) = collect(analysis, [f"0.{layer}"], options=options).sections
        (block,) = (block for block in section.blocks if isinstance(block, FeatureMaps))
        for one in block.features:
            channel = len(features)
            features.append(FeatureMap(channel, one.activations, one.sprite))
            if one.active:
                tracks.append(_track(channel, one))
    blocks = (Tracks(tuple(range(1, EPOCHS + 1)), tuple(tracks)), FeatureMaps(tuple(features), len(features)))
    return ReportContent("AlexNet", (), (), (Section("maps", blocks, layer=True),))


def _track(channel: int, one: FeatureMap) -> Track:
    """A map's top activations in the place of epochs; the second track is a rank behind, on one patch."""
    side = one.sprite.shape[0] // 2
    active = sum(activation > 0 for activation in one.activations)

    def cell(row: int, rank: int) -> np.ndarray:
        rank %= active
        return one.sprite[row * side : (row + 1) * side, rank * side : (rank + 1) * side]

    columns = [np.concatenate([cell(0, n), cell(1, n), cell(0, n + 1), cell(1, 0)]) for n in range(EPOCHS)]
    similarities = (None, *(1 - 1 / (n + 2) for n in range(EPOCHS - 1)))
    return Track(channel, similarities, (False, *(True,) * (EPOCHS - 1)), np.concatenate(columns, axis=1))


def page(rounds: int) -> dict[str, Any]:
    """How large the report is, and how it opens and scrolls in Chromium."""
    from playwright.sync_api import sync_playwright

    html = render(content())
    found: dict[str, list[float]] = {"first_paint": [], "usable": [], "opening_task": [], "scrolling_task": []}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "report.html"
        file.write_text(html, encoding="utf-8")
        installed = Path(playwright.chromium.executable_path).exists()
        browser = playwright.chromium.launch(
            args=["--no-sandbox"], executable_path=None if installed else shutil.which("chromium")
        )
        version = browser.version
        for _ in range(rounds + 1):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            shown = context.new_page()
            shown.add_init_script(
                """window.long = [];
                new PerformanceObserver((list) => window.long.push(...list.getEntries().map((e) => e.duration)))
                  .observe({ type: "longtask", buffered: true });
                new MutationObserver((_, watch) => {
                  if (!document.querySelector(".cell .sprite")) return;
                  watch.disconnect();
                  requestAnimationFrame(() => setTimeout(() => (window.usable = performance.now())));
                }).observe(document, { childList: true, subtree: true });"""
            )
            shown.goto(file.as_uri())
            shown.wait_for_function(
                "() => window.usable && performance.getEntriesByName('first-contentful-paint').length"
            )
            paint = shown.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            found["first_paint"].append(paint / 1000)
            found["usable"].append(shown.evaluate("window.usable") / 1000)
            shown.wait_for_timeout(500)
            found["opening_task"].append(shown.evaluate("Math.max(0, ...window.long)") / 1000)
            found["scrolling_task"].append(shown.evaluate(SCROLL) / 1000)
            context.close()
        browser.close()
    warm = {name: values[1:] for name, values in found.items()}
    return {
        "chromium": version,
        "megabytes": len(html.encode()) / 1e6,
        "first_paint": statistics.median(warm["first_paint"]),
        "usable": statistics.median(warm["usable"]),
        "opening_task": max(warm["opening_task"]),
        "scrolling_task": max(warm["scrolling_task"]),
    }


def measure(rounds: int = 5) -> dict[str, Any]:
    """The cost of the viewer's data in a run, and how a large report opens and scrolls."""
    warnings.filterwarnings("ignore")
    return {"device": "cpu", "run": cost(rounds), "page": page(rounds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    print(tables.viewer(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
