"""Checkpoints, from whatever trained them, as networks that can be looked at."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_cnnvis.checkpoints.files import CheckpointError, fit_weights, read_file, state_dict_of
from lightning_cnnvis.checkpoints.zoo import ModelNameError, NamedModel
from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from lightning_cnnvis.layers import find_network
from lightning_cnnvis.models import ImageClassifier

__all__ = ["Checkpoint", "CheckpointError", "ModelNameError", "find_checkpoints", "load"]

SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network with its weights, and what is known of it.

    Attributes:
        model: The network, in evaluation mode.
        module: The LightningModule that it is, or is a part of; None for other networks.
        input_spec: What its input looks like; None if neither the checkpoint nor the network's name tells.
        resize: Size that the shorter side of a photograph is brought to before the centre is cut out; None: that of
            the input.
        path: The file.
        epoch: How many epochs it was trained for.
        metrics: What the checkpoint says of its quality, by name.
        callbacks: The callbacks' state, by their keys.
        data_options: What the data module was made with.
        absent: Children that the weights lack; the network ends before them.
        name: What the network is called in titles.
    """

    model: nn.Module
    module: pl.LightningModule | None = None
    input_spec: InputSpec | None = None
    resize: int | None = None
    path: Path | None = None
    epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    callbacks: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    name: str = "network"

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def require_output(self) -> None:
        """Refuses weights that end before the network does.

        Raises:
            CheckpointError: If the weights lack the network's end.
        """
        if self.absent:
            raise CheckpointError(
                f"The weights lack {', '.join(self.absent)}, which tells the classes apart: give weights of the whole "
                "network."
            )


