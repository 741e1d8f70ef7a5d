"""Transforms against finite differences and independent computations."""

import pytest
import torch

from lightning_cnnvis.functional.optimization.transforms import RandomAffine, RandomRoll, resize

SIZE = (7, 9)


@pytest.mark.parametrize(
    "transform",
    [
        RandomAffine(jitter=0.2, scale=(1.0, 1.0), rotate=0.0),
        RandomAffine(jitter=0.0, scale=(0.7, 1.4), rotate=0.0),
        RandomAffine(jitter=0.0, scale=(1.0, 1.0), rotate=30.0),
        RandomAffine(),
        RandomRoll(2),
    ],
    ids=["jitter", "scale", "rotate", "affine", "roll"],
)
@pytest.mark.parametrize("size", [SIZE, (5, 12)])
def test_gradient_reaches_the_image(transform, size):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 2, *SIZE, dtype=torch.float64, generator=generator, requires_grad=True)
    uniform = torch.rand(2, transform.draws, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda x: transform(x, uniform, size), images)
    (gradient,) = torch.autograd.grad(transform(images, uniform, size).sum(), images)
    assert (gradient.abs().sum((1, 2, 3)) > 0).all()


def test_each_image_is_moved_by_its_own_numbers():
    images, uniform = torch.rand(3, 3, *SIZE), torch.rand(3, 4)
    for transform in (RandomAffine(), RandomRoll(3)):
        together = transform(images, uniform[:, : transform.draws], SIZE)
        alone = transform(images[1:2], uniform[1:2, : transform.draws], SIZE)
        torch.testing.assert_close(together[1:2], alone)


def test_roll_is_torch_roll():
    images = torch.rand(2, 3, *SIZE)
    uniform = torch.tensor([[0.0, 0.999], [0.5, 0.25]])  # of five shifts: -2, 2; 0, -1
    rolled = RandomRoll(2)(images, uniform, SIZE)
    assert torch.equal(rolled[0], images[0].roll((-2, 2), (1, 2)))
    assert torch.equal(rolled[1], images[1].roll((0, -1), (1, 2)))


def test_rotation_keeps_the_aspect():
    """A quarter turn of a square inside an oblong image, against `torch.rot90`."""
    images = torch.zeros(1, 1, 9, 15)
    images[..., 3:8, 4:9] = torch.rand(5, 5)
    quarter = RandomAffine(jitter=0.0, scale=(1.0, 1.0), rotate=90.0)
    turned = quarter(images, torch.tensor([[0.5, 0.5, 0.5, 1.0]]), (9, 15))
    middle = slice(3, 12)
    expected = [torch.rot90(images[..., middle], k, (2, 3)) for k in (1, 3)]
    assert min((turned[..., middle] - e).abs().max() for e in expected) < 1e-5


def test_scale_magnifies():
    images = torch.zeros(1, 1, 32, 32)
    images[..., 12:20, 12:20] = 1
    double = RandomAffine(jitter=0.0, scale=(2.0, 2.0), rotate=0.0)
    assert double(images, torch.rand(1, 4), (32, 32)).sum() == pytest.approx(256, rel=0.01)


def test_resize_and_bad_values():
    images = torch.rand(1, 3, 8, 8)
    assert resize(images, (8, 8)) is images
    assert resize(images, (4, 4)).mean() == pytest.approx(images.mean().item(), abs=0.02)
    with pytest.raises(ValueError, match="scale="):
        RandomAffine(scale=(1.1, 0.9))
    with pytest.raises(ValueError, match="jitter=-1"):
        RandomAffine(jitter=-1)
