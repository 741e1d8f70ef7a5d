"""Inversion: exactness on invertible layers, named errors, published objectives, independence, isolation, bad input."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from lightning_cnnvis.functional.inversion.methods import (
    INVERSION_METHODS,
    InversionMethod,
    InversionStage,
    check_method,
    inversion_method,
)
from lightning_cnnvis.functional.inversion.metrics import mean_distance_between, psnr, ssim
from lightning_cnnvis.functional.inversion.reconstruction import InversionOptions, invert, invert_layers
from lightning_cnnvis.functional.inversion.representations import FeatureMask
from lightning_cnnvis.functional.network.forward import OUTPUT
from lightning_cnnvis.functional.network.receptive_field import ReceptiveField
from lightning_cnnvis.functional.optimization.loop import image_seeds
from lightning_cnnvis.functional.optimization.optimizers import AdaGrad, Adam
from lightning_cnnvis.functional.optimization.parameterizations import Pixels
from lightning_cnnvis.functional.optimization.recipes import Phase, Recipe
from lightning_cnnvis.functional.optimization.transforms import RandomCrop
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layers import LayerError

SPEC = InputSpec(size=(16, 20), mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))
QUICK = {"input_spec": SPEC, "steps": 6}


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
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(48, 10),
    )


@pytest.fixture
def photos():
    """Three smooth pictures in [0, 1]."""
    coarse = torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, SPEC.size, mode="bicubic").clamp(0.05, 0.95)


@pytest.fixture
def images(photos):
    return SPEC.normalize(photos)


def test_linear_invertible_layer_returns_the_image(photos, images):
    mix = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        mix.weight.copy_(torch.tensor([[1.0, 0.3, 0.0], [0.2, -1.0, 0.4], [0.0, 0.5, 1.2]])[:, :, None, None])
    inversions = invert(nn.Sequential(mix, nn.ReLU()), images, "0", input_spec=SPEC)
    assert inversions.psnr.min() > 35
    assert inversions.ssim.min() > 0.98
    torch.testing.assert_close(inversions.originals, photos)
    torch.testing.assert_close(inversions.psnr[0, 0], psnr(inversions.images[0, 0], photos))


def test_a_method_can_be_registered_or_passed(net, images, monkeypatch):
    monkeypatch.setattr(INVERSION_METHODS, "_entries", dict(INVERSION_METHODS._entries))
    asked = []
    recipes = [Recipe((Phase(steps, 0.1),), Pixels(), Adam()) for steps in (2, 3)]
    settings = InversionMethod(tuple(map(InversionStage, recipes)), weight=2.0)

    @INVERSION_METHODS.register("plain")
    def plain(field, input_spec, *, statistics):
        asked.append((field, input_spec, statistics))
        return settings

    by_name = invert_layers(net, images, ["2", "9"], input_spec=SPEC, method="plain")
    assert [(field is None or field.input_size, spec) for field, spec, _ in asked] == [(SPEC.size, SPEC)] * 2
    passed = invert_layers(net, images, ["2", "9"], input_spec=SPEC, method=settings)
    assert torch.equal(by_name.images, passed.images)
    assert passed.losses.shape[-1] == 5
    assert invert(net, images, "2", input_spec=SPEC, method=settings, steps=3).losses.shape[-1] == 3
    for method in ("plain", settings, recipes[0]):
        check_method(method)
    with pytest.raises(ValueError, match=r"method='plane': there is no such method\. Did you mean 'plain'\?"):
        invert(net, images, "2", input_spec=SPEC, method="plane")


def test_error_of_the_original_is_zero(net, images):
    # a recipe that starts at the original, and stays there
    class Original(Pixels):
        def init(self, generators, shape):
            return (SPEC.denormalize(images) - 0.5).repeat(len(generators) // 3, 1, 1, 1)

    recipe = Recipe((Phase(1, 1e-12),), Original())
    inversions = invert_layers(net, images, ["2", "9"], input_spec=SPEC, method=recipe)
    assert inversions.errors.max() < 1e-10
    assert inversions.relative_errors.max() < 1e-10
    assert inversions.root_errors.max() < 1e-5
    assert inversions.label_kept.all()
    assert inversions.ssim.min() > 0.9999


def test_errors_and_variances_by_their_definitions(net, images):
    inversions = invert_layers(net, images, ["5", "9"], restarts=3, **QUICK)
    assert inversions.images.shape == (2, 3, 3, 3, 16, 20)
    assert inversions.losses.shape == (2, 3, 3, 6)
    net.double().eval()
    originals = SPEC.normalize(inversions.originals.double())
    for index, depth in enumerate([6, 10]):
        part = net[:depth]
        target = part(originals).flatten(1)
        between = sum((target[i] - target[j]).square().sum() for i, j in [(0, 1), (0, 2), (1, 2)]) / 3
        for n in range(3):
            features = part(SPEC.normalize(inversions.images[index, :, n].double())).flatten(1)
            distance = (features - target[n]).square().sum(1)
            norm = target[n].square().sum()
            expected = {
                "errors": distance / norm,
                "root_errors": (distance / norm).sqrt(),
                "relative_errors": distance / between,
            }
            for name, value in expected.items():
                torch.testing.assert_close(
                    getattr(inversions, name)[index, :, n].double(), value.detach(), rtol=1e-3, atol=1e-6
                )
            variance = ((features - features.mean(0)).square().sum() / 2 / norm).detach()
            torch.testing.assert_close(inversions.feature_variances[index, n].double(), variance, rtol=1e-3, atol=1e-7)
            of_pixels = inversions.images[index, :, n].double().var(0).mean()
            torch.testing.assert_close(inversions.pixel_variances[index, n].double(), of_pixels, rtol=1e-3, atol=1e-7)
            kept = net(SPEC.normalize(inversions.images[index, :, n].double())).argmax(1) == net(originals).argmax(1)[n]
            assert torch.equal(inversions.label_kept[index, :, n], kept)


def test_similarity_to_the_original_by_its_definition(photos):
    noisy = photos + 0.2 * torch.randn(photos.shape, generator=torch.Generator().manual_seed(2))
    x, y = noisy.clamp(0, 1).double().numpy(), photos.double().numpy()

    def blurred(values):
        return gaussian_filter(values, 1.5, mode="mirror", truncate=3.5, axes=(2, 3))

    mean_x, mean_y = blurred(x), blurred(y)
    spread = blurred(x * x) - mean_x**2 + blurred(y * y) - mean_y**2
    shared = blurred(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + 0.01**2) * (2 * shared + 0.03**2)
    similarity /= (mean_x**2 + mean_y**2 + 0.01**2) * (spread + 0.03**2)
    expected = torch.from_numpy(similarity.mean((1, 2, 3))).float()
    torch.testing.assert_close(ssim(noisy, photos), expected, atol=1e-5, rtol=0)
    decibels = -10 * (noisy.clamp(0, 1) - photos).square().mean((1, 2, 3)).log10()
    torch.testing.assert_close(psnr(noisy, photos), decibels)


def test_variances_and_distances_that_do_not_exist_are_nan(net, images):
    inversions = invert(net, images[:1], "5", **QUICK)
    assert inversions.pixel_variances.isnan().all()
    assert inversions.feature_variances.isnan().all()
    assert inversions.relative_errors.isnan().all()
    assert mean_distance_between(torch.tensor([[0.0], [3.0]])) == 9


def test_layer_that_is_off_has_no_error(net, images):
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.zero_()
        net[1].bias.fill_(-1)
    inversions = invert(net, images, "2", **QUICK)
    assert inversions.errors.isnan().all()
    assert inversions.images.isfinite().all()


@pytest.mark.parametrize("method", ["fourier", "mahendran2014", "mahendran2016"])
def test_result_does_not_depend_on_the_batch(net, images, method):
    settings = {**QUICK, "restarts": 2, "method": method}
    together = invert_layers(net, images, ["9", "2", "5"], **settings)
    assert together.layers == ("9", "2", "5")
    alone = invert(net, images[1:2], "5", **settings)
    torch.testing.assert_close(alone.images[0, :, 0], together.images[2, :, 1], atol=1e-3, rtol=0)
    torch.testing.assert_close(alone.errors[0, :, 0], together.errors[2, :, 1], atol=1e-3, rtol=1e-3)
    small = invert_layers(net, images, ["9", "2", "5"], options=InversionOptions(chunk=4), **settings)
    torch.testing.assert_close(small.images, together.images, atol=1e-3, rtol=0)
    for inversions in (small, together):
        for index, shown in enumerate(inversions.images.flatten(0, 2)):
            where = tuple(int(i) for i in torch.unravel_index(torch.tensor(index), (3, 2, 3)))
            original = inversions.originals[where[2] : where[2] + 1]
            torch.testing.assert_close(inversions.ssim[where], ssim(shown[None], original)[0])
            torch.testing.assert_close(inversions.psnr[where], psnr(shown[None], original)[0])
    one = invert_layers(net, images, ["9", "2", "5"], **{**settings, "restarts": 1})
    torch.testing.assert_close(one.images[:, 0], together.images[:, 0], atol=1e-3, rtol=0)


def test_same_seed_same_restarts_whatever_the_global_generator(net, images):
    first = invert(net, images, "5", restarts=2, **QUICK)
    torch.manual_seed(99)
    again = invert(net, images, "5", restarts=2, **QUICK)
    assert torch.equal(again.images, first.images)
    assert not torch.allclose(first.images[:, 0], first.images[:, 1], atol=0.01)
    other = invert(net, images, "5", restarts=2, seed=1, **QUICK)
    assert not torch.allclose(other.images, first.images, atol=0.01)


def test_any_layer_down_to_the_logits(net, images):
    inversions = invert_layers(net, images, ["0", "7", "9"], input_spec=SPEC, steps=30)
    assert (inversions.losses[..., -1] < inversions.losses[..., 0]).all()
    output = invert(net, images, OUTPUT, input_spec=SPEC, steps=30)
    torch.testing.assert_close(output.images[0], inversions.images[2], atol=1e-3, rtol=0)


def test_only_the_part_asked_for_is_reproduced(net, images):
    options = InversionOptions(mask=FeatureMask(channels=[1, 4], positions=(0, 1, 3, 5)))
    inversions = invert(net, images, "2", options=options, **QUICK)
    net.eval()
    original, again = (
        net[:3](x)[:, [1, 4], 0:3, 1:5].flatten(1) for x in (images, SPEC.normalize(inversions.images[0, 0]))
    )
    expected = ((again - original).square().sum(1) / original.square().sum(1)).detach()
    torch.testing.assert_close(inversions.errors[0, 0], expected, rtol=1e-3, atol=1e-6)
    assert FeatureMask(positions=2).select("x", (1, 1, 6, 7))(torch.zeros(1, 1, 6, 7)).shape == (1, 1, 2, 2)


def test_objective_of_2014_equals_the_equations(net, images):
    field = ReceptiveField((10, 10), (2, 2), (0, 0), (12, 6, 8), SPEC.size)  # 10 of 16 pixels: the middle strength
    inversions = invert(net, images, "5", method="mahendran2014", input_spec=SPEC, steps=1)
    made = inversion_method("mahendran2014", field, SPEC)
    (stage,) = made.stages
    sigma = 27098.1157 * math.sqrt(16 * 20 / (227 * 227))
    x, start = _start_in_grey_levels(net, images, inversions, stage.recipe)
    assert x.norm(dim=1) == pytest.approx([sigma] * 3, rel=1e-5)
    dx, dy = torch.zeros_like(start), torch.zeros_like(start)
    dx[..., :-1], dy[..., :-1, :] = start.diff(dim=3), start.diff(dim=2)
    scaled = x / sigma
    expected = _error(net, images, start)
    expected += 4e-10 * sigma**4 * (scaled**6).sum(1)
    expected += 5 * ((dx / sigma) ** 2 + (dy / sigma) ** 2).flatten(1).sum(1)
    torch.testing.assert_close(inversions.losses[0, 0, :, 0].double(), expected, rtol=1e-5, atol=0)
    assert [(p.steps, p.reset) for p in stage.recipe.phases] == [(100, True), (200, True), (100, True)]
    assert [p.lr / sigma**2 for p in stage.recipe.phases] == pytest.approx([0.004, 0.0004, 0.00004])


def test_objective_of_2016_equals_the_equations(net, images):
    field = ReceptiveField((10, 10), (2, 2), (0, 0), (12, 6, 8), SPEC.size)
    inversions = invert(net, images, "5", method="mahendran2016", input_spec=SPEC, steps=1)
    made = inversion_method("mahendran2016", field, SPEC)
    x, start = _start_in_grey_levels(net, images, inversions, made.stages[0].recipe)
    assert (x.abs().quantile(0.9, dim=1) < 80 / math.sqrt(3)).all()
    pixels = 16 * 20
    dx, dy = torch.zeros_like(start), torch.zeros_like(start)
    dx[..., :-1], dy[..., :-1, :] = start.diff(dim=3), start.diff(dim=2)
    expected = made.weight * _error(net, images, start)
    expected += (start.square().sum(1).sqrt() ** 6).flatten(1).sum(1) / 80**6 / pixels
    expected += (dx**2 + dy**2).flatten(1).sum(1) * (6.5 / 80) ** 2 / pixels
    torch.testing.assert_close(inversions.losses[0, 0, :, 0].double(), expected, rtol=1e-5, atol=0)
    assert [stage.recipe.phases[0].lr for stage in made.stages] == pytest.approx(
        [0.05 * 80**2 / 6 * pixels, 0.005 * 80**2 / 6 * pixels]
    )
    assert [stage.recipe.steps for stage in made.stages] == [300, 50]


def test_steps_of_2014_are_the_authors(net, images):
    """Image and momentum step by step, as in the authors' ``invert_nn.m``, with the gradients written out."""
    net, images = net.double(), images.double()
    field = ReceptiveField((10, 10), (2, 2), (0, 0), (12, 6, 8), SPEC.size)
    recipe = inversion_method("mahendran2014", field, SPEC).stages[0].recipe
    counts = (5, 3, 2)
    phases = [replace(phase, steps=steps) for phase, steps in zip(recipe.phases, counts, strict=True)]
    recipe = replace(recipe, phases=phases)
    inversions = invert(net, images, "5", method=recipe, input_spec=SPEC)
    _, x = _start_in_grey_levels(net, images, inversions, recipe)
    sigma = 27098.1157 * math.sqrt(16 * 20 / (227 * 227))
    for steps, factor in zip(counts, (1, 0.1, 0.01), strict=True):
        rate, momentum = 0.004 * factor, torch.zeros_like(x)
        for _ in range(steps):
            x.requires_grad_()
            (of_error,) = torch.autograd.grad(_error(net, images, x, graph=True).sum(), x)
            x = x.detach()
            dx, dy = torch.zeros_like(x), torch.zeros_like(x)
            dx[..., :-1], dy[..., :-1, :] = x.diff(dim=3), x.diff(dim=2)
            of_tv = 2 * (dx.roll(1, 3) - dx + dy.roll(1, 2) - dy)  # the last differences are 0
            # λ of 10 and 8e-10, halved there
            prior = 10 / 2 * of_tv + 8e-10 / 2 * 6 * x**5
            momentum = 0.9 * momentum - rate * prior - rate * sigma**2 * of_error
            x = x + momentum
    found = 255 * (inversions.images[0, 0] - torch.tensor(SPEC.mean, dtype=torch.float64).view(-1, 1, 1))
    assert x.isfinite().all()
    torch.testing.assert_close(found, x, rtol=1e-6, atol=1e-6)


