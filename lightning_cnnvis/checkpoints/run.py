"""A run's folder: its checkpoints, their epochs and its configuration, each file read once."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from lightning_cnnvis.checkpoints.facts import Facts
from lightning_cnnvis.checkpoints.files import CheckpointError, UnreadableError, is_mappable, read_file
from lightning_cnnvis.inputs import InputSpec

SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")
CONFIG_NAME = "config.yaml"
WEIGHTS_FOLDER = "weights"
"""Folder of a run with the weights of the epochs that were shown."""

_MAX_CONFIG = 2**20
_MAX_NODES = 2**17
_LEVELS = 3  # a checkpoint lies in RUN/checkpoints or RUN/cnnvis/weights
_EPOCH_IN_NAME = re.compile(r"epoch[^0-9]?([0-9]+)", re.IGNORECASE)


class Run:
    """The folder of a training run, or one with checkpoints.

    Nothing is read before it is asked for, and then once. Tensors are mapped into memory, not copied into it, so that
    a run with many checkpoints costs no more memory than one with few; they are let go when the run is closed, what
    was found out is kept. Files that cannot be mapped, those of the format before PyTorch 1.6, are kept in memory one
    at a time, and read again if they are asked for later.

    Empty and damaged files are named in a warning and passed over, as long as another one can be read.

    Args:
        folder: The folder.
        trust: Whether to unpickle whatever is in the files, which may run any code.

    Examples:
        >>> import tempfile, torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> for epoch in (1, 2, 10):
        ...     torch.save({"weight": torch.zeros(epoch)}, folder / f"epoch_{epoch}.pth")
        >>> with Run(folder) as run:
        ...     list(run.epochs), run.longest.name, run.content(run.longest)["weight"].shape
        ([1, 2, 10], 'epoch_10.pth', torch.Size([10]))
    """

    def __init__(self, folder: str | Path, *, trust: bool = False) -> None:
        self.folder = Path(folder)
        self.trust = trust
        self._mapped: dict[Path, Any] = {}
        self._in_memory: dict[Path, Any] = {}
        self._facts: dict[Path, Facts] = {}
        self._passed_over: dict[Path, UnreadableError] = {}

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, trust={self.trust})"

    def close(self) -> None:
        """Lets go of what the files contain. What was found out, such as the epochs, stays known."""
        self._mapped.clear()
        self._in_memory.clear()

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The checkpoints.

        Returns:
            The files, in the natural order of their names.

        Raises:
            CheckpointError: If there is no such folder, or no checkpoint in it.
        """
        return tuple(find_checkpoints(self.folder, trust=self.trust))

    def content(self, path: Path) -> Any:
        """Reads one of the files.

        Args:
            path: The file.

        Returns:
            The object that was saved. Its tensors may be mapped: copy what is to outlive the run.

        Raises:
            CheckpointError: If the file cannot be read.
        """
        for known in (self._mapped, self._in_memory):
            if path in known:
                return known[path]
        mapped = is_mappable(path)
        content = read_file(path, trust=self.trust, mapped=mapped)
        if mapped:
            self._mapped[path] = content
        else:
            self._in_memory = {path: content}
        return content

    def facts(self, path: Path) -> Facts:
        """Finds out what a file says beside its weights.

        Args:
            path: The file.

        Returns:
            The facts.

        Raises:
            CheckpointError: If the file cannot be read.
        """
        if path not in self._facts:
            self._facts[path] = Facts.of(self.content(path))
        return self._facts[path]

    @cached_property
    def epochs(self) -> dict[int, Path]:
        """The checkpoints by epoch, counted from 1, ascending.

        They are those that were kept to be looked at, where there are any; else all. A file that does not say its
        epoch has the number in its name, ``epoch_0005.pth``; where some have none, they are counted in their order.

        Returns:
            The files by epoch.

        Raises:
            CheckpointError: If there are none, or they belong to several runs.
        """
        files = self.files
        if len(self._configs) > 1:
            names = ", ".join(str(path.parent) for path in self._configs[:4])
            raise CheckpointError(
                f"{self.folder} contains {len(self._configs)} runs. Name one of them, such as {names}."
            )
        kept = [path for path in files if path.parent.name == WEIGHTS_FOLDER]
        found = self._readable(kept) or self._readable(files)
        if not found:
            raise self._nothing_readable()
        named = _epochs_in_names([path for path, facts in found.items() if facts.epoch is None])
        by_epoch = {
            facts.epoch or named.get(path, number): path for number, (path, facts) in enumerate(found.items(), start=1)
        }
        return dict(sorted(by_epoch.items()))

    def at(self, epoch: int) -> Path:
        """Finds the checkpoint of an epoch.

        Args:
            epoch: The epoch, counted from 1.

        Returns:
            The file.

        Raises:
            CheckpointError: If there is none; the message lists the epochs that there are.
        """
        if epoch not in self.epochs:
            known = ", ".join(map(str, self.epochs))
            raise CheckpointError(f"{self.folder} has no checkpoint of epoch {epoch}: there are those of {known}.")
        return self.epochs[epoch]

    @cached_property
    def longest(self) -> Path:
        """The checkpoint that was trained longest; of several, the one that was written last.

        Files that do not say their epoch, and whose names differ only by numbers, count in the order of these.

        Returns:
            The file.

        Raises:
            CheckpointError: If there is none that can be read.
        """
        if len(self.files) == 1:
            return self.files[0]
        found = self._readable(self.files)
        if not found:
            raise self._nothing_readable()
        silent = [path for path, facts in found.items() if facts.epoch is None]
        patterns = {re.sub(r"[0-9]+", "0", str(path)) for path in silent}
        rank = {path: number for number, path in enumerate(silent) if len(patterns) == 1}
        return max(found, key=lambda path: (found[path].epoch or 0, rank.get(path, 0), path.stat().st_mtime))

    @property
    def input_spec(self) -> InputSpec | None:
        """The network's input, from the first checkpoint that tells it; None if none does."""
        return self._formats[0]

    @property
    def batch_spec(self) -> InputSpec | None:
        """The images of the batches that the input was made of; None if no checkpoint tells it."""
        return self._formats[1]

    @cached_property
    def _formats(self) -> tuple[InputSpec | None, InputSpec | None]:
        found = self._readable(path for path in self.files if path.suffix == ".ckpt")
        told = ((facts.input_spec, facts.batch_spec) for facts in found.values() if facts.input_spec is not None)
        return next(told, (None, None))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration that LightningCLI saved with the run.

        Returns:
            The content of ``config.yaml``, in the folder or above it; empty if there is none.

        Raises:
            CheckpointError: If it cannot be read.
        """
        folder = self.folder.absolute()
        for place in (folder, *folder.parents)[:_LEVELS]:
            if (place / CONFIG_NAME).is_file():
                return _read_config(place / CONFIG_NAME)
        return _read_config(self._configs[0]) if len(self._configs) == 1 else {}

    def run_of(self, path: Path) -> Run:
        """Finds the run that one of the files belongs to.

        Args:
            path: The file.

        Returns:
            This run; if the folder contains several, one of the file's own folder.
        """
        return self if len(self._configs) < 2 else Run(path.parent, trust=self.trust)

    @cached_property
    def _configs(self) -> list[Path]:
        """The configurations in the folder that have a checkpoint beside or below them."""
        found = sorted(self.folder.rglob(CONFIG_NAME), key=_natural)
        return [config for config in found if any(path.is_relative_to(config.parent) for path in self.files)]

    def _readable(self, paths: Iterable[Path]) -> dict[Path, Facts]:
        found: dict[Path, Facts] = {}
        for path in paths:
            if path in self._passed_over:
                continue
            try:
                found[path] = self.facts(path)
            except UnreadableError as error:
                self._passed_over[path] = error
                if len(self._passed_over) < len(self.files):
                    warnings.warn(f"A checkpoint is passed over: {error}", stacklevel=3)
        return found

    def _nothing_readable(self) -> UnreadableError:
        reason = next(iter(self._passed_over.values()))
        if len(self.files) == 1:
            return reason
        return UnreadableError(f"None of the {len(self.files)} checkpoints in {self.folder} can be read. {reason}")


def find_checkpoints(folder: Path, *, trust: bool = False) -> list[Path]:
    """Lists the checkpoints in a folder and those below it.

    Args:
        folder: The folder.
        trust: Whether to take links that lead out of the folder; otherwise they are named and passed over.

    Returns:
        The files, in the natural order of their names: ``epoch_2`` before ``epoch_10``.

    Raises:
        CheckpointError: If there is no such folder, or no checkpoint in it.
    """
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {folder}. Check the path.")
    found = sorted(_files(folder, trust=trust), key=_natural)
    if not found:
        raise CheckpointError(
            f"The folder {folder} has no checkpoint in it (files that end in {', '.join(SUFFIXES)}). Give the folder "
            "of a run whose weights were kept."
        )
    return found


def _files(folder: Path, *, trust: bool) -> Iterator[Path]:
    inside = folder.resolve()
    for path in folder.rglob("*"):
        try:
            if path.suffix not in SUFFIXES or not path.is_file():
                continue
            # Lightning links last.ckpt to a file beside it; a link that leads out is the choice of whoever made it
            leads_out = path.is_symlink() and not path.resolve().is_relative_to(inside)
        except (OSError, RuntimeError):  # a link to itself
            continue
        if leads_out and not trust:
            warnings.warn(
                f"{path} is a link to {path.resolve()}, outside of the folder, and is passed over. Name that file, or "
                "trust the folder: --trust, or trust=True.",
                stacklevel=4,
            )
            continue
        yield path


def _natural(path: Path) -> tuple[Any, ...]:
    """Sorts paths part by part, and the numbers in them by their value."""
    # split() gives text and digits in turn, so that like is compared with like
    parts = ([int(s) if n % 2 else s for n, s in enumerate(re.split(r"([0-9]+)", part))] for part in path.parts)
    return (*parts, path.name)


def _epochs_in_names(paths: Sequence[Path]) -> dict[Path, int]:
    """The epochs that files have in their names; nothing unless all have one, from 1, and no two the same."""
    matches = {path: _EPOCH_IN_NAME.search(path.stem) for path in paths}
    epochs = {path: int(match[1]) for path, match in matches.items() if match is not None}
    return epochs if len(set(epochs.values()) - {0}) == len(paths) else {}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_CONFIG:
            raise ValueError("it is larger than any configuration")
        text = path.read_text(encoding="utf-8")
        _check_nodes(yaml.compose(text, Loader=yaml.SafeLoader))
        config = yaml.safe_load(text)
    except Exception as error:  # YAML's own errors, and what its tags raise: numbers, dates, depth
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise CheckpointError(f"{path} cannot be read ({reason}). Fix or delete it.") from error
    return config if isinstance(config, dict) else {}


def _check_nodes(root: yaml.Node | None) -> None:
    """Refuses YAML whose aliases name what contains them, or multiply to more than anyone has written."""
    sizes: dict[int, int] = {}
    unfinished: set[int] = set()

    def size_of(node: yaml.Node | None) -> int:
        if id(node) in unfinished:
            raise ValueError("it contains itself")
        if id(node) not in sizes:
            unfinished.add(id(node))
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in node.value for child in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            sizes[id(node)] = 1 + sum(map(size_of, children))
            unfinished.discard(id(node))
            if sizes[id(node)] > _MAX_NODES:
                raise ValueError("its aliases multiply to more than any configuration has")
        return sizes[id(node)]

    size_of(root)
