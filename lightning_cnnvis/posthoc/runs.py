"""Data and callbacks of the run that a checkpoint comes from, made again from its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.imports import module_available

import lightning_cnnvis.data
from lightning_cnnvis.callbacks import FeatureConvergence, VisualizationCallback
from lightning_cnnvis.checkpoints import Checkpoint, CheckpointError
from lightning_cnnvis.checkpoints.loading import import_class
from lightning_cnnvis.checkpoints.run import CONFIG_NAME
from lightning_cnnvis.posthoc.images import DataError


def data_module(checkpoint: Checkpoint, name: str | None = None) -> pl.LightningDataModule | None:
    """Makes the data module of a run.

    Args:
        checkpoint: A checkpoint of the run.
        name: Import path of a data module, or the name of one of this package; it is made with the options in the
            checkpoint. By default the one in the run's configuration, or the one of this package that takes exactly
            the options in the checkpoint.

    Returns:
        The data module; None if it is not known.

    Raises:
        CheckpointError: If the run's configuration cannot be read.
        DataError: If the data module cannot be made.
    """
    configured = checkpoint.run.config.get("data") if name is None and checkpoint.run is not None else None
    options = dict(checkpoint.data_options)
    if isinstance(configured, Mapping) and "class_path" in configured:
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
    try:
        found: pl.LightningDataModule = kind(**known)
    except (TypeError, ValueError, OSError, ModuleNotFoundError) as error:
        raise DataError(f"{kind.__name__} could not be made: {error}") from error
    return found


def own_data_modules() -> dict[str, type[pl.LightningDataModule]]:
    """Lists the data modules of this package.

    Returns:
        The classes by name.
    """
    kinds = {kind: getattr(lightning_cnnvis.data, kind) for kind in lightning_cnnvis.data.__all__}
    return {k: v for k, v in kinds.items() if issubclass(v, pl.LightningDataModule) and k != "ImageDataModule"}


def visualizations(config: Mapping[str, Any]) -> list[pl.Callback]:
    """Makes the visualisations that a run's configuration names, and the callbacks that use their measurements.

    Args:
        config: The configuration, as LightningCLI saves it.

    Returns:
        The callbacks, in the order of the run.

    Raises:
        DataError: If one of them cannot be made.
    """
    listed = (config.get("trainer") or {}).get("callbacks") or []
    entries = listed if isinstance(listed, list) else [listed]
    return [_instantiate(entry, pl.Callback) for entry in entries if _draws(entry)]


def _draws(entry: object) -> bool:
    """Whether an entry is of a callback that is to be replayed; another may be of a package that is not here."""
    name = entry.get("class_path") if isinstance(entry, Mapping) else None
    try:
        kind = import_class(str(name), pl.Callback)
    except CheckpointError:
        return False
    return issubclass(kind, VisualizationCallback | FeatureConvergence)


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
