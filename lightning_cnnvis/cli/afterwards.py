"""The commands that look at what was trained: their arguments, and what they print."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_cnnvis.callbacks import (
    ClassVisualization,
    DeconvNetProjection,
    DeepDream,
    FeatureInversion,
    VisualizationCallback,
)
from lightning_cnnvis.cli import AFTERWARDS
from lightning_cnnvis.cli.errors import USER_ERROR, fail
from lightning_cnnvis.posthoc import Analysis, Result, analyze, evolve
from lightning_cnnvis.report import ReportOptions, report

DEFAULT_OUTPUT = "cnnvis_pictures"


class _Parser(ArgumentParser):
    """Says what is wrong in a sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the program."""
        text = " ".join(str(message).split())
        self.exit(USER_ERROR, f"lightning-cnnvis: error: {text}\nOptions: {self.prog} --help\n")
        raise AssertionError("exit does not return")


def run(command: str, args: Sequence[str]) -> None:
    """Runs one of the commands.

    Args:
        command: Its name.
        args: Its arguments.

    Raises:
        SystemExit: With status 2, if something is wrong that the user can mend.
    """
    options = _parser(command).parse_args(list(args))
    sys.path.insert(0, "")  # classes of one's own are found where the command is run
    try:
        with _plain_warnings():
            _COMMANDS[command](options)
    except (
        ValueError,
        OSError,
        ModuleNotFoundError,
        MisconfigurationException,
    ) as error:  # what was found to be wrong with the input
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        sys.path.remove("")


def _parser(command: str) -> ArgumentParser:
    about = AFTERWARDS[command]
    parser = _Parser(prog=f"lightning-cnnvis {command}", description=f"{about[0].upper()}{about[1:]}.")
    parser.add_argument("--config", action="config", help="A YAML file with options.")
    parser.add_argument(
        "checkpoint",
        nargs="?",
        help="The folder of a run, or one with checkpoints."
        if command == "evolve"
        else "A checkpoint, a file of weights, or a folder with checkpoints, of which the one trained longest is "
        "taken. Default: the published weights of --model, downloaded.",
    )
    parser.add_argument(
        "--model",
        type=str,
        help="What the weights are of, where the checkpoint does not say: torchvision:NAME, timm:NAME, or the import "
        "path of a LightningModule.",
    )
    if command != "classes":
        parser.add_argument(
            "--data",
            nargs="+",
            type=str,
            help="A folder of images, image files, or a data module by name or import path. "
            "Default: the data of the checkpoint's own run.",
        )
    parser.add_argument("--device", type=str, default="auto", help="Such as cpu or cuda:1. auto takes a GPU if any.")
    parser.add_argument("--trust", action="store_true", help="Unpickle whatever is in the file: it may run any code.")
    if command == "layers":
        parser.add_argument("--json", action="store_true", help="Print JSON.")
        return parser
    if command == "report":
        parser.add_argument("--output", type=Path, default=Path("report.html"), help="The file to write.")
        parser.add_argument("--layers", nargs="+", type=str, help="Names, as the command layers lists them.")
        parser.add_class_arguments(ReportOptions, "show")
        return parser
    parser.add_argument("--output", type=Path, default=Path(DEFAULT_OUTPUT), help="Folder of the pictures.")
    if command == "classes":
        parser.add_argument("--classes", nargs="+", type=str, help="Names or numbers. Default: the first twelve.")
    else:
        parser.add_argument("--layers", nargs="+", type=str, help="Names, as the command layers lists them.")
    if command in {"deconv", "dream"}:
        parser.add_argument("--channels", nargs="+", type=int, help="Numbers of feature maps, from 0.")
    if command == "evolve":
        parser.add_argument("--epochs", nargs="+", type=int, help="Default: all that there are checkpoints of.")
        parser.add_argument(
            "--show",
            nargs="+",
            choices=list(_SHOWS),
            help="What to draw. Default: what the run itself drew, or deconv if it does not say.",
        )
        return parser
    skip: set[str | int] = {"layers", "channels", "classes", "image", "images"}
    parser.add_method_arguments(Analysis, command, skip=skip)
    return parser


def _layers(options: Namespace) -> None:
    table = _analysis(options).layers()
    print(json.dumps(table.records(), indent=2) if options.json else table)


def _pictures(method: str) -> Callable[[Namespace], None]:
    own = {"config", "checkpoint", "model", "data", "device", "trust", "output"}

    def command(options: Namespace) -> None:
        check_writable(options.output)
        analysis = _analysis(options)
        arguments = {name: value for name, value in vars(options).items() if name not in own}
        if arguments.get("classes") is not None:
            arguments["classes"] = [_class(name, analysis) for name in arguments["classes"]]
        result: Result = getattr(analysis, method)(**arguments)
        if result.skipped:
            print(f"{len(result.skipped)} image(s) skipped, because they cannot be read.", file=sys.stderr)
        for file in result.save(options.output):
            print(file)

    return command


def _evolve(options: Namespace) -> None:
    if options.checkpoint is None:
        raise ValueError("There is no run to look at: give its folder.")
    check_writable(options.output)
    show = options.show or (["deconv"] if options.layers else None)
    evolution = evolve(
        options.checkpoint,
        _data(options),
        model=options.model,
        callbacks=None if show is None else [_SHOWS[name](options.layers) for name in show],
        epochs=options.epochs,
        device=find_device(options.device),
        trust=options.trust,
        progress=True,
    )
    for file in evolution.save(options.output):
        print(file)


def _report(options: Namespace) -> None:
    check_writable(options.output.parent)
    file = report(
        options.checkpoint,
        options.output,
        _data(options),
        layers=options.layers,
        options=ReportOptions(**vars(options.show)),
        model=options.model,
        device=find_device(options.device),
        trust=options.trust,
        progress=True,
    )
    print(file)


_SHOWS: dict[str, Callable[[list[str] | None], VisualizationCallback]] = {
    "deconv": lambda layers: DeconvNetProjection(layers=layers),
    "classes": lambda _: ClassVisualization(),
    "dream": lambda layers: DeepDream(layers=layers),
    "inversion": lambda layers: FeatureInversion(layers=layers),
}

_COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "layers": _layers,
    "evolve": _evolve,
    "report": _report,
    **{name: _pictures(name) for name in ("deconv", "classes", "dream", "invert")},
}


def _analysis(options: Namespace) -> Analysis:
    analysis = analyze(
        options.checkpoint,
        _data(options),
        model=options.model,
        device=find_device(options.device),
        trust=options.trust,
        progress=True,
    )
    absent = ", ".join(analysis.checkpoint.absent)
    if absent:
        print(f"The weights lack {absent}: the network ends before it.", file=sys.stderr)
    return analysis


def _data(options: Namespace) -> Any:
    data = options.get("data")
    return data[0] if data and len(data) == 1 else data


def _class(name: str, analysis: Analysis) -> int | str:
    return int(name) if name.isdigit() and name not in analysis.input_spec.class_names else name


def find_device(name: str) -> torch.device:
    """The device of a name.

    Raises:
        ValueError: If there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"--device {name} cannot be used here ({reason}). Try --device cpu.") from error


def check_writable(folder: Path) -> None:
    """Finds out, without leaving anything, whether files can be written to a folder that may not be there yet.

    Raises:
        OSError: If not.
    """
    nearest = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OSError(
            f"The output folder {folder} cannot be written ({error.strerror}: {nearest}). Give another: --output."
        ) from error


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Shows warnings as sentences, and those that are for developers not at all."""

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        print(f"lightning-cnnvis: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module=r"lightning_cnnvis\.")
        warnings.showwarning = show
        yield