def test_steps_of_2016_are_the_authors(net, images):
    """Both runs of the authors' ``nnpreimage.m``, for a layer whose stride leaves no room for jitter."""
    net, images = net.double(), images.double()
    inversions = invert(net, images, "2", method="mahendran2016", input_spec=SPEC, steps=14)
    field = ReceptiveField((3, 3), (1, 1), (-1, -1), (8, 16, 20), SPEC.size)
    made = inversion_method("mahendran2016", field, SPEC, steps=14)
    assert [(stage.recipe.steps, stage.margin) for stage in made.stages] == [(12, 0), (2, 0)]
    _, x = _start_in_grey_levels(net, images, inversions, made.stages[0].recipe)
    pixels = 16 * 20
    for steps, factor in ((12, 1), (2, 0.1)):
        rate = factor * 0.05 * 80**2 / 6 * pixels
        momentum, squares = torch.zeros_like(x), torch.zeros_like(x)
        for _ in range(steps):
            x.requires_grad_()
            (of_error,) = torch.autograd.grad(made.weight * _error(net, images, x, graph=True, depth=3).sum(), x)
            x = x.detach()
            dx, dy = torch.zeros_like(x), torch.zeros_like(x)
            dx[..., :-1], dy[..., :-1, :] = x.diff(dim=3), x.diff(dim=2)
            of_tv = 2 / pixels * (dx.roll(1, 3) - dx + dy.roll(1, 2) - dy)
            of_norm = 6 / pixels * x * x.square().sum(1, keepdim=True) ** 2
            gradient = of_error + (6.5 / 80) ** 2 * of_tv + 80**-6 * of_norm
            squares = 0.9 * squares + gradient**2
            momentum = 0.9 * momentum - gradient / (1 / rate + squares.sqrt())
            x = x + momentum
            x = x * (160 / x.square().sum(1, keepdim=True).sqrt()).clamp_max(1)
    found = 255 * (inversions.images[0, 0] - torch.tensor(SPEC.mean, dtype=torch.float64).view(-1, 1, 1))
    torch.testing.assert_close(found, x, rtol=1e-6, atol=1e-6)


