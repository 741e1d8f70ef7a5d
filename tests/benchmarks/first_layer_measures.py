"""What the first layers that `first_layer` trained are like, as CSV; see there."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_cnnvis.functional import diagnose
from lightning_cnnvis.functional.diagnosis.kernels import aliased_energy, nyquist
from lightning_cnnvis.functional.diagnosis.measures import LayerMeasures
from lightning_cnnvis.functional.diagnosis.shifts import shift_errors
from lightning_cnnvis.inputs import InputSpec

from .first_layer import GEOMETRIES, IMAGENET_ALEXNET, SIZE, Photographs, enlarged, network, path_of
from .real_models import IMAGENET, data_folder, imagenet_photographs

SPEC = InputSpec((SIZE, SIZE), 3, IMAGENET.mean, IMAGENET.std)
SHIFTS = (1, 2, 3)
LAYERS = 5
PHOTOGRAPHS = 100

Row = dict[str, Any]


def aliased_response(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Which share of what kernels make of images is above what their stride can sample.

    Args:
        conv: The first layer, K kernels.
        images: ``(N, 3, H, W)``, normalised.

    Returns:
        ``(K,)``, the share of the variance of the responses at every pixel, in [0, 1].
    """
    above, whole = torch.zeros(len(conv.weight)), torch.zeros(len(conv.weight))
    for batch in images.split(10):
        with torch.no_grad():
            maps = nn.functional.conv2d(batch, conv.weight)
        maps = maps - maps.mean((2, 3), keepdim=True)
        rows, columns = (torch.hann_window(side) for side in maps.shape[2:])
        power = torch.fft.fft2(maps * rows[:, None] * columns).abs().square().sum(0)
        frequency = torch.hypot(*torch.meshgrid(*(torch.fft.fftfreq(n) for n in maps.shape[2:]), indexing="ij"))
        stride = (conv.stride[0], conv.stride[1])
        above += (power * (frequency > nyquist(stride))).sum((1, 2))
        whole += power.sum((1, 2))
    return above / whole


def changed_labels(net: nn.Module, batches: Iterable[Sequence[Tensor]]) -> float:
    """The share of images whose label changes if they are moved by one to three pixels."""
    changed = count = 0
    with torch.no_grad():
        for images, _ in batches:
            room = max(SHIFTS)
            padded = nn.functional.pad(images, (0, room, 0, 0), mode="reflect")
            label = net(images).argmax(1)
            for shift in SHIFTS:
                changed += int((net(padded[..., shift : shift + images.shape[3]]).argmax(1) != label).sum())
                count += len(images)
    return changed / count


def maps_of(
    name: str, seed: int, measures: LayerMeasures, errors: Tensor, conv: nn.Conv2d, own: Tensor, sharp: Tensor
) -> list[Row]:
    """A row for each map of the first layer: on images like those of the training, and on sharp photographs."""
    response, sharp_response = (aliased_response(conv, images) for images in (own, sharp))
    eighth = aliased_energy(conv.weight, (4, 4))
    return [
        {
            "network": name,
            "seed": seed,
            "map": n,
            "dead": int(measures.is_dead[n]),
            "always_on": int(measures.is_always_on[n]),
            "noise": float(measures.noise[n]),
            "similarity": float(measures.similarity[n]),
            "aliased_energy": float(measures.aliased_energy[n]),
            "energy_above_eighth": float(eighth[n]),
            "aliased_response": float(response[n]),
            "aliased_response_sharp": float(sharp_response[n]),
            "shift_error": float(errors[n]),
        }
        for n in range(measures.maps)
    ]


def measure_trained(arm: str, seed: int, output: Path, data: Photographs, sharp: Tensor) -> tuple[Row, list[Row]]:
    """The row of a network, and those of its first layer's maps; from the file beside it if it was measured before."""
    done = path_of(arm, seed, output).with_suffix(".json")
    if done.exists():
        row, maps = json.loads(done.read_text(encoding="utf-8"))
        return row, maps
    kept = torch.load(path_of(arm, seed, output), weights_only=True)
    net = network(arm, seed)
    net.load_state_dict(kept["weights"])
    net = net.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    found = diagnose(net, data.val_dataloader(), input_spec=SPEC)
    images, first, conv = enlarged(data.val[0][::8]), found.layers["relu1"], net.get_submodule("conv1")
    assert isinstance(conv, nn.Conv2d)
    errors = shift_errors(net, images, {layer: found.layers[layer].stride for layer in ("relu1", "relu2")})
    maps = maps_of(arm, seed, first, errors["relu1"], conv, enlarged(data.val[0][::20]), sharp)
    row: Row = {
        "network": arm,
        "seed": seed,
        "epochs": kept["epochs"],
        "accuracy": kept["accuracy"],
        "changed_labels": changed_labels(net, data.val_dataloader()),
        "shift_error_2": float(errors["relu2"][errors["relu2"] > 0].median()),  # the others hardly vary
        "core_seconds": kept["seconds"],
    }
    for number in range(1, LAYERS + 1):
        layer = found.layers[f"relu{number}"]
        row |= {f"maps_{number}": layer.maps, f"dead_{number}": int(layer.is_dead.sum())}
    row["findings"] = " ".join(sorted({f"{one.kind}@{one.layer}" for one in found.ranked}))
    row |= {f"accuracy_epoch_{n}": value for n, value in enumerate(kept["curve"], start=1)}
    done.write_text(json.dumps([row, maps]), encoding="utf-8")
    return row, maps


def measure_imagenet(photographs: Tensor) -> list[Row]:
    """The rows of the first layer's maps of torchvision's AlexNet, trained on ImageNet."""
    features = torchvision.models.alexnet(weights=None).features
    weights = load_file(data_folder() / "alexnet_features_imagenet.safetensors")
    features.load_state_dict({name.removeprefix("features."): value for name, value in weights.items()})
    features.eval()
    first, conv = features[:2], features[0]
    measures = diagnose(first, photographs.split(50), input_spec=IMAGENET).layers["1"]
    errors = shift_errors(first, photographs[::4], {"1": measures.stride})["1"]
    own = photographs[::4, :, 48:176, 48:176]  # as sharp as the network sees them
    return maps_of(IMAGENET_ALEXNET, 0, measures, errors, conv, own, own)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as CSV, numbers to six digits."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})


def measure(data: Path, output: Path, figures: Path) -> None:
    """Measures every network that was trained, and writes ``runs.csv`` and ``maps.csv``.

    Args:
        data: The images.
        output: Folder of the trained networks.
        figures: Folder for the CSV files.
    """
    images = Photographs(data, seed=0)
    photographs = IMAGENET.normalize(imagenet_photographs(PHOTOGRAPHS))
    sharp = nn.functional.interpolate(photographs[::4], (SIZE, SIZE), mode="bicubic", antialias=True)
    runs, maps = [], []
    for arm in GEOMETRIES:
        seed = 0
        while path_of(arm, seed, output).exists():
            row, of_maps = measure_trained(arm, seed, output, images, sharp)
            runs.append(row)
            maps += of_maps
            seed += 1
    done = output / "imagenet.json"
    if not done.exists():
        done.write_text(json.dumps(measure_imagenet(photographs)), encoding="utf-8")
    maps += json.loads(done.read_text(encoding="utf-8"))
    figures.mkdir(parents=True, exist_ok=True)
    write(figures / "runs.csv", runs)
    write(figures / "maps.csv", maps)
