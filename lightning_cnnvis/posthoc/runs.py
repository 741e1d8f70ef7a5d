"""Data and callbacks of the run that a checkpoint comes from, made again from its configuration."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.imports import module_available

import lightning_cnnvis.data
from lightning_cnnvis.callbacks import FeatureConvergence, VisualizationCallback
from lightning_cnnvis.checkpoints import Checkpoint, CheckpointError, Run
from lightning_cnnvis.checkpoints.loading import import_class
from lightning_cnnvis.checkpoints.run import CONFIG_NAME
from lightning_cnnvis.posthoc import untrusted
from lightning_cnnvis.posthoc.reading import DataError


def data_module(checkpoint: Checkpoint, name: str | None = None) -> pl.LightningDataModule | None:
    """Makes the data module of a run.

    Unless the run is trusted, only this package's own are made of what its files say, and of plain values.

    Args:
        checkpoint: A checkpoint of the run.
        name: Import path of a data module, or the name of one of this package; it is made with the options in the
            checkpoint. By default the one in the run's configuration, or the one of this package that takes exactly
            the options in the checkpoint.

    Returns:
        The data module; None if it is not known.

    Raises:
        CheckpointError: If the run's configuration cannot be read.
        UntrustedError: If the run asks for more than it gets without trust.
        DataError: If the data module cannot be made.
    """
    trust = checkpoint.run is not None and checkpoint.run.trust
    configured = checkpoint.run.config.get("data") if name is None and checkpoint.run is not None else None
    options = dict(checkpoint.data_options)
    if isinstance(configured, Mapping) and "class_path" in configured:
        if not trust:
            check_data(configured)
        made: pl.LightningDataModule = _instantiate(configured, pl.LightningDataModule)
        return made
    own = own_data_modules()
    if name is None:
        alike = [kind for kind in own.values() if options and set(inspect.signature(kind).parameters) == set(options)]
        if len(alike) != 1:
            return None
        kind = alike[0]
    else:
        kind = own.get(name) or import_class(name, pl.LightningDataModule)
    known = {key: value for key, value in options.items() if key in inspect.signature(kind).parameters}
    if not trust and name is None:
        untrusted.check_arguments(kind, {"init_args": known})
    left_out: list[str] = []
    if not trust and name is not None:
        known, left_out = untrusted.without_places(kind, known)
    hint = (
        f" The checkpoint's {', '.join(left_out)} was not followed: --trust, or trust=True, does." if left_out else ""
    )
    try:
        found: pl.LightningDataModule = kind(**known)
    except Exception as error:  # whatever the user's own class raises
        raise DataError(f"{kind.__name__} could not be made: {error}{hint}") from error
    if hint:
        warnings.warn(hint.strip(), stacklevel=2)
    return found


def check_data(entry: Mapping[str, Any]) -> None:
    """Refuses the data of a configuration that may be anybody's, unless they are this package's own and no place.

    Args:
        entry: The entry of the data module.

    Raises:
        UntrustedError: If making it would import or follow what the file names.
    """
    kind = untrusted.own_data_module(entry["class_path"])
    if kind is None:
        raise untrusted.UntrustedError(
            f"The run's {CONFIG_NAME} names {entry['class_path']!r} as its data, which is not of this package and was "
            "not imported."
        )
    untrusted.check_arguments(kind, entry)


def own_data_modules() -> dict[str, type[pl.LightningDataModule]]:
    """Lists the data modules of this package.

    Returns:
        The classes by name.
    """
    kinds = {kind: getattr(lightning_cnnvis.data, kind) for kind in lightning_cnnvis.data.__all__}
    return {k: v for k, v in kinds.items() if issubclass(v, pl.LightningDataModule) and k != "ImageDataModule"}


def visualizations(run: Run) -> list[pl.Callback]:
    """Makes the visualisations that a run's configuration names, and the callbacks that use their measurements.

    Unless the run is trusted, they are this package's own, made of plain values; others are named and left out.

    Args:
        run: The run.

    Returns:
        The callbacks, in the order of the run.

    Raises:
        CheckpointError: If the run's configuration cannot be read.
        DataError: If one of them cannot be made.
    """
    return [_instantiate(entry, pl.Callback) for entry in _callbacks(run) if _draws(entry, trust=run.trust)]


def needs_trust(run: Run) -> bool:
    """Whether some of what a run's configuration asks for is followed only if the run is trusted.

    Args:
        run: The run.

    Returns:
        True if it names classes of other packages to show, or data that are at a place of their own.
    """
    data = run.config.get("data")
    try:
        if isinstance(data, Mapping) and "class_path" in data:
            check_data(data)
        for entry in _callbacks(run):
            _check_callback(entry)
    except untrusted.UntrustedError:
        return True
    return False


def trainer_options(run: Run) -> Mapping[str, Any]:
    """Reads the options of the run's Trainer.

    Args:
        run: The run.

    Returns:
        The options in its configuration; empty if there are none.
    """
    options = run.config.get("trainer")
    return options if isinstance(options, Mapping) else {}


def _draws(entry: Mapping[str, Any], *, trust: bool) -> bool:
    """Whether an entry is of a callback that is to be replayed; another may be of a package that is not here."""
    name = entry.get("class_path")
    if not trust:
        return _draws_untrusted(entry)
    try:
        kind = import_class(str(name), pl.Callback)
    except CheckpointError:
        return False
    return issubclass(kind, VisualizationCallback | FeatureConvergence)


def _draws_untrusted(entry: Mapping[str, Any]) -> bool:
    try:
        return _check_callback(entry)
    except untrusted.UntrustedError as error:
        message = f"{error.what} It is left out, unless you trust the run: --trust, or trust=True."
        warnings.warn(message, stacklevel=3)
        return False


def _check_callback(entry: Mapping[str, Any]) -> bool:
    """Whether a callback of a configuration that may be anybody's is drawn again; raises if it would need trust."""
    name = entry.get("class_path")
    kind = untrusted.own_visualization(name)
    if kind is not None:
        untrusted.check_arguments(kind, entry)
        return True
    if not untrusted.is_passed_over(name):
        raise untrusted.UntrustedError(f"The run's callback {name!r} is not of this package and was not imported.")
    return False


def _callbacks(run: Run) -> list[Mapping[str, Any]]:
    """The entries of a run's callbacks."""
    listed = trainer_options(run).get("callbacks") or []
    return [entry for entry in (listed if isinstance(listed, list) else [listed]) if isinstance(entry, Mapping)]


def _instantiate(entry: Mapping[str, Any], base: type) -> Any:
    """Makes an object from its entry in a configuration, as LightningCLI does."""
    if not module_available("jsonargparse"):
        raise DataError("A run's configuration needs jsonargparse: python -m pip install 'lightning-cnnvis[examples]'")
    from jsonargparse import ArgumentError, ArgumentParser  # noqa: PLC0415 - only there if the user has it

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "entry")
    try:
        return parser.instantiate_classes(parser.parse_object({"entry": dict(entry)})).entry
    except (ArgumentError, MisconfigurationException, TypeError, ValueError, OSError, ModuleNotFoundError) as error:
        raise DataError(
            f"{entry.get('class_path')} of the run's {CONFIG_NAME} could not be made: {error} Run the command where "
            "the training ran, or say what data to take: --data."
        ) from error
