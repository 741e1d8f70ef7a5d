"""The shape of the package: public names, and which way imports point."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import lightning_cnnvis
from lightning_cnnvis import functional

PACKAGE = Path(lightning_cnnvis.__file__).parent


@pytest.mark.parametrize("module", [lightning_cnnvis, functional])
def test_public_names_are_there(module):
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No lightning_cnnvis attribute DeconvNet"):
        _ = lightning_cnnvis.DeconvNet


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_functional_imports_neither_lightning_nor_the_glue():
    modules = (path.relative_to(PACKAGE.parent).with_suffix("") for path in (PACKAGE / "functional").rglob("[a-z]*.py"))
    loaded = loaded_by("\n".join(f"import {'.'.join(module.parts)}" for module in modules))
    glue = {f"lightning_cnnvis.{name}" for name in ("callbacks", "sinks", "cli", "figures", "models", "data")}
    assert not loaded & ({"pytorch_lightning", "lightning"} | glue)


def test_importing_the_package_is_cheap():
    assert not loaded_by("import lightning_cnnvis") & {"torch", "pytorch_lightning"}


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == lightning_cnnvis.__version__
