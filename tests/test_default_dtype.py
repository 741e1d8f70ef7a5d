"""Nothing relies on torch's default dtype, which a script may set for its own sake."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from PIL import Image
from runs import IMAGES, LABELS, SPEC, fit, network
from test_devices import FUNCTIONS, OPTIONS, callbacks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_cnnvis import analyze
from lightning_cnnvis.callbacks import VisualizationCallback
from lightning_cnnvis.data.color import recolor
from lightning_cnnvis.functional.network.forward import model_options
from lightning_cnnvis.functional.noise import gaussian, uniform
from lightning_cnnvis.functional.optimization.objectives import directions_between
from lightning_cnnvis.functional.optimization.parameterizations import Fourier, ImageStatistics
from lightning_cnnvis.inputs.photographs import read_photograph
from lightning_cnnvis.methods.registry import BUILTIN

DEFAULTS = [torch.float64, torch.bfloat16]


class _Watch(TorchDispatchMode):
    """Notes where a tensor of a dtype is made that none of the network's or the images' tensors has."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.places: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if any(tensor.dtype == self.dtype for tensor in made) and not (kwargs or {}).get("dtype"):
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            if not any(tensor.dtype == self.dtype for tensor in given):
                self.places.add(f"{func} {_place()}")
        return result


def _place() -> str:
    """The innermost line of the package that is at work."""
    for frame in reversed(traceback.extract_stack()):
        _, found, place = frame.filename.rpartition("lightning_cnnvis/")
        if found:
            return f"{place}:{frame.lineno} {frame.line}"
    return "outside"


@contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("dtype", DEFAULTS)
@pytest.mark.parametrize("name", BUILTIN)
def test_the_default_dtype_changes_no_method(name, dtype):
    def run(net):
        return analyze(net, [(IMAGES, LABELS)], input_spec=SPEC).look(name, OPTIONS.get(name, {}))

    expected, net = run(network()), network()
    with default(dtype):
        found = run(net)
    for tag, picture in expected.pictures.items():
        assert (found.pictures[tag] == picture).all(), tag
    assert found.scalars == expected.scalars


# bfloat16, of which a few values hide well among float32, and which nothing here asks for
@pytest.mark.parametrize("name", BUILTIN)
def test_no_tensor_of_a_method_has_the_default_dtype(name):
    net = network()
    with default(torch.bfloat16), _Watch(torch.bfloat16) as watch:
        analyze(net, [(IMAGES, LABELS)], input_spec=SPEC).look(name, OPTIONS.get(name, {}))
    assert not watch.places


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_tensor_of_a_function_has_the_default_dtype(name):
    net = network().eval()
    with default(torch.bfloat16), _Watch(torch.bfloat16) as watch:
        FUNCTIONS[name](net, IMAGES[:3].clone(), lambda tensor: tensor)
    assert not watch.places


@pytest.mark.parametrize("dtype", DEFAULTS)
def test_the_default_dtype_changes_no_callback(tmp_path, monkeypatch, dtype):
    fit(tmp_path / "plain", *callbacks())
    for name in ("_show", "_check"):
        original = getattr(VisualizationCallback, name)

        def with_default(self, *args, original=original):
            with default(dtype):
                original(self, *args)

        monkeypatch.setattr(VisualizationCallback, name, with_default)
    fit(tmp_path / "other", *callbacks())
    drawn = sorted(path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*.png"))
    assert drawn
    for path in drawn:
        assert (tmp_path / "plain" / path).read_bytes() == (tmp_path / "other" / path).read_bytes(), path


@pytest.mark.parametrize("dtype", DEFAULTS)
@pytest.mark.parametrize(
    "make",
    [
        lambda _: gaussian((2, 3), seed=1),
        lambda _: uniform((2, 3), torch.Generator().manual_seed(1)),
        lambda _: Fourier().decode(Fourier().init([torch.Generator().manual_seed(0)], (3, 8, 9)), (8, 9)),
        lambda _: Fourier().encode(IMAGES[:1]),
        lambda _: torch.tensor(ImageStatistics.measure(IMAGES).decay, dtype=torch.float64),
        lambda _: torch.tensor(ImageStatistics.natural(2).covariance, dtype=torch.float64),
        lambda _: directions_between(torch.ones(3, dtype=torch.float32), IMAGES[0, :, 0, 0], 4),
        lambda _: recolor(IMAGES, uniform((len(IMAGES), 7))),
        lambda _: model_options(torch.nn.Flatten()),
        lambda folder: read_photograph(folder / "grey.png"),
    ],
    ids=[
        "gaussian", "uniform", "Fourier", "coefficients", "statistics", "natural statistics", "directions", "recolor",
        "options", "photograph",
    ],
)  # fmt: skip
def test_the_default_dtype_changes_no_tensor(make, dtype, tmp_path):
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png")
    expected = make(tmp_path)
    with default(dtype):
        found = make(tmp_path)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
