"""Whatever the body does to the model or the process, nothing of it is left."""

import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_cnnvis.isolation import isolated, isolated_rng


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.BatchNorm2d(4).eval()
        self.drop = nn.Dropout()
        self.twin = self.conv  # shared
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.register_buffer("empty", None)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        self.last = images
        return self.drop(self.frozen(self.norm(self.conv(images))))


class Boom(Exception):
    pass


@contextmanager
def boom():
    with pytest.raises(Boom):
        yield


@pytest.fixture(params=[False, True], ids=["returns", "raises"])
def run(request):
    """Runs a body isolated, which ends normally or by an exception."""

    def runner(model, body, **options):
        if not request.param:
            with isolated(model, **options):
                body()
            return
        with boom(), isolated(model, **options):
            body()
            raise Boom

    return runner


def test_random_generators(run):
    net = Net()
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002

    def body():
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand(3)
        torch.manual_seed(7)

    run(net, body)
    assert states[0] == random.getstate()
    assert states[1] == str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(states[2], torch.get_rng_state())


def test_rng_alone():
    before = torch.get_rng_state()
    with boom(), isolated_rng():
        torch.rand(3)
        raise Boom
    assert torch.equal(before, torch.get_rng_state())


def test_training_flags_one_by_one(run):
    net = Net()
    before = {name: module.training for name, module in net.named_modules()}
    seen = []
    run(net, lambda: (seen.append({m.training for m in net.modules()}), net.train()))
    assert seen == [{False}]
    assert before == {name: module.training for name, module in net.named_modules()}
    assert not net.frozen.training


def test_eval_mode_can_be_left_out():
    net = Net()
    with isolated(net, eval_mode=False):
        assert net.norm.training
        assert not net.frozen.training


def test_batchnorm_statistics(run):
    net = Net()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    versions = {name: buffer._version for name, buffer in net.frozen.named_buffers()}
    run(net, lambda: net.train()(torch.rand(4, 3, 8, 8)))
    assert all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())
    net2 = Net()
    run(net2, lambda: net2(torch.rand(4, 3, 8, 8)))
    # what was not written keeps its version, which autograd checks
    assert versions == {name: buffer._version for name, buffer in net2.frozen.named_buffers()}


def test_buffers_replaced_added_removed_or_nan(run):
    net = Net()
    net.scratch.fill_(float("nan"))
    scratch, mean = net.scratch, net.norm.running_mean

    def body():
        net.scratch = torch.ones(5)
        net.norm.running_mean.data.add_(1)  # no version counter tells
        net.norm.running_mean = torch.ones(4)
        net.register_buffer("new", torch.ones(1))
        del net.frozen.running_var
        net.empty = torch.ones(1)

    run(net, body)
    assert net.scratch is scratch
    assert net.scratch.isnan().all()
    assert net.norm.running_mean is mean
    assert torch.equal(mean, torch.zeros(4))
    assert "new" not in dict(net.named_buffers())
    assert "scratch" in net._non_persistent_buffers_set
    assert net.frozen.running_var.shape == (4,)
    assert net.empty is None


def test_inference_buffers(run):
    net = Net()
    with torch.inference_mode():
        net.scratch = torch.zeros(2)

    def body():
        with torch.inference_mode():
            net.scratch.add_(1)

    run(net, body)
    assert net.scratch.is_inference()
    assert not net.scratch.any()


def test_sparse_and_uninitialised_buffers_do_no_harm(run):
    net = nn.Sequential(nn.LazyBatchNorm2d())
    net.register_buffer("adjacency", torch.eye(3).to_sparse())
    run(net, lambda: None)
    assert net.adjacency.is_sparse


def test_parameters_replaced(run):
    net = Net()
    weight = net.conv.weight

    def body():
        net.conv.weight = nn.Parameter(torch.zeros(1))
        net.conv.bias = None
        net.extra = nn.Linear(1, 1)

    run(net, body)
    assert net.conv.weight is weight is net.twin.weight
    assert net.conv.bias is not None
    assert not hasattr(net, "extra")


def test_gradients_are_neither_added_to_nor_lost(run):
    net = Net()
    net(torch.rand(2, 3, 8, 8)).square().sum().backward()
    net.norm.weight.grad = None
    grads = [(p.grad, None if p.grad is None else p.grad.clone()) for p in net.parameters()]

    def body():
        assert all(p.grad is None for p in net.parameters())
        net(torch.rand(2, 3, 8, 8)).square().sum().backward()
        net.zero_grad()

    run(net, body)
    for parameter, (grad, value) in zip(net.parameters(), grads, strict=True):
        assert parameter.grad is grad
        assert grad is None or torch.equal(grad, value)


