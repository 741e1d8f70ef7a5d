"""Does a projection depend on the weights? Curves of AlexNet and EfficientNet-Lite 0, trained on ImageNet.

``python -m tests.benchmarks.trust`` prints the tables of docs/trust.md; with Quantus at hand, also its test on the same
pictures. It takes some minutes on two cores. ``--csv FILE`` keeps every number.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_cnnvis.functional import Randomization, randomization_test
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import activations
from tests.benchmarks.real_models import EFFICIENTNET, IMAGENET, data_folder, efficientnet, imagenet_photographs

RULES = ("deconvnet", "guided", "gradient")
MEASURES = ("spearman", "spearman_absolute", "ssim", "hog")


def alexnet() -> nn.Module:
    """The convolutions of AlexNet, trained on ImageNet."""
    features = torchvision.models.alexnet().features
    weights = load_file(data_folder() / "alexnet_features_imagenet.safetensors")
    features.load_state_dict({name.removeprefix("features."): tensor for name, tensor in weights.items()})
    return features.eval()


NETWORKS = {
    "AlexNet": (alexnet, IMAGENET, ("4", "9", "11")),
    "EfficientNet-Lite 0": (efficientnet, EFFICIENTNET, ("blocks.1.1.bn1", "blocks.3.2.bn1", "bn2")),
}
"""The network, its input, and a low, a middle and a high layer."""


def strongest_channels(model: nn.Module, images: Tensor, layer: str) -> Tensor:
    """The channel of each image that stands out most: its greatest activation over the mean of all images'."""
    with isolated(model) as network, torch.no_grad():
        peaks = activations(network, images, [layer])[layer].flatten(2).amax(2)
    return (peaks / peaks.mean(0).clamp(min=1e-3)).argmax(1)


def curves(count: int, steps: int | None, names: list[str]) -> dict[tuple[str, str, str], Randomization]:
    """The tests by network, layer and rule."""
    photos, found = imagenet_photographs(count), {}
    for name in names:
        make, spec, layers = NETWORKS[name]
        model, images = make(), spec.normalize(photos)
        for layer in layers:
            channels = strongest_channels(model, images, layer)
            for rule in RULES:
                test = randomization_test(model, images, layer, channels, method=rule, steps=steps)
                found[name, layer, rule] = test
                print(
                    f"\n{name}, {layer}, {rule}: {test.verdict}; complexity {float(test.complexity_rise.mean()):+.2f}"
                )
                for measure in MEASURES:
                    chance = test.chance_scores[measure]
                    scores = " ".join(f"{score:5.2f}" for score in test.scores[measure].tolist())
                    controls = ", ".join(f"{c} {s[measure]:.2f}" for c, s in test.control_scores.items())
                    print(f"  {measure:18} {scores}   chance {chance:.2f}, {controls}", flush=True)
    return found


def write_csv(found: dict[tuple[str, str, str], Randomization], file: Path) -> None:
    """Every number, a row each."""
    with file.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("network", "layer", "rule", "stage", "image", *MEASURES))
        for (name, layer, rule), test in found.items():
            stages = {one: {m: test.similarities[m][n] for m in MEASURES} for n, one in enumerate(test.layers)}
            for stage, values in {**stages, **test.control_similarities, "chance": test.chance}.items():
                for image in range(len(test.originals)):
                    row = [f"{float(values[measure][image]):.4f}" for measure in MEASURES]
                    table.writerow((name, layer, rule, stage, image, *row))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    found = curves(given.images, given.steps, given.networks)
    if given.csv:
        write_csv(found, given.csv)


if __name__ == "__main__":
    main()
