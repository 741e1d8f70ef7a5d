"""Load checkpoints, whatever wrote them, as networks that can be looked at."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.data import AttributeDict
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_cnnvis.checkpoints.facts import Facts
from lightning_cnnvis.checkpoints.files import CheckpointError, read_file, state_dict_of
from lightning_cnnvis.checkpoints.fitting import fit_weights
from lightning_cnnvis.checkpoints.run import Run, find_checkpoints
from lightning_cnnvis.checkpoints.zoo import AUXILIARY, ModelNameError, NamedModel
from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from lightning_cnnvis.inputs.spec import MAX_SIDE
from lightning_cnnvis.isolation import check_has_values
from lightning_cnnvis.layers import find_network
from lightning_cnnvis.models import ImageClassifier

_MAX_DEPTH = 20
_MAX_CLASSES = 2**17
_SMALL = 2**24
"""A network with so many weights is made whatever weights there are for it."""

__all__ = ["Checkpoint", "CheckpointError", "ModelNameError", "find_checkpoints", "load"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network with its weights, and what is known of it.

    Attributes:
        model: The network, in evaluation mode.
        module: The LightningModule that the network is, or is a part of; None for other networks.
        input_spec: The network's input; None if neither the checkpoint nor the network's name tells it.
        batch_spec: The images of the training's batches, of which it made that input; None if it is not known.
        resize: Size in pixels that the shorter side of a photograph is brought to before the centre is cut out; None
            for that of the input.
        path: The file.
        epoch: Number of epochs that the network was trained for.
        metrics: Values that the checkpoint was chosen by, by name.
        callbacks: States of the callbacks, by their keys.
        data_options: Arguments that the data module was made with.
        absent: Children that the weights lack; the network ends before them.
        name: Name of the network in titles.
        run: The run that the file belongs to, with its configuration.
    """

    model: nn.Module
    module: pl.LightningModule | None = None
    input_spec: InputSpec | None = None
    batch_spec: InputSpec | None = None
    resize: int | None = None
    path: Path | None = None
    epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    callbacks: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    name: str = "network"
    run: Run | None = None

    @property
    def device(self) -> torch.device:
        """Device of the network's parameters."""
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
    source: str | Path | nn.Module | Run | None = None,
    model: str | nn.Module | None = None,
    *,
    epoch: int | None = None,
    device: torch.device | str = "cpu",
    trust: bool = False,
) -> Checkpoint:
    """Loads a network.

    Args:
        source: A checkpoint of Lightning, a file of plain weights (``.pth``, ``.safetensors``), a run or a folder with
            checkpoints, of which the one trained longest is taken, or a network. None takes published weights.
        model: The network that the weights belong to: the import path of a LightningModule
            (``"package.module.Class"``), ``"torchvision:NAME"``, ``"timm:NAME"``, or a network. Checkpoints of
            `ImageClassifier` need none.
        epoch: The epoch whose checkpoint is taken from a run or a folder, counted from 1; None for the longest.
        device: The device to put the network on.
        trust: Whether to unpickle whatever is in the file, which may run any code. A `Run` has its own ``trust``.

    Returns:
        The network and what is known of it. Weights that end before the network does, such as those of
        ``features`` only, give the network up to there.

    Raises:
        CheckpointError: If it cannot be loaded; the message says why, and what to do.
        ModelNameError: If ``model`` is not the name of a network.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.pth"
        >>> torch.save(NamedModel("torchvision", "squeezenet1_1").build().state_dict(), path)
        >>> loaded = load(path, "torchvision:squeezenet1_1")
        >>> loaded.input_spec.size, loaded.resize, loaded.input_spec.class_name(281)
        ((224, 224), 256, 'tabby')
    """
    for given in (source, model):
        if isinstance(given, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            raise CheckpointError(
                "The network is TorchScript, which calls no hooks. Give the Python module that it was made from."
            )
    if isinstance(source, nn.Module):
        checkpoint = _of_network(source)
    elif source is None:
        checkpoint = _published(model)
    elif isinstance(source, Run) or Path(source).is_dir():
        checkpoint = _of_run(source, model, epoch, trust=trust)
    else:
        path = Path(source)
        checkpoint = _of_content(read_file(path, trust=trust), path, model, trust=trust)
        checkpoint = replace(checkpoint, run=Run(path.parent, trust=trust))
    for network in filter(None, (checkpoint.module, checkpoint.model)):
        check_has_values(network)
        network.to(device).eval()
    return checkpoint


def _of_run(source: str | Path | Run, model: str | nn.Module | None, epoch: int | None, *, trust: bool) -> Checkpoint:
    with nullcontext(source) if isinstance(source, Run) else Run(source, trust=trust) as run:
        path = run.longest if epoch is None else run.at(epoch)
        checkpoint = _of_content(run.content(path), path, model, trust=run.trust)
        # the file may be gone when these are used
        callbacks = pytree.tree_map_only(Tensor, torch.clone, checkpoint.callbacks)
        return replace(checkpoint, callbacks=callbacks, run=run.run_of(path))


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
            "There are no weights to look at. Give a checkpoint, or the name of a network that has published ones, "
            "such as --model torchvision:alexnet."
        )
    named = NamedModel.parse(model)
    network = named.build_pretrained()
    spec, resize = named.input_spec(network)
    return Checkpoint(network, input_spec=spec, resize=resize, name=named.name)


