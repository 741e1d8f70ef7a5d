"""Runs every method on networks of twenty families, with random weights, and writes which works on which to the docs.

    python -m tests.benchmarks.families [NAME ...]

The networks are those of torchvision and timm. A method works where it gives a result, and is refused where it says in
a sentence why not; anything else is an error. Without names, the table in docs/networks.md is made anew.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis import InputSpec, analyze
from lightning_cnnvis.checkpoints.zoo import NamedModel
from lightning_cnnvis.functional import DreamOptions
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import activations

PAGE = Path(__file__).parents[2] / "docs/networks.md"
BEGIN, END = "<!-- families -->", "<!-- /families -->"


class Family(NamedTuple):
    """A network, the size of the images that it is shown, and a layer in its middle."""

    network: str
    side: int
    layer: str


FAMILIES = {
    "AlexNet": Family("torchvision:alexnet", 96, "features.7"),
    "VGG": Family("torchvision:vgg11_bn", 64, "features.9"),
    "SqueezeNet": Family("torchvision:squeezenet1_1", 64, "features.6"),
    "GoogLeNet": Family("torchvision:googlenet", 64, "inception4a"),
    "Inception v3": Family("torchvision:inception_v3", 96, "Mixed_6a"),
    "ResNet": Family("torchvision:resnet18", 64, "layer2.0"),
    "DenseNet": Family("torchvision:densenet121", 64, "features.denseblock2"),
    "MobileNet v3": Family("torchvision:mobilenet_v3_small", 64, "features.6"),
    "ShuffleNet v2": Family("torchvision:shufflenet_v2_x0_5", 64, "stage3"),
    "MNASNet": Family("torchvision:mnasnet0_5", 64, "layers.9"),
    "EfficientNet": Family("torchvision:efficientnet_b0", 64, "features.4"),
    "EfficientNet-Lite": Family("timm:tf_efficientnet_lite0", 64, "blocks.3"),
    "RegNet": Family("torchvision:regnet_y_400mf", 64, "trunk_output.block2"),
    "RepVGG": Family("timm:repvgg_a0", 64, "stages.1"),
    "ConvNeXt": Family("timm:convnext_atto", 64, "stages.1"),
    "Swin": Family("torchvision:swin_t", 64, "features.3.0.mlp.1"),
    "ViT": Family("timm:vit_tiny_patch16_224", 224, "blocks.5.mlp.act"),
    "DeiT, distilled": Family("timm:deit_tiny_distilled_patch16_224", 224, "blocks.5.mlp.act"),
    "ResMLP": Family("timm:resmlp_12_224", 224, "blocks.5.mlp_channels.act"),
    "PoolFormer": Family("timm:poolformer_s12", 64, "stages.1"),
    "MobileViT": Family("timm:mobilevit_xxs", 64, "stages.2"),
}
"""The families, each with a small network of its kind."""

COLUMNS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "`deconv`": ("deconv", {"num_channels": 1, "k": 1}),
    "`deconv`, gradient": ("deconv", {"num_channels": 1, "k": 1, "rule": "gradient"}),
    "`classes`": ("classes", {"classes": [3], "steps": 2}),
    "maco": ("classes", {"classes": [3], "steps": 1, "preset": "maco"}),
    "plug_in": ("classes", {"classes": [3], "steps": 1, "preset": "plug_in"}),
    "deepinversion": ("classes", {"classes": [3], "steps": 2, "preset": "deepinversion"}),
    "`maximize`": ("maximize", {"num_channels": 1, "steps": 2}),
    "`dream`": ("dream", {"options": DreamOptions(octaves=1, steps=1)}),
    "`invert`": ("invert", {"steps": 2, "count": 1, "restarts": 1}),
    "`occlusion`": ("occlusion", {"count": 1, "patch": 32, "stride": 32}),
    "`correspondence`": ("correspondence", {"count": 2, "random_sets": 1}),
    "`patches`": ("patches", {"num_channels": 1, "k": 1, "patch": 32, "stride": 32}),
    "`invariance`": (
        "invariance",
        {"count": 1, "sample": 1, "scales": [1, 1.5], "rotations": [0, 90], "colors": [0], "contrasts": [1]},
    ),
    "`unit_invariance`": ("unit_invariance", {"num_channels": 1, "steps": 1, "num_directions": 1, "frequencies": 1}),
}
"""The columns of the table: a method, and options that make it quick."""


def outcomes(family: Family) -> dict[str, str]:
    """What each column's method says of a network: nothing where it works, else why it is refused."""
    torch.manual_seed(0)
    network = NamedModel.parse(family.network).build()
    spec = InputSpec(size=(family.side, family.side))
    images = torch.rand(2, 3, *spec.size, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(images, torch.zeros(2, dtype=torch.int64)), 2)
    analysis = analyze(network, data, input_spec=spec)
    # of random weights, whose units may be silent
    with torch.no_grad(), isolated(network) as copy:
        maps = activations(copy, spec.normalize(images), [family.layer])[family.layer]
    strongest = int(maps.flatten(2).amax((0, 2)).argmax())
    found = {}
    for column, (method, options) in COLUMNS.items():
        of_units = {"channels": [strongest]} if "num_channels" in options and method != "patches" else {}
        found[column] = refusal(analysis, method, {**options, **of_units}, family.layer)
    return found


def refusal(analysis: Any, method: str, options: Mapping[str, Any], layer: str) -> str:
    """Why a method is refused; nothing if it works."""
    # classes and patches look at the end of the network
    layers: dict[str, Any] = {"layer": layer} if method == "occlusion" else {"layers": [layer]}
    if method in ("classes", "patches"):
        layers = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            analysis.look(method, {**options, **layers})
    except ValueError as error:  # which refusals are; anything else is a defect
        return str(error)
    return ""


def row(name: str, found: Mapping[str, str]) -> str:
    cells = ["–" if found[column] else "yes" for column in COLUMNS]
    return f"| {name} | `{FAMILIES[name].network}` | " + " | ".join(cells) + " |"


def table(found: Mapping[str, Mapping[str, str]]) -> str:
    head = f"| family | network | {' | '.join(COLUMNS)} |"
    return "\n".join([head, "|" + "---|" * (len(COLUMNS) + 2), *(row(name, found[name]) for name in found)])


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join(FAMILIES))
    names = parser.parse_args(args).names
    found = {}
    for name in names or FAMILIES:
        found[name] = outcomes(FAMILIES[name])
        print(row(name, found[name]), flush=True)
        for column, why in found[name].items():
            if why:
                print(f"    {column}: {why}", flush=True)
    if not names:
        text = PAGE.read_text(encoding="utf-8")
        made = f"{BEGIN}\n{table(found)}\n{END}"
        text = re.sub(f"{BEGIN}.*{END}", lambda _: made, text, flags=re.DOTALL)
        PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