def _start_in_grey_levels(net, images, inversions, recipe):
    """The images before the first step, from the recipe's own start: ``(N, C·H·W)`` and ``(N, C, H, W)``."""
    generators = [torch.Generator().manual_seed(image_seeds(0, ("restart", 0))[0]) for _ in images]
    start = recipe.parameterization.init(generators, SPEC.shape).double()
    return start.flatten(1), start


def _error(net, images, grey_levels, *, graph=False, depth=6):
    part = copy.deepcopy(net).double().eval()[:depth]
    target = part(images.double())
    inputs = grey_levels / 255 / torch.tensor(SPEC.std, dtype=torch.float64).view(-1, 1, 1)
    error = (part(inputs) - target).square().flatten(1).sum(1) / target.square().flatten(1).sum(1)
    return error if graph else error.detach()


# relu1, pool1, relu2, pool2, relu4, relu5, pool5 and fc6 of AlexNet at 227 pixels
_ALEXNET = [(11, 4), (19, 8), (51, 8), (67, 16), (131, 16), (163, 16), (195, 32), None]


def test_published_settings_of_alexnets_layers():
    spec = InputSpec(size=(227, 227), mean=(0.45,))
    fields = [ReceptiveField((f[0],) * 2, (f[1],) * 2, (0, 0), (1, 1, 1), (227, 227)) if f else None for f in _ALEXNET]
    of_2014 = [inversion_method("mahendran2014", field, spec).stages[0].recipe for field in fields]
    tv = [recipe.regularizers[1].weight * 27098.1157**2 for recipe in of_2014]
    assert tv == pytest.approx([0.5, 0.5, 0.5, 5, 5, 50, 50, 50])
    assert of_2014[0].regularizers[0].weight * 27098.1157**6 == pytest.approx(2.16e8, rel=2e-3)
    of_2016 = [inversion_method("mahendran2016", field, spec) for field in fields]
    assert [method.weight for method in of_2016] == [300, 300, 100, 20, 20, 20, 20, 1]
    assert [method.stages[0].margin for method in of_2016] == [0, 1, 1, 3, 3, 3, 7, 0]


