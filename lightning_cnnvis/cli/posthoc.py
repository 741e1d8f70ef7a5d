"""The commands that look at what was trained: what they do, and what they print."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from jsonargparse import Namespace
from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_cnnvis.accelerators import accelerator
from lightning_cnnvis.callbacks import callback_of
from lightning_cnnvis.checkpoints import CheckpointError
from lightning_cnnvis.checkpoints.run import WEIGHTS_FOLDER
from lightning_cnnvis.cli.arguments import parser_of
from lightning_cnnvis.cli.errors import check_writable, fail, put, say
from lightning_cnnvis.cli.methods import options_of
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.methods.method import Method
from lightning_cnnvis.methods.registry import get_method, method_names
from lightning_cnnvis.posthoc import Analysis, analyze, evolve
from lightning_cnnvis.report import ReportOptions, changes, report
from lightning_cnnvis.sinks.tags import tag_path

T = TypeVar("T")


def run(command: str, args: Sequence[str]) -> None:
    """Runs one of the commands.

    Args:
        command: Its name.
        args: Its arguments.

    Raises:
        SystemExit: With status 2, if something is wrong that the user can mend; with 1, if a method's verdict says so.
    """
    try:
        options = parser_of(command).parse_args(list(args))
    except ValueError as error:  # a method that cannot be loaded
        fail(error)
    try:
        with _plain_warnings(), _importing_from_here(_names_a_class(options)):
            if command in _COMMANDS:
                _COMMANDS[command](options)
            else:
                _pictures(get_method(command), options)
    except (
        ValueError,
        OSError,
        ModuleNotFoundError,
        MisconfigurationException,
    ) as error:  # what was found to be wrong with the input
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


PICTURES = "cnnvis_pictures"
"""Folder in a run's, for what is made after the training."""


def _layers(options: Namespace) -> None:
    table = _analysis(options).layers()
    put(json.dumps(table.records(), indent=2) if options.json else table)


def _home(checkpoint: str | Path | None) -> Path:
    """The folder of the run that a checkpoint is of; the current one if it is of none."""
    path = Path(checkpoint or "")
    if not path.is_file():
        return path if path.is_dir() else Path()
    folder = path.parent
    if folder.name == WEIGHTS_FOLDER and folder.parent.name == "cnnvis":  # a folder of one's own may have the name
        return folder.parent.parent
    return folder.parent if folder.name == "checkpoints" else Path()


def _pictures(method: Method[..., Any], options: Namespace) -> None:
    pictures = _home(options.checkpoint) / PICTURES
    check_writable(options.output or pictures)
    analysis = _analysis(options)
    shown = analysis.checkpoint
    output = options.output or pictures / tag_path((shown.path.stem if shown.path else shown.name).replace("/", "_"))
    chosen = options_of(method.options, options, analysis.input_spec.class_names)
    result = analysis.look(method, chosen, partial=output / f"{method.name}.partial")
    if result.skipped:
        say(f"{len(result.skipped)} image(s) skipped, because they cannot be read.")
    for lines in result.texts.values():
        put("\n".join(lines))
    for file in result.save(output):
        put(file)
    verdict = method.verdict(chosen, result)
    if verdict:
        say(verdict)
        raise SystemExit(1)


def _evolve(options: Namespace) -> None:
    if options.checkpoint is None:
        raise ValueError("There is no run to look at: give its folder.")
    output = options.output or _home(options.checkpoint) / PICTURES / "evolution"
    check_writable(output)
    show = options.show or (method_names()[:1] if options.layers or options.seed else None)
    evolution = evolve(
        options.checkpoint,
        _data(options),
        model=options.model,
        input_spec=_input_spec(options),
        callbacks=None
        if show is None
        else [callback_of(name, layers=options.layers, seed=options.seed) for name in show],
        epochs=options.epochs,
        device=find_device(options.device),
        trust=options.trust,
        progress=True,
        **_reading(options),
    )
    for file in evolution.save(output):
        put(file)


