"""Units whose invariances are known by construction, and bad input."""

import math

import pytest
import torch
from torch import nn

from lightning_cnnvis import InputSpec
from lightning_cnnvis.functional import unit_invariance
from lightning_cnnvis.layers import LayerError

SIDE = 24


def gabors(frequency: float, angle: float, channels: int) -> torch.Tensor:
    """Two Gabor filters in quadrature, of length 1 and at right angles: ``(2, C, 24, 24)``."""
    places = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    across = math.cos(angle) * places[None] + math.sin(angle) * places[:, None]
    envelope = torch.exp(-(places[:, None] ** 2 + places[None] ** 2) / (2 * (SIDE / 6) ** 2))
    even, odd = (envelope * wave(2 * math.pi * frequency * across / SIDE) for wave in (torch.cos, torch.sin))
    even = even - envelope * even.sum() / envelope.sum()
    pair = torch.stack([even / even.norm(), odd / odd.norm()])
    return pair[:, None].expand(-1, channels, -1, -1) / math.sqrt(channels)


class Energy(nn.Module):
    """A complex cell: the sum of the squares of two filters in quadrature, which does not change with the phase."""

    def __init__(self, filters: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("filters", filters.float())
        self.unit = nn.Identity()

    def forward(self, images):
        return self.unit(nn.functional.conv2d(images, self.filters).square().sum(1, keepdim=True))


def degrees_between(a: torch.Tensor, b: torch.Tensor) -> float:
    cosine = (a.flatten() @ b.flatten()).abs() / (a.norm() * b.norm())
    return math.degrees(math.acos(min(1.0, float(cosine))))


CELLS = [(2.5, 0.6, 1), (3.0, 0.0, 3), (4.0, 1.2, 3)]


@pytest.mark.parametrize(("frequency", "angle", "channels"), CELLS)
def test_phase_is_the_invariance_of_an_energy_model(frequency, angle, channels):
    filters = gabors(frequency, angle, channels).float()
    spec = InputSpec((SIDE, SIDE), channels, mean=(0.5,), std=(0.25,))
    image = spec.denormalize(filters[:1])
    found = unit_invariance(Energy(filters), "unit", [0], input_spec=spec, images=image)
    assert degrees_between(found.directions[0, 0], filters[1]) < 5
    assert abs(float(found.curvatures[0, 0])) < 0.01
    # a walk along it leaves the activation alone; along the others it falls as the square of the share that is left
    torch.testing.assert_close(found.walks[0, 0], found.activations.expand(7), rtol=1e-3, atol=1e-4)
    expected = found.activations * found.angles.deg2rad().cos() ** 2
    torch.testing.assert_close(found.walks[0, 3], expected, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(found.curvatures[0, 3:], torch.full((3,), -2.0), rtol=1e-2, atol=0)
    # and what the changes with names do
    assert found.alignments["phase"][0, 0] > 0.99
    assert abs(float(found.changes["phase"])) < 0.01
    assert float(found.changes["rotation"]) < -1.5
    assert float(found.changes["scale"]) < -1.5


@pytest.mark.parametrize(("frequency", "angle", "channels"), CELLS[:2])
@pytest.mark.parametrize("seed", [0, 1])
def test_of_a_stimulus_that_is_optimised(frequency, angle, channels, seed):
    filters = gabors(frequency, angle, channels).float()
    spec = InputSpec((SIDE, SIDE), channels, mean=(0.5,), std=(0.25,))
    found = unit_invariance(Energy(filters), "unit", [0], input_spec=spec, seed=seed, steps=32)
    share = (filters.flatten(1) @ spec.normalize(found.stimuli[0]).flatten()).tolist()
    phase = share[0] * filters[1] - share[1] * filters[0]
    assert degrees_between(found.directions[0, 0], phase) < 5
    assert abs(float(found.changes["phase"])) < 0.05
    assert float(found.changes["rotation"]) < -1.5


def test_a_piecewise_linear_cell_has_the_same_invariance():
    # half-waves of all phases add up to nearly the same at any phase; their Hessian is 0 nearly everywhere
    filters = gabors(3.0, 0.6, 1).float()
    phases = torch.arange(512) * (2 * math.pi / 512)
    turned = phases.cos()[:, None] * filters[0].flatten() + phases.sin()[:, None] * filters[1].flatten()

    class HalfWaves(Energy):
        def forward(self, images):
            return self.unit(nn.functional.conv2d(images, self.filters).relu().sum(1, keepdim=True))

    spec = InputSpec((SIDE, SIDE), 1, mean=(0.5,), std=(0.25,))
    image, net = spec.denormalize(filters[:1]), HalfWaves(turned.view(-1, 1, SIDE, SIDE))
    found = unit_invariance(net, "unit", [0], input_spec=spec, images=image)
    assert degrees_between(found.directions[0, 0], filters[1]) < 5
    assert abs(float(found.curvatures[0, 0])) < 0.1
    torch.testing.assert_close(found.curvatures[0, 3:], torch.full((3,), -1.0), rtol=0.1, atol=0)
    assert float((found.walks[0, 0] / found.activations - 1).abs().max()) < 0.03


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)
    ).eval()


