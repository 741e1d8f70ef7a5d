"""Correspondence as a method of `analyze`, as a callback, in a report and as a command; parts from files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from runs import IMAGES, LABELS, SIDE, SPEC, Classifier, fit, loader, network
from torch import nn

from lightning_cnnvis import Correspondence, analyze
from lightning_cnnvis.callbacks import callback_class
from lightning_cnnvis.cli import main
from lightning_cnnvis.functional import correspondence
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.methods import get_method
from lightning_cnnvis.methods.correspondence import CorrespondenceOptions, same_places
from lightning_cnnvis.report import ReportOptions, collect

METHOD = get_method("correspondence")
EYE = [[1, 2, 5, 6], [3, 4, 7, 8]]


def analysis(data=None):
    return analyze(network(), loader() if data is None else data, input_spec=SPEC)


@pytest.mark.parametrize("of_class", [None, "dog", 1])
def test_images_of_one_class_at_the_same_places(of_class):
    found = analysis().correspondence(["2"], of_class=of_class, count=3)
    number = 0 if of_class is None else 1
    images = IMAGES[number == LABELS][:3]
    torch.testing.assert_close(found.images, images)
    expected = correspondence(network().eval(), images, same_places(3, (SIDE, SIDE)), ["2"], input_spec=SPEC)
    assert found.correspondence.deltas["2"] == pytest.approx(expected.deltas["2"], abs=1e-3)
    assert list(found.pictures) == ["correspondence/parts"]
    assert found.scalars["correspondence_delta/2/random"] == found.correspondence.deltas["2"]["random"]


def test_fewer_images_than_were_asked_for():
    assert len(analysis().correspondence(["2"], count=9).images) == 4
    with pytest.raises(ValueError, match="fewer than two images of one class"):
        analysis([(IMAGES[:2], LABELS[:2])]).correspondence(["2"])
    with pytest.raises(ValueError, match="fewer than two images of class 2"):
        analysis([(IMAGES[:2], LABELS[:2])]).correspondence(["2"], of_class="emu")


def test_images_without_classes():
    with torch.no_grad():
        predicted = network().eval()(IMAGES).argmax(1)
    found = analysis(IMAGES).correspondence(["2"], count=2)
    wanted = next(int(n) for place, n in enumerate(predicted) if (predicted[: place + 1] == n).sum() == 2)
    torch.testing.assert_close(found.images, IMAGES[predicted == wanted][:2])
    features = analyze(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), IMAGES, input_spec=SPEC)
    torch.testing.assert_close(features.correspondence(count=2).images, IMAGES[:2])


@pytest.mark.parametrize("size", [(16, 16), (9, 24), (3, 2), (1, 1)])
def test_the_same_places_lie_in_the_image(size):
    for boxes in same_places(2, size).values():
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= torch.tensor(size)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def photographs(folder: Path, sizes=((32, 32), (32, 48), (64, 32))) -> list[Path]:
    rng = np.random.default_rng(0)
    files = []
    for n, (height, width) in enumerate(sizes):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{n}.png")
        files.append(folder / f"{n}.png")
    return files


ROWS = "image,part,top,left,bottom,right\n0.png,eye,4,8,12,16\n1.png,eye,4,16,12,24\n2.png,eye,20,8,28,16\n"
YAML = "eye:\n  0.png: [4, 8, 12, 16]\n  1.png: [4, 16, 12, 24]\n  2.png: [20, 8, 28, 16]\n"


@pytest.mark.parametrize(("name", "text"), [("parts.csv", ROWS), ("parts.yaml", YAML), ("parts.yml", YAML)])
@pytest.mark.parametrize("given", [False, True])
def test_parts_of_a_file_go_with_their_photographs(tmp_path, name, text, given):
    files = photographs(tmp_path)
    (tmp_path / name).write_text(text)
    found = analysis(IMAGES).correspondence(
        ["2"], parts=tmp_path / name, images=list(reversed(files)) if given else None
    )
    # scaled to a half, and cut to the centre
    assert found.correspondence.parts["eye"].tolist() == [[2, 4, 6, 8], [2, 4, 6, 8], [2, 4, 6, 8]]
    assert found.images.shape == (3, 3, SIDE, SIDE)
    assert list(found.correspondence.deltas["2"]) == ["eye", "random"]


def test_parts_by_name(tmp_path):
    files = photographs(tmp_path)[:2]
    found = analysis(IMAGES).correspondence(["2"], parts={"eye": [[4, 8, 12, 16], [4, 16, 12, 24]]}, images=files)
    assert found.correspondence.parts["eye"].tolist() == [[2, 4, 6, 8], [2, 4, 6, 8]]
    found = analysis(IMAGES).correspondence(["2"], parts={"eye": EYE}, images=IMAGES[:2])
    assert found.correspondence.parts["eye"].tolist() == EYE


def test_the_table_is_saved(tmp_path):
    found = analysis().correspondence(["2", "5"], count=3)
    files = found.save(tmp_path)
    assert tmp_path / "correspondence/deltas.csv" in files
    rows = list(csv.DictReader((tmp_path / "correspondence/deltas.csv").open()))
    assert [row["layer"] for row in rows] == ["2"] * 6 + ["5"] * 6
    for row in rows:
        assert float(row["delta"]) == pytest.approx(found.correspondence.deltas[row["layer"]][row["part"]], abs=1e-6)


def test_shares_of_the_layers_are_put_together():
    subject, options = analysis().subject, CorrespondenceOptions(count=3)
    marked = METHOD.prepare(subject, options, {})
    whole = METHOD.run(subject, options, "", ["2", "5"], marked)
    joined = METHOD.merge([METHOD.run(subject, options, "", [layer], marked) for layer in ("2", "5")])
    assert joined.correspondence.deltas == whole.correspondence.deltas
    assert joined.correspondence.stds == whole.correspondence.stds


def test_in_a_report():
    (section,) = collect(analysis(), options=ReportOptions(show=["correspondence"])).sections
    assert len(section.blocks[0].tiles) == 4
    assert section.blocks[1].tiles[0].label == "delta"


def test_the_callback_compares_the_same_images_at_every_epoch(tmp_path):
    assert callback_class("correspondence") is Correspondence
    shown = Correspondence(
        layers=["model.2"], of_class="dog", count=3, every_n_epochs=1, input_spec=SPEC, on_error="raise"
    )
    fit(tmp_path, shown)
    folder = tmp_path / "cnnvis" / "correspondence"
    assert len(list((folder / "parts").glob("*.png"))) == 2
    assert (folder / "evolution").is_dir()
    assert (folder / "deltas.csv").read_text().startswith("layer,part,delta,std,pairs\n2,centre,")
    assert len(shown.state_dict()["strip"]["columns"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["convolution"]}, "no layer 'convolution'"),
        ({"of_class": "cow"}, "There is no class named 'cow'"),
        ({"of_class": 7}, "Class 7 is out of range"),
        ({"count": 1}, "count=1 must be at least 2"),
        ({"random_sets": 0}, "random_sets=0 must be at least 1"),
        ({"layers": []}, "leaves nothing to show"),
    ],
)
def test_refused_before_the_training(tmp_path, options, message):
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, Correspondence(**options, every_n_epochs=1, input_spec=SPEC))
    with pytest.raises(ValueError, match=message):
        analysis().correspondence(**options)


def test_bad_photographs_and_boxes(tmp_path):
    files = photographs(tmp_path)
    look = analysis(IMAGES).correspondence
    with pytest.raises(ValueError, match="there is only one"):
        look(images=files[:1])
    with pytest.raises(ValueError, match="Part 'eye' has 2 boxes for 3 images"):
        look(images=files, parts={"eye": EYE})
    with pytest.raises(ValueError, match="Part 'eye' has 1 boxes for 2 images"):
        look(images=IMAGES[:2], parts={"eye": EYE[:1]})
    with pytest.raises(ValueError, match=r"0\.png: The box \[0, 0, 33, 4\] is empty or not within the photograph"):
        look(images=files[:2], parts={"eye": [[0, 0, 33, 4], [0, 0, 4, 4]]})
    with pytest.raises(ValueError, match=r"1\.png: The box \[0, 0, 4, 4\] lies in a part .* that is cut off"):
        look(images=files[:2], parts={"eye": [[0, 0, 4, 4], [0, 0, 4, 4]]})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.csv", None, "cannot be read"),
        ("a.csv", "image,part,top,left,bottom\n0.png,eye,1,2,3\n", "has no column 'right'"),
        ("a.csv", ROWS + "0.png,nose,1,2,3,4\n", r"Part 'nose' of .* has 1 boxes for 3 images\. Mark it in 1\.png"),
        ("a.csv", ROWS.replace("4,8,12,16", "4,8,x,16"), "has the box"),
        ("a.csv", "image,part,top,left,bottom,right\n", "marks no part"),
        ("a.csv", ROWS.replace("2.png", "9.png"), "9.png"),
        ("a.yaml", "eye: [1, 2", "is not YAML"),
        ("a.yaml", "eye: [1, 2]", "does not have the form"),
        ("a.yaml", "eye: {0.png: [1, 2]}", "has the box"),
        ("a.yaml", "eye: {0.png: 3}", "has the box"),
        ("a.yaml", "eye: {0.png: [1, 2, 3, 4]}", "marks parts of one image"),
        ("a.yaml", "", "does not have the form"),
    ],
)
def test_bad_files_of_parts(tmp_path, name, text, message):
    photographs(tmp_path)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        CorrespondenceOptions(parts=tmp_path / name)


def test_parts_of_a_file_need_files(tmp_path):
    files = photographs(tmp_path)
    (tmp_path / "a.csv").write_text(ROWS)
    with pytest.raises(ValueError, match="names files, but images is a tensor"):
        CorrespondenceOptions(parts=tmp_path / "a.csv", images=IMAGES)
    with pytest.raises(ValueError, match=r"marks 2\.png, which is not among the images"):
        CorrespondenceOptions(parts=tmp_path / "a.csv", images=files[:2])


def test_as_a_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path)
    (tmp_path / "parts.csv").write_text(ROWS)
    torch.save(Classifier().state_dict(), "weights.pth")
    of_network = ["weights.pth", "--model=runs.Classifier", "--input_size", "16", "--device=cpu", "--output=out"]
    main(["correspondence", *of_network, "--layers", "2", "5", "--parts", "parts.csv"])
    assert capsys.readouterr().out.split() == ["out/correspondence/parts.png", "out/correspondence/deltas.csv"]
    with pytest.raises(SystemExit):
        main(["correspondence", *of_network, "--parts", "nowhere.csv"])
    assert "The parts in nowhere.csv cannot be read" in capsys.readouterr().err


def test_classes_are_the_folders(tmp_path):
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        photographs(tmp_path / label)
    shown = analyze(network(), tmp_path, input_spec=InputSpec(size=(SIDE, SIDE), class_names=("ant", "bee", "cat")))
    assert len(shown.correspondence(["2"], of_class="bee").images) == 3
    with pytest.raises(ValueError, match="fewer than two images of class 2"):
        shown.correspondence(["2"], of_class="cat")
