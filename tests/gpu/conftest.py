"""A GPU for the tests of the marker ``gpu``.

``CNNVIS_GPU_TESTS_ON=cpu`` runs most of them on the CPU, to try the tests themselves out where there is no GPU.
"""

from __future__ import annotations

import os

import pytest
import torch

# read by cuBLAS when it starts: without it, matrix products have no deterministic form
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture
def device() -> torch.device:
    stand_in = os.environ.get("CNNVIS_GPU_TESTS_ON")
    if not stand_in and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    if not stand_in:
        torch.cuda.init()
        torch.cuda.set_device(0)
    return torch.device(stand_in or "cuda:0")


@pytest.fixture
def cuda(device) -> torch.device:
    """A real one."""
    if device.type != "cuda":
        pytest.skip("there is no CUDA device")
    return device


@pytest.fixture(autouse=True)
def exact_products():
    """Convolutions and matrix products of float32 in float32, not in TF32."""
    # both through one interface: torch refuses to read switches that were set through another
    owners = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [owner.allow_tf32 for owner in owners]
    for owner in owners:
        owner.allow_tf32 = False
    yield
    for owner, value in zip(owners, before, strict=True):
        owner.allow_tf32 = value
