"""``fit``, ``validate`` and ``test``: training through LightningCLI, with pictures of what the network learns."""

from __future__ import annotations

import difflib
import logging
import re
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from lightning_cnnvis.cli.errors import fail
from lightning_cnnvis.data import ImageDataModule, ImageError
from lightning_cnnvis.layers import LayerError
from lightning_cnnvis.models import ImageClassifier

DATA_SETS = ["PhotoCrops", "CIFAR10", "Imagenette", "ImageFolder"]

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 14,
    "log_every_n_steps": 10,
    "logger": {
        "class_path": "TensorBoardLogger",
        "init_args": {"save_dir": "cnnvis_runs", "name": "", "default_hp_metric": False},
    },
    "callbacks": [
        {"class_path": "lightning_cnnvis.callbacks.DeconvNetProjection"},
        {"class_path": "lightning_cnnvis.callbacks.ShownWeights"},
        {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val_accuracy", "mode": "max"}},
    ],
}


class _Parser(LightningArgumentParser):
    """Says what is wrong in a sentence, without a page of usage before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the program with what `readable` makes of jsonargparse's message."""
        self.exit(2, f"lightning-cnnvis: error: {readable(message)}\nOptions: lightning-cnnvis fit --help\n")
        raise AssertionError("exit does not return")


def readable(message: str) -> str:
    r"""Picks what the user needs to know out of an error message of jsonargparse.

    Example:
        >>> readable('Parser key "data":\n  Errors:\n  ...\n  Given value: PhotoCorps')
        "'PhotoCorps' is not a data set. Did you mean 'PhotoCrops'? There are PhotoCrops, CIFAR10, ..."
    """
    given = re.search(r"Given value: ([\w.]+)$", message.strip())
    if message.startswith('Parser key "data"') and given:
        name = given[1]
        near = difflib.get_close_matches(name, DATA_SETS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        return (
            f"{name!r} is not a data set. {hint}There are {', '.join(DATA_SETS)}, and every subclass of "
            "ImageDataModule by its import path."
        )
    errors = re.search(r"Errors:\n(.*)\n\s*Given value type", message, re.DOTALL)
    reasons = re.split(r"^\s*- ", errors[1], flags=re.MULTILINE) if errors else []
    telling = [reason.strip() for reason in reasons if reason.strip() and not reason.startswith("Expected a <class")]
    return "\n".join(telling) or message


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
            parser_kwargs={"prog": "lightning-cnnvis", "description": "See what a convnet learns, while it learns."},
            args=None if args is None else list(args),
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """What can be run, and the arguments that the command line does not show."""
        subcommands = LightningCLI.subcommands()
        return {name: subcommands[name] for name in ("fit", "validate", "test")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Sets the defaults and takes the number of classes and the image size from the data."""
        parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
        parser.set_defaults({"model.model": "zfnet", "model.width": 0.25, "data": {"class_path": "PhotoCrops"}})
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
        parser.link_arguments("data.image_size", "model.image_size", apply_on="instantiate")

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer; what the user must mend ends the program with one sentence."""
        try:
            super().instantiate_classes()
        except (ValueError, OSError, ModuleNotFoundError, MisconfigurationException) as error:
            fail(readable(str(error)))

    def after_fit(self) -> None:
        """Says where the pictures are and how to look at them."""
        log_dir = self.trainer.log_dir
        if log_dir is None or not self.trainer.is_global_zero:
            return
        pictures = Path(log_dir) / "cnnvis"
        if pictures.is_dir():
            print(f"\nPictures:    {pictures}")
        print(f"TensorBoard: tensorboard --logdir {shlex.quote(log_dir)}")


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