def test_adagrad_takes_the_authors_steps():
    gradients = torch.tensor([[2.0, 1e-4], [-1.0, 1e-4]])
    x, velocity, squares = torch.zeros(2), torch.zeros(2), torch.zeros(2)
    params = torch.zeros(1, 2)
    state = AdaGrad().init(params)
    for count, gradient in enumerate(gradients, 1):
        squares = 0.9 * squares + gradient**2
        velocity = 0.9 * velocity - gradient / (1 / 50 + squares.sqrt())
        x = x + velocity
        params, state = AdaGrad().step(params, gradient[None], state, 50.0, count)
    torch.testing.assert_close(params[0], x)


def test_random_crop_is_a_window_of_each_image():
    images = torch.arange(2 * 3 * 6 * 7, dtype=torch.float32).view(2, 3, 6, 7)
    cropped = RandomCrop()(images, torch.tensor([[0.0, 0.999], [0.5, 0.4]]), (4, 5))
    torch.testing.assert_close(cropped[0], images[0, :, 0:4, 2:7])
    torch.testing.assert_close(cropped[1], images[1, :, 1:5, 1:6])


def snapshot(net):
    state = {name: value.clone() for name, value in net.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in net.parameters()]
    return state, gradients, [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]


@pytest.mark.parametrize("fails", [False, True])
def test_model_is_left_as_it_was(net, images, fails):
    net.train()
    net[1].eval()
    net[4].weight.requires_grad_(False)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    before, generator = snapshot(net), torch.get_rng_state()
    if fails:

        class Failing(Pixels):
            def decode(self, params, size):
                raise RuntimeError("no luck")

        with pytest.raises(RuntimeError, match="no luck"):
            invert(net, images, "5", input_spec=SPEC, method=Recipe((Phase(2, 0.1),), Failing(), Adam()))
    else:
        invert_layers(net, images, ["2", "9"], restarts=2, **QUICK)
    state, gradients, modes, trainable = snapshot(net)
    assert all(torch.equal(state[name], value) for name, value in before[0].items())
    assert all(map(torch.equal, gradients, before[1]))
    assert (modes, trainable) == before[2:]
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in net.modules())
    assert torch.equal(torch.get_rng_state(), generator)


