"""Judges of class images as users name them: published networks, files of weights, runs, and networks at hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
from torch import nn

from lightning_cnnvis.checkpoints import load
from lightning_cnnvis.checkpoints.zoo import NamedModel
from lightning_cnnvis.functional.visualization.judging import Judge, Verdict
from lightning_cnnvis.layers import find_network

JudgeName = str | Path | nn.Module | Judge
"""A judge: ``torchvision:NAME`` or ``timm:NAME``, with its published weights; a checkpoint, a file of weights or the
folder of a run; ``NAME=FILE`` for weights of a network that they do not name; or a network."""

_NETWORK = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+|(torchvision|timm):[\w.]+")


def check_judges(judges: Sequence[JudgeName] | None) -> None:
    """Checks, without loading anything, that judges can be there.

    Args:
        judges: The judges.

    Raises:
        ValueError: If one is neither a network nor a name or a file that there is.

    Examples:
        >>> check_judges(["resnet18"])
        Traceback (most recent call last):
        ...
        ValueError: judges: 'resnet18' is neither a file nor a network. Write torchvision:NAME, timm:NAME or a path.
    """
    if isinstance(judges, str | Path | nn.Module | Judge):
        raise ValueError(f"judges={judges!r} is one judge, not a list: give judges=[...].")
    if not isinstance(judges, Sequence | None):
        raise ValueError(f"judges={judges!r} is not a list: give judges=[...].")
    for judge in judges or ():
        if isinstance(judge, nn.Module | Judge):
            continue
        if not isinstance(judge, str | Path):
            raise ValueError(f"judges: {judge!r} is neither a name, a path nor a network. Give one of these.")
        file, model = _file_and_model(judge)
        if model is not None and NamedModel.is_one(model):
            NamedModel.parse(model)
        if file is None and model is not None and NamedModel.is_one(model):
            continue
        if str(judge).endswith("=") or not str(judge).strip() or file is None or not file.exists():
            raise ValueError(
                f"judges: {str(judge)!r} is neither a file nor a network. Write torchvision:NAME, timm:NAME or a path."
            )


def load_judges(judges: Sequence[JudgeName] | None) -> list[Judge]:
    """Loads judges, as far as they are named; on the CPU, so that they take no memory of the GPU that trains.

    Args:
        judges: The judges.

    Returns:
        The judges, each with its network.

    Raises:
        ValueError: If one cannot be loaded, or its weights lack the network's end.

    Examples:
        >>> [judge.title for judge in load_judges([nn.Linear(2, 2)])]
        ['Linear']
    """
    return [_loaded(judge) for judge in judges or ()]


def judges_note(verdicts: Sequence[Verdict]) -> str:
    """A sentence on who the judges are.

    Args:
        verdicts: The verdicts, at least one.

    Returns:
        The sentence.
    """
    judges, top = ", ".join(verdicts[0].judges), verdicts[0].top
    among = "is its most probable one" if top == 1 else f"is among its {top} most probable ones"
    return f"Judged by {judges}: a judge sees a class that {among}."


def _loaded(judge: JudgeName) -> Judge:
    if isinstance(judge, Judge):
        return replace(judge, network=_inner(judge.network))
    if isinstance(judge, nn.Module):
        return Judge(_inner(judge), name=type(judge).__name__)
    file, model = _file_and_model(judge)
    try:
        found = load(file, model)
        found.require_output()
    except ValueError as error:
        raise ValueError(f"The judge {str(judge)!r} cannot be loaded. {error}") from error
    name = found.name if file is None else file.resolve().name if file.is_dir() else file.stem
    return Judge(found.model, found.input_spec, name)


def _inner(network: nn.Module) -> nn.Module:
    return find_network(network, None)[1] if isinstance(network, pl.LightningModule) else network


def _file_and_model(judge: str | Path) -> tuple[Path | None, str | None]:
    """The file, and the name of the network that its weights are of; names of files may have an equals sign, too."""
    path = Path(judge).expanduser()
    if isinstance(judge, Path) or path.exists():
        return path, None
    model, given, file = judge.partition("=")
    if not _NETWORK.fullmatch(model) or (not given and not NamedModel.is_one(model)):
        return path, None
    return (Path(file).expanduser() if given else None), model
