"""Units at the upper bound of their rectifier, such as ReLU6's: they have a picture, and a rank."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_cnnvis.functional import project, top_activations
from lightning_cnnvis.functional.activations.harvest import Harvest
from lightning_cnnvis.functional.deconvnet.own_rectifier import pass_own_rectifier
from lightning_cnnvis.functional.deconvnet.projection import plan_windows, project_windows
from lightning_cnnvis.functional.network.saturation import Unsaturated

timm = pytest.importorskip("timm")


class Function(nn.Module):
    """A rectifier that is a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


BOUNDED = {
    "ReLU6": nn.ReLU6,
    "ReLU6 in place": lambda: nn.ReLU6(inplace=True),
    "Hardtanh": lambda: nn.Hardtanh(0, 6),
    "F.relu6": lambda: Function(F.relu6),
    "clamp": lambda: Function(lambda x: x.clamp(0, 6)),
    "clamp in place": lambda: Function(lambda x: x.clamp_(0, 6)),
    "clip": lambda: Function(lambda x: torch.clip(x, min=0, max=6)),
    "scaled": lambda: Function(lambda x: F.relu6(x * 6) / 6),
    "scaled in place": lambda: Function(lambda x: x.mul(6).clamp_(0.0, 6.0).div_(6.0)),
    "then flattened": lambda: Function(lambda x: F.relu6(x).view(x.shape[0], -1, *x.shape[2:]).contiguous()),
    "before dropout": lambda: nn.Sequential(nn.ReLU6(), nn.Dropout(), nn.Identity()),
    "timm": lambda: timm.layers.BatchNormAct2d(4, act_layer=nn.ReLU6),
}
BOUNDED_FOR_GRADIENTS = {
    "Hardtanh around 0": nn.Hardtanh,
    "Hardsigmoid": nn.Hardsigmoid,
    "hardsigmoid in place": lambda: Function(lambda x: F.hardsigmoid(x, inplace=True)),
    "timm's hard sigmoid": timm.layers.HardSigmoid,
    "clamp_max": lambda: Function(lambda x: x.relu().clamp_max(6)),
    "minimum": lambda: Function(lambda x: torch.minimum(x.relu(), torch.tensor(6.0))),
}


ALL = BOUNDED | BOUNDED_FOR_GRADIENTS


def network(rectifier, gain=40.0):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        conv.weight *= gain
    return nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), conv, rectifier).eval()


@pytest.fixture
def images():
    return torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))


CASES = [
    *((rule, name, make) for rule in ("deconvnet", "guided", "gradient") for name, make in BOUNDED.items()),
    *(("gradient", name, make) for name, make in BOUNDED_FOR_GRADIENTS.items()),
]


