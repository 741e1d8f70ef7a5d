"""Nothing relies on the default device, and nothing mixes the host's tensors with those of a device."""

from __future__ import annotations

import ast
import copy
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from pretended import DEVICE, Mixed, Pretended, moved, pretend, reads
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from runs import IMAGES, LABELS, QUICK, SPEC, Classifier, every_callback, fit, loader, network
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

import lightning_cnnvis
from lightning_cnnvis import analyze, functional
from lightning_cnnvis.callbacks import MethodCallback, VisualizationCallback
from lightning_cnnvis.functional import DreamOptions
from lightning_cnnvis.functional.network.chunks import PIXELS_IN_A_CHUNK
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.methods.registry import BUILTIN

PACKAGE = Path(lightning_cnnvis.__file__).parent
FACTORIES = {
    "arange", "as_tensor", "empty", "eye", "fftfreq", "full", "hamming_window", "hann_window", "linspace", "logspace",
    "ones", "rand", "randint", "randn", "randperm", "rfftfreq", "scalar_tensor", "tensor", "tril_indices",
    "triu_indices", "zeros",
}  # fmt: skip

# which make numbers of torch's default dtype, whatever they are given
OF_FLOATS = {"empty", "eye", "fftfreq", "linspace", "ones", "rand", "randn", "rfftfreq", "zeros"}

OPTIONS = {name: {key: value for key, value in options.items() if key != "probes"} for name, options in QUICK.items()}


def test_every_tensor_is_made_on_a_device_that_is_named():
    """And of a dtype, where it would be the default one."""
    careless = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("torch."):
                continue
            named = {keyword.arg for keyword in node.keywords}
            needed = {"device", *(["dtype"] if node.func.attr in OF_FLOATS else [])}
            if node.func.attr in FACTORIES and not needed <= named:
                careless.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {ast.unparse(node)}")
    assert careless == []


def tensors_of(value: object) -> list[torch.Tensor]:
    return [held for held in vars(value).values() if isinstance(held, torch.Tensor)]


@pytest.mark.parametrize("name", BUILTIN)
def test_the_default_device_changes_no_method(name):
    # on the meta device, a tensor of ours would have no values, and a draw with a generator of the CPU fails
    def run(net):
        return analyze(net, [(IMAGES, LABELS)], input_spec=SPEC).look(name, OPTIONS.get(name, {}))

    expected, net = run(network()), network()
    with torch.device("meta"):
        found = run(net)
    for tag, picture in expected.pictures.items():
        assert (found.pictures[tag] == picture).all()
    assert found.scalars == expected.scalars


def callbacks() -> list[pl.Callback]:
    """Those of the package's own methods."""
    return [one for one in every_callback() if not isinstance(one, MethodCallback) or one.method.name in BUILTIN]


