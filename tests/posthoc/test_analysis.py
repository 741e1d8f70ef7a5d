"""`analyze`: every method on small networks, from every kind of data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis import InputSpec, PhotoCrops, analyze, figures
from lightning_cnnvis.functional import DreamOptions, project
from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD
from lightning_cnnvis.layers import LayerError
from lightning_cnnvis.posthoc import DataError

SPEC = InputSpec(size=(24, 24), mean=(0.5,), std=(0.25,), class_names=("ant", "bee", "cow", "dog"))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


@pytest.fixture
def images():
    return torch.rand(12, 3, 24, 24, generator=torch.Generator().manual_seed(1))


def photographs(folder, count=5, size=(40, 30)):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG")


def test_deconv_projects_the_strongest_activations(network, images):
    result = analyze(network, SPEC.normalize(images), input_spec=SPEC).deconv(["3"], k=3, rule="deconvnet")
    with torch.no_grad():
        strongest = network[:4](SPEC.normalize(images)).amax((2, 3))  # (N, 4)
    values, winners = strongest.topk(3, dim=0)
    found = result.projections["3"]
    assert torch.equal(result.tops["3"].sample_ids, winners.T)
    torch.testing.assert_close(found.activations.view(4, 3), values.T)
    alone = project(network, SPEC.normalize(images)[winners[:1, 2]], "3", torch.tensor([2]))
    torch.testing.assert_close(found.pixels[6:7], alone.pixels)
    assert list(result.pictures) == ["deconvnet/3"]
    assert is_png(result._repr_png_())


def test_the_rule_depends_on_whether_there_are_switches(network, images):
    analysis = analyze(network, images, input_spec=SPEC)
    guided, same = analysis.deconv(["3"], k=2), analysis.deconv(["3"], k=2, rule="guided")
    torch.testing.assert_close(guided.projections["3"].pixels, same.projections["3"].pixels, rtol=0, atol=0)
    assert list(guided.pictures) == ["deconvnet_guided/3"]
    pooled = nn.Sequential(*network[:2], nn.MaxPool2d(2), *network[2:])
    # one rule for all layers, also for those below the pooling
    assert list(analyze(pooled, images, input_spec=SPEC).deconv(k=2).pictures) == ["deconvnet/1", "deconvnet/4"]


def test_deconv_of_the_channels_that_were_asked_for(network, images):
    analysis = analyze(network, images, input_spec=SPEC)
    result = analysis.deconv(channels=[3, 1], k=2)
    assert result.projections["1"].channels.tolist() == [3, 3, 1, 1]
    with pytest.raises(ValueError, match=r"Channel 4 is not in layer '3': it has channels 0 to 3\."):
        analysis.deconv(["3"], channels=[4])
    with pytest.raises(LayerError, match="no layer 'relu'"):
        analysis.deconv(["relu"])


def test_fewer_images_than_places(network, images):
    result = analyze(network, images[:2], input_spec=SPEC).deconv(["1"], k=9)
    assert result.k == 2
    assert len(result.projections["1"]) == 8 * 2


def test_a_network_is_left_as_it_was(network, images):
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    analysis = analyze(network, images, input_spec=SPEC)
    analysis.deconv(k=2)
    analysis.classes([0], steps=2)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_classes_by_name_and_number(network):
    result = analyze(network, input_spec=SPEC).classes(["bee", 3], steps=3)
    assert result.visualizations.labels == ("bee", "dog")
    assert is_png(result._repr_png_())
    assert len(analyze(network, input_spec=SPEC).classes(steps=1).visualizations.labels) == 4


def test_feature_maps_beside_their_strongest_activation_on_the_images(network, images, monkeypatch):
    drawn = []

    def watched(pictures, labels, states, title, note, **options):
        drawn.append((list(labels), states, note))
        return labelled_pictures(pictures, labels, states, title, note, **options)

    labelled_pictures = figures.labelled_pictures
    monkeypatch.setattr(figures, "labelled_pictures", watched)
    result = analyze(network, images, input_spec=SPEC).maximize(["1", "3"], [2, 0], steps=3)
    assert list(result.pictures) == ["activation_maximization/1", "activation_maximization/3"]
    with torch.no_grad():
        strongest = network.eval()[:2](images).amax((0, 2, 3))
    labels, states, note = drawn[0]
    shown = result.features["1"]
    assert labels == ["#2", "#0"]
    for n, channel in enumerate((2, 0)):
        assert f" · {shown.peaks[n] / strongest[channel]:.1f}× real" in states[n]
    assert note.endswith("the strongest activation on real images.")
    # where there are no images, nothing is said of them
    result = analyze(network, input_spec=SPEC).maximize(["1"], num_channels=2, steps=2)
    assert "real" not in "".join(drawn[-1][1])
    projected = analyze(network, images, input_spec=SPEC).deconv(["1"], num_channels=2, k=1).projections["1"]
    assert list(result.features["1"].targets) == projected.channels.tolist()


def test_feature_maps_that_are_not_there(network, images):
    analysis = analyze(network, images, input_spec=SPEC)
    with pytest.raises(ValueError, match=r"channels=\[1\] requires layers"):
        analysis.maximize(channels=[1])
    with pytest.raises(ValueError, match=r"Channel 9 is not in layer '1': it has channels 0 to 7\."):
        analysis.maximize(["1"], channels=[9])
    with pytest.raises(LayerError, match="no layer 'relu'"):
        analysis.maximize(["relu"])


def test_dream_and_invert_take_the_first_images(network, images, tmp_path):
    analysis = analyze(network, photographs(tmp_path / "photos"), input_spec=SPEC)
    dreamt = analysis.dream(["3"], size=32, options=DreamOptions(octaves=1, steps=2))
    assert dreamt.dreams["3"].images.shape == (1, 3, 32, 24)
    inverted = analysis.invert(["1", "3"], count=3, restarts=2, steps=2)
    assert inverted.inversions.images.shape == (2, 2, 3, 3, 24, 24)
    assert list(inverted.pictures) == ["inversion/layers", "inversion/restarts"]


def test_layers_say_what_can_be_asked_for(network):
    rows = {row.name: row for row in analyze(network, input_spec=SPEC).layers()}
    assert (rows["2"].kind, rows["2"].shape, rows["2"].field, rows["2"].stride) == ("Conv2d", (4, 9, 9), (7, 7), (2, 2))
    assert [name for name, row in rows.items() if row.default] == ["1", "3"]
    assert rows["5"].stride == (0, 0)


def test_layers_say_what_the_deconvnet_cannot_pass():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 3))
    table = analyze(network, input_spec=SPEC).layers()
    assert [row.passable for row in table] == [True, False, False]
    assert "Gelu in module '1'" in str(table)


def test_every_kind_of_data(network, images, tmp_path):
    folder = photographs(tmp_path / "photos" / "some")
    loader = DataLoader(TensorDataset(images, torch.zeros(12)), 4)
    files = sorted(folder.iterdir())
    for data, count in ((tmp_path / "photos", 5), (str(folder), 5), (files[0], 1), (files[:2], 2), (loader, 12)):
        batches = list(analyze(network, data, input_spec=SPEC).images.batches(SPEC))
        assert sum(map(len, batches)) == count
        assert all(batch.shape[1:] == (3, 24, 24) for batch in batches)
    crops = PhotoCrops(image_size=24, val_size=6)
    analysis = analyze(network, crops)
    assert analysis.input_spec == crops.input_spec
    assert sum(map(len, analysis.images.batches(analysis.input_spec))) == 6


def test_unreadable_images_are_named_skipped_and_counted(network, tmp_path):
    folder = photographs(tmp_path / "photos")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:500])
    with pytest.warns(UserWarning, match=r"broken\.jpg was skipped"):
        result = analyze(network, folder, input_spec=SPEC).deconv(["1"])
    assert {path.name for path in result.skipped} == {"broken.jpg", "cut.png"}
    assert result.k == 5


@pytest.mark.filterwarnings("ignore:.*was skipped")
def test_data_that_are_not_there(network, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images in it"):
        analyze(network, tmp_path / "empty", input_spec=SPEC).deconv()
    with pytest.raises(DataError, match=r"There is no file or folder .*nowhere\.jpg"):
        analyze(network, tmp_path / "nowhere.jpg", input_spec=SPEC).deconv()
    with pytest.raises(DataError, match="not a file, a folder or a data module"):
        analyze(network, "PhotoCorps", input_spec=SPEC).deconv()
    with pytest.raises(DataError, match="no images to show"):
        analyze(network, input_spec=SPEC).deconv()
    with pytest.raises(DataError, match="The input format of Sequential is unknown"):
        analyze(network)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"None of the 1 image\(s\) can be read"):
        analyze(network, tmp_path / "broken.jpg", input_spec=SPEC).deconv()


def test_an_input_that_does_not_fit(network):
    with pytest.raises(LayerError, match=r"does not run on an image of shape \(1, 24, 24\)"):
        analyze(network, input_spec=InputSpec(size=(24, 24), channels=1))


def test_results_are_saved_as_files(network, images, tmp_path):
    result = analyze(network, images, input_spec=SPEC).deconv(k=2, rule="deconvnet")
    files = result.save(tmp_path / "all")
    assert [path.relative_to(tmp_path).as_posix() for path in files] == ["all/deconvnet/1.png", "all/deconvnet/3.png"]
    (one,) = result.save(tmp_path / "one.png")
    height = sum(picture.shape[0] for picture in result.pictures.values())
    assert Image.open(one).height == height
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("data", [[], ()])
def test_no_data_is_said_to_be_none(data):
    with pytest.raises(DataError, match="data is empty"):
        _ = analyze(nn.Sequential(nn.Conv2d(3, 4, 3)), data, input_spec=InputSpec(size=(8, 8))).images


def test_photographs_alone_are_taken_for_imagenets(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.png")
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.ReLU(), nn.Dropout(), nn.Identity())
    with pytest.warns(UserWarning, match="The input format of .* is unknown: colour images of 224 × 224 pixels"):
        analysis = analyze(net, tmp_path)
    assert analysis.input_spec == InputSpec(size=(224, 224), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert "Sequential, input 3×224×224, images from ImageFiles\nIt has layers, deconv" in repr(analysis)
    table = analysis.layers()
    assert [row.name for row in table] == ["0", "1"]  # the others do nothing
    assert "<td><b>1</b></td><td>ReLU</td>" in table._repr_html_()
    assert set(analysis.deconv("1", k=1, num_channels=1).projections) == {"1"}