@pytest.mark.parametrize(
    ("rule", "make"), [(rule, make) for rule, _, make in CASES], ids=[f"{r}-{n}" for r, n, _ in CASES]
)
def test_a_saturated_unit_has_the_picture_of_the_unit_below_its_rectifier(images, rule, make):
    net = network(make())
    channels = torch.arange(8) % 4
    found = project(net, images, "3", channels, rule=rule, start="one")
    with torch.no_grad():
        highest = net(images).amax()
    assert (found.activations == highest).sum() >= 4  # at the bound
    assert found.pixels.flatten(1).any(1).all()
    # the rectifier passes the unit: what lies below it has the same picture, up to the rectifier's slope
    below = project(net, images, "2", channels, found.positions, rule=rule, start="one")
    ratio = (found.pixels * below.pixels).flatten(1).sum(1) / below.pixels.square().flatten(1).sum(1)
    assert torch.allclose(found.pixels, below.pixels * ratio.view(-1, 1, 1, 1), atol=1e-5)
    assert (ratio > 0.1).all()


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_rectifiers_further_down_stay_as_they_are(images, rule):
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        first.weight *= 40
    net = nn.Sequential(first, nn.ReLU6(), nn.Conv2d(4, 4, 3), nn.ReLU6()).eval()
    shared = images.clone().requires_grad_()
    unit = net[:3](shared)[:, 0, 4, 4]
    (expected,) = torch.autograd.grad(unit.sum(), shared)
    on = project(net, images, "3", torch.zeros(8, dtype=int), torch.full((8, 2), 4), rule=rule, start="one")
    if rule == "gradient":
        alive = on.activations > 0
        assert alive.any()
        assert torch.allclose(on.full()[alive], expected[alive], atol=1e-6)
    assert not on.pixels[on.activations == 0].any() or rule == "deconvnet"


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
@pytest.mark.parametrize("make", [nn.ReLU, nn.LeakyReLU, lambda: Function(F.relu), lambda: nn.ReLU(inplace=True)])
def test_rectifiers_without_an_upper_bound_are_left_alone(images, rule, make, monkeypatch):
    net = network(make())
    channels = torch.arange(8) % 4
    found = project(net, images, "3", channels, rule=rule)
    monkeypatch.setattr("lightning_cnnvis.functional.deconvnet.batching.pass_own_rectifier", lambda *_, **__: None)
    monkeypatch.setattr(Unsaturated, "of", lambda self, output: output)
    before = project(net, images, "3", channels, rule=rule)
    assert torch.equal(found.pixels, before.pixels)
    assert torch.equal(found.positions, before.positions)
    tops = top_activations(net, images.split(3), ["1", "3"], 3)
    for layer, top in tops.items():
        assert top.values.equal(top._ranked(top._strengths)), layer


def test_units_that_are_off_stay_off(images):
    net = network(nn.ReLU6())
    with torch.no_grad():
        net[2].bias -= 1e4
    for rule in ("guided", "gradient"):
        assert not project(net, images, "3", torch.zeros(8, dtype=int), rule=rule, start="one").pixels.any()


def test_a_pool_over_saturated_units_has_a_picture(images):
    net = nn.Sequential(*network(nn.ReLU6()), nn.MaxPool2d(2)).eval()
    for rule in ("guided", "gradient"):
        found = project(net, images, "4", torch.arange(8) % 4, rule=rule)
        assert found.pixels.flatten(1).any(1).all()


@pytest.mark.parametrize(
    "make", [*BOUNDED.values(), *BOUNDED_FOR_GRADIENTS.values()], ids=[*BOUNDED, *BOUNDED_FOR_GRADIENTS]
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_images_are_ranked_by_the_activation_before_the_rectifier(images, make, mode):
    net = network(make())
    with mode(), Harvest(net, {"3": None}, k=3, rule="gradient") as harvest:
        for batch in images.split(3):
            net(batch)
    top = harvest.tops["3"]
    with torch.no_grad():
        before, after = net[:3](images), net(images)
    strengths = before.amax((2, 3)).T
    assert torch.equal(top.sample_ids, strengths.argsort(1, descending=True)[:, :3])
    for channel in range(4):
        for sample, (row, column), value in zip(
            top.sample_ids[channel].tolist(), top.positions[channel].tolist(), top.values[channel], strict=True
        ):
            assert before[sample, channel, row, column] == before[sample, channel].max()
            assert value == after[sample, channel, row, column]  # the number that is shown is the rectified one


def test_a_block_that_ends_in_a_function(images):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.expand, self.project = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return F.relu6(40 * self.project(F.relu6(40 * self.expand(x))))

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 3, 3), Block()).eval()
    top = top_activations(net, images.split(2), ["1"], 4)["1"]
    block = net[1]
    with torch.no_grad():
        hidden = (F.relu6(40 * block.expand(net[0](batch))) for batch in images.split(2))
        before = torch.cat([40 * block.project(batch) for batch in hidden])
    strengths = before.amax((2, 3)).clamp(min=0).T
    assert torch.allclose(top._ranked(top._strengths), strengths.sort(1, descending=True)[0][:, :4])
    assert torch.allclose(strengths.gather(1, top.sample_ids), top._ranked(top._strengths))
    assert (top.values == 6).sum() > 4


