"""The pictures of docs/redesign.md; see `first_layer_page`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from lightning_cnnvis.figures.layout import captioned, figure, mosaic, stacked, tile
from lightning_cnnvis.figures.projections import contrast
from lightning_cnnvis.functional import top_activations
from lightning_cnnvis.functional.diagnosis.kernels import aliased_energy
from lightning_cnnvis.pictures import Picture, encode_png

from .first_layer import ARMS, MAPS, Photographs, network, path_of

TITLES = {
    "11x11/4": "11×11, stride 4",
    "7x7/2": "7×7, stride 2",
    "AlexNet, ImageNet": "AlexNet, ImageNet: 11×11, stride 4",
}
COLORS = {"11x11/4": "#c8452e", "7x7/2": "#2a6fb0", "AlexNet, ImageNet": "#6b6b75"}
WHITE_NOISE = {"11x11/4": 0.952, "7x7/2": 0.805}
"""The energy that kernels of white noise have above the Nyquist frequency, the median of 200."""
SHOWN = 24


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws the energy of each kernel above its stride's Nyquist frequency, the kernels of a network in order."""
    drawn = Figure(figsize=(9, 3.6), layout="constrained")
    axes = drawn.add_subplot()
    for name, color in COLORS.items():
        seeds = sorted({row["seed"] for row in rows if row["network"] == name})
        for seed in seeds:
            energy = sorted(
                100 * row["aliased_energy"] for row in rows if (row["network"], row["seed"]) == (name, seed)
            )
            places = [(n + 0.5) / len(energy) for n in range(len(energy))]
            axes.plot(places, energy, color=color, alpha=0.75, label=TITLES[name] if seed == seeds[0] else None)
    for name, share in WHITE_NOISE.items():
        axes.axhline(100 * share, color=COLORS[name], linestyle=":", linewidth=1)
        axes.text(0.005, 100 * share + 1, "white noise", color=COLORS[name], fontsize=8)
    axes.set(
        xlim=(0, 1), ylim=(0, 104), xlabel="kernels of a network, in order", ylabel="% above the Nyquist frequency"
    )
    axes.set_title("Energy of first-layer kernels above what their stride can sample", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    drawn.legend(fontsize=8, frameon=False, loc="outside right center")
    drawn.savefig(path, dpi=110)


def kernels(networks: Path, seed: int = 0) -> Picture:
    """The kernels of both geometries, each with its energy above the Nyquist frequency, the least first."""
    parts = []
    for arm in ARMS:
        weight = torch.load(path_of(arm, seed, networks), weights_only=True)["weights"]["conv1.weight"]
        energy = aliased_energy(weight, (int(arm[-1]), int(arm[-1])))
        order = energy.argsort()
        scaled = 0.5 + 0.5 * weight / weight.abs().amax((1, 2, 3), keepdim=True)
        cells = [captioned(tile(scaled[n], 56), f"{float(energy[n]):.0%}") for n in order.tolist()]
        parts.append(figure(mosaic(cells, MAPS // 2, gap=4), TITLES[arm]))
    return stacked(parts)


def projections(networks: Path, data: Photographs, layer: str, seed: int = 0) -> Picture:
    """The strongest activation of the first maps of a layer, projected to pixels, without the images."""
    parts = []
    for arm in ARMS:
        net = network(arm, seed)
        net.load_state_dict(torch.load(path_of(arm, seed, networks), weights_only=True)["weights"])
        net.eval()
        top = top_activations(net, data.val_dataloader(), [layer], k=1, channels=range(SHOWN))[layer]
        found = top.project(net, layer)
        cells = []
        for n, picture in enumerate(contrast(found.pixels)):
            dead = bool(found.activations[n] <= 0)
            cells.append(captioned(tile(picture, 72, smooth=True), f"{n} dead" if dead else f"{n}", faint=dead))
        side = found.pixels.shape[-1]
        parts.append(figure(mosaic(cells, SHOWN // 2, gap=4), f"{TITLES[arm]}: layer 2, {side}×{side} pixels"))
    return stacked(parts)


def draw(networks: Path, data: Path, folder: Path) -> None:
    """Writes the pictures of kernels and projections.

    Args:
        networks: Folder of the trained networks.
        data: The images.
        folder: Where to write.
    """
    (folder / "redesign_kernels.png").write_bytes(encode_png(kernels(networks)))
    picture = projections(networks, Photographs(data, seed=0), "relu2")
    (folder / "redesign_projections.png").write_bytes(encode_png(picture))
