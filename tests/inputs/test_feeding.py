"""What a training makes of its batches is found out from one of them, both ways."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from lightning_cnnvis.inputs.feeding import fed, find_feeding, pictures

MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
IMAGENET = InputSpec((12, 16), mean=IMAGENET_MEAN, std=IMAGENET_STD)
PLAIN = InputSpec((12, 16))


def images(kind: str = "float", channels: int = 3) -> Tensor:
    found = torch.rand(6, channels, 12, 16, generator=torch.Generator().manual_seed(0)) ** 2
    return (255 * found).byte() if kind == "uint8" else found


def assert_close(spec: InputSpec, expected: InputSpec, rtol: float = 1e-4) -> None:
    assert (spec.size, spec.channels) == (expected.size, expected.channels)
    torch.testing.assert_close(torch.tensor(spec.mean), torch.tensor(expected.mean), rtol=rtol, atol=1e-5)
    torch.testing.assert_close(torch.tensor(spec.std), torch.tensor(expected.std), rtol=rtol, atol=1e-5)


NORMALIZED = {
    "imagenet": lambda x: (x - MEAN) / STD,
    "torchvision": v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    "flipped": lambda x: ((x - MEAN) / STD).flip(-1),
    "some flipped": lambda x: torch.cat([(x[:3] - MEAN) / STD, ((x[3:] - MEAN) / STD).flip(-1)]),
    "shuffled": lambda x: ((x - MEAN) / STD)[[3, 1, 5, 0, 2, 4]],
    "half": lambda x: ((x - MEAN) / STD).half(),
}


@pytest.mark.parametrize("name", NORMALIZED)
def test_normalised_by_the_training(name):
    batch = images()
    inputs = NORMALIZED[name](batch)
    feeding = find_feeding(batch, inputs)
    rtol = 1e-3 if name == "half" else 1e-4
    assert_close(feeding.spec_of_inputs(PLAIN), IMAGENET, rtol)
    assert_close(feeding.spec_of_batch(IMAGENET, batch), PLAIN, rtol)
    if name in ("imagenet", "torchvision"):
        torch.testing.assert_close(fed(batch, PLAIN, feeding.spec_of_inputs(PLAIN)), inputs, rtol=1e-4, atol=1e-4)


def test_bytes_that_are_scaled_and_normalised():
    batch, of_bytes = images("uint8"), InputSpec((12, 16), std=(1 / 255,))
    inputs = (batch.float() / 255 - MEAN) / STD
    feeding = find_feeding(batch, inputs)
    assert_close(feeding.spec_of_inputs(of_bytes), IMAGENET)
    assert_close(feeding.spec_of_batch(IMAGENET, batch), of_bytes)
    torch.testing.assert_close(fed(batch, of_bytes, IMAGENET), inputs)


def test_resized_and_normalised():
    batch, large = images(), InputSpec((24, 32), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    smooth = F.interpolate(F.avg_pool2d(batch, 3, 1, 1), (12, 16))
    inputs = (F.interpolate(smooth, (24, 32), mode="bilinear") - MEAN) / STD
    feeding = find_feeding(smooth, inputs)
    assert_close(feeding.spec_of_inputs(PLAIN), large, rtol=0.05)
    assert_close(feeding.spec_of_batch(large, smooth), PLAIN, rtol=0.05)
    assert fed(smooth, PLAIN, large).shape == inputs.shape
    assert pictures(smooth, PLAIN, large).shape == inputs.shape


def test_grey_images_that_are_repeated():
    batch, grey = images(channels=1), InputSpec((12, 16), 1)
    inputs = (batch.expand(-1, 3, -1, -1) - MEAN) / STD
    feeding = find_feeding(batch, inputs)
    assert_close(feeding.spec_of_inputs(grey), IMAGENET)
    assert_close(feeding.spec_of_batch(IMAGENET, batch), grey)
    torch.testing.assert_close(fed(batch, grey, IMAGENET), inputs)


def test_a_constant_channel_keeps_its_colour():
    batch = images()
    batch[:, 0] = 0.8
    inputs = (batch - MEAN) / STD
    spec = find_feeding(batch, inputs).spec_of_inputs(PLAIN)
    torch.testing.assert_close(spec.denormalize(inputs), batch, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_images_that_are_fed_as_they_are(dtype, kind):
    batch = images(kind)
    feeding = find_feeding(batch, batch.to(dtype))
    assert feeding.is_identity
    assert feeding.spec_of_inputs(IMAGENET) == IMAGENET == feeding.spec_of_batch(IMAGENET, batch)
    assert fed(batch, IMAGENET, IMAGENET) is batch


@pytest.mark.parametrize(
    "augment",
    [
        lambda x: 0.8 * x + 0.2 * x.roll(1, 0),
        lambda x: x.flip(-1),
        lambda x: (1.1 * x).clamp(0, 1),
        lambda x: F.interpolate(x[:, :, 1:-1, 2:-2], (12, 16)),
    ],
    ids=["mixed", "flipped", "contrast", "crops"],
)
def test_augmentation_is_no_format(augment):
    feeding = find_feeding(images(), augment(images()))
    assert feeding is None or feeding.is_identity


@pytest.mark.parametrize(
    "inputs",
    [
        torch.randn(6, 3, 12, 16),
        images() + 0.5 * torch.randn(6, 3, 12, 16),
        images()[:, :2],
        torch.zeros(6, 3, 12, 16),
        1 - images(),
        torch.randn(6, 64, 12, 16),
    ],
    ids=["noise", "noisy", "fewer channels", "blank", "negative", "features"],
)
def test_what_is_not_the_batch(inputs):
    assert find_feeding(images(), inputs) is None
