"""Commands ``fit``, ``validate`` and ``test``: a LightningCLI with pictures of what the network learns."""

from __future__ import annotations

import difflib
import logging
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from lightning_cnnvis.callbacks import methods_to_show
from lightning_cnnvis.checkpoints import CheckpointError
from lightning_cnnvis.checkpoints.files import read_file, state_dict_of
from lightning_cnnvis.checkpoints.fitting import fit_weights
from lightning_cnnvis.checkpoints.run import WEIGHTS_FOLDER, Run
from lightning_cnnvis.cli import TRAINING
from lightning_cnnvis.cli.errors import check_writable, fail, readable
from lightning_cnnvis.cli.help import PlainHelp
from lightning_cnnvis.cli.shown import BY_DEFAULT, add_flags, choose, entry_of
from lightning_cnnvis.data import ImageDataModule, ImageError
from lightning_cnnvis.layers import LayerError
from lightning_cnnvis.models import ImageClassifier
from lightning_cnnvis.posthoc.runs import needs_trust
from lightning_cnnvis.text import printable

DATA_SETS = ["PhotoCrops", "CIFAR10", "Imagenette", "ImageFolder"]

_CHECKPOINT_WORDS = ("best", "last", "hpc", "registry")
"""Words that Lightning accepts in place of a checkpoint's path."""

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 14,
    "log_every_n_steps": 10,
    "logger": {
        "class_path": "TensorBoardLogger",
        "init_args": {"save_dir": "cnnvis_runs", "name": "", "default_hp_metric": False},
    },
    "callbacks": [
        *map(entry_of, methods_to_show()),
        {"class_path": "lightning_cnnvis.callbacks.VisualizationCheckpoint"},
        {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val_accuracy", "mode": "max"}},
    ],
}


_DATA = f"  --data NAME              one of {', '.join(DATA_SETS)}"
_OFTEN = {
    "fit": f"""\
Common options:
{_DATA}
  --show deconv classes    the methods whose pictures are shown; all that is shown by default: {BY_DEFAULT}
  --epochs_shown 1,2,5     the epochs at which they are shown, and the last one
  --data.image_size 64     and the data set's other options: --data.help NAME lists them
  --model.model NAME       zfnet, alexnet, or a classifier of torchvision, such as resnet18
  --trainer.max_epochs 30  and the other options of Lightning's Trainer
  --config run.yaml        a YAML file with any of these, callbacks included; --print_config prints one
  --ckpt_path FILE         a checkpoint to resume from"""
}
_EVALUATED = f"""\
Required options:
  --config FILE            config.yaml of the run, which names the data; or
{_DATA}
  --ckpt_path FILE         the checkpoint, after --config if both are given"""


class _Parser(LightningArgumentParser):
    """Parser whose errors are one sentence, without a page of usage before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, formatter_class=PlainHelp)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the program with the relevant part of jsonargparse's message.

        Args:
            message: The message.
            ex: The exception that caused it; not used.

        Raises:
            SystemExit: Always, with status 2.
        """
        text = printable(_readable(message))
        self.exit(2, f"lightning-cnnvis: error: {text}\nOptions: lightning-cnnvis fit --help\n")
        raise SystemExit(2)  # exit does not return, which its type does not tell


