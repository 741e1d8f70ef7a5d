"""Optimisers as pure functions of tensors: every image takes its own steps, whatever else is in the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]


class Optimizer(Protocol):
    """One step of a minimisation, row by row."""

    def init(self, params: Tensor) -> State:
        """The state before the first step."""
        ...

    def step(self, params: Tensor, gradient: Tensor, state: State, lr: float, count: int) -> tuple[Tensor, State]:
        """Takes a step.

        Args:
            params: ``(N, ...)``.
            gradient: Of the loss, of the same shape.
            state: From `init` or from the last step.
            lr: Learning rate.
            count: Steps since `init`, this one included.

        Returns:
            New parameters and new state.
        """
        ...


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2014, arXiv 1412.6980).

    Args:
        beta1: Decay of the mean gradient.
        beta2: Decay of the mean squared gradient.
        eps: Added to the root of the mean squared gradient, in the gradient's own units, as in the paper's Algorithm 1.
            The step does not depend on the scale of the loss where the gradient is well above it.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def init(self, params: Tensor) -> State:
        """Zero moments."""
        return torch.zeros_like(params), torch.zeros_like(params)

    def step(self, params: Tensor, gradient: Tensor, state: State, lr: float, count: int) -> tuple[Tensor, State]:
        """See `Optimizer`."""
        first = state[0].lerp(gradient, 1 - self.beta1)
        second = state[1].lerp(gradient.square(), 1 - self.beta2)
        root = (second / (1 - self.beta2**count)).sqrt()
        update = first / (1 - self.beta1**count) / (root + self.eps)
        return params - lr * update, (first, second)


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum; with momentum 0, plain gradient descent.

    Args:
        momentum: Fraction of the last step that is taken again.
        normalize: Divides each image's gradient by its mean absolute value first, as DeepDream does.
    """

    momentum: float = 0.9
    normalize: bool = False

    def init(self, params: Tensor) -> State:
        """Zero velocity, or none."""
        return (torch.zeros_like(params),) if self.momentum else ()

    def step(self, params: Tensor, gradient: Tensor, state: State, lr: float, count: int) -> tuple[Tensor, State]:
        """See `Optimizer`."""
        if self.normalize:
            gradient = _unit(gradient)
        if not self.momentum:
            return params - lr * gradient, ()
        velocity = self.momentum * state[0] - lr * gradient
        return params + velocity, (velocity,)


@dataclass(frozen=True)
class AdaGrad:
    """AdaGrad that forgets, with momentum: Mahendran & Vedaldi 2016 (arXiv 1512.02017), Sec. 3.

    As in the authors' code, a step is g / (1 / lr + √Σg²): for small gradients that is plain gradient descent of the
    learning rate, and for large ones at most 1 unit of the parameters.

    Args:
        decay: Factor on the sum of squared gradients at each step.
        momentum: Fraction of the last step that is taken again.
    """

    decay: float = 0.9
    momentum: float = 0.9

    def init(self, params: Tensor) -> State:
        """Zero velocity and zero sum of squares."""
        return torch.zeros_like(params), torch.zeros_like(params)

    def step(self, params: Tensor, gradient: Tensor, state: State, lr: float, count: int) -> tuple[Tensor, State]:
        """See `Optimizer`."""
        squares = self.decay * state[1] + gradient.square()
        velocity = self.momentum * state[0] - gradient / (1 / lr + squares.sqrt())
        return params + velocity, (velocity, squares)


@dataclass(frozen=True)
class PyramidDescent:
    """Gradient descent whose steps are equally large at every scale, from fine texture to broad shape.

    The gradient is split into a Laplacian pyramid, each level of which is divided by its mean absolute value, as
    Mordvintsev normalises the gradient of DeepDream (the ``deepdream.ipynb`` of TensorFlow's examples, "Laplacian
    Pyramid Gradient Normalization"). The plain gradient is mostly fine texture.

    Args:
        levels: Number of halvings; 0 only divides the gradient by its mean absolute value.
    """

    levels: int = 3

    def init(self, params: Tensor) -> State:
        """No state."""
        return ()

    def step(self, params: Tensor, gradient: Tensor, state: State, lr: float, count: int) -> tuple[Tensor, State]:
        """See `Optimizer`; ``params`` are pixels ``(N, C, H, W)``."""
        bands, sizes = [], []
        for _ in range(self.levels):
            if min(gradient.shape[-2:]) < 4:
                break
            size = gradient.shape[-2:]
            low = F.avg_pool2d(gradient, 2, ceil_mode=True, count_include_pad=False)
            bands.append(gradient - F.interpolate(low, size, mode="bilinear"))
            sizes.append(size)
            gradient = low
        update = _unit(gradient)
        for band, size in zip(reversed(bands), reversed(sizes), strict=True):
            update = _unit(band) + F.interpolate(update, size, mode="bilinear")
        # back to the mean change of a single level
        return params - lr * _unit(update), ()


def _unit(gradient: Tensor) -> Tensor:
    """Each image's gradient divided by its mean absolute value; 0 stays 0."""
    mean = gradient.abs().flatten(1).mean(1).view(-1, *[1] * (gradient.ndim - 1))
    return gradient / mean.clamp_min(torch.finfo(gradient.dtype).tiny)