def load(
    source: str | Path | nn.Module | None = None,
    model: str | nn.Module | None = None,
    *,
    device: torch.device | str = "cpu",
    trust: bool = False,
) -> Checkpoint:
    """Loads a network.

    Args:
        source: A checkpoint of Lightning, a file of plain weights (``.pth``, ``.safetensors``), a folder with
            checkpoints, of which the one trained longest is taken, or a network. None takes published weights.
        model: What the weights are of: the import path of a LightningModule (``"package.module.Class"``),
            ``"torchvision:NAME"``, ``"timm:NAME"``, or a network. Checkpoints of `ImageClassifier` need none.
        device: Where to put the network.
        trust: Unpickles whatever is in the file, which may run any code.

    Returns:
        The network and what is known of it. Weights that end before the network does, such as those of
        ``features`` alone, give the network up to there.

    Raises:
        CheckpointError: If it cannot be loaded; the message says why, and what to do.
        ModelNameError: If ``model`` names no network.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.pth"
        >>> torch.save(NamedModel("torchvision", "squeezenet1_1").build().state_dict(), path)
        >>> loaded = load(path, "torchvision:squeezenet1_1")
        >>> loaded.input_spec.size, loaded.resize, loaded.input_spec.class_name(281)
        ((224, 224), 256, 'tabby')
    """
    if isinstance(source, nn.Module):
        checkpoint = _of_network(source)
    elif source is None:
        checkpoint = _published(model)
    else:
        checkpoint = _of_file(_one_file(Path(source)), model, trust=trust)
    for network in filter(None, (checkpoint.module, checkpoint.model)):
        network.to(device).eval()
    return checkpoint


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder and those below it, by name.

    Raises:
        CheckpointError: If there is no such folder, or no checkpoint in it.
    """
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {folder}. Check the path.")
    found = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    if not found:
        raise CheckpointError(
            f"The folder {folder} has no checkpoint in it (files that end in {', '.join(SUFFIXES)}). Give the folder "
            "of a run whose weights were kept."
        )
    return found


def epoch_of(content: Any) -> int | None:
    """How many epochs a checkpoint of Lightning was trained for, counted in whole ones; None if it does not say."""
    if not isinstance(content, Mapping) or "epoch" not in content:
        return None
    # `epoch` counts from 0 when it is saved during an epoch, and from 1 behind the last one
    progress = content.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
    return int(progress.get("ready", 0)) or int(content["epoch"]) + 1


def _one_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = find_checkpoints(path)
    return found[0] if len(found) == 1 else max(found, key=lambda file: (_epoch_at(file), file.stat().st_mtime))


def _epoch_at(path: Path) -> int:
    return 0 if path.suffix == ".safetensors" else epoch_of(read_file(path)) or 0


def _of_network(network: nn.Module) -> Checkpoint:
    if isinstance(network, pl.LightningModule):
        spec = _classifier_spec(network.hparams) if isinstance(network, ImageClassifier) else None
        inner = find_network(network, None)[1]
        return Checkpoint(inner, network, spec, name=type(inner).__name__)
    return Checkpoint(network, name=type(network).__name__)


def _published(model: str | nn.Module | None) -> Checkpoint:
    if isinstance(model, nn.Module):
        return _of_network(model)
    if model is None or not NamedModel.is_one(model):
        raise CheckpointError(
            "There are no weights to look at: give a checkpoint, or the name of a network that has published ones, "
            "such as --model torchvision:alexnet."
        )
    named = NamedModel.parse(model)
    network = named.build_pretrained()
    spec, resize = named.input_spec(network)
    return Checkpoint(network, input_spec=spec, resize=resize, name=named.name)


def _of_file(path: Path, model: str | nn.Module | None, *, trust: bool) -> Checkpoint:
    content = read_file(path, trust=trust)
    known = _facts(content, path)
    if isinstance(content, nn.Module):  # only if trusted
        return replace(_of_network(content), path=path)
    if isinstance(model, nn.Module):
        fit_weights(model, state_dict_of(content, path), str(path))
        return replace(known, **_networks(_of_network(model)))
    if isinstance(model, str) and NamedModel.is_one(model):
        return _of_named(NamedModel.parse(model), state_dict_of(content, path), known)
    hyperparameters = content.get("hyper_parameters", {}) if isinstance(content, Mapping) else {}
    if model is None and not ({"num_classes", "image_size", "recipe"} <= set(hyperparameters)):
        state_dict_of(content, path)
        what = "is of another class than ImageClassifier" if "epoch" in content else "holds weights alone"
        raise CheckpointError(
            f"{path} {what}: say which network it is of, with --model package.module.Class for a LightningModule, "
            "torchvision:NAME, or timm:NAME."
        )
    if model is None and "model" not in hyperparameters:
        raise CheckpointError(
            f"{path} is of an ImageClassifier around a network of one's own, which the checkpoint does not name: give "
            "that network, analyze(path, model=ImageClassifier(network, ...))."
        )
    kind = ImageClassifier if model is None else _network_class(model)
    module = _instance(kind, hyperparameters, path)
    fit_weights(module, state_dict_of(content, path), str(path))
    return replace(known, **_networks(_of_network(module), known.input_spec))


def _networks(found: Checkpoint, spec: InputSpec | None = None) -> dict[str, Any]:
    return {
        "model": found.model, "module": found.module, "input_spec": spec or found.input_spec, "name": found.name
    }  # fmt: skip


def _of_named(named: NamedModel, weights: Mapping[str, Tensor], known: Checkpoint) -> Checkpoint:
    network = named.build()
    # a network trained on other classes differs in the size of its last parameter
    last = list(network.state_dict().items())[-1:]
    found = next((value for key, _ in last for other, value in weights.items() if other.endswith(key)), None)
    if found is not None and found.ndim and found.shape[0] != last[0][1].shape[0]:
        network = named.build(int(found.shape[0]))
    absent = fit_weights(network, weights, str(known.path), partial=True)
    classes = None if found is None else int(found.shape[0])
    spec, resize = named.input_spec(network, 0 if absent else classes)
    if absent:
        spec = replace(spec, class_names=())
    return replace(known, model=network, input_spec=spec, resize=resize, absent=tuple(absent), name=named.name)


def _facts(content: Any, path: Path) -> Checkpoint:
    """What a checkpoint says beside the weights."""
    if not isinstance(content, Mapping):
        return Checkpoint(nn.Identity(), path=path)
    callbacks = content.get("callbacks", {})
    states = [state for state in callbacks.values() if isinstance(state, Mapping)]
    specs = (state["input_spec"] for state in states if state.get("input_spec"))
    return Checkpoint(
        nn.Identity(),
        path=path,
        input_spec=next((InputSpec(**spec) for spec in specs), None),
        epoch=epoch_of(content),
        metrics={
            state["monitor"]: float(state["current_score"])
            for state in states
            if state.get("monitor") and state.get("current_score") is not None
        },
        callbacks=callbacks,
        data_options=content.get("datamodule_hyper_parameters", {}),
    )


def _classifier_spec(hyperparameters: Mapping[str, Any]) -> InputSpec:
    """The input of the package's own data modules, which all normalise alike."""
    size = hyperparameters["image_size"]
    return InputSpec((size, size), 3, IMAGENET_MEAN, IMAGENET_STD)


def import_class(name: str, base: type) -> Any:
    """The class of an import path ``package.module.Class``.

    Raises:
        CheckpointError: If it cannot be imported, or is no subclass of ``base``.
    """
    module, _, attribute = name.rpartition(".")
    if not module:
        raise CheckpointError(f"{name!r} is no import path: write package.module.Class.")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{name!r} cannot be imported: {error}. Write package.module.Class.") from error
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise CheckpointError(f"{name!r} is no {base.__name__}: name a class that is one.")
    return found


def _network_class(name: str) -> Any:
    try:
        return import_class(name, nn.Module)
    except CheckpointError as error:
        hint = f"torchvision:{name} or timm:{name}" if "." not in name else "torchvision:NAME or timm:NAME"
        raise CheckpointError(f"{error} A network of a library is {hint}.") from error


def _instance(kind: type[nn.Module], hyperparameters: Mapping[str, Any], path: Path) -> nn.Module:
    """A module made with those hyperparameters that it takes."""
    parameters = inspect.signature(kind).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {key: value for key, value in hyperparameters.items() if takes_any or key in parameters}
    try:
        return kind(**known)
    except TypeError as error:
        raise CheckpointError(
            f"{kind.__name__} could not be made from the hyperparameters in {path} ({error}). Call "
            "save_hyperparameters() in its __init__, or give the module itself: analyze(path, model=module)."
        ) from error