def _readable(message: str) -> str:
    r"""Shortens a message as `readable` does; for an unknown data set, lists those that exist.

    Args:
        message: A message of jsonargparse.

    Returns:
        What is wrong and what to do.

    Examples:
        >>> _readable('Parser key "data":\n  Errors:\n  ...\n  Given value: PhotoCorps')
        "'PhotoCorps' is not a data set. Did you mean 'PhotoCrops'? Choose one of PhotoCrops, CIFAR10, ..."
    """
    given = re.search(r"Given value: ([\w.]+)$", message.strip())
    if not (message.startswith('Parser key "data"') and given):
        return readable(message)
    name = given[1]
    near = difflib.get_close_matches(name, DATA_SETS, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return (
        f"{name!r} is not a data set. {hint}Choose one of {', '.join(DATA_SETS)}, or a subclass of ImageDataModule by "
        "its import path."
    )


def _about(command: str) -> dict[str, str]:
    """Usage and description of a command, for its help page."""
    what = TRAINING[command]
    return {
        "usage": f"lightning-cnnvis {command} [options]",
        "description": f"{what[0].upper()}{what[1:]}.\n\n{_OFTEN.get(command, _EVALUATED)}",
    }


class CnnVisCLI(LightningCLI):
    """LightningCLI with this package's model, data sets and defaults; see `run`.

    Args:
        args: The command and its arguments; None takes the program's.
    """

    def __init__(self, args: Sequence[str] | None = None) -> None:
        super().__init__(
            ImageClassifier,
            ImageDataModule,
            subclass_mode_data=True,
            seed_everything_default=0,
            parser_class=_Parser,
            auto_configure_optimizers=False,
            # the hyperparameters are builtins: no need to save how they were parsed
            load_from_checkpoint_support=False,
            parser_kwargs={"prog": "lightning-cnnvis", **{name: _about(name) for name in TRAINING}},
            # Lightning warns if arguments are passed to a program that was started with some
            args=None if args is None or list(args) == sys.argv[1:] else list(args),
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, each with the arguments that the command line does not show."""
        subcommands = LightningCLI.subcommands()
        return {name: subcommands[name] for name in TRAINING}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Sets the defaults, and links the number of classes and the image size to the data."""
        add_flags(parser)
        parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
        parser.set_defaults({"model.model": "zfnet", "model.width": 0.25, "data": {"class_path": "PhotoCrops"}})
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
        parser.link_arguments("data.image_size", "model.image_size", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments, and reads the checkpoint that they name.

        Args:
            parser: The parser.
            args: The command and its arguments; None takes the program's.

        Raises:
            SystemExit: If an argument is wrong, or the checkpoint is missing or cannot be read.
        """
        super().parse_arguments(parser, args)
        command = self.config.subcommand
        try:
            choose(self.config[command])
        except ValueError as error:
            fail(error)
        path = self.config[command].ckpt_path
        if path is None and command != "fit":
            fail(
                f"There are no weights to {command}. Pass a checkpoint, --ckpt_path FILE, after --config if both are "
                "given."
            )
        self._weights = None
        if path not in {None, *_CHECKPOINT_WORDS}:
            try:
                self._weights = state_dict_of(read_file(Path(path)), Path(path))
            except CheckpointError as error:
                fail(error)

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer; an error that the user can fix ends the program with one sentence.

        Raises:
            SystemExit: If an option or the checkpoint does not fit.
        """
        try:
            super().instantiate_classes()
            if self._weights is not None:
                path = self.config_init[self.subcommand].ckpt_path
                fit_weights(self.model, self._weights, path)
            for logger in self.trainer.loggers:
                if logger.save_dir is not None and "://" not in str(logger.save_dir):
                    check_writable(Path(logger.save_dir), "--trainer.logger.save_dir")
        except (ValueError, OSError, ModuleNotFoundError, MisconfigurationException) as error:
            fail(_readable(str(error)))

    def after_fit(self) -> None:
        """Prints where the pictures are and how to view them."""
        log_dir = self.trainer.log_dir
        if log_dir is None or not self.trainer.is_global_zero:
            return
        pictures = Path(log_dir) / "cnnvis"
        if pictures.is_dir():
            print(f"\nPictures:    {pictures}")
        print(f"TensorBoard: tensorboard --logdir {shlex.quote(log_dir)} --samples_per_plugin images=1000")
        print("             (without that flag it shows ten epochs of each picture, drawn at random)")
        if (pictures / WEIGHTS_FOLDER).is_dir():
            # the files of a run are not followed everywhere, unless one says that it is one's own
            trust = " --trust" if needs_trust(Run(log_dir)) else ""
            print(f"Report:      lightning-cnnvis report {shlex.quote(log_dir)}{trust}")


def run(args: Sequence[str]) -> None:
    """Trains, validates or tests a classifier, with pictures of what it learns.

    Args:
        args: The command and its arguments.

    Raises:
        SystemExit: If an argument is wrong, or a package that this needs is missing.
    """
    _quieten()
    try:
        CnnVisCLI(args)
    except (MisconfigurationException, LayerError, ImageError) as error:  # raised while the training is set up
        fail(error)


def _quieten() -> None:
    """Silences messages that do not concern the user: an advertisement, and warnings about our own choices."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage()
    )
    # Lightning's own calls, to functions that still work
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="pytorch_lightning.cli")
    # without a GPU the training needs every core; see ImageDataModule
    warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
