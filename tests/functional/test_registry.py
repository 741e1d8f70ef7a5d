"""A registry of named choices."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lightning_cnnvis.functional.registry import Registry


@pytest.fixture
def presets():
    registry = Registry("preset")
    for name in ("fourier", "yosinski2015", "none"):
        registry.register(name, name.upper())
    return registry


def test_names_are_in_order_and_lead_to_their_entries(presets):
    assert presets.names == tuple(presets) == ("fourier", "yosinski2015", "none")
    assert presets.get("none") == "NONE"
    assert "none" in presets
    assert "some" not in presets
    assert len(presets) == 3


def test_as_a_decorator(presets):
    @presets.register("mine")
    def mine() -> int:
        return 3

    assert presets.get("mine") is mine
    assert mine() == 3


@pytest.mark.parametrize("name", ["fourrier", "Fourier"])
def test_an_unknown_name_lists_the_near_ones(presets, name):
    with pytest.raises(ValueError, match=name) as caught:
        presets.get(name)
    assert str(caught.value) == (
        f"preset='{name}': there is no such preset. Did you mean 'fourier'? "
        "There are 'fourier', 'yosinski2015', 'none'."
    )


@pytest.mark.parametrize("name", ["lucid", 3, None, ["fourier"], {}])
def test_without_near_names_all_are_listed(presets, name):
    with pytest.raises(ValueError, match=r"no such preset\. There are 'fourier', 'yosinski2015', 'none'\.") as caught:
        presets.get(name)
    assert f"preset={name!r}" in str(caught.value)


def test_an_empty_registry_says_so():
    with pytest.raises(ValueError, match="None is registered"):
        Registry("rule").get("guided")


def test_a_name_is_not_taken_twice_by_accident(presets):
    with pytest.raises(ValueError, match=r"preset='none' is registered already\. .*overwrite=True"):
        presets.register("none", "other")
    with pytest.raises(ValueError, match="registered already"):
        presets.register("none")
    assert presets.get("none") == "NONE"
    assert presets.register("none", "other", overwrite=True) == presets.get("none") == "other"
    assert presets.names == ("fourier", "yosinski2015", "none")
    with pytest.raises(ValueError, match="not a name"):
        presets.register("", "other")


def test_it_needs_no_heavy_import():
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('registry', {sys.modules[Registry.__module__].__file__!r})\n"
        "spec.loader.exec_module(importlib.util.module_from_spec(spec))\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
