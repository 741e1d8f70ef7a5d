"""What a GPU is tried with is everything that the package has."""

from __future__ import annotations

import inspect

from benchmarks.gpu.training import SHORT
from gpu.cases import FUNCTIONS

from lightning_cnnvis import functional
from lightning_cnnvis.methods.builtin import BuiltinMethods

TAKE_NO_IMAGE = {"optimize"}
"""Takes an objective that has the network, and is what others are made of."""


def test_every_function_of_a_network_is_tried():
    functions = {
        name
        for name in functional.__all__
        if inspect.isfunction(function := getattr(functional, name))
        and {"model", "network"} & set(inspect.signature(function).parameters)
    }
    tried = {name.partition(",")[0] for name in FUNCTIONS}
    assert functions - tried == TAKE_NO_IMAGE


def test_every_method_has_a_short_form():
    assert {name for name in vars(BuiltinMethods) if not name.startswith("_")} == set(SHORT)