def test_requires_grad(run):
    net = Net()
    net.frozen.requires_grad_(False)
    before = [p.requires_grad for p in net.parameters()]
    run(net, lambda: net.requires_grad_(not net.conv.weight.requires_grad))
    assert before == [p.requires_grad for p in net.parameters()]


def test_plain_attributes(run):
    net = Net()
    run(net, lambda: net(torch.rand(1, 3, 8, 8)))
    assert net.calls == 0
    assert not hasattr(net, "last")


HOOKS = {
    "forward": lambda m: m.register_forward_hook(lambda *_: None),
    "forward_kwargs": lambda m: m.register_forward_hook(lambda *_: None, with_kwargs=True),
    "always": lambda m: m.register_forward_hook(lambda *_: None, always_call=True),
    "pre": lambda m: m.register_forward_pre_hook(lambda *_: None),
    "pre_kwargs": lambda m: m.register_forward_pre_hook(lambda *_: None, with_kwargs=True),
    "backward": lambda m: m.register_full_backward_hook(lambda *_: None),
    "backward_pre": lambda m: m.register_full_backward_pre_hook(lambda *_: None),
    "state_dict": lambda m: m.register_state_dict_post_hook(lambda *_: None),
}


def hook_tables(module):
    return {name: list(table) for name, table in vars(module).items() if name.endswith("hooks") and table}


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_of_every_kind(run, kind):
    net = Net()
    mine: RemovableHandle = HOOKS[kind](net.conv)
    before = hook_tables(net.conv)

    def body():
        HOOKS[kind](net.conv)
        mine.remove()
        HOOKS[kind](net.norm)

    run(net, body)
    assert hook_tables(net.conv) == before
    assert not hook_tables(net.norm)
    mine.remove()  # the handle still works
    assert not hook_tables(net.conv)


def test_the_first_kind_of_backward_hook_is_forgotten(run):
    # a module takes either full backward hooks or the old ones, and notes which
    net = Net()
    run(net, lambda: net.conv.register_full_backward_hook(lambda *_: None))
    assert net.conv._is_full_backward_hook is None


def test_switches_of_the_process(run):
    def switches():
        cudnn = torch.backends.cudnn
        return (
            cudnn.enabled,
            cudnn.benchmark,
            cudnn.deterministic,
            cudnn.conv.fp32_precision,
            cudnn.rnn.fp32_precision,
            torch.backends.cuda.matmul.fp32_precision,
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.get_default_dtype(),
        )

    def body():
        cudnn = torch.backends.cudnn
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = False, True, True
        cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.use_deterministic_algorithms(True)
        torch.set_default_dtype(torch.float64)

    before = switches()
    run(Net(), body)
    assert switches() == before


def test_deterministic_algorithms_only_warn_inside():
    torch.use_deterministic_algorithms(True)
    try:
        with isolated(Net()):
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_benchmark_is_off_inside(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with isolated(Net()):
        assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark


def test_an_inference_mode_caller_gets_gradients_inside():
    net = Net()
    images = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        with isolated(net):
            x = images.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(net(x).sum(), x)
        assert torch.is_inference_mode_enabled()
    assert gradient.any()
    assert not net.norm.running_mean.any()


def test_no_grad_and_autocast_callers():
    net = Net()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        with isolated(net):
            assert torch.is_grad_enabled()
            assert net(torch.rand(1, 3, 8, 8)).dtype == torch.float32
        assert not torch.is_grad_enabled()
        assert net.conv(torch.rand(1, 3, 8, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("in_place", [False, True])
def test_hooks_fire_on_a_compiled_network(in_place):
    torch._dynamo.reset()
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    compiled = net
    if in_place:
        net.compile(backend="eager")
    else:
        compiled = torch.compile(net, backend="eager")
    images = torch.rand(1, 3, 8, 8)
    expected = compiled(images)
    fired = []
    with isolated(compiled):
        net[0].register_forward_hook(lambda *_: fired.append(True))
        compiled(images)
    assert fired == [True]
    assert torch.equal(compiled(images), expected)
    assert fired == [True]


def test_script_modules_keep_their_mode(run):
    net = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout()), torch.rand(1, 3, 8, 8), check_trace=False)
    net.train()
    run(net, lambda: net(torch.rand(1, 3, 8, 8)))
    assert net.training


def test_a_model_without_parameters(run):
    run(nn.ReLU(), lambda: None)


def test_nesting():
    net = Net()
    with isolated(net):
        with isolated(net, eval_mode=False):
            assert not net.training
            net.train()
        assert not net.training
    assert net.training
