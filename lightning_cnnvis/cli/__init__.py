"""The command line: training with pictures, and looking at what was trained.

Nothing heavy is imported before it is clear which command is meant.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

from lightning_utilities.core.imports import module_available

from lightning_cnnvis._version import __version__
from lightning_cnnvis.cli.errors import fail
from lightning_cnnvis.methods.registry import method_names, summary_of

TRAINING = {
    "fit": "train a network and show what it learns",
    "validate": "validate a trained network",
    "test": "test a trained network",
}

POSTHOC = {
    "layers": "list the layers of a network: what one types into --layers",
    "evolve": "draw the pictures of a training again, from all its checkpoints in order",
    "report": "write one HTML page on what a network learnt",
}
"""The commands that look at what was trained, beside those of the methods."""


def main(args: Sequence[str] | None = None) -> None:
    """Runs a command: ``fit``, ``validate`` and ``test`` train, the others look at a checkpoint.

    Everything has a default: ``fit`` alone trains ZFNet on `PhotoCrops` and shows what excites its feature maps. Flags
    change one thing, ``--config run.yaml`` anything, the callbacks included, and ``fit --print_config`` shows it all::

        lightning-cnnvis fit
        lightning-cnnvis fit --data CIFAR10 --data.download true --model.model alexnet
        lightning-cnnvis deconv cnnvis_runs/version_0 --layers relu1 relu5
        lightning-cnnvis classes weights.pth --model torchvision:squeezenet1_1 --classes tabby 3

    Args:
        args: The arguments; None takes the program's.

    Raises:
        SystemExit: With status 2, if something is wrong that the user can mend.
    """
    if not module_available("jsonargparse"):
        fail("The command line needs jsonargparse: python -m pip install 'lightning-cnnvis[examples]'")
    args = sys.argv[1:] if args is None else list(args)
    if args and args[0] in {*POSTHOC, *method_names()}:
        from lightning_cnnvis.cli import posthoc  # noqa: PLC0415 - torch takes seconds to import

        posthoc.run(args[0], args[1:])
    elif any(command in args for command in TRAINING):
        from lightning_cnnvis.cli import training  # noqa: PLC0415

        training.run(args)
    elif args and not args[0].startswith("-"):
        commands = [*TRAINING, *method_names(), *POSTHOC]
        near = difflib.get_close_matches(args[0], commands, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        fail(f"There is no command {args[0]!r}. {hint}There are {', '.join(commands)}.")
    else:
        _overview(args)


def _overview(args: Sequence[str]) -> None:
    from jsonargparse import ArgumentParser  # noqa: PLC0415 - not everyone has it

    parser = ArgumentParser(
        prog="lightning-cnnvis",
        description="See what a convnet learns, while it learns and after it was trained. COMMAND --help says more.",
        version=__version__,
    )
    commands = parser.add_subcommands(title="commands", metavar="COMMAND")
    methods = {name: summary_of(name) for name in method_names()}
    for name, description in (TRAINING | methods | POSTHOC).items():
        commands.add_subcommand(name, ArgumentParser(), help=f"{description[:1].lower()}{description[1:]}")
    if not args:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    parser.parse_args(args)