def _report(options: Namespace) -> None:
    if options.watch and (options.checkpoint is None or Path(options.checkpoint).is_file()):
        raise ValueError(f"--watch follows the folder of a run, and {options.checkpoint} is none.")
    if options.output is None:  # the folder that is watched need not be there yet
        options.output = (Path(options.checkpoint) if options.watch else _home(options.checkpoint)) / "report.html"
    check_writable(options.output if options.output.is_dir() else options.output.parent)
    if not options.watch:
        put(_written_report(options))
        return
    say(f"Waiting for checkpoints in {options.checkpoint}; Ctrl-C ends it.")
    with suppress(KeyboardInterrupt):
        for _ in changes(Path(options.checkpoint)):
            _try_report(options)


def _try_report(options: Namespace) -> None:
    try:
        put(_written_report(options))
    except (CheckpointError, OSError) as error:  # such as a checkpoint that has just been removed
        say(f"{error} The report is written with the next checkpoint.")


def _written_report(options: Namespace) -> Path:
    return report(
        options.checkpoint,
        options.output,
        _data(options),
        layers=options.layers,
        options=options_of(ReportOptions, options),
        model=options.model,
        network=options.network,
        input_spec=_input_spec(options),
        output_kind=options.output_kind,
        device=find_device(options.device),
        trust=options.trust,
        progress=True,
        **_reading(options),
    )


_COMMANDS: dict[str, Callable[[Namespace], None]] = {"layers": _layers, "evolve": _evolve, "report": _report}


def _analysis(options: Namespace) -> Analysis:
    analysis = analyze(
        options.checkpoint,
        _data(options),
        model=options.model,
        network=options.network,
        input_spec=_input_spec(options),
        output_kind=options.output_kind,
        device=find_device(options.device),
        trust=options.trust,
        progress=True,
        **_reading(options),
    )
    absent = ", ".join(analysis.checkpoint.absent)
    if absent:
        say(f"The weights lack {absent}: the network ends before it.")
    return analysis


def _input_spec(options: Namespace) -> InputSpec | None:
    size, mean, std = options.input_size, options.mean, options.std
    if size is None:
        if mean or std:
            raise ValueError("--mean and --std say how the input is normalised: say its size, too, --input_size.")
        return None
    if len(size) > 2:
        raise ValueError(f"--input_size {' '.join(map(str, size))}: give height and width, or one number for both.")
    mean, std = mean or [0.0] * len(std or "rgb"), std or [1.0] * len(mean or "rgb")
    return InputSpec((size[0], size[-1]), len(mean), tuple(mean), tuple(std))


def _reading(options: Namespace) -> dict[str, int | None]:
    """How images are read; nothing for a command that reads none."""
    return {name: options[name] for name in ("workers", "max_images") if name in options}


def _data(options: Namespace) -> Any:
    data = options.get("data")
    return data[0] if data and len(data) == 1 else data


def find_device(name: str) -> torch.device:
    """Finds a device.

    Args:
        name: Its name, or ``"auto"``: the accelerator if there is one.

    Returns:
        The device.

    Raises:
        ValueError: If it cannot be used here.
    """
    if name == "auto":
        return accelerator() or torch.device("cpu")
    try:
        torch.zeros(1, dtype=torch.float32, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"--device {name} cannot be used here ({reason}). Try --device cpu.") from error


def _names_a_class(options: Namespace) -> bool:
    """Whether a class of the user's own was named on the command line: ``my.module.Class``."""
    named = [options.model, *(options.get("data") or [])]
    return any(re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name) for name in named if name)


@contextmanager
def _importing_from_here(wanted: bool) -> Iterator[None]:
    """Lets classes be found in the current folder, but only such as the user names: it may be somebody else's run."""
    if not wanted:
        yield
        return
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Shows warnings as sentences, and those that are for developers not at all."""

    def said(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        say(message)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module=r"lightning_cnnvis\.")
        warnings.showwarning = said
        yield
