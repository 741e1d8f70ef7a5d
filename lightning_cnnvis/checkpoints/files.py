"""Files of weights: read them without running what is in them, and fit them to a network."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.imports import module_available
from torch import Tensor, nn

_SHOWN_KEYS = 4
_ZIP = b"PK"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used. The message says why, and what to do."""


class UnreadableError(CheckpointError):
    """A file that is missing, empty, damaged or not a checkpoint: no option of ours would make it readable."""


def read_file(path: Path, *, trust: bool = False, mapped: bool = False) -> Any:
    """Reads a checkpoint or a file of weights into the CPU's memory.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote.
        trust: Whether to unpickle whatever is in the file, which may run any code. Otherwise only tensors and builtins
            are read.
        mapped: Whether to map the tensors into memory instead of copying them: the disk is read when their values are
            used, and nothing may write into the file meanwhile. Only for files that `is_mappable` accepts.

    Returns:
        The object that was saved.

    Raises:
        UnreadableError: If the file is missing, damaged or of another kind.
        CheckpointError: If it contains more than may be read.
    """
    if not path.exists():
        raise UnreadableError(f"There is no file {path}. Check the path.")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder. Name a checkpoint in it.")
    head = _head(path)
    if not head:
        raise UnreadableError(f"{path} is empty: its writing was interrupted. Use another checkpoint.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    is_zip = head.startswith(_ZIP)
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust, mmap=mapped)
    except pickle.UnpicklingError as error:
        message = str(error)
        # torch.save's files are zip archives; what else is pickled begins with its protocol
        if "GLOBAL " in message or is_zip or head.startswith(b"\x80"):
            what = message.split("GLOBAL ", 1)[1].split(" ", 1)[0] if "GLOBAL " in message else "it is a pickle"
            raise CheckpointError(
                f"{path} contains more than tensors and builtins ({what}), and reading it would run code of its "
                "maker's choice. If you know where it comes from, trust it: --trust, or trust=True."
            ) from error
        raise UnreadableError(_not_a_checkpoint(path)) from error
    except ImportError as error:
        raise CheckpointError(
            f"{path} needs code that cannot be imported ({error}). Install it, or run the command where the training "
            "ran."
        ) from error
    except Exception as error:  # the unpickler raises nearly anything at what is not a pickle
        if is_zip:
            raise UnreadableError(
                f"{path} is damaged, as a file is whose writing or download was cut off ({_first_line(str(error))}). "
                "Use another checkpoint, or fetch it again."
            ) from error
        raise UnreadableError(_not_a_checkpoint(path)) from error


def is_mappable(path: Path) -> bool:
    """Whether the tensors in a file can be mapped into memory.

    Args:
        path: The file.

    Returns:
        True for ``.safetensors`` and for the zip archives that torch.save writes; False for its format before PyTorch
        1.6, for archives that were compressed, and for what is not a checkpoint.
    """
    if path.suffix == ".safetensors":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be opened: {error.strerror}. Check its permissions.") from error


