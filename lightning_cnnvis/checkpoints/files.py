"""Files of weights: read them without running what is in them, and fit them to a network."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.imports import module_available
from torch import Tensor, nn

from lightning_cnnvis.text import printable

_SHOWN_KEYS = 4
_MAX_INFLATION = 16
_FREE_INFLATION = 2**26
"""A file may unfold to sixteen times its bytes, and to 64 MiB in any case."""
_ZIP = b"PK"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used. The message says why, and what to do.

    Args:
        message: The message. Names in it may be anybody's: what a terminal would take for a command is escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


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
    if is_zip:
        _check_archive(path, trust=trust)
    try:
        content = torch.load(path, map_location="cpu", weights_only=not trust, mmap=mapped)
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
            raise UnreadableError(_damaged(path, error)) from error
        raise UnreadableError(_not_a_checkpoint(path)) from error
    if not trust:
        _check_tensors(content, path)
    return content


def _check_archive(path: Path, *, trust: bool) -> None:
    """Refuses TorchScript, and archives that would fill the memory when they are inflated."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises nearly anything at a directory that is damaged
        raise UnreadableError(_damaged(path, error)) from error
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise CheckpointError(
            f"{path} is a TorchScript archive (torch.jit.save), which holds a program and calls no hooks. Save the "
            "network's state_dict() with torch.save and give that, with the Python class of the network: --model, or "
            "model=."
        )
    inflated, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if inflated > _MAX_INFLATION * size + _FREE_INFLATION and not trust:
        raise CheckpointError(
            f"{path} has {size:,} bytes and would inflate to {inflated:,}, as an archive does that is made to fill the "
            "memory. If you know where it comes from, trust it: --trust, or trust=True."
        )


def _check_tensors(content: Any, path: Path) -> None:
    """Refuses tensors that repeat a few stored values many times: a copy of one would fill the memory."""
    for tensor in _leaves(content):
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.is_quantized:
            continue
        needed, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
        if needed > _MAX_INFLATION * stored + _FREE_INFLATION:
            raise CheckpointError(
                f"{path} has a tensor of shape {tuple(tensor.shape)} in {stored:,} bytes, which is made to fill the "
                "memory. If you know where it comes from, trust it: --trust, or trust=True."
            )


def _leaves(content: Any) -> Iterator[Any]:
    """What containers hold, each looked at once, however they are nested."""
    seen: set[int] = set()
    todo = [content]
    while todo:
        value = todo.pop()
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            if id(value) not in seen:
                seen.add(id(value))
                todo += value.values() if isinstance(value, Mapping) else value
        else:
            yield value


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
    except Exception:  # zipfile raises nearly anything at a directory that is damaged
        return False


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be opened: {error.strerror}. Check its permissions.") from error


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} is damaged, as a file is whose writing or download was cut off ({first_line(str(error))}). Use "
        "another checkpoint, or fetch it again."
    )


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


_WEIGHTS_KEYS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
EXTRA = "_extra_state"


def state_dict_of(content: Any, path: Path) -> dict[str, Any]:
    """Finds the weights in what was read from a file.

    Args:
        content: A state dict, a mapping with one, or a network. Of several state dicts in a mapping, the one under one
            of the usual keys is taken (``state_dict``, ``model``, ``model_state_dict``, ``state_dict_ema``,
            ``model_ema``).
        path: The file, for the message.

    Returns:
        Tensors of any shape by the dotted name of the parameter or buffer, and what modules keep beside them
        (``get_extra_state``).

    Raises:
        CheckpointError: If there are none, or several and none under a usual key.

    Examples:
        >>> weights = nn.Linear(2, 1).state_dict()
        >>> list(state_dict_of({"epoch": 3, "net": weights}, Path("some.pth")))
        ['weight', 'bias']
    """
    found = _state_dicts(content)
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise CheckpointError(
            f"{path} contains weights under several keys: {shortened([repr(key) for key in found])}. Save those that "
            "you mean in a file of their own: torch.save(content[KEY], FILE)."
        )
    kind = type(content).__name__
    keys = f" with {', '.join(map(repr, list(content)[:4]))}" if isinstance(content, Mapping) and content else ""
    raise CheckpointError(
        f"{path} contains no weights, but a {kind}{keys}. Give a file with a state_dict, as Lightning's checkpoints "
        "are."
    )


def _state_dicts(content: Any, depth: int = 2) -> dict[str, dict[str, Any]]:
    """The state dicts in what was read, by their keys; the first under a usual key alone."""
    if isinstance(content, nn.Module):
        return {"": content.state_dict()}
    if not isinstance(content, Mapping) or not content:
        return {}
    if _is_state_dict(content):
        return {"": dict(content)}
    if not depth:
        return {}
    for usual in _WEIGHTS_KEYS:
        if found := _state_dicts(content.get(usual), depth - 1):
            return found
    # what Lightning and training loops save beside the weights
    aside = {"optimizer", "optimizer_states", "optimizer_state_dict", "callbacks", "loops", "hyper_parameters"}
    inside = {key: _state_dicts(value, depth - 1) for key, value in content.items() if key not in aside}
    return {str(key): weights for key, found in inside.items() for weights in found.values()}


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return all(
        isinstance(key, str) and (isinstance(value, Tensor) or key.endswith(EXTRA)) for key, value in content.items()
    ) and any(isinstance(value, Tensor) for value in content.values())


def shortened(keys: Sequence[str]) -> str:
    """Lists the first keys, and says how many more there are."""
    more = len(keys) - _SHOWN_KEYS
    return ", ".join(keys[:_SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")


def first_line(text: str) -> str:
    """The first line of an error's message, as a part of a sentence."""
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else "no reason given"
