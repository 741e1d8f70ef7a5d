"""A small network, and every public function that takes one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from runs import SIDE, SPEC, Classifier
from torch import Tensor, nn

from lightning_cnnvis import functional
from lightning_cnnvis.functional import DreamOptions, Harvest

ONCE = DreamOptions(octaves=2, steps=2)


def network(pooling: bool = True) -> nn.Sequential:
    """Layers "2" and "5" are rectified; without pooling, every operation has a deterministic form on CUDA."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2) if pooling else nn.Conv2d(4, 4, 2, 2),
        nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 5, 3, 2), nn.Flatten(), nn.Linear(20, 3),
    )  # fmt: skip


def trained(pooling: bool = True) -> nn.Sequential:
    """With statistics in its BatchNorm, in evaluation mode."""
    net = network(pooling)
    net(images().float())
    return net.eval()


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def classifier(pooling: bool = True) -> Classifier:
    module = Classifier()
    module.model = network(pooling)
    return module


def harvested(net: nn.Module, x: Tensor) -> object:
    with Harvest(net, {"2": [0, 3], "5": None}, k=2) as harvest, torch.no_grad():
        for batch in x.split(1):
            net(batch)
    return {layer: (top.values, top.windows) for layer, top in harvest.tops.items()}


def channels(x: Tensor) -> Tensor:
    return torch.arange(len(x), device=x.device) % 2


def top(net: nn.Module, x: Tensor) -> Any:
    return functional.top_activations(net, [x], ["2", "5"], k=2)


FUNCTIONS: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "diagnose": lambda net, x: functional.diagnose(net, [x], input_spec=SPEC),
    "project": lambda net, x: functional.project(net, x, "5", channels(x)),
    "project, guided": lambda net, x: functional.project(net, x, "5", channels(x), rule="guided"),
    "project, whole": lambda net, x: functional.project(net, x, "5", channels(x), windowed=False),
    "project, positions": lambda net, x: functional.project(
        net, x, "2", channels(x), torch.full((len(x), 2), 3, device=x.device)
    ),
    "top_activations": lambda net, x: {k: (t.values, t.windows) for k, t in top(net, x).items()},
    "TopActivations.project": lambda net, x: top(net, x)["5"].project(net, "5"),
    "Harvest": harvested,
    "visualize_classes": lambda net, x: functional.visualize_classes(net, [0, "dog"], input_spec=SPEC, steps=2),
    "visualize_classes, maco": lambda net, x: functional.visualize_classes(
        net,
        [0],
        input_spec=SPEC,
        steps=1,
        preset="maco",
        options=functional.VisualizationOptions(transparency=True),
    ),
    "visualize_classes, deepinversion": lambda net, x: functional.visualize_classes(
        net, [0, "dog"], input_spec=SPEC, steps=2, preset="deepinversion"
    ),
    "visualize_classes, plug_in": lambda net, x: functional.visualize_classes(
        net, [0], input_spec=SPEC, steps=8, preset="plug_in"
    ),
    "maximize_activation": lambda net, x: functional.maximize_activation(net, "5", [0, 1], input_spec=SPEC, steps=2),
    "maximize_activation, directions": lambda net, x: functional.maximize_activation(
        net, "5", torch.eye(5, dtype=x.dtype, device=x.device)[:2], input_spec=SPEC, steps=2
    ),
    "occlusion": lambda net, x: (
        found := functional.occlusion(net, x, input_spec=SPEC, layer="5", patch=6, stride=3),
        found.harm,
    ),
    "correspondence": lambda net, x: functional.correspondence(
        net, x, {"eye": [[2, 3, 6, 8]] * len(x)}, ["2", "5"], input_spec=SPEC, random_sets=2
    ),
    "patches": lambda net, x: functional.patches(net, [x], "8", [0, 2], k=2, patch=6, stride=3),
    "accentuate": lambda net, x: functional.accentuate(
        net, SPEC.denormalize(x[0]).clamp(0, 1), input_spec=SPEC, classes=[1, 2], steps=3
    ),
    "transformation_invariance": lambda net, x: functional.transformation_invariance(
        net, x, ["5"], input_spec=SPEC, rotations=[0, 90]
    ),
    "unit_invariance": lambda net, x: functional.unit_invariance(
        net, "2", [0], input_spec=SPEC, images=SPEC.denormalize(x[:1]), steps=2, num_directions=1, frequencies=1
    ),
    "stylize": lambda net, x: functional.stylize(
        net, SPEC.denormalize(x[:1]).clamp(0, 1), SPEC.denormalize(x[1:2]).clamp(0, 1), input_spec=SPEC, steps=2
    ),
    "dream": lambda net, x: functional.dream(net, SPEC.denormalize(x[:1]), "5", input_spec=SPEC, options=ONCE),
    "dream from noise": lambda net, x: functional.dream(net, None, "5", input_spec=SPEC, options=ONCE),
    "dream with a guide": lambda net, x: functional.dream(net, x[:1], "5", input_spec=SPEC, options=ONCE, guide=x[1]),
    "zoom": lambda net, x: list(functional.zoom(net, x[:1], "5", input_spec=SPEC, options=ONCE, frames=2)),
    "invert": lambda net, x: functional.invert(net, x, "5", input_spec=SPEC, steps=2),
    "invert, 2014": lambda net, x: functional.invert(net, x, "5", input_spec=SPEC, steps=2, method="mahendran2014"),
    "invert, 2016": lambda net, x: functional.invert(net, x, "5", input_spec=SPEC, steps=2, method="mahendran2016"),
    "invert_layers": lambda net, x: functional.invert_layers(net, x, ["2", "5"], input_spec=SPEC, steps=2, restarts=2),
    "randomization_test": lambda net, x: functional.randomization_test(net, x, "5", channels(x), samples=2),
    "judge_images": lambda net, x: functional.judge_images(SPEC.denormalize(x[:1]), [0], [net], input_spec=SPEC),
    "path_similarity": lambda net, x: functional.path_similarity(net, x[:1], x, ["2", "5"]),
    "receptive_field": lambda net, x: functional.receptive_field(net, "5", (SIDE, SIDE)),
}


def tensors_of(result: object, name: str = "") -> dict[str, Tensor]:
    """Every tensor in a result, by where it is."""
    if isinstance(result, Tensor):
        return {name: result}
    if dataclasses.is_dataclass(result):
        inside: Any = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    elif isinstance(result, Mapping):
        inside = result
    elif isinstance(result, Sequence) and not isinstance(result, str):
        inside = dict(enumerate(result))
    else:
        return {}
    return {key: t for part, value in inside.items() for key, t in tensors_of(value, f"{name}.{part}").items()}


def assert_close(result: object, expected: object, tolerance: float = 1e-8) -> None:
    """Equal to a share of the largest value; integers and states exactly."""
    found, wanted = tensors_of(result), tensors_of(expected)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        wanted_here, mine = tensor.detach().cpu(), found[name].detach().cpu()
        assert mine.dtype == wanted_here.dtype, name
        finite = wanted_here[wanted_here.isfinite()] if wanted_here.is_floating_point() else torch.empty(0)
        scale = finite.abs().max().item() if finite.numel() else 0
        torch.testing.assert_close(
            mine, wanted_here, rtol=0, atol=tolerance * scale, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )
