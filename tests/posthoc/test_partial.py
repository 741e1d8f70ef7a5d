"""A pass over the images that was killed goes on where it was, and gives what one gives that was not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnnvis import InputSpec, analyze
from lightning_cnnvis.models import ImageClassifier
from lightning_cnnvis.posthoc import partial
from lightning_cnnvis.posthoc.partial import PartialResultsError

SPEC = InputSpec(size=(12, 12))
KILLED = -9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, and 75 photographs, which are three batches; one of the first cannot be read."""
    folder = tmp_path_factory.mktemp("killed")
    torch.manual_seed(0)
    options = {"model": "zfnet", "num_classes": 3, "image_size": 32, "width": 0.05, "recipe": "modern"}
    module = ImageClassifier(**options)
    torch.save({"epoch": 4, "state_dict": module.state_dict(), "hyper_parameters": options}, folder / "some.ckpt")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(75):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / f"photos/{number:02}.png")
    (folder / "photos/03.png").write_bytes(b"no picture")
    return folder


def run(folder: Path, command: str, output: str, *options: str, writes: int = 0) -> subprocess.CompletedProcess[str]:
    paths = [str(Path(partial.__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [
            *(sys.executable, Path(__file__).with_name("killed_pass.py"), str(writes)),
            *(command, "some.ckpt", "--data", "photos", "--device", "cpu", "--output", output, *options),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "options"),
    [("deconv", ("--layers", "relu2", "relu4", "--num_channels", "3")), ("diagnose", ("--layers", "relu1", "relu3"))],
)
def test_a_command_that_was_killed_goes_on(folder, command, options):
    whole = run(folder, command, f"{command}_whole", *options)
    assert whole.returncode == 0, whole.stderr
    for done in (31, 63):  # killed after the first batch, and after the second
        killed = run(folder, command, f"{command}_parts", *options, writes=1)
        assert killed.returncode == KILLED, killed.stderr
        assert [*files(folder / f"{command}_parts")] == [f"{command}.partial"]
        assert ("Going on after 31 images" in killed.stderr) == (done == 63)
    resumed = run(folder, command, f"{command}_parts", *options)
    assert resumed.returncode == 0, resumed.stderr
    assert "Going on after 63 images" in resumed.stderr
    assert "1 image(s) skipped" in resumed.stderr
    assert files(folder / f"{command}_parts") == files(folder / f"{command}_whole")
    assert resumed.stdout.replace("_parts", "_whole") == whole.stdout


class Interrupted(Exception):
    """What ends a pass here."""


@pytest.fixture
def interrupted(monkeypatch):
    """Lets passes keep results after each batch, and ends them after the second."""
    write = partial.PartialResults._write

    def ends(self, position):
        write(self, position)
        if position.batches == 2:
            raise Interrupted

    monkeypatch.setattr(partial, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(partial, "SHARE", float("inf"))
    with monkeypatch.context() as patch:
        patch.setattr(partial.PartialResults, "_write", ends)
        yield patch


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())


def images(seed=0):
    return torch.randn(20, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def loader(seed=0, batch_size=6, **options):
    return DataLoader(TensorDataset(images(seed), torch.zeros(20)), batch_size, **options)


def look(file, net=None, data=None, **options):
    return analyze(net or network(), data or loader(), input_spec=SPEC).look(
        "deconv", {"k": 3, **options}, partial=file
    )


def test_the_images_of_a_loader(tmp_path, interrupted):
    file = tmp_path / "deconv.partial"
    expected = look(None)
    with pytest.raises(Interrupted):
        look(file)
    interrupted.undo()
    with pytest.warns(UserWarning, match="Going on after 12 images"):
        result = look(file)
    assert not file.exists()
    for name in ("pixels", "activations", "positions"):
        assert torch.equal(getattr(result.projections["1"], name), getattr(expected.projections["1"], name))
    assert torch.equal(result.tops["1"].sample_ids, expected.tops["1"].sample_ids)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"net": network(1)}, "weights"),
        ({"data": loader(1)}, "images"),
        ({"data": loader(batch_size=5)}, "images"),
        ({"k": 2}, "options"),
        ({"channels": [1, 2]}, "options"),
        ({"rule": "gradient", "net": network(1)}, "weights and options"),
    ],
)
def test_results_of_something_else_are_refused(tmp_path, interrupted, other, what):
    file = tmp_path / "deconv.partial"
    with pytest.raises(Interrupted):
        look(file)
    kept = file.read_bytes()
    with pytest.raises(PartialResultsError, match=f"with other {what}. Give the same again"):
        look(file, **other)
    assert file.read_bytes() == kept


@pytest.mark.parametrize("content", [b"", b"no results", b"PK\x03\x04"])
def test_a_damaged_file(tmp_path, content):
    file = tmp_path / "deconv.partial"
    file.write_bytes(content)
    with pytest.raises(PartialResultsError, match="is not a file of partial results"):
        look(file)


def test_shuffled_images_are_not_gone_on_from(tmp_path, interrupted):
    interrupted.undo()
    look(tmp_path / "deconv.partial", data=loader(shuffle=True))
    assert not list(tmp_path.iterdir())


def test_a_short_pass_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(partial.PartialResults, "_write", lambda *_: pytest.fail("written"))
    look(tmp_path / "deconv.partial")