def test_bad_images(net, images):
    with pytest.raises(ValueError, match=r"\(3, 3, 16, 16\).*\(3, 16, 20\)"):
        invert(net, images[..., :16], "5", **QUICK)
    with pytest.raises(ValueError, match="correct the input_spec"):
        invert(net, images[:, :1], "5", **QUICK)
    with pytest.raises(ValueError, match="at least one image"):
        invert(net, images[0], "5", **QUICK)
    with pytest.raises(ValueError, match="at least one image"):
        invert(net, images[:0], "5", **QUICK)
    with pytest.raises(ValueError, match="uint8"):
        invert(net, (images * 50).to(torch.uint8), "5", **QUICK)
    images[1, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match=r"\[1\] contain NaN"):
        invert(net, images, "5", **QUICK)


def test_bad_layers(net, images):
    with pytest.raises(LayerError, match="no layer 'conv5'"):
        invert(net, images, "conv5", **QUICK)
    with pytest.raises(ValueError, match="named twice"):
        invert_layers(net, images, ["5", "2", "5"], **QUICK)
    with pytest.raises(ValueError, match="sequence of at least one"):
        invert_layers(net, images, "5", **QUICK)
    with pytest.raises(ValueError, match="sequence of at least one"):
        invert_layers(net, images, [], **QUICK)
    shared = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    shared.add_module("again", shared[1])
    with pytest.raises(LayerError, match="runs 2 times"):
        invert(shared, images, "1", **QUICK)
    with torch.no_grad():
        net[4].bias[0] = float("nan")
    with pytest.raises(ValueError, match="diverged"):
        invert(net, images, "4", **QUICK)


def test_bad_options(net, images):
    with pytest.raises(ValueError, match="restarts=0"):
        invert(net, images, "5", restarts=0, **QUICK)
    with pytest.raises(ValueError, match="chunk=0"):
        invert(net, images, "5", options=InversionOptions(chunk=0), **QUICK)
    with pytest.raises(ValueError, match="steps=0"):
        invert(net, images, "5", input_spec=SPEC, steps=0)
    with pytest.raises(ValueError, match=r"'dreams'.*'mahendran2014'"):
        invert(net, images, "5", method="dreams", input_spec=SPEC)
    for part, layer, message in [
        (FeatureMask(channels=[12]), "5", "channels 0 to 11"),
        (FeatureMask(channels=[]), "5", "at least one"),
        (FeatureMask(positions=9), "5", "not a part of the 6×8 maps"),
        (FeatureMask(positions=(0, 0, 0, 3)), "5", "not a part of the 6×8 maps"),
        (FeatureMask(positions=2), "9", "not maps with positions"),
    ]:
        with pytest.raises(ValueError, match=message):
            invert(net, images, layer, options=InversionOptions(mask=part), **QUICK)
