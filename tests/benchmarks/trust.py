"""Does a projection depend on the weights? Curves of AlexNet and EfficientNet-Lite 0, trained on ImageNet.

``python -m tests.benchmarks.trust`` prints the numbers of docs/deconvnet.md, and ``--csv FILE`` keeps them. It
takes some minutes on two cores. ``--quantus`` compares with Quantus' test on the same pictures.
"""

from __future__ import annotations

import argparse
import csv
import importlib
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_cnnvis.functional import Randomization, project, randomization_test
from lightning_cnnvis.functional.randomization.cascade import WeightedLayer, initial_values
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


def with_our_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """Lets ``reset_parameters`` of each layer draw the weights that our test draws; deep copies do so, too."""
    for name, module in model.named_modules():
        if hasattr(module, "reset_parameters"):

            def reset(self: nn.Module, name: str = name) -> None:
                layer = WeightedLayer(name, tuple(f"{name}.{leaf}" for leaf, _ in self.named_parameters(recurse=False)))
                for tensor, value in initial_values(nn.ModuleDict({name: self}), layer, seed).items():
                    self.get_parameter(tensor.rpartition(".")[2]).data.copy_(value)

            module.__class__ = type(type(module).__name__, (type(module),), {"reset_parameters": reset})
    return model


def against_quantus(count: int, side: int = 112) -> float:
    """The largest difference of the rank correlation of magnitudes from that of Quantus' MPRT on the same pictures.

    Of AlexNet, whose modules are defined in the order in which they run. The pictures are of the fifth convolution
    before its rectifier.
    """
    quantus = importlib.import_module("quantus")
    photos = torch.nn.functional.interpolate(imagenet_photographs(count), (side, side), mode="area")
    images, layer, model = IMAGENET.normalize(photos), "10", alexnet()
    channels = strongest_channels(model, images, layer)
    positions = project(model, images, layer, channels).positions

    def guided(network: nn.Module, inputs: Tensor, layer: str, channels: Tensor) -> Tensor:
        return project(network, inputs, layer, channels, positions, rule="guided", start="one", windowed=False).pixels

    def explain(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: object) -> np.ndarray:
        return guided(model, torch.from_numpy(inputs).float(), layer, torch.from_numpy(targets)).numpy()

    ours = randomization_test(model, images, layer, channels, method=guided)
    mprt = quantus.MPRT(
        similarity_func=quantus.similarity_func.correlation_spearman,
        layer_order="top_down", abs=True, normalise=False, disable_warnings=True, display_progressbar=False,
    )  # fmt: skip
    theirs = mprt(
        with_our_weights(alexnet()),
        images.numpy(),
        channels.numpy(),
        explain_func=explain,
        channel_first=True,
        device="cpu",
    )
    found = [theirs[name] for name in ours.layers]
    for name, mine, other in zip(ours.layers, ours.similarities["spearman_absolute"], found, strict=True):
        print(f"  {name}: ours {mine.mean():.4f}, Quantus {np.mean(other):.4f}")
    return float((ours.similarities["spearman_absolute"] - torch.tensor(found)).abs().max())


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--quantus", action="store_true", help="compare with Quantus' MPRT, which must be installed")
    given = parser.parse_args()
    if given.quantus:
        print(f"largest difference from Quantus: {against_quantus(given.images):.2e}")
        return
    found = curves(given.images, given.steps, given.networks)
    if given.csv:
        write_csv(found, given.csv)


if __name__ == "__main__":
    main()
