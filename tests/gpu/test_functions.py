"""Every public function gives on a GPU what it gives on the CPU, and leaves the GPU as it was."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import pytest
import snapshots
import torch
from gpu.cases import FUNCTIONS, assert_close, images, tensors_of, trained
from runs import SPEC
from torch import nn

from lightning_cnnvis import functional

pytestmark = pytest.mark.gpu

PASSES = ["project", "project, guided", "project, whole", "project, positions", "top_activations", "Harvest"]
"""What takes single passes, so that float32 stays close: optimisers amplify the difference."""

NUMBERS = {"receptive_field", "correspondence", "transformation_invariance"}
"""What returns numbers, and no picture."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_what_it_gives_on_the_cpu(device, name):
    expected = FUNCTIONS[name](trained().double(), images())
    assert_close(FUNCTIONS[name](trained().double().to(device), images().to(device)), expected)


@pytest.mark.parametrize("name", PASSES)
def test_float32_is_as_close_as_float32_can_be(device, name):
    expected = FUNCTIONS[name](trained(), images().float())
    assert_close(FUNCTIONS[name](trained().to(device), images().float().to(device)), expected, 1e-4)


@pytest.mark.parametrize("name", PASSES)
def test_bfloat16_runs_in_bfloat16(device, name):
    net, x = trained().bfloat16().to(device), images().bfloat16().to(device)
    found = tensors_of(FUNCTIONS[name](net, x))
    assert torch.bfloat16 in {tensor.dtype for tensor in found.values()}
    assert all(tensor.isfinite().all() for tensor in found.values())


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in NUMBERS])
def test_pixels_are_on_the_device_of_the_network(device, name):
    found = tensors_of(FUNCTIONS[name](trained().double().to(device), images().to(device)))
    pixels = {key: tensor for key, tensor in found.items() if tensor.ndim >= 3 and tensor.is_floating_point()}
    assert pixels
    assert {tensor.device for tensor in pixels.values()} == {device}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_channels_last_changes_nothing(device, name):
    expected = FUNCTIONS[name](trained().double(), images())
    net = trained().double().to(device, memory_format=torch.channels_last)
    x = images().to(device, memory_format=torch.channels_last)
    assert_close(FUNCTIONS[name](net, x), expected)
    assert net[4].weight.is_contiguous(memory_format=torch.channels_last)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("where", ["default device", "default device, network on the CPU"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_default_device_is_not_asked(device, name, where):
    expected = FUNCTIONS[name](trained().double(), images())
    place = torch.device("cpu") if "CPU" in where else device
    net, x = trained().double().to(place), images().to(place)
    with default_device(device):
        result = FUNCTIONS[name](net, x)
    assert_close(result, expected)


CALLERS = {
    "plain": [],
    "inference mode": [torch.inference_mode],
    "autocast": [torch.no_grad, lambda: torch.autocast("cuda", dtype=torch.float16)],
}


@contextmanager
def switches(**flags):
    """cuDNN's flags and deterministic algorithms as a user may have set them."""
    before = {name: getattr(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    for name, value in flags.items():
        setattr(torch.backends.cudnn, name, value)
    torch.use_deterministic_algorithms(flags.get("deterministic", False))
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        for name, value in before.items():
            setattr(torch.backends.cudnn, name, value)


@pytest.mark.parametrize("flags", [{}, {"benchmark": True}, {"deterministic": True}, {"enabled": False}], ids=str)
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", ["project", "top_activations", "visualize_classes", "dream", "invert", "invert, 2014"])
def test_a_function_leaves_no_trace(device, name, caller, flags):
    net, x = trained().double().to(device).train(), images().to(device)
    with switches(**flags):
        torch.manual_seed(3)
        contexts = [enter() for enter in CALLERS[caller]]
        for context in contexts:
            context.__enter__()
        try:
            before = {**snapshots.of_model(net), **snapshots.of_process()}
            FUNCTIONS[name](net, x)
            after = {**snapshots.of_model(net), **snapshots.of_process()}
        finally:
            for context in reversed(contexts):
                context.__exit__(None, None, None)
    assert snapshots.differences(before, after) == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_memory_is_kept(cuda, name):
    net, x = trained().double().to(cuda), images().to(cuda)
    FUNCTIONS[name](net, x)  # cuDNN and cuBLAS keep workspaces
    gc.collect()
    before = torch.cuda.memory_allocated()
    FUNCTIONS[name](net, x)
    gc.collect()
    assert torch.cuda.memory_allocated() == before


class Dropping(nn.Module):
    """Draws from the generators of every device in each pass, in evaluation mode too."""

    def forward(self, x):
        torch.rand(1), torch.rand(1, device=x.device)
        return x


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "Harvest"])  # whose passes are the user's
def test_the_generators_of_every_device_are_put_back(device, name):
    net = nn.Sequential(*trained().double(), Dropping()).to(device)
    x = images().to(device)
    torch.manual_seed(5)
    expected = torch.rand(4), torch.rand(4, device=device)
    torch.manual_seed(5)
    FUNCTIONS[name](net, x)
    for drawn, wanted in zip((torch.rand(4), torch.rand(4, device=device)), expected, strict=True):
        assert torch.equal(drawn, wanted)


@pytest.mark.parametrize("name", ["visualize_classes", "dream from noise", "invert", "maximize_activation"])
def test_a_seed_gives_one_picture_whatever_the_generators_hold(device, name):
    net, x = trained().double().to(device), images().to(device)
    torch.manual_seed(1)
    first = FUNCTIONS[name](net, x)
    torch.manual_seed(2)
    assert_close(FUNCTIONS[name](net, x), first, 1e-10)


def test_images_on_another_device_are_refused(cuda):
    with pytest.raises(ValueError, match=r"images are on cpu and the model is on cuda:0.*Move one"):
        functional.project(trained().to(cuda), images().float(), "5", torch.zeros(3, dtype=torch.long))


def test_a_loader_may_give_images_of_the_cpu(device):
    expected = FUNCTIONS["top_activations"](trained(), images().float())
    assert_close(FUNCTIONS["top_activations"](trained().to(device), images().float()), expected, 1e-4)


def test_a_device_that_is_not_the_current_one(cuda):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one CUDA device")
    other = torch.device("cuda:1")
    for name, function in FUNCTIONS.items():
        expected = function(trained().double(), images())
        result = function(trained().double().to(other), images().to(other))
        assert_close(result, expected), name
        assert torch.cuda.current_device() == 0


@pytest.mark.parametrize("wrap", ["in place", "outside"])
@pytest.mark.parametrize("name", ["project", "top_activations", "visualize_classes", "dream", "invert"])
def test_compiled_networks(device, name, wrap):
    torch._dynamo.reset()
    expected = FUNCTIONS[name](trained().double(), images())
    net, x = trained().double().to(device), images().to(device)
    backend = "inductor" if device.type == "cuda" and name == "project" else "aot_eager"
    if wrap == "in place":
        net.compile(backend=backend)
        compiled = net
    else:
        compiled = nn.Sequential(*net)
        compiled[6] = torch.compile(net[6], backend=backend)
    with torch.no_grad():
        compiled(x)  # which compiles
    assert_close(FUNCTIONS[name](compiled, x), expected)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), trained().double().to(device)(x))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_network_may_run_in_bfloat16(device, precision):
    net = trained().to(device, memory_format=torch.channels_last)
    options = functional.VisualizationOptions(precision=precision)
    shown = functional.visualize_classes(net, [0, 1], input_spec=SPEC, steps=4, options=options)
    assert shown.images.dtype == torch.float32
    assert shown.images.isfinite().all()