SPEC = InputSpec((20, 28), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
IMAGES = torch.rand(2, 3, 20, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("layer", "field"), [("1", (5, 5)), ("4", (10, 10))])
def test_windows_give_the_units_of_whole_images(layer, field):
    net = network()
    found = unit_invariance(net, layer, [1, 3], input_spec=SPEC, images=IMAGES, num_directions=2, frequencies=1)
    assert found.stimuli.shape[2:] == field
    assert found.images.shape == (2, 4, 7, 3, *field)
    with torch.no_grad():
        whole = net[: int(layer) + 1](SPEC.normalize(IMAGES))[[0, 1], [1, 3]].flatten(1).amax(1)
    torch.testing.assert_close(found.activations, whole)
    torch.testing.assert_close(found.walks[:, :, 3], found.activations[:, None].expand(2, 4))
    across = found.directions.flatten(2)
    torch.testing.assert_close(across @ across.transpose(1, 2), torch.eye(4).expand(2, 4, 4), rtol=1e-4, atol=1e-5)


def test_of_a_unit_without_a_map():
    net = network()
    net(SPEC.normalize(IMAGES))
    with torch.no_grad():
        net[6].bias += 5
    found = unit_invariance(net, "6", [2], input_spec=SPEC, images=IMAGES[:1], frequencies=1)
    assert found.stimuli.shape == (1, 3, 20, 28)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": "relu"}, LayerError, "no layer 'relu'"),
        ({"channels": []}, ValueError, "channels is empty"),
        ({"channels": [9, 0]}, ValueError, "Channel 9 is not in layer '1': it has channels 0 to 3"),
        ({"images": IMAGES[:1]}, ValueError, r"images has shape \(1, 3, 20, 28\): it must be \(2, 3, 20, 28\)"),
        ({"num_directions": 0}, ValueError, "num_directions=0 must be at least 1"),
        ({"num_directions": 90}, ValueError, "of each kind are more than the .* that the receptive field"),
        ({"frequencies": 0}, ValueError, "frequencies=0"),
        ({"step": 90.0}, ValueError, "less than 90 degrees"),
        ({"angles": []}, ValueError, "at least one, from -180 to 180"),
        ({"positions": [(0, 0)]}, ValueError, "There are 1 positions for 2 channels"),
        ({"positions": [(0, 0), (99, 0)]}, ValueError, "the map of layer '1' is 16 × 24"),
    ],
)
def test_bad_input_is_refused(options, error, message):
    given = {"layer": "1", "channels": [1, 3], "images": IMAGES, **options}
    with pytest.raises(error, match=message):
        unit_invariance(network(), given.pop("layer"), given.pop("channels"), input_spec=SPEC, **given)


def test_a_unit_that_is_dead_keeps_nothing_from_the_others():
    net = network()
    with torch.no_grad():
        net[0].bias[1] = -100
    found = unit_invariance(net, "1", [1, 3], input_spec=SPEC, images=IMAGES, num_directions=2, frequencies=1)
    assert found.responds.tolist() == [False, True]
    assert found.channels == (1, 3)
    alone = unit_invariance(net, "1", [3], input_spec=SPEC, images=IMAGES[1:], num_directions=2, frequencies=1)
    torch.testing.assert_close(found.walks[1:], alone.walks)
    assert found.activations[0] == 0
    assert not found.walks[0].any()
    assert not found.directions[0].any()
    assert found.curvatures[0].isnan().all()
    assert all(values[0].isnan().all() for values in (*found.changes.values(), *found.alignments.values()))
    assert torch.equal(found.images[0], found.stimuli[0].expand_as(found.images[0]))


def test_an_image_without_contrast_excites_nothing():
    grey = SPEC.denormalize(torch.zeros(1, 3, 20, 28))
    found = unit_invariance(network(), "1", [0], input_spec=SPEC, images=grey, num_directions=2, frequencies=1)
    assert not found.responds.any()
