"""``fit``, ``validate`` and ``test``: training through LightningCLI, with pictures of what the network learns."""

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

from lightning_cnnvis.callbacks.visualization_checkpoint import FOLDER as WEIGHTS
from lightning_cnnvis.checkpoints import CheckpointError
from lightning_cnnvis.checkpoints.files import fit_weights, read_file, state_dict_of
from lightning_cnnvis.cli import TRAINING
from lightning_cnnvis.cli.errors import check_writable, fail, readable
from lightning_cnnvis.cli.help import PlainHelp
from lightning_cnnvis.data import ImageDataModule, ImageError
from lightning_cnnvis.layers import LayerError
from lightning_cnnvis.models import ImageClassifier

DATA_SETS = ["PhotoCrops", "CIFAR10", "Imagenette", "ImageFolder"]

_CHECKPOINT_WORDS = ("best", "last", "hpc", "registry")
"""What Lightning takes in the place of a checkpoint's path."""

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 14,
    "log_every_n_steps": 10,
    "logger": {
        "class_path": "TensorBoardLogger",
        "init_args": {"save_dir": "cnnvis_runs", "name": "", "default_hp_metric": False},
    },
    "callbacks": [
        {"class_path": "lightning_cnnvis.callbacks.DeconvNetProjection"},
        {"class_path": "lightning_cnnvis.callbacks.VisualizationCheckpoint"},
        {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val_accuracy", "mode": "max"}},
    ],
}


_DATA = f"  --data NAME              one of {', '.join(DATA_SETS)}"
_OFTEN = {
    "fit": f"""\
What is changed most:
{_DATA}
  --data.image_size 64     and what else the data set takes: --data.help NAME lists it
  --model.model NAME       zfnet, alexnet, or a classifier of torchvision, such as resnet18
  --trainer.max_epochs 30  and what else Lightning's Trainer takes
  --config run.yaml        a YAML file with all of it, the callbacks included; --print_config shows one
  --ckpt_path FILE         a checkpoint to go on from"""
}
_EVALUATED = f"""\
What it needs:
  --config FILE            config.yaml of the run, which says the data; or
{_DATA}
  --ckpt_path FILE         the checkpoint"""


class _Parser(LightningArgumentParser):
    """Says what is wrong in a sentence, without a page of usage before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, formatter_class=PlainHelp)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the program with what jsonargparse's message comes down to."""
        self.exit(2, f"lightning-cnnvis: error: {_readable(message)}\nOptions: lightning-cnnvis fit --help\n")
        raise AssertionError("exit does not return")


def _readable(message: str) -> str:
    r"""What `readable` makes of a message, or, of a wrong data set's, which there are.

    Example:
        >>> _readable('Parser key "data":\n  Errors:\n  ...\n  Given value: PhotoCorps')
        "'PhotoCorps' is not a data set. Did you mean 'PhotoCrops'? There are PhotoCrops, CIFAR10, ..."
    """
    given = re.search(r"Given value: ([\w.]+)$", message.strip())
    if not (message.startswith('Parser key "data"') and given):
        return readable(message)
    name = given[1]
    near = difflib.get_close_matches(name, DATA_SETS, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return (
        f"{name!r} is not a data set. {hint}There are {', '.join(DATA_SETS)}, and every subclass of "
        "ImageDataModule by its import path."
    )


def _about(command: str) -> dict[str, str]:
    """What the parser of a command says first."""
    what = TRAINING[command]
    return {
        "usage": f"lightning-cnnvis {command} [options]",
        "description": f"{what[0].upper()}{what[1:]}.\n\n{_OFTEN.get(command, _EVALUATED)}",
    }


class CnnVisCLI(LightningCLI):
    """LightningCLI with this package's model, data sets and defaults; see `run`."""

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
            # Lightning warns of arguments that are given although the program has some
            args=None if args is None or list(args) == sys.argv[1:] else list(args),
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """What can be run, and the arguments that the command line does not show."""
        subcommands = LightningCLI.subcommands()
        return {name: subcommands[name] for name in TRAINING}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Sets the defaults and takes the number of classes and the image size from the data."""
        parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
        parser.set_defaults({"model.model": "zfnet", "model.width": 0.25, "data": {"class_path": "PhotoCrops"}})
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
        parser.link_arguments("data.image_size", "model.image_size", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Reads the arguments, and the checkpoint that they name."""
        super().parse_arguments(parser, args)
        command = self.config.subcommand
        path = self.config[command].ckpt_path
        if path is None and command != "fit":
            fail(
                f"There are no weights to {command}: give a checkpoint, --ckpt_path FILE, and behind --config if both "
                "are given."
            )
        self._weights = None
        if path not in {None, *_CHECKPOINT_WORDS}:
            try:
                self._weights = state_dict_of(read_file(Path(path)), Path(path))
            except CheckpointError as error:
                fail(error)

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer; what the user must mend ends the program with one sentence."""
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
        """Says where the pictures are and how to look at them."""
        log_dir = self.trainer.log_dir
        if log_dir is None or not self.trainer.is_global_zero:
            return
        pictures = Path(log_dir) / "cnnvis"
        if pictures.is_dir():
            print(f"\nPictures:    {pictures}")
        print(f"TensorBoard: tensorboard --logdir {shlex.quote(log_dir)}")
        if (pictures / WEIGHTS).is_dir():
            print(f"Report:      lightning-cnnvis report {shlex.quote(log_dir)}")


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
    except (MisconfigurationException, LayerError, ImageError) as error:  # found when the training was set up
        fail(error)


def _quieten() -> None:
    """Drops what says nothing about this program: an advertisement, and a hint against a choice of ours."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage()
    )
    # Lightning's own calls, of functions that still work
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="pytorch_lightning.cli")
    # without a GPU the training needs every core; see ImageDataModule
    warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
