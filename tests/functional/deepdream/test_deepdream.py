"""DeepDream on small networks."""

import copy

import pytest
import torch
from torch import nn

from lightning_cnnvis.functional.deepdream.octaves import DreamOptions, dream, zoom
from lightning_cnnvis.functional.deepdream.tiling import tiled
from lightning_cnnvis.functional.optimization.gradients import model_gradient
from lightning_cnnvis.functional.optimization.objectives import guided, layer_energy
from lightning_cnnvis.functional.optimization.optimizers import PyramidDescent
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layers import LayerError

SPEC = InputSpec(size=(32, 32), mean=(0.5,), std=(0.25,))
SHORT = DreamOptions(octaves=2, steps=4)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16 * 16, 4),
    )


@pytest.fixture
def picture():
    return torch.rand(3, 40, 52, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4


def energy(net, images, upto):
    with torch.no_grad():
        return net.eval()[:upto]((images - 0.5) / 0.25).square().sum((1, 2, 3))


def test_dream_enhances_the_layer_at_the_pictures_size(net, picture):
    dreamt = dream(net, picture, "5", input_spec=SPEC, options=SHORT)
    assert dreamt.images.shape == (1, 3, 40, 52)
    assert dreamt.sizes == ((29, 37), (40, 52))
    assert dreamt.losses.shape == (1, 8)
    assert dreamt.images.min() >= 0
    assert dreamt.images.max() <= 1
    assert energy(net, dreamt.images, 6) > 1.2 * energy(net, picture[None], 6)
    assert torch.equal(dream(net, picture, "5", input_spec=SPEC, options=SHORT).images, dreamt.images)


def test_pictures_of_a_batch_do_not_depend_on_each_other(net, picture):
    batch = torch.stack([picture, picture.flip(2)])
    both = dream(net, batch, "5", input_spec=SPEC, options=SHORT).images
    alone = dream(net, batch[1], "5", input_spec=SPEC, options=SHORT).images
    torch.testing.assert_close(both[1:], alone)


def test_one_channel_several_layers_and_noise(net, picture):
    one = dream(net, picture, "5", channels=[2], input_spec=SPEC, options=SHORT).images
    with torch.no_grad():
        before, after = (net.eval()[:6]((x - 0.5) / 0.25)[0, 2].square().sum() for x in (picture[None], one))
    assert after > before
    both = dream(net, picture, ["1", "5"], input_spec=SPEC, options=SHORT).images
    assert not torch.equal(both, dream(net, picture, "5", input_spec=SPEC, options=SHORT).images)
    noise = dream(net, None, "5", input_spec=SPEC, options=SHORT).images
    assert noise.shape == (1, 3, 32, 32)
    assert not torch.equal(noise, dream(net, None, "5", input_spec=SPEC, options=SHORT, seed=1).images)


def test_guided_objective_is_that_of_the_reference(picture):
    """The gradient at each place is the guide's feature of largest dot product."""
    features, guide = torch.rand(2, 5, 4, 6, requires_grad=True), torch.rand(1, 5, 3, 3)
    loss = guided("layer", guide, chunk=7).bind(slice(None), torch.device("cpu"))({"layer": features})
    (gradient,) = torch.autograd.grad(loss.sum(), features)
    vectors = guide[0].flatten(1)
    for n in range(2):
        x = features[n].detach().flatten(1)
        best = vectors[:, (x.T @ vectors).argmax(1)]
        torch.testing.assert_close(-gradient[n].flatten(1), best)


def test_guide_brings_its_features(net, picture):
    guide = torch.rand(3, 24, 24)
    guide[0] = 1
    dreamt = dream(net, picture, "5", guide=guide, input_spec=SPEC, options=SHORT).images
    with torch.no_grad():
        x, y, g = (net.eval()[:6]((i - 0.5) / 0.25).flatten(2)[0] for i in (picture[None], dreamt, guide[None]))
    assert (y.T @ g).amax(1).mean() > (x.T @ g).amax(1).mean()


def test_a_guide_in_double_precision(net, picture):
    guide = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    single = dream(net, picture, "5", guide=guide, input_spec=SPEC, options=SHORT).images
    double = dream(copy.deepcopy(net).double(), picture, "5", guide=guide, input_spec=SPEC, options=SHORT).images
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=0, atol=1e-3)