def _of_content(content: Any, path: Path, model: str | nn.Module | None, *, trust: bool) -> Checkpoint:
    known = _known(Facts.of(content), path)
    if isinstance(content, nn.Module) and not isinstance(model, nn.Module):  # only if trusted
        # the content stays as it is, and the copy does not depend on the file
        return replace(_of_network(copy.deepcopy(content)), path=path)
    if isinstance(model, nn.Module):
        return _fitted(model, state_dict_of(content, path), known)
    if isinstance(model, str) and NamedModel.is_one(model):
        return _of_named(NamedModel.parse(model), state_dict_of(content, path), known)
    hyperparameters = _hyperparameters(content)
    if model is None and not ({"num_classes", "image_size", "recipe"} <= set(hyperparameters)):
        state_dict_of(content, path)
        what = "is of another class than ImageClassifier" if "epoch" in content else "contains only weights"
        raise CheckpointError(
            f"{path} {what}. Name the network of its weights, with --model package.module.Class for a "
            "LightningModule, torchvision:NAME, or timm:NAME."
        )
    if model is None and "model" not in hyperparameters:
        raise CheckpointError(
            f"{path} is of an ImageClassifier around a network of your own, which the checkpoint does not name. Give "
            "that network: analyze(path, model=ImageClassifier(network, ...))."
        )
    kind = ImageClassifier if model is None else _network_class(model)
    weights = state_dict_of(content, path)
    if issubclass(kind, ImageClassifier):
        _check_classifier(kind, hyperparameters, weights, path)
    module = _instance(kind, content, hyperparameters, path, trust=trust)
    return _fitted(module, weights, known)


def _hyperparameters(content: Any) -> dict[str, Any]:
    """What ``save_hyperparameters()`` stored, also by Lightning's old names for it."""
    if not isinstance(content, Mapping):
        return {}
    found: dict[str, Any] = {}
    for key in ("hparams", "module_arguments", "hyper_parameters"):
        values = content.get(key)
        found |= (
            {name: value for name, value in values.items() if isinstance(name, str)}
            if isinstance(values, Mapping)
            else {}
        )
    return found


def _fitted(module: nn.Module, weights: Mapping[str, Any], known: Checkpoint) -> Checkpoint:
    """A checkpoint of a network, or of a LightningModule around one, once its weights are in it."""
    absent = fit_weights(module, weights, str(known.path), partial=True)
    found = _of_network(module)
    inner = find_network(module, None)[0] if isinstance(module, pl.LightningModule) else ""
    return replace(
        known,
        model=found.model,
        module=found.module,
        input_spec=known.input_spec or found.input_spec,
        absent=tuple(name.removeprefix(f"{inner}.") for name in absent),
        name=found.name,
    )


def _of_named(named: NamedModel, weights: Mapping[str, Tensor], known: Checkpoint) -> Checkpoint:
    auxiliary = any(AUXILIARY & set(key.split(".")) for key in weights)
    network = named.build(auxiliary=auxiliary)
    weights = named.renamed(weights, network)
    # a network trained on other classes differs in the size of its last parameter
    last = list(network.state_dict().items())[-1:]
    found = next((value for key, _ in last for other, value in weights.items() if other.endswith(key)), None)
    if found is not None and found.ndim and last[0][1].shape[0] != found.shape[0] <= _MAX_CLASSES:
        network = named.build(int(found.shape[0]), auxiliary=auxiliary)
    absent = fit_weights(network, weights, str(known.path), partial=True)
    classes = None if found is None else int(found.shape[0])
    spec, resize = named.input_spec(network, 0 if absent else classes)
    if absent:
        spec = replace(spec, class_names=())
    return replace(known, model=network, input_spec=spec, resize=resize, absent=tuple(absent), name=named.name)


def _known(facts: Facts, path: Path) -> Checkpoint:
    """A checkpoint of which the network is still missing."""
    return Checkpoint(nn.Identity(), path=path, **{fact.name: getattr(facts, fact.name) for fact in fields(Facts)})


