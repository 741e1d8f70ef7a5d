"""What is done for CUDA is done for every accelerator."""

import types

import pytest
import torch
from torch import nn

from lightning_cnnvis import accelerators
from lightning_cnnvis.accelerators import devices_in_use, empty_cache, synchronize
from lightning_cnnvis.functional.network.chunks import in_chunks, is_out_of_memory
from lightning_cnnvis.isolation import isolated_rng


class Backend(types.ModuleType):
    """The module of a kind of device, as ``torch.xpu`` or ``torch.mps``, which notes what it is asked for."""

    def __init__(self, kind: str, count: int) -> None:
        super().__init__(f"torch.{kind}")
        self.kind, self.states, self.emptied = kind, [torch.zeros(2) for _ in range(count)], 0

    def get_rng_state(self, device):
        return self.states[device].clone()

    def set_rng_state(self, state, device):
        self.states[device] = state

    def empty_cache(self):
        self.emptied += 1


@pytest.fixture(params=["cuda", "xpu", "mps"])
def backend(request, monkeypatch) -> Backend:
    kind, count = request.param, 1 if request.param == "mps" else 2
    module = Backend(kind, count)
    if kind != "mps":
        module.is_initialized = lambda: True
    module.waited = []
    monkeypatch.setattr(torch, kind, module)
    monkeypatch.setattr(torch, "get_device_module", lambda _: module)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    monkeypatch.setattr(torch.accelerator, "synchronize", module.waited.append)
    return module


def test_generators_of_every_device_are_restored(backend):
    before = [state.clone() for state in backend.states]
    with isolated_rng():
        for state in backend.states:
            state.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(backend.states, before, strict=True))


def test_generators_are_not_made_by_asking_for_them(backend):
    backend.is_initialized = lambda: False
    assert devices_in_use() == (backend.kind, [])


def test_the_queue_and_the_cache(backend):
    device = torch.device(backend.kind)
    synchronize(device)
    synchronize(torch.device("cpu"))
    empty_cache()
    assert backend.waited == [device]
    assert backend.emptied == 1


@pytest.mark.parametrize(
    "message",
    [
        "MPS backend out of memory (MPS allocated: 1 GB)",
        "XPU out of memory. Tried to allocate 2 GiB",
        "can't allocate memory",
    ],
)
def test_a_chunk_is_halved_and_the_cache_emptied(backend, message):
    def work(part: slice) -> int:
        if part.stop - part.start > 1:
            raise RuntimeError(message)
        return part.start

    assert is_out_of_memory(RuntimeError(message))
    assert list(in_chunks(work, 4, 4)) == [0, 1, 2, 3]
    assert backend.emptied == 2


def test_without_an_accelerator_nothing_is_done(monkeypatch):
    monkeypatch.setattr(accelerators, "accelerator", lambda: None)
    assert devices_in_use() == ("cuda", [])
    synchronize(torch.device("cuda"))
    empty_cache()
    with isolated_rng():
        nn.Dropout()(torch.ones(3))
