"""What `lightning_cnnvis.functional` exports."""

from __future__ import annotations

import ast
import inspect
from dataclasses import is_dataclass
from pathlib import Path

from lightning_cnnvis import functional
from lightning_cnnvis.functional.optimization import objectives, optimizers, parameterizations, regularizers, transforms


def test_no_exported_name_is_a_module_of_the_package():
    entries = {path.stem for path in Path(functional.__file__).parent.iterdir()}
    assert not entries & set(functional.__all__)


def test_every_part_of_the_optimization_is_exported():
    for module in (objectives, optimizers, parameterizations, regularizers, transforms):
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            if is_dataclass(value) or (module is objectives and inspect.isfunction(value)):
                assert getattr(functional, name) is value


def test_the_example_of_optimize_needs_no_other_import():
    lines = map(str.strip, functional.optimize.__doc__.splitlines())
    example = "\n".join(line[4:] for line in lines if line.startswith((">>>", "...")))
    imports = [node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.ImportFrom | ast.Import)]
    assert {node.module for node in imports} == {"lightning_cnnvis.functional"}
    assert {name.name for node in imports for name in node.names} <= set(functional.__all__)
