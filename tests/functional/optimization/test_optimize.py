"""The optimisation loop: independence of images, isolation, bad input."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_cnnvis.functional.optimization.loop import Batch, image_seeds, optimize
from lightning_cnnvis.functional.optimization.objectives import channel, class_logit, diversity, neuron
from lightning_cnnvis.functional.optimization.optimizers import Adam, Momentum
from lightning_cnnvis.functional.optimization.parameterizations import Pixels
from lightning_cnnvis.functional.optimization.recipes import Phase, Recipe
from lightning_cnnvis.functional.optimization.regularizers import AlphaNorm, Bounds, TotalVariation
from lightning_cnnvis.functional.optimization.transforms import RandomAffine, RandomRoll
from lightning_cnnvis.functional.visualization.presets import PRESETS, preset_recipe
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layers import LayerError

SPEC = InputSpec(size=(16, 20), mean=(0.5,), std=(0.25,))
RECIPE = Recipe((Phase(6, 0.05, transform=RandomAffine()), Phase(4, 0.05, 0.01, transform=RandomRoll(2))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 10),
    )


def run(net, classes, **batch):
    seeds = image_seeds(7, *classes)
    return optimize(net, class_logit(classes), RECIPE, Batch(seeds, **batch), input_spec=SPEC)


def test_image_does_not_depend_on_batch_order_or_chunk(net):
    together = run(net, range(9))
    torch.testing.assert_close(run(net, [4]).images[0], together.images[4], atol=1e-4, rtol=0)
    torch.testing.assert_close(run(net, range(9), chunk=2).images, together.images, atol=1e-4, rtol=0)
    backwards = run(net, list(reversed(range(9))))
    torch.testing.assert_close(backwards.images.flip(0), together.images, atol=1e-4, rtol=0)
    assert not torch.allclose(together.images[0], together.images[1], atol=0.05)


def test_same_seed_same_image_whatever_the_global_generator(net):
    first = run(net, [3])
    torch.manual_seed(99)
    assert torch.equal(run(net, [3]).images, first.images)


def test_history_and_frames(net):
    optimized = run(net, [1, 2], frames=[10, 0, 3])
    assert optimized.losses.shape == (2, 10)
    assert optimized.frames.shape == (2, 3, 3, 16, 20)
    assert torch.equal(optimized.frames[:, -1], optimized.images)
    assert (optimized.losses[:, -1] < optimized.losses[:, 0]).all()
    assert run(net, [1]).frames.shape[1] == 0


def test_loss_is_objective_plus_penalties(net):
    net.eval()
    start = torch.rand(2, 3, 16, 20)
    recipe = Recipe((Phase(1, 0.1),), Pixels(), regularizers=(TotalVariation(0.3), AlphaNorm(0.2, center=0.4)))
    optimized = optimize(net, class_logit([5, 6]), recipe, Batch([0, 1], starts=start), input_spec=SPEC)
    dx, dy = start.diff(dim=3), start.diff(dim=2)
    penalty = 0.3 * (dx.square().sum((1, 2, 3)) + dy.square().sum((1, 2, 3)))
    penalty += 0.2 * (start - 0.4).square().sum((1, 2, 3))
    logits = net((start - 0.5) / 0.25)[torch.arange(2), torch.tensor([5, 6])]
    torch.testing.assert_close(optimized.losses[:, 0], (penalty - logits).detach(), rtol=1e-4, atol=1e-3)


def test_steps_are_those_of_torch_optim(net):
    net.eval()
    start = torch.rand(1, 3, 16, 20)
    coefficient = 0.1 * start.numel() / 2  # torch adds weight_decay * p to the gradient
    for ours, options, theirs in [
        (Adam(), {"decay": 0.1}, lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
        (Adam(), {"prior": coefficient}, lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)),
        (Momentum(0.9), {}, lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)),
    ]:
        phase = Phase(5, 0.01, decay=options.get("decay", 0.0))
        recipe = Recipe((phase,), Pixels(center=0.0), ours, prior=options.get("prior", 0.0))
        optimized = optimize(net, class_logit([5]), recipe, Batch([0], starts=start), input_spec=SPEC)
        pixels = start.clone().requires_grad_()
        optimizer = theirs([pixels])
        for _ in range(5):
            (pixels.grad,) = torch.autograd.grad(-net((pixels - 0.5) / 0.25)[0, 5], pixels)
            optimizer.step()
        torch.testing.assert_close(optimized.images, pixels.detach(), atol=1e-5, rtol=0)


def test_phases(net):
    """The rate follows a cosine, the input another size, and a reset forgets the momentum."""
    phase = Phase(3, 1.0, 0.5)
    assert [phase.lr_at(i) for i in range(3)] == pytest.approx([1.0, 0.75, 0.5])
    start = torch.rand(1, 3, 16, 20)

    def result(reset):
        phases = (Phase(2, 0.1), Phase(2, 0.1, input_scale=0.75, reset=reset))
        recipe = Recipe(phases, Pixels(), Momentum(0.9), constraint=Bounds(-0.5, 0.5))
        return optimize(net, class_logit([5]), recipe, Batch([0], starts=start), input_spec=SPEC).images

    assert not torch.equal(result(True), result(False))
    assert result(True).min() >= 0
    assert result(True).max() <= 1


def test_rescue_of_a_dead_unit_leaves_neighbours_alone(net):
    with torch.no_grad():
        net[4].bias[3] = -0.6
        net[4].bias[4] = 0.2
    batch = Batch(image_seeds(0, 2, 3, 4))
    recipe = Recipe((Phase(30, 0.2),))
    with_dead = optimize(net, channel("5", [2, 3, 4]), recipe, batch, input_spec=SPEC)
    assert with_dead.rescued.tolist() == [False, True, False]
    assert with_dead.dead.tolist() == [False, False, False]
    no_rescue = optimize(net, channel("5", [2, 3, 4]), Recipe(recipe.phases, rescue=False), batch, input_spec=SPEC)
    assert no_rescue.dead.tolist() == [False, True, False]
    assert torch.equal(with_dead.images[[0, 2]], no_rescue.images[[0, 2]])


def test_hopeless_unit_is_reported_dead(net):
    with torch.no_grad():
        net[4].weight[3].zero_()
        net[4].bias[3] = -1.0
    optimized = optimize(net, channel("5", [3]), Recipe((Phase(20, 0.1),)), Batch([0]), input_spec=SPEC)
    assert optimized.dead.all()
    assert optimized.images.isfinite().all()


def test_group_stays_in_one_chunk(net):
    objective = class_logit([1, 1, 1, 2, 2, 2]) + 2.0 * diversity("5", 3)
    seeds = image_seeds(0, *range(6))
    whole = optimize(net, objective, RECIPE, Batch(seeds, group=3, chunk=6), input_spec=SPEC)
    chunks = optimize(net, objective, RECIPE, Batch(seeds, group=3, chunk=1), input_spec=SPEC)
    torch.testing.assert_close(whole.images, chunks.images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("fail", [False, True])
def test_model_is_left_as_it_was(net, fail):
    net.train()
    net[0].weight.requires_grad_(False)
    net[4].weight.grad = torch.ones_like(net[4].weight)
    before = copy.deepcopy(net.state_dict())
    generator = torch.get_rng_state()

    def broken(_images):
        raise KeyError("broken")

    recipe = Recipe(RECIPE.phases, regularizers=(broken,)) if fail else RECIPE
    if fail:
        with pytest.raises(KeyError, match="broken"):
            optimize(net, class_logit([1]), recipe, Batch([0]), input_spec=SPEC)
    else:
        optimize(net, class_logit([1]), recipe, Batch([0]), input_spec=SPEC)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert [p.requires_grad for p in net.parameters()] == [False] + [True] * 7
    assert [p.grad is not None for p in net.parameters()] == [name == "4.weight" for name, _ in net.named_parameters()]
    assert torch.equal(net[4].weight.grad, torch.ones_like(net[4].weight))
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.equal(torch.get_rng_state(), generator)


def test_out_of_memory_halves_the_chunk(net, monkeypatch):
    forward, sizes = type(net).forward, []

    def small_memory(self, inputs):
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("full")
        return forward(self, inputs)

    expected = run(net, range(4)).images
    monkeypatch.setattr(type(net), "forward", small_memory)
    torch.testing.assert_close(run(net, range(4)).images, expected, atol=1e-4, rtol=0)
    assert max(sizes[1:]) == 2


class HostReads(TorchDispatchMode):
    """Counts what makes the host wait for a device: values that are read, sizes that depend on values, constants."""

    WAITS = ("_local_scalar_dense", "nonzero", "unique", "equal", "lift_fresh", "masked_select")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += any(name in func.name() for name in self.WAITS)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_no_step_waits_for_the_device(net, preset):
    def reads(steps):
        recipe = preset_recipe(preset, SPEC, steps=steps)
        # their copies cost as much time as steps
        recipe = replace(recipe, phases=tuple(replace(phase, copies=min(2, phase.copies)) for phase in recipe.phases))
        objective = class_logit([1, 2]) + 0.1 * diversity("5", 2) + 0.1 * neuron("5", [1, 2])
        with HostReads() as mode:
            optimize(net, objective, recipe, Batch([0, 1], group=2), input_spec=SPEC)
        return mode.count

    reads(4)  # constants are made once
    assert reads(40) == reads(4) > 0


def test_bfloat16_and_double_models(net):
    recipe = Recipe(RECIPE.phases, precision="bfloat16")
    images = optimize(net, class_logit([1]), recipe, Batch([0]), input_spec=SPEC).images
    assert images.dtype == torch.float32
    assert images.isfinite().all()
    assert run(net.double(), [1]).images.dtype == torch.float64
    assert run(net.bfloat16(), [1]).images.dtype == torch.float32


def test_neuron_sits_where_it_was_asked_for(net):
    recipe = Recipe((Phase(3, 0.05),), Pixels(init_std=0.0))
    batch = Batch([0, 0, 0])
    net[1] = nn.Identity()
    optimized = optimize(net, neuron("4", [1, 1, 1], [(0, 0), (5, 7), (3, 4)]), recipe, batch, input_spec=SPEC)
    changed = (optimized.images - 0.5).abs().amax(1) > 1e-6
    boxes = [(c.nonzero().amin(0) + c.nonzero().amax(0)) / 2 for c in changed]
    assert boxes[0].max() < 4
    assert (boxes[1] > torch.tensor([9.0, 13.0])).all()
    centre = optimize(net, neuron("4", [1]), recipe, Batch([0]), input_spec=SPEC)
    torch.testing.assert_close(centre.images[0], optimized.images[2], atol=1e-5, rtol=0)


def test_bad_input(net):
    with pytest.raises(LayerError, match="no layer 'conv'"):
        optimize(net, channel("conv", [0]), RECIPE, Batch([0]), input_spec=SPEC)
    with pytest.raises(LayerError, match="not maps with positions"):
        optimize(net, neuron("8", [0]), RECIPE, Batch([0]), input_spec=SPEC)
    with pytest.raises(ValueError, match="steps=0"):
        Phase(0, 0.1)
    with pytest.raises(ValueError, match="lr="):
        Phase(1, -0.1)
    with pytest.raises(ValueError, match="phases"):
        Recipe(())
    with pytest.raises(ValueError, match="seeds is empty"):
        Batch([])
    with pytest.raises(ValueError, match="group=2"):
        Batch([0, 1, 2], group=2)
    with pytest.raises(ValueError, match="3 channels"):
        run(net, [1], starts=torch.rand(1, 1, 16, 20))
    with pytest.raises(ValueError, match="frames="):
        run(net, [1], frames=[11])
    with pytest.raises(ValueError, match="2 starts"):
        Batch([0], starts=torch.rand(2, 3, 8, 8))


def test_seeds_are_stable():
    assert image_seeds(0, ("class", 3, 0)) == image_seeds(0, "other", ("class", 3, 0))[1:]
    assert len(set(image_seeds(0, *range(100)) + image_seeds(1, *range(100)))) == 200
    assert all(0 <= seed < 2**63 for seed in image_seeds(0, *range(100)))
    assert math.isfinite(torch.rand(1, generator=torch.Generator().manual_seed(image_seeds(0, 1)[0])).item())