def test_tiles_equal_the_whole_picture(net):
    """With a margin beyond the receptive field there is no seam at all."""
    net = net.eval()[:6]
    inputs = torch.rand(1, 3, 150, 101)
    gradient = model_gradient(net, layer_energy("5"), slice(0, 1))
    _, whole = gradient(inputs, None)
    sizes = []

    def watched(part, rescue=None):
        sizes.append(part.shape[-2:])
        return gradient(part, rescue)

    _, tiles = tiled(watched, tile=96, margin=32)(inputs)
    torch.testing.assert_close(tiles, whole, atol=1e-5, rtol=1e-4)
    assert len(sizes) > 4
    assert max(max(size) for size in sizes) <= 96


def test_no_seam_is_seen_where_the_margin_is_too_narrow():
    """Steps of brightness across the tiles' borders are no larger than in a dream of the picture in one piece."""
    torch.manual_seed(0)
    stages = [(nn.Conv2d(c, d, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)) for c, d in ((3, 8), (8, 12), (12, 16))]
    deep = nn.Sequential(*(module for stage in stages for module in stage), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU())
    wide = nn.functional.interpolate(torch.rand(1, 3, 10, 25), (120, 304), mode="bicubic").clamp(0, 1)

    def columns(tile):
        options = DreamOptions(octaves=2, steps=10, tile=tile, margin=32)
        dreamt = dream(deep, wide, "10", input_spec=SPEC, options=options).images
        return dreamt.diff(dim=3).abs().mean((0, 1, 2)), dreamt

    (whole, one), (tiled, many) = columns(1024), columns(128)
    assert not torch.allclose(one, many, atol=1e-3)  # the margin of 32 is narrower than the field of 68 pixels
    ratio = tiled / whole
    borders = torch.zeros(len(ratio), dtype=torch.bool)
    for border in range(64, 304, 64):
        borders[border - 17 : border + 17] = True  # where the jitter may have taken it
    assert ratio[borders].mean() == pytest.approx(ratio[~borders].mean().item(), rel=0.05)
    assert ratio[borders].max() < ratio[~borders].max() * 1.15


def test_memory_of_tiles_is_bounded(net, monkeypatch):
    biggest, forward = [], nn.Conv2d.forward
    # a hook would gather on the copy that the function works on
    monkeypatch.setattr(nn.Conv2d, "forward", lambda conv, x: biggest.append(x[0].numel()) or forward(conv, x))
    options = DreamOptions(octaves=2, steps=1, tile=96, margin=16)
    assert dream(net, torch.rand(3, 300, 90), "5", input_spec=SPEC, options=options).images.isfinite().all()
    assert max(biggest) <= 3 * 96 * 96


def test_zoom_yields_frames_that_move(net, picture):
    frames = list(zoom(net, picture, "5", input_spec=SPEC, frames=3, options=DreamOptions(octaves=1, steps=1)))
    assert [frame.shape for frame in frames] == [(3, 40, 52)] * 3
    assert all(frame.min() >= 0 and frame.max() <= 1 for frame in frames)
    flat = torch.full((3, 41, 41), 0.5)
    flat[:, 10:31, 10:31] = 0.9  # a square that grows by a tenth
    weak = DreamOptions(octaves=1, steps=1, step_size=1e-3)
    _, second = zoom(net, flat, "5", input_spec=SPEC, frames=2, scale=0.1, options=weak)
    assert (second > 0.7).sum() == pytest.approx(3 * 21**2 / 0.9**2, rel=0.05)


