"""Networks whose forward passes change what is neither a parameter nor a buffer, and the loss with it."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from runs import Classifier
from torch import nn


@dataclass
class Count:
    n: int = 0


class Slots:
    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0


def count_up(counter: Any) -> float:
    counter.n += 1
    return counter.n


def raise_by_one(array: Any) -> float:
    array += 1
    return float(array[0])


def count_in(table: dict[str, Any]) -> float:
    table["n"] += 1
    return table["n"]


def enqueue(queue: deque[float]) -> float:
    queue.append(queue[-1] + 1)
    return sum(queue)


def closure() -> Callable[[], float]:
    n = 0

    def up() -> float:
        nonlocal n
        n += 1
        return n

    return up


STATES: dict[str, tuple[Callable[[], Any], Callable[[Any], float]]] = {
    "a dataclass": (Count, count_up),
    "slots": (Slots, count_up),
    "a queue": (lambda: deque([0.0], maxlen=3), enqueue),
    "an array": (lambda: np.zeros(2), raise_by_one),
    "a tensor in a list": (lambda: [torch.zeros(2)], lambda held: raise_by_one(held[0])),
    "a dict in a dict": (lambda: {"a": {"n": 0}}, lambda held: count_in(held["a"])),
    "a tuple of objects": (lambda: (Count(), Count()), lambda held: count_up(held[1])),
    "torch's generator": (
        lambda: torch.Generator().manual_seed(1),
        lambda held: torch.rand(1, generator=held).item(),
    ),
    "NumPy's generator": (lambda: np.random.default_rng(1), lambda held: held.random()),
    "Python's generator": (lambda: random.Random(1), lambda held: held.random()),
    "a closure": (closure, lambda held: held()),
    "beside a lock": (lambda: {"counter": Count(), "other": 0}, lambda held: count_up(held["counter"])),
}
"""How each kind of state is made, and a number that it gives and that changes it."""


class Drifting(nn.Module):
    """Adds a number that depends on how often the network has run."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        make, self.use = STATES[kind]
        self.state = make()
        if kind == "beside a lock":
            self.lock = threading.Lock()  # which cannot be copied

    def forward(self, images):
        return images + 0.05 * self.use(self.state)


def placed(inner: nn.Module, module: Classifier | None = None) -> Classifier:
    """A classifier that passes its first features through a module."""
    module = module or Classifier()
    module.model[3] = nn.Sequential(inner, nn.MaxPool2d(2))
    return module


def drifting(*kinds: str) -> Classifier:
    """A classifier with a state of each kind, each of which changes what it gives."""
    return placed(nn.Sequential(*map(Drifting, kinds)))


def counting_class() -> Classifier:
    """A classifier whose state is that of a class; a new class each time."""

    class Counting(nn.Module):
        passes = 0
        history: ClassVar[list[float]] = [0.0]

        def forward(self, images):
            type(self).passes += 1
            self.history.append(self.history[-1] + 1)
            return images + 0.05 * (self.passes + self.history[-1])

    return placed(Counting())


def lazy() -> Classifier:
    module = Classifier()
    module.model[0], module.model[1] = nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()
    module.model[8] = nn.LazyLinear(3)
    return module


class Logging(nn.Module):
    """Logs as the forward pass of a LightningModule may, also past its ``log``."""

    def __init__(self, owner: Classifier) -> None:
        super().__init__()
        self.owner = [owner]  # no child

    def forward(self, images):
        owner = self.owner[0]
        owner.log("gate_loss", images.detach().mean(), on_step=False, on_epoch=True)
        owner.log_dict({"other_gate_loss": images.detach().mean()})
        if owner.logger is not None:
            owner.logger.log_metrics({"direct_loss": images.detach().mean().item()}, step=owner.global_step)
        return images


def logging() -> Classifier:
    module = Classifier()
    return placed(Logging(module), module)


class Gatherer:
    def __init__(self) -> None:
        self.means: list[float] = []

    def __call__(self, module, inputs, output) -> None:
        self.means.append(output.detach().mean().item())


SEEN: list[float] = []


def see(module, inputs, output) -> None:
    SEEN.append(output.detach().mean().item())


class Centred(Classifier):
    """Moves a centre by a hook, as DINO does, and subtracts it in the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(3))
        self.model[-1].register_forward_hook(self.move)

    def move(self, module, inputs, output):
        self.centre.mul_(0.9).add_(output.detach().mean(0) * 0.1)
        return output - self.centre.clone()


def gathering(kind: str) -> Classifier:
    """A classifier with a hook that gathers; ``gathered`` tells what."""
    if kind == "a method of the module":
        return Centred()
    module = Classifier()
    layer = module.model[2]
    if kind == "an object":
        gatherer = Gatherer()
        layer.register_forward_hook(gatherer)
        module.gathered = lambda: gatherer.means
    elif kind == "a global":
        SEEN.clear()
        layer.register_forward_hook(see)
        module.gathered = lambda: list(SEEN)
    else:
        means: list[float] = []
        layer.register_forward_hook(lambda _, __, output: means.append(output.detach().mean().item()))
        layer.register_forward_pre_hook(lambda _, inputs: means.append(inputs[0].detach().mean().item()))
        module.gathered = lambda: means
    return module


GATHERERS = ("a closure", "an object", "a global", "a method of the module")
