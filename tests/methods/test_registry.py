"""Methods by name, and what follows from a row: the toy method of CONTRIBUTING.md everywhere, and errors."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest
import torch
import toy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from runs import IMAGES, SPEC, Classifier, every_callback, fit, network

from lightning_cnnvis import analyze, cli, evolve
from lightning_cnnvis.callbacks import MethodCallback, VisualizationCheckpoint, callback_class, callback_of
from lightning_cnnvis.functional import DreamOptions
from lightning_cnnvis.methods import all_methods, get_method, method_names, register_method, registry
from lightning_cnnvis.methods.method import Method
from lightning_cnnvis.methods.registry import BUILTIN, summary_of
from lightning_cnnvis.report import ReportOptions, collect

toy.load()


@pytest.mark.parametrize("name", method_names())
def test_a_row_is_complete(name):
    method = get_method(name)
    assert get_method(method.tag) is method
    assert method.summary == summary_of(name)
    assert method.summary[0].isupper()
    assert not method.summary.endswith(".")
    documented = inspect.getdoc(method.options)
    assert all(f"\n    {field}: " in documented for field in method.fields)
    assert callback_class(name).name == method.tag


@pytest.mark.parametrize("name", method_names())
def test_a_method_of_analysis_has_the_signature_of_its_options(name):
    bound = getattr(analyze(network(), IMAGES, input_spec=SPEC), name)
    assert list(inspect.signature(bound).parameters) == list(inspect.signature(get_method(name).options).parameters)
    assert inspect.getdoc(bound) == inspect.getdoc(get_method(name).options)


def test_every_method_is_listed_for_completion():
    analysis = analyze(network(), IMAGES, input_spec=SPEC)
    assert set(method_names()) <= set(dir(analysis))
    with pytest.raises(AttributeError, match=r"has no method 'dreams'\. It has layers, deconv"):
        _ = analysis.dreams


def test_the_modules_of_the_rows_are_not_imported_for_their_names():
    code = "import sys\nfrom lightning_cnnvis.methods import method_names\nmethod_names()\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# A method from outside of the package.


def expected_means() -> list[torch.Tensor]:
    with torch.no_grad():
        predicted = network().eval()(IMAGES).argmax(1)
    return [SPEC.denormalize(IMAGES[predicted == n].mean(0)) if (predicted == n).any() else None for n in range(3)]


def test_in_python():
    result = analyze(network(), IMAGES, input_spec=SPEC).mean_image()
    for (mean, count), expected in zip(result.parts[""].values(), expected_means(), strict=True):
        assert (count == 0) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(SPEC.denormalize(mean[0]), expected)
    assert list(result.pictures) == ["mean_image/classes"]
    assert sum(result.scalars.values()) == len(IMAGES)


def test_as_a_callback_and_over_the_epochs(tmp_path):
    def shows():
        return [callback_of("mean_image", classes=[2, 0], every_n_epochs=1, input_spec=SPEC, on_error="raise")]

    assert type(shows()[0]).__name__ == "MeanImage"
    fit(tmp_path, *shows(), VisualizationCheckpoint())
    live = {path.name: path.read_bytes() for path in (tmp_path / "cnnvis" / "mean_image").rglob("*.png")}
    assert set(live) == {"epoch_0001.png", "epoch_0002.png"}
    evolution = evolve(tmp_path / "cnnvis", IMAGES, model=Classifier(), callbacks=shows(), input_spec=SPEC)
    again = {f"epoch_{epoch:04d}.png": png for epoch, png in evolution.pictures["mean_image/classes"].items()}
    assert again == live


def test_in_a_report():
    analysis = analyze(network(), IMAGES, input_spec=SPEC)
    found = collect(analysis, options=ReportOptions(show=["mean_image"]))
    (section,) = found.sections
    assert section.title == "Average the images that the network puts into each class"
    assert len(section.blocks[0].tiles) == 1


def test_as_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mean_image.py"])

    def run(*args: str) -> str:
        capsys.readouterr()
        cli.main(list(args))
        return capsys.readouterr().out

    small = ["--model.width=0.05", "--data.image_size=32", "--data.train_size=22", "--data.val_size=22"]
    run("fit", *small, "--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
    of_run = ["cnnvis_runs/version_0", "--device=cpu"]
    assert run("mean_image", *of_run, "--classes", "0", "3", "--output=one").split() == ["one/mean_image/classes.png"]
    assert "mean_image/classes/epoch_0002.png" in run("evolve", *of_run, "--show", "mean_image", "--output=all")
    run("report", *of_run, "--show", "mean_image")
    assert "Average the images" in (tmp_path / "cnnvis_runs/version_0/report.html").read_text()


@pytest.mark.slow
def test_its_file_is_a_command_line(tmp_path):
    """Of every command, with its own beside them."""
    (tmp_path / "mean_image.py").write_text(toy.SOURCE)
    command = [sys.executable, "mean_image.py", "mean_image", "--help"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "--classes CLASSES [CLASSES ...]" in printed
    assert "Average the images that the network puts into each class." in printed


# Bad input.


@dataclass(frozen=True)
class NoOptions:
    """None."""


def row(**changes) -> Method:
    plain = {
        "name": "own", "tag": "own", "summary": "Nothing.", "options": NoOptions, "parts": lambda *_: {"": [0]},
        "run": lambda *_: None, "draw": lambda *_: {},
    }  # fmt: skip
    return Method(**{**plain, **changes})


def test_names_that_are_taken():
    with pytest.raises(ValueError, match="'dream' is a method of this package"):
        register_method(row(name="dream"))
    get_method("dream")
    with pytest.raises(ValueError, match="There is a method 'dream' with the tag 'deepdream' already"):
        register_method(row(tag="deepdream"))
    with pytest.raises(ValueError, match="name='own method' is not a public identifier"):
        row(name="own method")
    assert "own" not in method_names()
    assert len(all_methods()) == len(method_names()) >= len(BUILTIN)


def test_options_that_are_not_there(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"stepz=3 is not an option of 'dream'\. It has channels"):
        MethodCallback("dream", {"stepz": 3})
    with pytest.raises(MisconfigurationException, match=r"There is no method 'dreem'\. Did you mean 'dream'"):
        MethodCallback("dreem")
    with pytest.raises(MisconfigurationException, match="zoom_frames=-1 must be 0"):
        MethodCallback("dream", {"zoom_frames": -1})
    with pytest.raises(ValueError, match="count=0 must be at least 1"):
        analyze(network(), IMAGES, input_spec=SPEC).invert(count=0)
    callback = MethodCallback("mean_image", {"classes": [7]}, input_spec=SPEC)
    with pytest.raises(MisconfigurationException, match="Class 7 is out of range"):
        fit(tmp_path, callback, max_epochs=1)


def test_every_callback_goes_through_pickle():
    """As ddp_spawn sends them."""
    for callback in every_callback():
        again = pickle.loads(pickle.dumps(callback))
        assert type(again) is type(callback)
        assert again.state_key == callback.state_key


def test_state_keys_tell_methods_apart_and_stay():
    first, other = (MethodCallback(name, input_spec=SPEC) for name in ("classes", "maximize"))
    assert first.state_key != other.state_key
    one, same, another = (
        MethodCallback("dream", {"image": image}, input_spec=SPEC).state_key
        for image in (IMAGES[0], IMAGES[0].clone(), IMAGES[1])
    )
    assert one == same != another


def test_dictionaries_become_the_options_within_options():
    callback = MethodCallback("dream", {"options": {"steps": 2}}, input_spec=SPEC)
    assert callback.options.options == DreamOptions(steps=2)


@pytest.mark.parametrize("name", ["evolve", "look", "_own", "class"])
def test_names_that_would_hide_something(name):
    with pytest.raises(ValueError, match=repr(name)):
        register_method(row(name=name))


def test_a_broken_package_costs_its_own_method_only(monkeypatch):
    broken = EntryPoint("broken", "no_such_package.methods", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "_entry_points", lambda: {"broken": broken})
    assert "broken" in method_names()
    with pytest.warns(UserWarning, match=r"'broken' of no_such_package.methods cannot be loaded \(ModuleNotFoundError"):
        assert "broken" not in {method.name for method in all_methods()}
    with pytest.raises(ValueError, match="Fix or uninstall the package"):
        get_method("broken")
    assert get_method("dream").name == "dream"


@pytest.mark.parametrize("name", method_names())
def test_lists_that_are_empty_or_one_name(name):
    method = get_method(name)
    for field in {"layers", "channels", "classes"} & method.fields - ({"classes"} if name == "mean_image" else set()):
        with pytest.raises(ValueError, match=rf"{field}=\[\] leaves nothing to show\. Name at least one"):
            method.options(**{field: []})
        with pytest.raises(ValueError, match=rf"{field}='x' is one name, not a list: give {field}=\['x'\]"):
            method.options(**{field: "x"})


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("dream", {"size": 0}, "size=0 must be at least 1 pixel"),
        ("dream", {"image": torch.rand(1, 3, 8, 8)}, "give one photograph"),
        ("invert", {"images": torch.rand(3, 8, 8)}, "give images of one size"),
    ],
)
def test_options_out_of_range(method, options, message):
    with pytest.raises(ValueError, match=message):
        get_method(method).options_from(options)


def test_rows_that_cannot_be():
    with pytest.raises(ValueError, match="tag='a/b' is not the first part"):
        row(tag="a/b")

    @dataclass(frozen=True)
    class Hiding:
        output: str = ""

    with pytest.raises(ValueError, match="'output' of 'own' is one that every command has"):
        row(options=Hiding)
    nothing = row(parts=lambda subject, options: {"": []})
    with pytest.raises(ValueError, match="There is nothing to show of Sequential"):
        analyze(network(), IMAGES, input_spec=SPEC).look(nothing)
    with pytest.raises(ValueError, match="is one name, not a list"):
        ReportOptions(show="deconv")


def test_summaries_are_read_without_loading(monkeypatch):
    summaries = {name: get_method(name).summary for name in BUILTIN}
    monkeypatch.setattr(registry, "_registered", {})
    assert {name: summary_of(name) for name in BUILTIN} == summaries
    points = {name: EntryPoint(name, module, registry.ENTRY_POINT_GROUP) for name, module in _MODULES.items()}
    monkeypatch.setattr(registry, "_entry_points", lambda: points)
    assert [summary_of(name) for name in points] == [
        "",
        "JSON (JavaScript Object Notation) <https://json.org> is a subset of",
    ]
    with pytest.raises(ValueError, match="json does not register a method 'silent'"):
        get_method("silent")


_MODULES = {"missing": "no_such_package.methods", "silent": "json"}


def test_dreams_of_several_shares_and_their_files(tmp_path):
    dream = get_method("dream")
    photograph = torch.rand(3, 16, 16)
    shares = [
        dream.run(analyze(network(), IMAGES, input_spec=SPEC).subject, options, layer, [layer], photograph)
        for layer, options in [(layer, dream.options([layer], zoom_frames=2)) for layer in ("2", "5")]
    ]
    both = dream.merge(shares)
    assert sorted(both.dreams) == sorted(both.zooms) == ["2", "5"]
    result = analyze(network(), IMAGES, input_spec=SPEC).dream(["2"], zoom_frames=2)
    assert repr(result).startswith("DreamResult(deepdream")
    files = result.save(tmp_path / "pictures")
    assert {file.suffix for file in files} == {".png", ".gif"}
    assert all(file.stat().st_size for file in files)
