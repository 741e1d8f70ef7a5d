"""Whether a layer takes a reconstruction and its original for the same."""

from __future__ import annotations

import pytest
import torch
from runs import IMAGES, SPEC, network
from torch import nn

from lightning_cnnvis import analyze
from lightning_cnnvis.functional import InversionOptions, Inversions, invert, invert_layers
from lightning_cnnvis.functional.inversion.metamers import (
    MEASURES,
    Metamers,
    feature_similarities,
    null_similarities,
)

OTHERS = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(9))


def found(layers=("2",), steps: int = 2, **options) -> Inversions:
    advanced = InversionOptions(others=OTHERS, **options)
    return invert_layers(network().eval(), IMAGES[:2], layers, input_spec=SPEC, steps=steps, options=advanced)


def test_the_null_is_that_of_every_pair():
    features = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)).relu()
    null = null_similarities(features)
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    for n, (a, b) in enumerate(pairs):
        expected = feature_similarities(features[a : a + 1], features[b : b + 1])
        for measure in MEASURES:
            torch.testing.assert_close(null[measure][n : n + 1], expected[measure], atol=1e-5, rtol=1e-5)


def test_an_inversion_of_a_first_layer_is_taken_for_the_same():
    many = found(("0",), steps=150)
    assert many.metamers.similarities["pearson"].shape == (1, 1, 2)
    assert many.metamers.null["snr"].shape == (1, 15)
    assert many.metamers.outside.all()
    assert torch.equal(many.metamers.taken_for_same, many.label_kept)
    assert many.metamers.verdict(0, 0, 0) in {"taken for the same", "another label"}


def test_noise_is_told_apart():
    net = network().eval()
    options = InversionOptions(others=IMAGES[2:] * 0.1 + IMAGES[:1])  # a null of images that are much alike
    noise = invert(net, IMAGES[:2], "2", input_spec=SPEC, steps=1, options=options)
    assert not noise.metamers.outside.any()
    assert noise.metamers.verdict(0, 0, 1) == "told apart"


def test_the_label_must_be_the_same():
    values = {measure: torch.tensor([[[0.9, 0.9, 0.1]]]) for measure in MEASURES}
    null = {measure: torch.tensor([[0.5, torch.nan]]) for measure in MEASURES}
    metamers = Metamers(values, null, torch.tensor([[[True, False, True]]]))
    assert metamers.taken_for_same.tolist() == [[[True, False, False]]]
    assert [metamers.verdict(0, 0, n) for n in range(3)] == ["taken for the same", "another label", "told apart"]
    assert Metamers(values, null, None).taken_for_same.tolist() == [[[True, True, False]]]


def test_shares_of_the_layers_are_joined():
    both = found(("2", "5"))
    joined = Inversions.cat([found(("2",)), found(("5",))])
    for measure in MEASURES:
        torch.testing.assert_close(joined.metamers.similarities[measure], both.metamers.similarities[measure])
        torch.testing.assert_close(joined.metamers.null[measure], both.metamers.null[measure])
    plain = invert(network().eval(), IMAGES[:2], "2", input_spec=SPEC, steps=2)
    assert plain.metamers is None
    assert Inversions.cat([plain, plain]).metamers is None


def test_a_layer_that_computes_nothing_takes_nothing_for_the_same():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    net[0].weight.data.zero_()
    net[0].bias.data.fill_(-1)
    options = InversionOptions(others=OTHERS)
    assert not invert(net, IMAGES[:1], "1", input_spec=SPEC, steps=1, options=options).metamers.outside.any()


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (OTHERS[:2], "others has 2 images"),
        (OTHERS[0], "others is torch.float32 of shape"),
        (OTHERS[..., :8], "others is torch.float32 of shape"),
        ((OTHERS * 255).byte(), "others is torch.uint8"),
        (OTHERS * torch.nan, "NaN or infinite"),
    ],
)
def test_others_that_make_no_null_are_refused(others, message):
    with pytest.raises(ValueError, match=message):
        invert(network(), IMAGES[:1], "2", input_spec=SPEC, steps=1, options=InversionOptions(others=others))


def test_the_tiles_say_it():
    analysis = analyze(network(), data=IMAGES, input_spec=SPEC)
    plain = analysis.invert(["2"], steps=2)
    marked = analysis.invert(["2"], steps=2, others=4)
    assert marked.inversions.metamers.null["pearson"].shape == (1, 6)
    assert marked.scalars["inversion_same/2"] in {0.0, 0.5, 1.0}
    assert "inversion_same/2" not in plain.scalars
    assert marked.pictures["inversion/layers"].shape[0] > plain.pictures["inversion/layers"].shape[0]
    torch.testing.assert_close(marked.inversions.images, plain.inversions.images)
    with pytest.raises(ValueError, match="others=2 must be 0, or at least 3"):
        analysis.invert(["2"], others=2)
    with pytest.raises(ValueError, match="others=3 needs at least 5 images of the data, not 4"):
        analyze(network(), data=IMAGES[:4], input_spec=SPEC).invert(["2"], others=3)
