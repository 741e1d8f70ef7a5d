"""Partial results of a pass over the images: a run that was killed goes on where it was."""

from __future__ import annotations

import json
import pickle
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.methods.subject import Follower
from lightning_cnnvis.posthoc.digests import digest_of
from lightning_cnnvis.posthoc.images import Images
from lightning_cnnvis.sinks.atomic import appearing, sweep

SECONDS_BETWEEN = 60.0
"""Partial results are written no more often than this, so that a short pass writes none."""

SHARE = 0.02
"""Greatest share of the time that goes into writing them."""

_REMEDY = "Give the same again to go on, choose another folder, or delete the file to begin anew."


class PartialResultsError(ValueError):
    """Partial results that cannot be gone on from. The message says why, and what to do."""


@dataclass
class Position:
    """How far a pass over the images has come.

    Attributes:
        batches: Number of batches of the source that have been read, those without a readable image included.
        images: Number of images that the network has seen.
    """

    batches: int = 0
    images: int = 0


@dataclass
class PartialResults:
    """The partial results of one pass over the images, in a file.

    Args:
        path: The file.
        network: The network that is shown the images.
        images: The images.
        spec: The format of the network's input.
        follower: What gathers the results.
        settings: What the results depend on beyond the network and the images.
    """

    path: Path
    network: nn.Module
    images: Images
    spec: InputSpec
    follower: Follower
    settings: Mapping[str, object]
    _facts: dict[str, str | None] = field(default_factory=dict, init=False)
    _cost: float = field(default=0.0, init=False)
    _written: float = field(default_factory=time.monotonic, init=False)

    def resume(self) -> Position:
        """Gives the follower what it had gathered before the program was killed.

        Returns:
            The position from which to go on; the beginning if there are no partial results.

        Raises:
            PartialResultsError: If they are of another network, other images or other options, or damaged.
        """
        if not self.path.is_file():
            return Position()
        sweep(self.path.parent)  # what was being written when the program was killed
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            found, position = dict(state["facts"]), Position(**state["position"])
        except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            raise PartialResultsError(f"{self.path} is not a file of partial results ({reason}). {_REMEDY}") from error
        other = [name for name, fact in self._described().items() if found.get(name) != fact]
        if other:
            raise PartialResultsError(
                f"{self.path} holds the partial results of a run that was killed, with other {' and '.join(other)}. "
                f"{_REMEDY}"
            )
        self.follower.load_state_dict(state["follower"])
        self.images.skipped.update({Path(name): reason for name, reason in state["skipped"].items()})
        warnings.warn(f"Going on after {position.images} images, with the results in {self.path}.", stacklevel=2)
        return position

    def keep(self, position: Position) -> None:
        """Writes the results so far, if it is time to.

        Args:
            position: How far the pass has come.
        """
        if time.monotonic() - self._written >= max(SECONDS_BETWEEN, self._cost / SHARE):
            self._write(position)

    def complete(self, position: Position) -> None:
        """Writes the results of the whole pass, where partial ones were: what is made of them may take long, too.

        Args:
            position: The end of the images.
        """
        if self.path.is_file():
            self._write(position)

    def _write(self, position: Position) -> None:
        start, facts = time.monotonic(), self._described()
        if facts["images"] is None:  # which another run would get in another order
            return
        state = {
            "facts": facts,
            "position": vars(position),
            "skipped": {str(path): reason for path, reason in self.images.skipped.items()},
            "follower": self.follower.state_dict(),
        }
        with appearing(self.path) as temporary:
            torch.save(state, temporary)
        self._written = time.monotonic()
        self._cost = self._written - start

    def _described(self) -> dict[str, str | None]:
        """What the results depend on, as digests and text; found out when it is first needed."""
        if not self._facts:
            self._facts = {
                "versions": f"torch {torch.__version__}, format 1",
                "weights": digest_of(self.network),
                "images": self.images.identity(self.spec),
                "options": json.dumps(self.settings, sort_keys=True),
            }
        return self._facts
