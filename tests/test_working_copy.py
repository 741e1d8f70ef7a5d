"""A copy computes what the network computes, from the same memory, and leaves the network alone."""

import functools
import logging
import threading

import pytest
import torch
from hidden_state import Drifting
from runs import Classifier, network
from torch import nn
from torch.nn.utils import parametrizations, prune

from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import record
from lightning_cnnvis.working_copy import working_copy

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def test_weights_share_memory_and_buffers_do_not():
    net = network().eval()
    twin = working_copy(net)
    assert [name for name, _ in twin.named_modules()] == [name for name, _ in net.named_modules()]
    for own, original in zip(twin.parameters(), net.parameters(), strict=True):
        assert own is not original
        assert own.data_ptr() == original.data_ptr()
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(twin.buffers(), net.buffers(), strict=True))
    assert torch.equal(twin(IMAGES), net(IMAGES))
    twin.requires_grad_(False)
    twin.train()
    assert not net.training
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_tied_weights_stay_tied():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    net[0].weight.decays = False
    twin = working_copy(net)
    assert twin[1].weight is twin[0].weight
    assert twin[0].weight.decays is False


def old_spectral_norm():
    net = network()
    torch.nn.utils.spectral_norm(net[0])
    return net


def old_weight_norm():
    net = network()
    torch.nn.utils.weight_norm(net[4])
    net(IMAGES)  # from then on the weight is a computed tensor
    return net


def pruned():
    net = network()
    prune.l1_unstructured(net[0], "weight", 0.5)
    return net


def parametrized():
    net = network()
    parametrizations.weight_norm(net[4])
    return net


def steered():
    net = network()
    net[2].register_forward_hook(lambda _, __, output: 2 * output)
    net[2].register_forward_pre_hook(functools.partial(lambda shift, _, inputs: inputs[0] + shift, 0.1))
    return net


def patched():
    net = network()
    original = net.forward
    net.forward = lambda images: original(images) + 1
    return net


def remembers():
    net = network()
    net.last = net(IMAGES)  # has a graph
    return net


def holds_a_lock():
    net = network()
    net.lock, net.log = threading.Lock(), logging.getLogger("net")
    return net


def compiled_inside():
    net = network()
    net[4] = torch.compile(net[4], backend="eager")
    return net


NETS = (
    old_spectral_norm, old_weight_norm, pruned, parametrized, steered, patched, remembers, holds_a_lock,
    compiled_inside,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated", "ignore:.*spectral_norm.*deprecated")
@pytest.mark.parametrize("make", NETS)
def test_networks_of_every_kind_compute_the_same(make):
    net = make().eval()
    with isolated(net) as twin:
        assert twin is not net
        with record(twin, ["5"], stop=False) as recorded:
            got = twin(IMAGES)
        assert recorded["5"].shape == (2, 5, 5, 5)
        assert torch.equal(got, net(IMAGES))


def test_hooks_on_gradients_are_left_out():
    net, called = network(), []
    net[2].register_full_backward_hook(lambda *_: called.append(1))
    net[2].register_full_backward_pre_hook(lambda *_: called.append(1))
    net[0].weight.register_hook(lambda _: called.append(1))
    working_copy(net)(IMAGES).sum().backward()
    assert not called
    assert net[0].weight.grad is None


def test_what_the_forward_pass_does_not_need_is_not_copied():
    net = network()
    net.images = torch.utils.data.TensorDataset(IMAGES)
    net.optimizer = torch.optim.SGD(net.parameters(), 0.1)
    twin = working_copy(net)
    assert twin.images is net.images
    assert twin.optimizer is net.optimizer


def test_a_method_of_the_module_around_works_on_a_copy_of_it():
    module = Classifier()

    def note(self, *_):
        self.losses.append(torch.zeros(()))

    module.model[2].register_forward_hook(note.__get__(module))
    working_copy(module.model)(IMAGES)
    assert not module.losses


def test_a_network_that_copies_itself_with_other_weights_is_not_copied():
    class Fresh(nn.Conv2d):
        def __deepcopy__(self, memo):
            return Fresh(3, 4, 3)

    net = nn.Sequential(Fresh(3, 4, 3))
    assert working_copy(net) is None
    with isolated(net) as same:
        assert same is net


def test_a_script_module_is_shared():
    scripted = torch.jit.script(nn.BatchNorm2d(3))
    net = nn.Sequential(scripted, Drifting("a dataclass"))
    with isolated(net, eval_mode=False) as twin:
        twin(IMAGES)
        assert twin[0] is scripted
    assert int(scripted.num_batches_tracked) == 0
    assert net[1].state.n == 0
    with isolated(scripted) as same:
        assert same is scripted


def test_inside_a_copy_there_is_no_other():
    net = network()
    with isolated(net) as twin:
        with isolated(twin) as same, isolated(twin[4]) as part:
            assert same is twin
            assert part is twin[4]
        with isolated(net) as other:
            assert other not in (net, twin)
    with isolated(twin) as other:
        assert other is not twin