def _classifier_spec(hyperparameters: Mapping[str, Any]) -> InputSpec:
    """Describes the input of the package's own data modules, which all normalise alike."""
    size = hyperparameters["image_size"]
    return InputSpec((size, size), 3, IMAGENET_MEAN, IMAGENET_STD)


def import_class(name: str, base: type) -> Any:
    """Imports a class.

    Args:
        name: Its import path, ``package.module.Class``.
        base: The class that it must be a subclass of.

    Returns:
        The class.

    Raises:
        CheckpointError: If it cannot be imported, or is not a subclass of ``base``.

    Examples:
        >>> import_class("torch.nn.Conv2d", nn.Module)
        <class 'torch.nn.modules.conv.Conv2d'>
    """
    module, _, attribute = name.rpartition(".")
    if not module:
        raise CheckpointError(f"{name!r} is not an import path. Write package.module.Class.")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module may raise anything while it is imported
        raise CheckpointError(f"{name!r} cannot be imported: {error}. Write package.module.Class.") from error
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise CheckpointError(f"{name!r} is not a {base.__name__}. Name a class that is one.")
    return found


def _network_class(name: str) -> Any:
    try:
        return import_class(name, nn.Module)
    except CheckpointError as error:
        hint = f"torchvision:{name} or timm:{name}" if "." not in name else "torchvision:NAME or timm:NAME"
        raise CheckpointError(f"{error} A network of a library is {hint}.") from error


def _instance(
    kind: type[nn.Module], content: Any, hyperparameters: Mapping[str, Any], path: Path, *, trust: bool
) -> nn.Module:
    """Makes a module with those hyperparameters that it takes, as Lightning does."""
    by_cli = "_instantiator" in hyperparameters
    classes = list(dict.fromkeys(_class_paths(hyperparameters))) if by_cli else []
    if classes and not trust:
        raise CheckpointError(
            f"{path} names classes to make {kind.__name__} of ({', '.join(classes)}), which may run any code. If you "
            "know where it comes from, trust it: --trust, or trust=True."
        )
    try:
        if by_cli and trust:
            return _by_cli(kind, hyperparameters)
        return kind(**_arguments(kind, content, hyperparameters))
    except Exception as error:  # whatever the user's own class raises
        why = str(error) if isinstance(error, TypeError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{kind.__name__} could not be made from the hyperparameters in {path} ({why}). Call "
            "save_hyperparameters() in its __init__, or give the module itself: analyze(path, model=module)."
        ) from error


def _class_paths(value: Any, depth: int = 0) -> Iterator[str]:
    """The classes that hyperparameters name, at any depth, as LightningCLI writes them."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        yield from (str(name) for key, name in value.items() if key in {"class_path", "_class_path"})
    if isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _class_paths(one, depth + 1)


def _arguments(kind: type[nn.Module], content: Any, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a module: its hyperparameters, or one that is all of them (``hparams_name``)."""
    parameters = inspect.signature(kind).parameters
    whole = content.get("hparams_name") if isinstance(content, Mapping) else None
    if isinstance(whole, str) and whole in parameters and parameters[whole].kind is not inspect.Parameter.VAR_KEYWORD:
        return {whole: AttributeDict(hyperparameters)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {key: value for key, value in hyperparameters.items() if takes_any or key in parameters}


def _by_cli(kind: type[nn.Module], hyperparameters: Mapping[str, Any]) -> nn.Module:
    """Makes a module of LightningCLI, whose hyperparameters may be classes, each with arguments of its own."""
    from pytorch_lightning.cli import instantiate_module  # noqa: PLC0415 - needs jsonargparse, which not everyone has

    given = {key: value for key, value in hyperparameters.items() if key != "_instantiator"}
    module: nn.Module = instantiate_module(kind, given)
    return module


def _check_classifier(
    kind: type[ImageClassifier], hyperparameters: Mapping[str, Any], weights: Mapping[str, Any], path: Path
) -> None:
    """Refuses hyperparameters that ask for another network than the weights are of, before it takes any memory."""
    size = hyperparameters.get("image_size", 1)
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_SIDE:
        raise CheckpointError(
            f"{path} has an image_size that is not the side of an image in pixels, from 1 to {MAX_SIDE}. Use another "
            "checkpoint."
        )
    if kind is not ImageClassifier or not isinstance(hyperparameters.get("model"), str):
        return
    with torch.device("meta"):
        network = _instance(kind, {}, hyperparameters, path, trust=False)
    needed = sum(value.numel() for value in network.state_dict().values())
    held = sum(value.numel() for value in weights.values() if isinstance(value, Tensor))
    if needed > 2 * held + _SMALL:
        raise CheckpointError(
            f"The hyperparameters in {path} are of a network with {needed:,} weights, and it has {held:,}. Use another "
            "checkpoint."
        )
