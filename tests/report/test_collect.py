"""What a report shows is what the methods give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lightning_cnnvis import figures
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.layers import LayerError
from lightning_cnnvis.posthoc import analyze
from lightning_cnnvis.report import ReportOptions, collect, render

SPEC = InputSpec(size=(16, 16), mean=(0.5,), std=(0.25,), class_names=("cat", "dog", "emu"))
QUICK = ReportOptions(num_channels=4, k=3, steps=2)


def network(*end: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3), nn.ReLU())
    return nn.Sequential(*convolutions, *end)


def classifier() -> nn.Sequential:
    return network(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


@pytest.fixture(scope="module")
def images():
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def analysis(images):
    return analyze(classifier(), images, input_spec=SPEC)


@pytest.fixture(scope="module")
def collected(analysis):
    return collect(analysis, options=QUICK)


def test_layers_are_the_rectified_convolutions_with_their_facts(collected):
    assert [layer.name for layer in collected.layers] == ["1", "4"]
    first, second = collected.layers
    assert (first.shape, first.field, first.stride) == ((8, 14, 14), (3, 3), (1, 1))
    assert (second.shape, second.field, second.stride) == ((6, 5, 5), (8, 8), (2, 2))
    assert [layer.name for layer in collected.network] == [str(n) for n in range(8)]
    assert dict(collected.facts)["Input"] == "3×16×16"


def test_features_are_the_projections_of_the_analysis(analysis, collected):
    deconv = analysis.deconv(num_channels=4, k=3)
    for section in (section for section in collected.sections if section.layer):
        projections = deconv.projections[section.title]
        (layer,) = section.blocks
        assert layer.total == {"1": 8, "4": 6}[section.title]
        assert [feature.channel for feature in layer.features] == projections.channels[::3].tolist()
        pixels = figures.contrast(projections.pixels)
        patches = SPEC.denormalize(projections.patches)
        for n, feature in enumerate(layer.features):
            assert feature.activations == tuple(projections.activations[3 * n : 3 * n + 3].tolist())
            height, width = (side // count for side, count in zip(feature.sprite.shape, (2, 3), strict=False))
            for place in range(3):
                column = slice(place * width, (place + 1) * width)
                for row, shown in enumerate((pixels, patches)):
                    wanted = np.asarray(figures.tile(shown[3 * n + place], 64))
                    if projections.activations[3 * n + place] <= 0:
                        continue
                    np.testing.assert_array_equal(feature.sprite[row * height : (row + 1) * height, column], wanted)


def blocks_of(content, title):
    (section,) = [section for section in content.sections if section.title == title]
    return section.blocks


def test_every_method_has_a_section(collected):
    (classes,) = blocks_of(collected, "Classes")
    assert [tile.label for tile in classes.tiles] == ["cat", "dog", "emu"]
    assert all(tile.picture.shape == (16, 16, 3) and "p 0." in tile.state for tile in classes.tiles)
    rows = blocks_of(collected, "What each layer still knows")
    assert [[tile.label for tile in row.tiles] for row in rows] == [["1", "4"]] * 2
    (dreams,) = blocks_of(collected, "Dreams")
    assert [tile.label for tile in dreams.tiles] == ["1", "4"]
    maximized = blocks_of(collected, "What feature maps respond to most")
    assert [len(block.tiles) for block in maximized] == [4, 4]
    assert "× real" in maximized[0].tiles[0].state
    assert collected.left_out == ()


def test_what_is_not_a_classifier_has_no_classes(images):
    found = collect(analyze(network(), images, input_spec=SPEC), options=QUICK)
    assert len(found.layers) == 2
    assert "classes: Sequential is not a classifier: it does not return logits (N, classes)." in found.left_out
    html = render(found)
    assert "Classes</h2>" not in html
    assert "is not a classifier" in html


def test_methods_can_be_chosen(analysis):
    found = collect(analysis, ["4"], options=ReportOptions(show=["deconv"], k=1))
    assert [section.title for section in found.sections] == ["4"]
    assert len(found.sections[0].blocks[0].features) == 6
    with pytest.raises(ValueError, match=r"no method .dreams.\. Did you mean .dream."):
        ReportOptions(show=["dreams"])


def test_without_a_layer_that_a_deconvnet_can_pass(images):
    smooth = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    found = collect(analyze(smooth, images, input_spec=SPEC), options=QUICK)
    assert [tile.label for tile in blocks_of(found, "Classes")[0].tiles] == ["cat", "dog", "emu"]


def test_model_is_left_as_it_was(images):
    model = classifier()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    collect(analyze(model, images, input_spec=SPEC), options=QUICK)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_unknown_layer(analysis):
    with pytest.raises(LayerError, match="no layer 'relu9'"):
        collect(analysis, ["relu9"], options=QUICK)


@pytest.mark.parametrize("bad", [{"num_channels": 0}, {"k": 0}, {"steps": 0}])
def test_options_out_of_range(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}="):
        ReportOptions(**bad)


def test_a_rule_of_choice(analysis):
    sprites, notes = [], []
    for rule in ("deconvnet", "guided"):
        found = collect(analysis, ["4"], options=ReportOptions(show=["deconv"], num_channels=1, k=1, rule=rule))
        notes.append(found.sections[0].note)
        sprites.append(found.sections[0].blocks[0].features[0].sprite)
    assert not np.array_equal(*sprites)
    assert ["guided" in note for note in notes] == [False, True]
    with pytest.raises(ValueError, match="guide"):
        ReportOptions(rule="guide")
