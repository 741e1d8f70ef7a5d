"""The arguments of the commands that look at what was trained, and their help pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from jsonargparse import ArgumentParser

from lightning_cnnvis.cli import POSTHOC
from lightning_cnnvis.cli.errors import USER_ERROR, readable
from lightning_cnnvis.cli.help import PlainHelp
from lightning_cnnvis.cli.methods import add_options
from lightning_cnnvis.inputs import OutputKind
from lightning_cnnvis.methods.method import Method
from lightning_cnnvis.methods.registry import all_methods, get_method, method_names
from lightning_cnnvis.report import ReportOptions
from lightning_cnnvis.text import printable

_FLAG = re.compile(r"^--([a-z][a-z0-9_-]*)(?=$|=)")


class _Parser(ArgumentParser):
    """Says what is wrong in a sentence; takes flags however their words are joined: ``--fail-on``, ``--fail_on``."""

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:  # type: ignore[override]
        """Parses the arguments of a command."""
        joined = [_FLAG.sub(lambda flag: f"--{flag[1].replace('-', '_')}", arg) for arg in args or ()]
        return super().parse_args(joined, *rest, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the program."""
        text = printable(" ".join(readable(message).split()))
        self.exit(USER_ERROR, f"lightning-cnnvis: error: {text}\nOptions: {self.prog} --help\n")
        raise AssertionError("exit does not return")


def parser_of(command: str) -> ArgumentParser:
    """The parser of one of the commands.

    Args:
        command: The command: ``layers``, ``evolve``, ``report``, or a method's name.

    Returns:
        The parser, with a help page.
    """
    method = None if command in POSTHOC else get_method(command)
    about = POSTHOC[command] if method is None else method.summary
    source = "RUN" if command == "evolve" else "CHECKPOINT"
    examples = _EXAMPLES.get(command) or _examples(method)
    parser = _Parser(
        prog=f"lightning-cnnvis {command}",
        usage=f"lightning-cnnvis {command} [{source}] [options]",
        description=f"{about[0].upper()}{about[1:]}.",
        epilog="Examples:\n" + "".join(f"  lightning-cnnvis {command} {example}\n" for example in examples),
        formatter_class=PlainHelp,
    )
    _add_source(parser, command)
    if command == "layers":
        parser.add_argument("--json", action="store_true", help="Print JSON.")
        return parser
    if command == "report":
        parser.add_argument(
            "--output",
            type=Path,
            help="The file to write, or a folder for it. Default: report.html in the run's folder; in the current one "
            "if there is no run.",
        )
        parser.add_argument(
            "--watch", action="store_true", help="Write it anew whenever the run has a new checkpoint, until Ctrl-C."
        )
    else:
        name = "evolution" if command == "evolve" else "one of the checkpoint's name"
        parser.add_argument(
            "--output",
            type=Path,
            help=f"Folder of the pictures. Default: {name}, in cnnvis_pictures in the run's folder; in the current one "
            "if there is no run.",
        )
    if method is not None:
        add_options(parser, method.options)
        return parser
    parser.add_argument(
        "--layers", nargs="+", type=str, help=f"Names, as `lightning-cnnvis layers` lists them. {_LAYERS[command]}"
    )
    if command == "evolve":
        parser.add_argument(
            "--epochs", nargs="+", type=int, help="Epochs, from 1. Default: all that there are checkpoints of."
        )
        always = " and ".join(method.name for method in all_methods() if method.evolve is not None)
        parser.add_argument(
            "--show",
            nargs="+",
            type=str,
            help=f"Methods: {', '.join(method_names())}. Default: what the run itself drew, bit for bit, and "
            f"{always} in any case.",
        )
        parser.add_argument("--seed", type=int, default=0, help="Seed of the random choices of what --show names.")
    else:
        add_options(parser, ReportOptions)
    return parser


def _examples(method: Method[..., Any] | None) -> list[str]:
    """Examples of a method that was registered from outside."""
    assert method is not None
    layers = " --layers relu1 relu5" if "layers" in method.fields else ""
    return [f"cnnvis_runs/version_0{layers}", f"{_ALEXNET} --data photos"]


def _add_source(parser: ArgumentParser, command: str) -> None:
    """What every command takes: what to look at, with which images, where."""
    parser.add_argument(
        "checkpoint",
        metavar="RUN" if command == "evolve" else "CHECKPOINT",
        nargs="?",
        help="The folder of a run, or one with checkpoints."
        if command == "evolve"
        else "A checkpoint, a file of weights, or the folder of a run, of whose checkpoints the one trained longest is "
        "taken. Default: the published weights of --model, downloaded.",
    )
    parser.add_argument(
        "--model",
        type=str,
        help="What the weights are of, where the checkpoint does not say: torchvision:NAME, timm:NAME, or the import "
        "path of a LightningModule.",
    )
    if command != "evolve":
        parser.add_argument(
            "--network",
            type=str,
            help="Dotted name of the part to look at, such as the one that takes the images where the whole takes more "
            "than that. Default: the whole network.",
        )
    data = "A folder of images, image files, or a data module by name or import path"
    parser.add_argument("--data", nargs="+", type=str, help=f"{data}. Default: the data of the checkpoint's own run.")
    if command != "layers":
        parser.add_argument(
            "--max_images",
            type=int,
            help="How many images to go through at most: of files, so many that are spread evenly over all; of a data "
            "module, the first ones. Default: all.",
        )
        parser.add_argument(
            "--workers",
            type=int,
            help="Number of processes that read image files ahead, 0 for none. Default: as many as there are "
            "processors, at most 8, for 256 files or more. A data module has its own.",
        )
    parser.add_argument(
        "--input_size",
        nargs="+",
        type=int,
        help="Height and width of the network's input, or one number for both, where neither the checkpoint nor the "
        "data say. Then also:",
    )
    parser.add_argument("--mean", nargs="+", type=float, help="What is taken off each channel of pixels in [0, 1].")
    parser.add_argument("--std", nargs="+", type=float, help="What each channel is then divided by.")
    if command != "evolve":
        parser.add_argument(
            "--output_kind",
            type=str,
            choices=get_args(OutputKind),
            help="What a classifier's output is, where it does not show itself: sigmoid for the logits of several "
            "labels. Several logits are otherwise taken for those of a softmax, and one for that of a sigmoid.",
        )
    parser.add_argument("--device", type=str, default="auto", help="Such as cpu or cuda:1; auto takes a GPU if any.")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="Unpickle whatever is in the files, import the classes and follow the "
        "paths that they name: they may run any code.",
    )
    parser.add_argument("--config", action="config", help="A YAML file with options.")


_LAYERS = {
    "evolve": "Default: those of the run; named ones are drawn by the first method, unless --show says more.",
    "report": "Default: those that each method chooses.",
}

_ALEXNET = "alexnet.pth --model torchvision:alexnet"
_EXAMPLES = {
    "layers": ["cnnvis_runs/version_0", _ALEXNET, "--model timm:resnet18"],
    "evolve": ["cnnvis_runs/version_0", "cnnvis_runs/version_0 --layers relu3 --epochs 1 5"],
    "report": ["cnnvis_runs/version_0", f"{_ALEXNET} --data photos --output alexnet.html"],
}
