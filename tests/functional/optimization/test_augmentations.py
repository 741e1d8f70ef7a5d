"""Moves of published recipes, copies of an image, growing images, and penalties on BatchNorm's inputs."""

import pytest
import torch
from torch import nn

from lightning_cnnvis.functional import (
    Batch,
    BatchNormPrior,
    ColorShift,
    DifferenceNorm,
    Fourier,
    InOrder,
    InputSpec,
    Phase,
    Pixels,
    RandomBoxes,
    RandomFlip,
    RandomRoll,
    Recipe,
    RootNorm,
    channel,
    optimize,
)

SPEC = InputSpec(size=(16, 12), mean=(0.5,), std=(0.25,))
MOVES = [RandomBoxes(), ColorShift(), RandomFlip(), InOrder((RandomRoll(2), RandomFlip(), ColorShift()))]


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
    net(torch.randn(8, 3, 16, 12))
    return net.eval()


@pytest.mark.parametrize("transform", MOVES, ids=lambda transform: type(transform).__name__)
def test_each_image_is_moved_by_its_own_numbers(transform):
    images, uniform = torch.rand(3, 3, 10, 8), torch.rand(3, transform.draws)
    together = transform(images, uniform, (7, 9))
    assert together.shape == (3, 3, 7, 9)
    torch.testing.assert_close(transform(images[1:2], uniform[1:2], (7, 9)), together[1:2])


def test_colours_are_shifted_by_no_more_than_asked_for():
    shift = ColorShift(mean=0.5, std=1.0)
    dark = shift(torch.zeros(64, 3, 1, 1), torch.rand(64, 6), (1, 1))
    assert dark.abs().max() <= 0.5 * torch.e
    assert (dark > 0).any()
    assert (dark < 0).any()
    with pytest.raises(ValueError, match="std=-1"):
        ColorShift(std=-1)
    with pytest.raises(ValueError, match="channels=0"):
        ColorShift(channels=0)
    with pytest.raises(ValueError, match="4 channels, and channels=3"):
        shift(torch.zeros(1, 4, 1, 1), torch.rand(1, 6), (1, 1))
    with pytest.raises(ValueError, match="is empty"):
        InOrder(())


def run(net, phases, count=1, parameterization=None, **batch):
    recipe = Recipe(phases, parameterization or Pixels())
    return optimize(net, channel("3", range(count)), recipe, Batch(range(count), **batch), input_spec=SPEC)


def test_copies_are_averaged(net):
    """Copies that are not moved are one copy; moved ones have moves of their own."""
    one, three = (run(net, (Phase(3, 0.1, copies=copies),)) for copies in (1, 3))
    torch.testing.assert_close(three.images, one.images)
    torch.testing.assert_close(three.losses, one.losses)
    moved = [run(net, (Phase(1, 0.1, transform=ColorShift(), copies=copies),)).losses for copies in (1, 4)]
    assert not torch.allclose(*moved)
    with pytest.raises(ValueError, match="copies=0"):
        Phase(1, 0.1, copies=0)


@pytest.mark.parametrize("parameterization", [Pixels(), Fourier()], ids=["pixels", "fourier"])
def test_images_grow(net, parameterization):
    phases = (Phase(2, 0.01, image_scale=0.5), Phase(2, 0.01))
    grown = run(net, phases, 2, parameterization, frames=[0, 2, 4], transparency=True)
    assert grown.frames.shape == (2, 3, 3, 16, 12)
    assert grown.transparency.shape == (2, 16, 12)
    # the first frame has no finer detail than half of the size can show
    fine = grown.frames.diff(dim=-1).diff(dim=-1).abs().mean((0, 2, 3, 4))
    assert fine[0] < 2 * fine[1]
    alone = run(net, phases, 1, parameterization, frames=[0, 2, 4])
    torch.testing.assert_close(alone.images, grown.images[:1], atol=1e-4, rtol=0)
    small = run(net, (Phase(1, 0.01, image_scale=0.5),))
    assert small.images.shape == (1, 3, 16, 12)
    with pytest.raises(ValueError, match="image_scale=0"):
        Phase(1, 0.1, image_scale=0)


def test_transparency_is_the_sum_of_the_gradients(net):
    start = torch.rand(2, 3, 16, 12)
    recipe = Recipe((Phase(1, 0.1),), Pixels())
    batch = Batch([0, 1], starts=start, transparency=True)
    shown = optimize(net, channel("3", [0, 1]), recipe, batch, input_spec=SPEC)
    leaf = start.clone().requires_grad_()
    score = net[:4]((leaf - 0.5) / 0.25).mean((2, 3))[[0, 1], [0, 1]].sum()
    (expected,) = torch.autograd.grad(score, leaf)
    torch.testing.assert_close(shown.transparency, expected.abs().mean(1))
    assert run(net, (Phase(1, 0.1),)).transparency is None


def test_batchnorm_prior_is_about_each_image(net):
    images = torch.rand(3, 3, 16, 12)
    with BatchNormPrior(0.5, first=4.0).watching(net) as penalties:
        net(images)
    seen = net[0](images).flatten(2)
    first = (seen.mean(2) - net[1].running_mean).norm(dim=1) + (seen.var(2, False) - net[1].running_var).norm(dim=1)
    torch.testing.assert_close(penalties[0], 2 * first)
    with BatchNormPrior(0.5, first=4.0).watching(net) as alone:
        net(images[1:2])
    torch.testing.assert_close(sum(alone), sum(penalties)[1:2])
    assert not any(module._forward_pre_hooks for module in net.modules())
    with pytest.raises(ValueError, match=r"no BatchNorm layer.*another preset"):
        optimize(
            nn.Sequential(nn.Conv2d(3, 4, 3)),
            channel("0", [0]),
            Recipe((Phase(1, 0.1),), network_prior=BatchNormPrior()),
            Batch([0]),
            input_spec=SPEC,
        )


def test_batchnorm_prior_moves_the_image(net):
    def distance(prior):
        recipe = Recipe((Phase(30, 0.05),), Pixels(init_std=0.3), network_prior=prior)
        images = optimize(net, 0 * channel("4", [0]), recipe, Batch([0]), input_spec=SPEC).images
        with BatchNormPrior(1.0).watching(net) as penalties, torch.no_grad():
            net((images - 0.5) / 0.25)
        return sum(penalties).item()

    assert distance(BatchNormPrior(1.0)) < 0.5 * distance(None)


def test_norms_are_of_each_image():
    images = torch.rand(2, 3, 6, 5)
    assert RootNorm(2.0, unit=0.5)(images)[1] == pytest.approx(4 * (images[1] - 0.5).norm().item(), rel=1e-5)
    for penalty in (DifferenceNorm(1.0), RootNorm(1.0)):
        torch.testing.assert_close(penalty(images[1:]), penalty(images)[1:])
    assert DifferenceNorm(1.0)(torch.ones(1, 1, 4, 4)).item() == 0
