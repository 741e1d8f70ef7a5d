"""A report's content made by hand, with names that try to break out of the page."""

from __future__ import annotations

import json
import re

import numpy as np
from PIL import Image

from lightning_cnnvis.report.content import ReportContent
from lightning_cnnvis.viewer.content import (
    Curves,
    FeatureMap,
    FeatureMaps,
    Gallery,
    NetworkLayer,
    Section,
    Series,
    Tile,
    Track,
    Tracks,
)

HOSTILE = (
    "</script><script>document.title = 'broken'</script>",
    "\"onmouseover='document.title = 1'",
    "new\nline\u2028and another",
    "../../up",
    "<img src=x onerror=\"document.title = 'broken'\">",
    "&amp; $x^2$ {{ 7 * 7 }} ${7} `",
)
SIDE, K, EPOCHS = 16, 9, (1, 2, 5)


def picture(rows: int, columns: int, seed: int, *, noise: bool = False) -> np.ndarray:
    """Tiles of one colour each, no two alike; or smooth noise, about as hard to compress as photographs."""
    if noise:
        coarse = np.random.default_rng(seed).integers(0, 256, (8 * rows, 8 * columns, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((32 * columns, 32 * rows)))
    colors = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    return colors.repeat(SIDE, axis=0).repeat(SIDE, axis=1)


def layer(name: str, number: int, features: int, *, epochs: tuple[int, ...] = EPOCHS, noise: bool = False) -> Section:
    maps = tuple(
        FeatureMap(n, tuple(9.0 - i for i in range(K)), picture(2, K, 1000 * number + n, noise=noise))
        for n in range(features - 1)
    )
    dead = FeatureMap(features - 1, (0.0,) * K, picture(2, K, 0))
    tracks = tuple(
        Track(
            n,
            (None, *(1 - 1 / (i + 2) for i in range(len(epochs) - 1))),
            (False, *(i % 2 == 0 for i in range(len(epochs) - 1))),
            picture(4, len(epochs), 5000 + 10 * number + n, noise=noise),
        )
        for n in range(8 if noise else 2)
    )
    blocks = (Tracks(epochs, tracks),) if epochs else ()
    return Section(name, (*blocks, FeatureMaps((*maps, dead), features)), layer=True)


def content(
    features: int = 12, layers: int = 3, epochs: tuple[int, ...] = EPOCHS, *, noise: bool = False
) -> ReportContent:
    """A report with everything in it."""
    names = [HOSTILE[n % len(HOSTILE)] + str(n) for n in range(layers)]
    return ReportContent(
        title=HOSTILE[0],
        facts=(("Input", "3×64×64"), (HOSTILE[1], HOSTILE[4])),
        network=(
            *(NetworkLayer(name, "ReLU", (features, 8, 8)) for name in (*names, HOSTILE[3])),
            NetworkLayer("fc8", "Linear", (11,)),
        ),
        sections=(
            Section(
                "Classes", (Gallery(tuple(Tile(picture(2, 2, n), x, "p 1.00 · 9") for n, x in enumerate(HOSTILE))),)
            ),
            Section(
                HOSTILE[1],
                (Series(picture(3, 3, 1), tuple(Tile(picture(3, 3, 2), name, "0.05") for name in names)),),
                HOSTILE[4],
            ),
            *(layer(name, n, features, epochs=epochs, noise=noise) for n, name in enumerate(names)),
        ),
        layers=tuple(NetworkLayer(name, "ReLU", (features, 8, 8), (7, 7), (2, 2)) for name in names),
        left_out=(HOSTILE[0],),
        curves=(
            Curves("Accuracy", "epoch", {"val": ((1, 0.3), (5, 0.8))}),
            Curves(HOSTILE[0], "epoch", dict.fromkeys(HOSTILE, ((1, 0.1), (2, 0.9))), HOSTILE[4]),
        ),
    )


def embedded(html: str) -> dict[str, object]:
    """The data in a report, by the id of the element that holds them."""
    found = re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', html, re.DOTALL)
    return {name: json.loads(data) for name, data in found}