def test_pyramid_descent_steps_at_every_scale():
    gradient = torch.randn(2, 3, 33, 40)
    gradient[1] *= 1e-6
    params = torch.zeros_like(gradient)
    for levels in (0, 3, 9):
        moved, _ = PyramidDescent(levels).step(params, gradient, (), 0.5, 1)
        torch.testing.assert_close(moved.abs().mean((1, 2, 3)), torch.full((2,), 0.5))
    plain, _ = PyramidDescent(0).step(params, gradient, (), 1.0, 1)
    torch.testing.assert_close(plain[0], -gradient[0] / gradient[0].abs().mean())
    broad = [nn.functional.avg_pool2d(PyramidDescent(n).step(params, gradient, (), 1.0, 1)[0], 8) for n in (0, 3)]
    assert broad[1].abs().mean() > 1.5 * broad[0].abs().mean()
    assert PyramidDescent(3).step(params, params, (), 1.0, 1)[0].abs().max() == 0


def test_octaves_that_are_too_small_are_left_out(picture):
    deep = nn.Sequential(nn.Conv2d(3, 4, 7), nn.MaxPool2d(4), nn.Conv2d(4, 4, 7), nn.ReLU())
    dreamt = dream(deep, picture, "3", input_spec=SPEC, options=DreamOptions(octaves=4, steps=1))
    assert dreamt.sizes == ((40, 52),)
    with pytest.raises(ValueError, match="does not go through"):
        dream(deep, picture[:, :20], "3", input_spec=SPEC)


def test_model_is_left_as_it_was(net, picture):
    net(torch.rand(1, 3, 32, 32))
    net.train()
    before = copy.deepcopy(net.state_dict())
    dream(net, picture, "5", input_spec=SPEC, options=SHORT)
    frames = zoom(net, picture, "5", input_spec=SPEC, options=SHORT)
    next(frames)
    assert all(module.training and not module._forward_hooks for module in net.modules())
    frames.close()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_rounding_errors_outside_the_range_are_clipped(net):
    white = torch.full((3, 20, 20), 1 + 1e-6)
    assert dream(net, white, "5", input_spec=SPEC, options=SHORT).images.max() <= 1


def test_bad_input(net, picture):
    with pytest.raises(LayerError, match="no layer"):
        dream(net, picture, "conv9", input_spec=SPEC)
    with pytest.raises(ValueError, match="takes \\(3, height, width\\)"):
        dream(net, picture[:1], "5", input_spec=SPEC)
    with pytest.raises(ValueError, match="between 0 and 1"):
        dream(net, picture * float("nan"), "5", input_spec=SPEC)
    with pytest.raises(ValueError, match="Both channels and guide"):
        dream(net, picture, "5", input_spec=SPEC, channels=[1], guide=picture)
    with pytest.raises(ValueError, match="layer is empty"):
        dream(net, picture, [], input_spec=SPEC)
    for channels, message in (([8], "Channel 8 is out of range: layer '5' has channels 0 to 7"), ([-1], "Channel -1")):
        with pytest.raises(ValueError, match=message):
            dream(net, picture, "5", input_spec=SPEC, channels=channels)
    with pytest.raises(ValueError, match="channels is empty"):
        dream(net, picture, "5", input_spec=SPEC, channels=[])
    with pytest.raises(ValueError, match="guide of 1×1 pixels does not go through"):
        dream(net, picture, "5", input_spec=SPEC, guide=picture[:, :1, :1])
    with pytest.raises(LayerError, match="a guide needs a layer with maps"):
        dream(net, picture[:, :32, :32], "7", input_spec=SPEC, guide=picture[:, :32, :32])
    with pytest.raises(ValueError, match="precision='fp8'"):
        dream(net, picture, "5", input_spec=SPEC, options=DreamOptions(precision="fp8"))
    with pytest.raises(ValueError, match="frames=0"):
        next(zoom(net, picture, "5", input_spec=SPEC, frames=0))
    for bad in ({"steps": 0}, {"octave_scale": 1.0}, {"step_size": 0.0}, {"tile": 100}, {"levels": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            DreamOptions(**bad)
