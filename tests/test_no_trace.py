"""Every function and every callback leaves the model and the process as they were, whether it succeeds or fails."""

from __future__ import annotations

import warnings
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from importlib import import_module

import hidden_state
import pytest
import snapshots
import torch
from runs import FIGURES, OPTIMISATION, PROJECTION, SIDE, SPEC, Classifier, NoLuck, break_functions, every_callback, fit
from torch import nn
from torch.nn.parameter import is_lazy

from lightning_cnnvis import functional
from lightning_cnnvis.callbacks import VisualizationCallback, callback_class
from lightning_cnnvis.functional import DreamOptions
from lightning_cnnvis.methods import method_names

IMAGES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
ONCE = DreamOptions(octaves=2, steps=2)
CHANNELS = torch.tensor([0, 1, 0])


class Odd(nn.Module):
    """A network in the middle of its training, with all that could be lost; ``fails_at`` is a call that fails."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3),
            nn.BatchNorm2d(5).eval().requires_grad_(False), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Dropout(), nn.Linear(20, 3),
        )  # fmt: skip
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.count = torch.zeros(())
        self.seen: list[torch.Size] = []
        self.noted: dict[int, torch.Size] = {}
        self.fails_at = float("inf")
        self.model[4].register_forward_hook(lambda *_: None)
        self.model[0].weight.register_hook(lambda gradient: gradient)
        self(IMAGES).square().sum().backward()

    def forward(self, images):
        self.calls += 1
        self.count += 1
        self.seen.append(images.shape)
        self.noted[len(self.seen)] = images.shape
        if len(self.seen) >= self.fails_at:
            raise NoLuck
        return self.model(images)


TOPS = functional.top_activations(Odd(), [IMAGES], ["model.6"], k=2)["model.6"]

FUNCTIONS = {
    "correspondence": lambda net, images: functional.correspondence(
        net, images, {"eye": [[2, 3, 6, 8]] * len(images)}, ["model.2", "model.6"], input_spec=SPEC, random_sets=2
    ),
    "diagnose": lambda net, images: functional.diagnose(net, [images], input_spec=SPEC),
    "accentuate": lambda net, images: functional.accentuate(
        net, (images[0] - images[0].min()) / 9, input_spec=SPEC, classes=[1, 2], steps=2
    ),
    "stylize": lambda net, images: functional.stylize(net, images[:1], images[1:3], input_spec=SPEC, steps=2),
    "dream": lambda net, images: functional.dream(net, images[:1], "model.6", input_spec=SPEC, options=ONCE),
    "dream from noise": lambda net, images: functional.dream(net, None, "model.6", input_spec=SPEC, options=ONCE),
    "dream with a guide": lambda net, images: functional.dream(
        net, images[:1], "model.6", input_spec=SPEC, options=ONCE, guide=images[1]
    ),
    "zoom": lambda net, images: list(
        functional.zoom(net, images[:1], "model.6", input_spec=SPEC, options=ONCE, frames=2)
    ),
    "invert": lambda net, images: functional.invert(net, images, "model.6", input_spec=SPEC, steps=2),
    "invert, 2014": lambda net, images: functional.invert(
        net, images, "model.6", input_spec=SPEC, steps=2, method="mahendran2014"
    ),
    "invert_layers": lambda net, images: functional.invert_layers(
        net, images, ["model.2", "model.10"], input_spec=SPEC, steps=2, restarts=2
    ),
    "invert, with others": lambda net, images: functional.invert(
        net, images, "model.6", input_spec=SPEC, steps=1, options=functional.InversionOptions(others=images)
    ),
    "maximize_activation": lambda net, images: functional.maximize_activation(
        net, "model.6", [0, 1], input_spec=SPEC, steps=2
    ),
    "visualize_classes": lambda net, images: functional.visualize_classes(net, [0, "dog"], input_spec=SPEC, steps=2),
    "visualize_classes, deepinversion": lambda net, images: functional.visualize_classes(
        net, [0], input_spec=SPEC, steps=2, preset="deepinversion"
    ),
    "visualize_classes, plug_in": lambda net, images: functional.visualize_classes(
        net, [0], input_spec=SPEC, steps=8, preset="plug_in"
    ),
    "occlusion": lambda net, images: functional.occlusion(net, images[:2], input_spec=SPEC, patch=6, stride=5),
    "patches": lambda net, images: functional.patches(net, [images], "model.10", [0, 2], k=2, patch=6, stride=5),
    "project": lambda net, images: functional.project(net, images, "model.6", CHANNELS),
    "project, whole": lambda net, images: functional.project(net, images, "model.6", CHANNELS, windowed=False),
    "randomization_test": lambda net, images: functional.randomization_test(
        net, images, "model.6", CHANNELS, samples=2
    ),
    "judge_images": lambda net, images: functional.judge_images(images[:1], [0], [net], input_spec=SPEC),
    "path_similarity": lambda net, images: functional.path_similarity(net, images[:1], images, ["model.2", "model.6"]),
    "receptive_field": lambda net, images: functional.receptive_field(net, "model.6", (SIDE, SIDE)),
    "top_activations": lambda net, images: functional.top_activations(net, [images], ["model.2", "model.6"], k=2),
    "transformation_invariance": lambda net, images: functional.transformation_invariance(
        net, images, ["model.6"], input_spec=SPEC, rotations=[0, 90]
    ),
    "unit_invariance": lambda net, images: functional.unit_invariance(
        net, "model.2", [0], input_spec=SPEC, images=images[:1], num_directions=1, frequencies=1
    ),
    "TopActivations.project": lambda net, _: TOPS.project(net, "model.6"),
}


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


CALLERS = {
    "plain": [],
    "inference mode": [torch.inference_mode],
    "no gradients, autocast": [torch.no_grad, lambda: torch.autocast("cpu", dtype=torch.bfloat16)],
    "deterministic": [deterministic],
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_leaves_no_trace(name, caller):
    net = Odd()
    with ExitStack() as stack:
        for enter in CALLERS[caller]:
            stack.enter_context(enter())
        before = {**snapshots.of_model(net), **snapshots.of_process()}
        result = FUNCTIONS[name](net, IMAGES.clone())
        after = {**snapshots.of_model(net), **snapshots.of_process()}
    assert result is not None
    assert snapshots.differences(before, after) == []


@pytest.mark.parametrize("fails_after", [0, 1, 2])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_fails_leaves_no_trace(name, fails_after):
    net = Odd()
    net.fails_at = len(net.seen) + 1 + fails_after
    before = {**snapshots.of_model(net), **snapshots.of_process()}
    try:
        FUNCTIONS[name](net, IMAGES)
    except NoLuck:
        pass
    else:
        pytest.skip("the network does not run as often")
    after = {**snapshots.of_model(net), **snapshots.of_process()}
    assert snapshots.differences(before, after) == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_leaves_hidden_state_alone(name):
    kinds = [kind for kind in hidden_state.STATES if kind != "beside a lock"]
    drifting = nn.ModuleList(hidden_state.Drifting(kind) for kind in kinds)
    net = Odd()
    net.model[0] = nn.Sequential(net.model[0], *drifting)
    gathered: list[torch.Size] = []
    net.model[2].register_forward_hook(lambda _, __, output: gathered.append(output.shape))
    expected = [deepcopy(module).use(deepcopy(module.state)) for module in drifting[:-1]]
    assert FUNCTIONS[name](net, IMAGES.clone()) is not None
    assert [module.use(module.state) for module in drifting[:-1]] == expected
    assert drifting[-1].use(drifting[-1].state) == 1
    assert not gathered


def test_functions_take_networks_that_are_not_built_yet():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    functional.visualize_classes(net, [0], input_spec=SPEC, steps=1)
    functional.project(net, IMAGES, "2", CHANNELS)
    functional.dream(net, IMAGES[:1], "2", input_spec=SPEC, options=ONCE)
    assert all(is_lazy(parameter) for parameter in net.parameters())
    assert [type(module).__name__ for module in net][:2] == ["LazyConv2d", "LazyBatchNorm2d"]
    assert net(IMAGES).shape == (3, 3)


def test_functions_give_their_memory_back():
    def run_all():
        net = Odd()
        for function in FUNCTIONS.values():
            function(net, IMAGES)

    run_all()  # what is made once and kept
    alive = snapshots.tensors_alive()
    run_all()
    assert snapshots.tensors_alive() <= alive


# Callbacks: each time one is at work, whatever stage it fails at.


@pytest.fixture
def changed(monkeypatch) -> dict[str, list[str]]:
    """What each callback's work changed, be it the trial before the training or an epoch's pictures."""
    changed: dict[str, list[str]] = {}

    def watch(name):
        original = getattr(VisualizationCallback, name)

        def watched(callback, trainer, pl_module, *arguments):
            def noted():
                of_model = snapshots.of_model(pl_module)
                return {**of_model, **snapshots.of_process(), "weights alone": list(pl_module.state_dict())}

            before = noted()
            try:
                original(callback, trainer, pl_module, *arguments)
            finally:
                changed[f"{type(callback).__name__}.{name}"] = snapshots.differences(before, noted())

        monkeypatch.setattr(VisualizationCallback, name, watched)

    watch("_show")
    watch("_check")
    return changed


def train(folder, **options):
    module = Classifier(dropout=True)
    module.model[1].eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(folder, *every_callback(on_error="warn"), module=module, accumulate_grad_batches=2, **options)


KINDS = [callback_class(name).__name__ for name in method_names()]


@pytest.mark.parametrize("broken", [(), PROJECTION, OPTIMISATION, FIGURES], ids=str)
def test_a_callback_leaves_no_trace(tmp_path, monkeypatch, changed, broken):
    break_functions(monkeypatch, *broken)
    train(tmp_path)
    assert changed == {f"{kind}.{name}": [] for kind in KINDS for name in ("_show", "_check")}


@pytest.mark.parametrize(
    ("within", "who"),
    [("functional.deconvnet.batching.RectifiedBackward", KINDS[0]), ("functional.optimization.loop.report", KINDS[1])],
)
def test_ctrl_c_in_the_middle_of_a_callback_leaves_no_trace(tmp_path, monkeypatch, changed, within, who):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(VisualizationCallback, "_check", lambda *_: None)  # which would be the first to be interrupted
    module, _, name = within.rpartition(".")
    monkeypatch.setattr(import_module(f"lightning_cnnvis.{module}"), name, interrupt)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path)
    assert changed[f"{who}._show"] == []
    assert f"{KINDS[-1]}._show" not in changed  # stopped at once