def _not_a_checkpoint(path: Path) -> str:
    return (
        f"{path} is not a checkpoint: torch.load cannot read it. Give a file that Lightning or torch.save wrote, or "
        "one that ends in .safetensors."
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if not module_available("safetensors"):
        raise CheckpointError(
            f"{path} needs safetensors, which is not installed: python -m pip install 'lightning-cnnvis[timm]'"
        )
    from safetensors import SafetensorError  # noqa: PLC0415 - only there if the user has it
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise UnreadableError(
            f"{path} is damaged or not a safetensors file ({error}). Fetch it again, or use another."
        ) from error
    return tensors


def state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Finds the weights in what was read from a file.

    Args:
        content: A state dict, a mapping with one under one of the usual keys (``state_dict``, ``model``,
            ``model_state_dict``, ``state_dict_ema``, ``model_ema``), or a network.
        path: The file, for the message.

    Returns:
        Tensors of any shape by the dotted name of the parameter or buffer.

    Raises:
        CheckpointError: If there are none.

    Example:
        >>> weights = nn.Linear(2, 1).state_dict()
        >>> list(state_dict_of({"epoch": 3, "model_state_dict": weights}, Path("some.pth")))
        ['weight', 'bias']
    """
    if isinstance(content, nn.Module):
        return content.state_dict()
    for key in (None, "state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema"):
        found = content if key is None else content.get(key) if isinstance(content, Mapping) else None
        if isinstance(found, Mapping) and found and all(isinstance(value, Tensor) for value in found.values()):
            return dict(found)
    kind = type(content).__name__
    keys = f" with {', '.join(map(repr, list(content)[:4]))}" if isinstance(content, Mapping) and content else ""
    raise CheckpointError(
        f"{path} contains no weights, but a {kind}{keys}. Give a file with a state_dict, as Lightning's checkpoints "
        "are."
    )


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str, *, partial: bool = False) -> list[str]:
    """Copies weights into a network.

    Weights of a module around the network fit too (``model.conv1.weight``), and so do those of a child of it
    (``0.weight`` for ``features.0.weight``).

    Args:
        model: The network; its weights are replaced.
        weights: The new weights, tensors of the parameters' shapes, by key.
        source: Origin of the weights, for the message.
        partial: Whether the weights may end before the network does: whole children at its end may be missing. They
            are replaced by the identity, so that the network ends where its weights do.

    Returns:
        The names of the children that were missing, in the order of the network.

    Raises:
        CheckpointError: If keys or shapes do not fit; the message names them.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> features = {f"0.{key}": value for key, value in nn.Conv2d(3, 8, 3).state_dict().items()}
        >>> fit_weights(net, features, "features.pth", partial=True)
        ['2']
    """
    own = model.state_dict()
    weights = _renamed(weights, own, [name for name, _ in model.named_children()])
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    reshaped = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    absent = _absent_children(model, missing) if partial and not unexpected else []
    if absent:
        missing = [key for key in missing if key.split(".")[0] not in absent]
    if missing or unexpected or reshaped:
        shapes = [f"{key} {tuple(weights[key].shape)} in place of {tuple(own[key].shape)}" for key in reshaped]
        differences = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
        what = "; ".join(f"{name}: {_shortened(keys)}" for name, keys in differences if keys)
        raise CheckpointError(
            f"The weights of {source} do not fit {type(model).__name__} ({what}). Name the network that they belong to."
        )
    for name in absent:
        setattr(model, name, nn.Identity())
    model.load_state_dict(weights)
    return absent


def _renamed(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], children: Sequence[str]) -> dict[str, Tensor]:
    """Renames weights to the network's keys: as they are, without a common prefix, or as those of a child."""
    plain = dict(weights)
    while not any(key in own for key in plain):
        heads = {key.partition(".")[0] for key in plain}
        if len(heads) != 1 or not all("." in key for key in plain):
            break
        plain = {key.partition(".")[2]: value for key, value in plain.items()}
    else:
        return plain
    for child in children:
        inside = {f"{child}.{key}": value for key, value in weights.items()}
        if inside and set(inside) <= set(own):
            return inside
    return dict(weights)


def _absent_children(model: nn.Module, missing: Sequence[str]) -> list[str]:
    """Finds the children at the end of the network all of whose weights are missing."""
    absent: list[str] = []
    for name, child in reversed(list(model.named_children())):
        keys = [f"{name}.{key}" for key in child.state_dict()]
        if keys and not set(keys) <= set(missing):
            break
        if keys:
            absent.insert(0, name)
    has_weights = [name for name, child in model.named_children() if child.state_dict()]
    return absent if len(absent) < len(has_weights) else []


def _shortened(keys: Sequence[str]) -> str:
    more = len(keys) - _SHOWN_KEYS
    return ", ".join(keys[:_SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else "no reason given"