def test_the_rank_outlives_merging_states_and_choices(images):
    net = network(nn.ReLU6())
    whole = top_activations(net, images.split(2), ["3"], 3)["3"]
    plan = plan_windows(net, "3", images, rule="gradient")
    parts = []
    for start in (0, 1):
        with torch.no_grad(), Harvest(net, {"3": None}, k=3, windows={"3": plan}) as harvest:
            harvest.number(start, 2)
            net(images[start::2])
        parts.append(harvest.tops["3"])
    merged = type(whole).from_state_dict(parts[1].state_dict())
    merged.merge(parts[0])
    for top in (merged, merged[[0, 1, 2, 3]], merged.best(3), merged.to("cpu")):
        assert torch.equal(top.sample_ids, whole.sample_ids)
        assert torch.equal(top.positions, whole.positions)
    assert torch.equal(merged.best(1).sample_ids, whole.sample_ids[:, :1])


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.error = None

    def forward(self, x):
        if self.error:
            raise self.error
        return F.relu6(x)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_no_mode_is_left_behind(images, error):
    net = network(Fails())
    seen = []

    class Watch(Unsaturated):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return super().__torch_dispatch__(func, types, args, kwargs)

    with torch.no_grad(), Harvest(net, {"3": None}, k=3) as harvest:
        harvest._unsaturated = Watch()
        net(images)
        net[3].error = error
        with pytest.raises(type(error)):
            net(images)
    assert seen
    seen.clear()
    torch.zeros(1) + 1
    assert not seen
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._forward_hooks_always_called for m in net.modules())


def test_the_pass_that_is_followed_stays_the_same(images):
    torch.manual_seed(0)
    net = timm.create_model("tf_efficientnet_lite0", num_classes=3).eval()
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layers = ["bn1", "blocks.1.0.bn2", "blocks.3.0", "bn2.act"]
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            expected = net(batch)
            with Harvest(net, dict.fromkeys(layers), k=2, rule="gradient"):
                assert torch.equal(net(batch), expected)
                assert torch.equal(net(batch), expected)


def test_plain_layers_are_not_followed_after_the_first_batch(images):
    net = nn.Sequential(*network(nn.ReLU6()), nn.Conv2d(4, 4, 3), nn.ReLU())
    with torch.no_grad(), Harvest(net, dict.fromkeys(["1", "3", "5"]), k=2) as harvest:
        net(images)
        assert list(harvest._bounded) == ["3"]
        net(images)


def test_the_graph_does_not_hold_itself(images):
    import gc
    import weakref

    for make in ALL.values():
        net = network(make())
        x = images.clone().requires_grad_()
        output = net(x)
        pass_own_rectifier(output)
        kept = weakref.ref(x)
        gc.disable()
        try:
            del output, x
            assert kept() is None
        finally:
            gc.enable()


def test_windows_of_saturated_units_equal_whole_images(images):
    net = network(nn.ReLU6())
    channels = torch.arange(8) % 4
    for rule in ("deconvnet", "guided", "gradient"):
        windowed, whole = (project(net, images, "3", channels, rule=rule, windowed=w) for w in (True, False))
        assert torch.allclose(windowed.full(), whole.full(), atol=1e-5)
    pixels, _ = project_windows(net, images, "3", channels, windowed.positions, rule="guided")
    assert pixels.flatten(1).any(1).all()


def test_scripted_layers_are_not_followed(images):
    """They may be fused, and would not be in the mode that follows bounds."""
    net = network(nn.Sequential(torch.jit.script(nn.ReLU6())))
    with torch.no_grad(), Harvest(net, {"1": None, "3": None}, k=2, rule="gradient") as harvest:
        assert list(harvest._bounded) == ["1"]
        net(images)
    assert len(harvest.tops["3"]) == 4
