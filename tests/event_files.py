"""Event files with data for the viewer, written without a training."""

from __future__ import annotations

from pathlib import Path

from report_contents import HOSTILE, K, picture
from torch.utils.tensorboard import SummaryWriter

from lightning_cnnvis.sinks import EncodedView, Sinks
from lightning_cnnvis.viewer.content import (
    FeatureMap,
    FeatureMaps,
    Gallery,
    Mark,
    NetworkLayer,
    Section,
    Sentences,
    Tile,
    Track,
    Tracks,
)
from lightning_cnnvis.viewer.encode import About, encode, encode_network

LAYERS = ("conv1", HOSTILE[0], "conv3")
PLOTS = {"similarity": ("Similarity", "Near 1: settled.", True), "dead": ("Dead maps", "", False)}


class Logger:
    """Stands for Lightning's TensorBoardLogger."""

    def __init__(self, folder: Path) -> None:
        self.experiment = SummaryWriter(str(folder))

    def log_metrics(self, metrics, step):
        for name, value in metrics.items():
            self.experiment.add_scalar(name, value, step)


def layer_section(name: str, epoch: int, maps: int, seed: int = 0) -> Section:
    """A layer with a map that is never active and, the first two, tracks of single colours, no two alike."""
    found = tuple(
        FeatureMap(n, tuple(float(n + epoch + seed + 10 - i) for i in range(K)), picture(2, K, 100 * epoch + n + seed))
        for n in range(maps - 1)
    )
    dead = FeatureMap(maps - 1, (0.0,) * K, picture(2, K, 0))
    tracks = Tracks((epoch,), tuple(Track(n, (0.5,), (False,), picture(4, 1, n + epoch + seed)) for n in range(2)))
    return Section(name, (tracks, FeatureMaps((*found, dead), 2 * maps)), layer=True)


def write_network(sinks: Sinks, layers: tuple[str, ...] = LAYERS) -> None:
    rows = [NetworkLayer(name, "ReLU", (8, 4, 4)) for name in layers]
    sinks.view(encode_network([NetworkLayer("pad", "ZeroPad2d", (3, 9, 9)), *rows]), 1)


def write_epoch(sinks: Sinks, epoch: int, *, maps: int = 6, seed: int = 0, layers: tuple[str, ...] = LAYERS) -> None:
    """What a run shows at an epoch: each layer, and at odd epochs the classes."""
    for name in layers:
        numbers = {f"similarity/{name}": 1 - 1 / (epoch + 1), f"dead/{name}": 0.25, f"other/{name}": 1.0}
        about = About("projection", name, epoch=epoch, numbers=numbers, plots=PLOTS)
        sinks.view(encode(layer_section(name, epoch, maps, seed), about), epoch)
    if epoch == 3:
        marks = (
            Mark(layers[0], (0, 2), "dead", f"Two maps {HOSTILE[4]}."),
            Mark(layers[0], (), "too wide", "A layer."),
        )
        section = Section("Findings", (Sentences(("Two.",)),), marks=marks)
        sinks.view(encode(section, About("findings", epoch=epoch)), epoch)
    if epoch % 2:
        tiles = tuple(Tile(picture(2, 2, epoch + n), name, "p 1.00") for n, name in enumerate(HOSTILE))
        sinks.view(encode(Section("Classes", (Gallery(tiles),), HOSTILE[4]), About("classes", epoch=epoch)), epoch)


def write_run(folder: Path, epochs: range = range(1, 4), **options) -> Sinks:
    sinks = Sinks([Logger(folder)])
    write_network(sinks, options.get("layers", LAYERS))
    for epoch in epochs:
        write_epoch(sinks, epoch, **options)
    flush(sinks)
    return sinks


def write_broken(folder: Path) -> None:
    """Heads and bodies that are not what they should be, and those of a later version."""
    sinks = Sinks([Logger(folder)])
    good = encode(layer_section("conv1", 1, 3), About("good", "conv1", epoch=1))
    later = good.head.replace(b'"format":1', b'"format":99')
    heads = (
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'"text"',
        later,
        b'{"format":1,"kind":"section"}',
        b'{"format":NaN}',
        b"[" * 9,
    )
    for n, head in enumerate(heads):
        sinks.view(EncodedView(f"head {n}", head, good.body, good.sheets), 1)
    for n, (body, sheets) in enumerate(
        (
            (b"", good.sheets),
            (b"[1]", ()),
            (b'{"blocks":[{"kind":"features"}],"sheets":[]}', ()),
            (good.body, (b"<script>",)),
        )
    ):
        head = good.head.replace(b'"conv1"', f'"body {n}"'.encode())
        sinks.view(EncodedView(f"body {n}", head, body, sheets), 1)
    sinks.view(good, 1)
    flush(sinks)


def flush(sinks: Sinks) -> None:
    with sinks:
        pass