def test_the_default_device_changes_no_callback(tmp_path, monkeypatch):
    fit(tmp_path / "plain", *callbacks())
    batches = list(loader())  # torch's own loader draws its seed on the default device
    monkeypatch.setattr("lightning_cnnvis.callbacks.base.run_images._of_our_own", lambda *_: batches)
    for name in ("_show", "_check"):
        original = getattr(VisualizationCallback, name)

        def on_meta(self, *args, original=original):
            with torch.device("meta"):
                original(self, *args)

        monkeypatch.setattr(VisualizationCallback, name, on_meta)
    fit(tmp_path / "meta", *callbacks())
    drawn = sorted(path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*.png"))
    assert drawn
    for path in drawn:
        assert (tmp_path / "plain" / path).read_bytes() == (tmp_path / "meta" / path).read_bytes(), path


@pytest.mark.parametrize(
    "work",
    [
        lambda net: functional.project(net, IMAGES[:2], "2", torch.tensor([0, 1])),
        lambda net: functional.visualize_classes(net, [0], input_spec=SPEC, steps=1),
        lambda net: functional.dream(net, IMAGES[0], "2", input_spec=SPEC),
        lambda net: functional.invert(net, IMAGES[:1], "2", input_spec=SPEC, steps=1),
        lambda net: functional.receptive_field(net, "2", (16, 16)),
        lambda net: functional.top_activations(net, [IMAGES], ["2"], k=1),
        lambda net: analyze(net, IMAGES, input_spec=SPEC),
    ],
    ids=["project", "classes", "dream", "invert", "receptive field", "top activations", "analyze"],
)
def test_a_network_without_values_is_refused(work):
    net = network().to("meta")
    with pytest.raises(ValueError, match=r"Sequential is on the meta device: 0\.weight has a shape and no values"):
        work(net)


# A device that is not there.

CHANNELS = torch.tensor([0, 1, 2])
NOSE = {"nose": [[2, 3, 8, 8]] * 3}
ONCE = DreamOptions(octaves=2, steps=2)

FUNCTIONS = {
    "project": lambda net, images, to: functional.project(net, images, "5", to(CHANNELS)).full(),
    "project, whole": lambda net, images, to: functional.project(
        net, images, "5", to(CHANNELS), rule="guided", windowed=False
    ).full(),
    "classes": lambda net, images, to: functional.visualize_classes(net, [0, 2], input_spec=SPEC, steps=3).images,
    "maximize": lambda net, images, to: (
        functional.maximize_activation(net, "5", [0, 1], input_spec=SPEC, steps=3).images
    ),
    "accentuate": lambda net, images, to: (
        functional.accentuate(net, images[0], input_spec=SPEC, classes=[1, 2], steps=2).images
    ),
    "stylize": lambda net, images, to: functional.stylize(net, images[:1], images[1:], input_spec=SPEC, steps=2).images,
    "dream": lambda net, images, to: functional.dream(net, images[:1], "5", input_spec=SPEC, options=ONCE).images,
    "invert": lambda net, images, to: functional.invert(net, images[:1], "2", input_spec=SPEC, steps=3).images,
    "invert, 2014": lambda net, images, to: (
        functional.invert(net, images[:1], "2", input_spec=SPEC, steps=3, method="mahendran2014").images
    ),
    "occlusion": lambda net, images, to: functional.occlusion(net, images, input_spec=SPEC, patch=6).probabilities,
    "correspondence": lambda net, images, to: torch.tensor(
        functional.correspondence(net, images, NOSE, ["2"], input_spec=SPEC).deltas["2"]["nose"],
        dtype=torch.float64,
        device="cpu",
    ),
    "invariance": lambda net, images, to: functional.transformation_invariance(
        net, images, ["2"], input_spec=SPEC
    ).distances["2"]["rotation"],
    "patches": lambda net, images, to: functional.patches(net, [images], "8", k=2, patch=6).regions.float(),
    "patches, boxes": lambda net, images, to: functional.patches(net, [images], "8", k=2, patch=6).extents,
    "zoom": lambda net, images, to: torch.stack(
        [*functional.zoom(net, images[0], "5", input_spec=SPEC, frames=2, options=ONCE)]
    ),
    "layers": lambda net, images, to: (
        functional.invert_layers(net, images[:1], ["2", "5"], input_spec=SPEC, steps=2).images
    ),
    "top activations": lambda net, images, to: functional.top_activations(net, [images], ["5"], k=2)["5"].values,
    "projections of top activations": lambda net, images, to: (
        functional.top_activations(net, [images], ["5"], k=2)["5"].project(net, "5").pixels
    ),
}


def held(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.held if isinstance(tensor, Pretended) else tensor


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("default", [None, DEVICE], ids=["", "the default device"])
def test_functions_work_on_a_device(name, default, monkeypatch):
    images = IMAGES[:3] * 2 - 1
    pixels = IMAGES[:3] if name in ("accentuate", "dream", "stylize", "zoom") else images
    expected = FUNCTIONS[name](network().eval(), pixels.clone(), lambda tensor: tensor)
    net = network().eval()
    with pretend(monkeypatch), default or nullcontext():
        found = FUNCTIONS[name](moved(net), Pretended(pixels.clone()), Pretended)
    torch.testing.assert_close(held(found), expected, rtol=1e-4, atol=1e-5)


def test_the_pretended_device_refuses_to_mix(monkeypatch):
    with pretend(monkeypatch):
        there = Pretended(torch.rand(3))
        assert (2 * there).device == DEVICE
        with pytest.raises(Mixed):
            _ = there + torch.rand(3)
        with pytest.raises(Mixed):
            torch.rand(3, device=DEVICE, generator=torch.Generator())
        there.sum().item()
    assert sum(reads.values()) == 1


READS = {
    "project": 6,
    "project, whole": 4,
    "classes": 10,  # in two attempts
    "maximize": 4,
    "accentuate": 9,
    "stylize": 12,
    "dream": 4,
    "invert": 7,
    "invert, 2014": 7,
    "occlusion": 5,
    "correspondence": 3,
    "invariance": 11,
    "patches": 11,
    "patches, boxes": 11,
    "zoom": 8,
    "layers": 10,
    "top activations": 6,
    "projections of top activations": 9,
}
"""How often a function waits for the device to read a value, with a network of three buffers."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_host_seldom_waits_for_the_device(name, monkeypatch):
    net = network().eval()
    with pretend(monkeypatch):
        FUNCTIONS[name](moved(net), Pretended(IMAGES[:3].clone()), Pretended)
    assert sum(reads.values()) <= READS[name], reads


def test_chunks_do_not_wait(monkeypatch):
    net, counts = network().eval(), []
    for pixels in (32 * 16 * 16, 16 * 16):
        monkeypatch.setitem(PIXELS_IN_A_CHUNK, "cuda", pixels)  # which any device but the CPU takes
        with pretend(monkeypatch):
            functional.project(
                moved(copy.deepcopy(net)), Pretended(IMAGES.clone()), "5", Pretended(torch.arange(12) % 5)
            )
        counts.append(sum(reads.values()))
    assert counts[0] == counts[1]


def test_buffers_are_compared_at_once(monkeypatch):
    counts = []
    for blocks in (1, 20):
        net = nn.Sequential(*[nn.BatchNorm2d(3) for _ in range(blocks)]).eval()
        with pretend(monkeypatch), isolated(moved(net)):
            pass
        counts.append(sum(reads.values()))
    assert counts == [1, 1]


def test_a_batch_is_picked_up_with_one_read_a_layer(monkeypatch):
    net, counts = network().eval(), []
    for batches in (1, 5):
        with pretend(monkeypatch):
            loader_of = [Pretended(IMAGES[:4].clone() + n) for n in range(batches)]
            functional.top_activations(moved(copy.deepcopy(net)), loader_of, ["2", "5"], k=2)
        counts.append(sum(reads.values()))
    assert counts[1] - counts[0] <= 4 * 2


READS_OF_A_CALLBACK = 70
"""How often one waits, on average, in two epochs, each shown, and the check of what it is asked for."""


class _SingleDevice(SingleDeviceStrategy):
    """Trains on the pretended device."""

    def __init__(self) -> None:
        super().__init__(device=DEVICE, accelerator=_NoAccelerator())


class _NoAccelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        """Checks nothing: the base class asks for the CPU."""


def test_callbacks_work_on_a_device(tmp_path, monkeypatch):
    fit(tmp_path / "cpu", *callbacks())
    waited, emptied = [], []
    base = "lightning_cnnvis.callbacks.base.callback."
    monkeypatch.setattr(f"{base}synchronize", waited.append)
    monkeypatch.setattr(f"{base}empty_cache", lambda: emptied.append(DEVICE))
    with pretend(monkeypatch):
        fit(tmp_path / "device", *callbacks(), accelerator="auto", strategy=_SingleDevice())
    drawn = sorted(path.relative_to(tmp_path / "cpu") for path in (tmp_path / "cpu").rglob("*.png"))
    assert drawn
    assert sum(reads.values()) <= READS_OF_A_CALLBACK * len(callbacks()), reads
    shown = sum(isinstance(callback, VisualizationCallback) for callback in callbacks())
    assert waited == emptied == [DEVICE] * 2 * shown  # in each of two epochs
    for path in drawn:
        here, there = (np.asarray(Image.open(tmp_path / run / path), np.int16) for run in ("cpu", "device"))
        assert np.abs(here - there).max() <= 2, path


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_function_takes_a_network_without_values(name):
    with pytest.raises(ValueError, match=r"Sequential is on the meta device: 0\.weight .* Make the network on"):
        FUNCTIONS[name](network().to("meta"), IMAGES[:3].clone(), lambda tensor: tensor)


class _NotMoved(SingleDeviceStrategy):
    """Leaves the network where it is, which Lightning's own strategies cannot do."""

    def __init__(self) -> None:
        super().__init__(device=torch.device("cpu"), accelerator=CPUAccelerator())

    def model_to_device(self) -> None:
        """Moves nothing: there are no values to move."""

    def teardown(self) -> None:
        """Moves nothing back."""


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_no_callback_takes_a_network_without_values(tmp_path, on_error):
    for callback in every_callback(on_error=on_error):
        if isinstance(callback, VisualizationCallback):
            module = Classifier()
            module.model.to("meta")
            with pytest.raises(MisconfigurationException, match=r"Sequential is on the meta device: 0\.weight has"):
                fit(tmp_path, callback, module=module, accelerator="auto", strategy=_NotMoved())


class _Branches(nn.Module):
    """Concatenates, adds, and uses one rectifier twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 5, padding=2)
        self.relu, self.join, self.add = nn.ReLU(), nn.Conv2d(8, 4, 3, groups=2), nn.Conv2d(4, 4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        joined = self.join(torch.cat([self.relu(self.left(images)), torch.relu(self.right(images))], 1))
        return (self.add(joined) + self.relu(joined)).mean((2, 3))


NETWORKS = {
    "response normalisation": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.LocalResponseNorm(3), nn.MaxPool2d(3, 2), nn.ReLU()),
        "4",
        {"lrn": "gradient"},
    ),
    "branches": (_Branches, "relu@2", {}),
    "tokens": (
        lambda: VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=3),
        "encoder.layers.encoder_layer_1",
        {"rule": "gradient"},
    ),
    "channels last": (
        lambda: SwinTransformer([2, 2], 8, [2, 2], [2, 2], [2, 2], num_classes=3),
        "features.1",
        {"rule": "gradient"},
    ),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("default", [None, DEVICE], ids=["", "the default device"])
def test_units_of_other_networks_are_projected_on_a_device(kind, default, monkeypatch):
    make, layer, options = NETWORKS[kind]
    torch.manual_seed(0)
    net = make().eval()
    expected = functional.project(copy.deepcopy(net), IMAGES[:3].clone(), layer, CHANNELS, **options).full()
    with pretend(monkeypatch), default or nullcontext():
        images = Pretended(IMAGES[:3].clone())
        found = functional.project(moved(net), images, layer, Pretended(CHANNELS), **options).full()
    torch.testing.assert_close(held(found), expected, rtol=1e-4, atol=1e-5)
