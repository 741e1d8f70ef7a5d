"""MaCo's parts: magnitudes that stay those asked for, tables of spectra, boxes, noise."""

import pytest
import torch
from torch import nn

from lightning_cnnvis.functional import (
    Batch,
    FixedMagnitude,
    ImageStatistics,
    Nadam,
    OwnMagnitude,
    Phase,
    RandomBoxes,
    Recipe,
    channel,
    image_seeds,
    optimize,
    preset_recipe,
)
from lightning_cnnvis.functional.noise import hashed_gaussian
from lightning_cnnvis.inputs import InputSpec


def natural_images(count, size):
    """Smooth noise in three colours that are alike."""
    noise = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)
    return smooth + 2 * smooth.mean(1, keepdim=True) - 0.8


@pytest.mark.parametrize("size", [(32, 32), (15, 20), (9, 13)])
def test_images_have_the_magnitudes_asked_for(size):
    maco = FixedMagnitude()
    images = maco.decode(maco.init([torch.Generator().manual_seed(s) for s in (0, 1)], (3, *size)).double(), size)
    expected = maco.magnitude(size).double()
    found = maco.spectrum(images).abs()
    torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-3, atol=1e-3 * expected.max().item())


def test_magnitudes_stay_through_the_optimisation():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5), torch.nn.ReLU())
    statistics = ImageStatistics.measure(natural_images(8, (32, 32)))
    recipe = preset_recipe("maco", InputSpec(size=(24, 24)), steps=4, statistics=statistics)
    assert (recipe.phases[0].copies, preset_recipe("maco", InputSpec()).steps) == (32, 256)
    batch = Batch([0, 1], size=(40, 36), frames=[0])
    optimized = optimize(net, channel("1", [0, 3]), recipe, batch, input_spec=InputSpec(size=(24, 24)))
    assert (optimized.images - optimized.frames[:, 0]).abs().mean() > 0.02
    expected = recipe.parameterization.magnitude((40, 36))
    found = recipe.parameterization.spectrum(optimized.images.double()).abs().float()
    assert ((found - expected).flatten(1).norm(dim=1) < 0.01 * expected.norm()).all()


def test_phases_of_a_given_image_are_kept():
    maco = FixedMagnitude(standardize=False)
    image = natural_images(1, (24, 20)).double()
    again = maco.spectrum(maco.decode(maco.encode(image), (24, 20)))
    turn = (again / maco.spectrum(image)).angle()[..., 1:-1]
    assert turn.abs().max() < 0.02


def test_measured_spectra_are_those_of_the_images():
    """Amplitudes by direction: waves that are stronger along one axis, in another size than they were measured in."""
    generator = torch.Generator().manual_seed(0)

    def images(side, count):
        noise = torch.fft.rfft2(torch.randn(count, 1, side, side, generator=generator))
        fy, fx = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
        shape = (fy**2 + (2 * fx) ** 2).clamp_min(1 / side**2) ** -0.6
        shape[0, 0] = 0
        waves = torch.fft.irfft2(noise * shape, s=(side, side))
        return 0.5 + 0.1 * waves / waves.std(), shape

    statistics = ImageStatistics.measure(images(64, 24)[0])
    expected = images(48, 1)[1]
    found = FixedMagnitude(statistics).magnitude((48, 48), channels=1)[0]
    middle = (slice(4, 20), slice(4, 20))
    ratio = (found / expected)[middle]
    assert (ratio / ratio.mean() - 1).abs().mean() < 0.1
    assert found[10, 0] / found[0, 10] == pytest.approx(2**1.2, rel=0.15)
    assert hash(statistics) == hash(ImageStatistics(*[getattr(statistics, f) for f in statistics.__dataclass_fields__]))


def test_images_of_one_colour_have_some_spectrum():
    statistics = ImageStatistics.measure(torch.full((2, 3, 8, 8), 0.25))
    images = FixedMagnitude(statistics).decode(torch.randn(1, 3, 8, 8 // 2 + 1), (8, 8))
    assert images.isfinite().all()
    assert images.mean() == pytest.approx(0.25, abs=0.02)


def test_boxes_shrink_and_show_what_is_in_them():
    boxes = RandomBoxes(first=0.5, last=0.1, noise=0.0)
    middle = torch.full((1, 4), 0.5)
    image = torch.zeros(1, 1, 40, 40)
    image[..., 10:30, 10:30] = 1
    assert boxes(image, middle, (8, 8)).mean() > 0.9
    assert boxes.at(1.0)(image, middle, (8, 8)).min() == 1
    assert boxes.at(0.5).first == pytest.approx(0.3)
    assert RandomBoxes(first=1.0, noise=0.0)(image, middle, (40, 40)).mean() == pytest.approx(0.25, abs=0.01)
    far = torch.tensor([[0.999999, 0.999999, 0.0, 0.5]])
    assert boxes(image, far, (4, 4)).unique().tolist() == [0.5]  # outside of the image it is grey
    with pytest.raises(ValueError, match="first=0"):
        RandomBoxes(first=0)
    with pytest.raises(ValueError, match="noise=-1"):
        RandomBoxes(noise=-1)


def test_noise_depends_on_the_key_only():
    keys = torch.tensor([0.1, 0.2, 0.1])
    noise = hashed_gaussian(keys, (3, 16, 16))
    assert torch.equal(noise[0], noise[2])
    assert abs(torch.corrcoef(noise[:2].flatten(1))[0, 1]) < 0.15
    assert torch.equal(hashed_gaussian(keys[1:2], (3, 16, 16))[0], noise[1])


def test_nadam_is_torchs():
    params = torch.tensor([[1.0, -2.0, 3.0]])
    theirs = params[0].clone().requires_grad_()
    optimizer, nadam = torch.optim.NAdam([theirs], lr=0.3), Nadam()
    state = nadam.init(params)
    for count in range(1, 6):
        gradient = torch.tensor([0.5, -1.0, 2.0]) * count + params[0].sin()
        theirs.grad = gradient.clone()
        optimizer.step()
        params, state = nadam.step(params, gradient[None], state, 0.3, count)
    torch.testing.assert_close(params[0], theirs.detach())


def photograph(height: int = 12, width: int = 9) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(12, 9), (8, 8), (5, 6), (1, 4)])
def test_a_photograph_keeps_its_own_magnitudes_whatever_the_phases(size):
    own, photo = OwnMagnitude(photograph(*size)), photograph(*size)
    params = 3 * torch.randn(2, 3, size[0], size[1] // 2 + 1, generator=torch.Generator().manual_seed(1))
    plain = FixedMagnitude(standardize=False)
    expected = plain.spectrum(photo[None].clamp(1 / 512, 511 / 512)).abs()
    found = plain.spectrum(own.decode(params, size)).abs()
    torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-2, atol=1e-2)
    start = own.decode(own.init([torch.Generator()] * 2, photo.shape), size)
    torch.testing.assert_close(start, photo.expand_as(start), atol=3e-3, rtol=0)


def test_phases_that_differ_from_the_photographs_are_found_again():
    own = OwnMagnitude(photograph())
    images = own.decode(0.5 * torch.randn(1, 3, 12, 5, generator=torch.Generator().manual_seed(1)), (12, 9))
    torch.testing.assert_close(own.decode(own.encode(images), (12, 9)), images, atol=1e-3, rtol=0)


def test_a_photograph_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"photograph of shape \(1, 3, 4, 4\)"):
        OwnMagnitude(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="photograph of shape"):
        OwnMagnitude(torch.zeros(3, 1, 1))
    with pytest.raises(ValueError, match="Fit the photograph"):
        OwnMagnitude(photograph()).init([torch.Generator()], (3, 9, 9))
    with pytest.raises(ValueError, match="Fit the photograph"):
        OwnMagnitude(photograph()).decode(torch.zeros(1, 3, 9, 5), (9, 9))


def test_images_are_optimised_within_the_spectrum_of_a_photograph():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    photo = photograph()
    recipe = Recipe((Phase(4, 0.2),), parameterization=OwnMagnitude(photo), optimizer=Nadam())
    batch = Batch(image_seeds(0, "a", "b"), starts=photo.expand(2, -1, -1, -1))
    found = optimize(net, channel("0", [0, 1]), recipe, batch, input_spec=InputSpec(size=(12, 9)))
    assert (found.losses[:, -1] < found.losses[:, 0]).all()
