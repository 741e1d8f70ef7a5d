"""Optimisers as pure functions of tensors: each image takes its own steps, whatever else is in the batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]
"""The tensors that an optimiser carries from step to step, each of the parameters' shape."""


class Optimizer(Protocol):
    """A rule for the steps of a minimisation, applied row by row."""

    def init(self, params: Tensor) -> State:
        """Makes the state before the first step.

        Args:
            params: ``(N, ...)``.

        Returns:
            The state; its tensors have the shape of ``params``.
        """
        ...

    def step(self, params: Tensor, gradient: Tensor, state: State, lr: float, count: int) -> tuple[Tensor, State]:
        """Takes a step.

        Args:
            params: ``(N, ...)``, one row for each image.
            gradient: Gradient of the loss, of the same shape.
            state: State from `init` or from the last step.
            lr: Learning rate.
            count: Number of steps since `init`, this one included.

        Returns:
            The new parameters and the new state, of the same shapes.
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

    Examples:
        >>> adam, params = Adam(), torch.zeros(1, 2)
        >>> stepped, _ = adam.step(params, torch.tensor([[3.0, -4.0]]), adam.init(params), lr=0.1, count=1)
        >>> stepped
        tensor([[-0.1000,  0.1000]])
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def init(self, params: Tensor) -> State:
        """Makes moments of 0.

        Args:
            params: ``(N, ...)``.

        Returns:
            The mean and the mean square of the gradient, each ``(N, ...)``.
        """
        return torch.zeros_like(params), torch.zeros_like(params)

    def step(self, params: Tensor, gradient: Tensor, state: State, lr: float, count: int) -> tuple[Tensor, State]:
        """Takes a step.

        Args:
            params: ``(N, ...)``.
            gradient: Gradient of the loss, of the same shape.
            state: Moments from `init` or from the last step.
            lr: Learning rate.
            count: Number of steps since `init`, this one included, to correct the bias of the moments.

        Returns:
            The new parameters and the new state, of the same shapes.
        """
        first = state[0].lerp(gradient, 1 - self.beta1)
        second = state[1].lerp(gradient.square(), 1 - self.beta2)
        root = (second / (1 - self.beta2**count)).sqrt()
        update = first / (1 - self.beta1**count) / (root + self.eps)
        return params - lr * update, (first, second)


@dataclass(frozen=True)
class Nadam(Adam):
    """Adam with Nesterov's momentum (Dozat 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ).

    The momentum of step t is β₁ (1 - 0.96^(0.004 t) / 2), as in Keras and PyTorch. Arguments as for `Adam`.

    Examples:
        >>> nadam, params = Nadam(), torch.zeros(1, 2)
        >>> stepped, _ = nadam.step(params, torch.tensor([[3.0, -4.0]]), nadam.init(params), lr=0.1, count=1)
        >>> stepped.sign()
        tensor([[-1.,  1.]])
    """

    def step(self, params: Tensor, gradient: Tensor, state: State, lr: float, count: int) -> tuple[Tensor, State]:
        """Takes a step.

        Args:
            params: ``(N, ...)``.
            gradient: Gradient of the loss, of the same shape.
            state: Moments from `init` or from the last step.
            lr: Learning rate.
            count: Number of steps since `init`, this one included.

        Returns:
            The new parameters and the new state, of the same shapes.
        """
        first = state[0].lerp(gradient, 1 - self.beta1)
        second = state[1].lerp(gradient.square(), 1 - self.beta2)
        momenta = [self.beta1 * (1 - 0.5 * 0.96 ** (0.004 * t)) for t in range(1, count + 2)]
        so_far = math.prod(momenta[:count])
        ahead = momenta[count] / (1 - so_far * momenta[count]) * first
        now = (1 - momenta[count - 1]) / (1 - so_far) * gradient
        root = (second / (1 - self.beta2**count)).sqrt()
        return params - lr * (ahead + now) / (root + self.eps), (first, second)


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum; with momentum 0, plain gradient descent.

    Args:
        momentum: Fraction of the last step that is taken again, from 0 to 1.
        normalize: Whether each image's gradient is first divided by its mean absolute value, as in DeepDream.

    Examples:
        >>> descent, params = Momentum(momentum=0.0), torch.zeros(1, 2)
        >>> descent.step(params, torch.tensor([[3.0, -4.0]]), descent.init(params), lr=0.5, count=1)[0]
        tensor([[-1.5000,  2.0000]])
    """

    momentum: float = 0.9
    normalize: bool = False

    def init(self, params: Tensor) -> State:
        """Makes a velocity of 0.

        Args:
            params: ``(N, ...)``.

        Returns:
            The velocity ``(N, ...)``; nothing without momentum.
        """
        return (torch.zeros_like(params),) if self.momentum else ()

    def step(self, params: Tensor, gradient: Tensor, state: State, lr: float, count: int) -> tuple[Tensor, State]:
        """Takes a step.

        Args:
            params: ``(N, ...)``.
            gradient: Gradient of the loss, of the same shape.
            state: Velocity from `init` or from the last step.
            lr: Learning rate.
            count: Number of steps since `init`, this one included; not used.

        Returns:
            The new parameters and the new state, of the same shapes.
        """
        if self.normalize:
            gradient = _unit(gradient)
        if not self.momentum:
            return params - lr * gradient, ()
        velocity = self.momentum * state[0] - lr * gradient
        return params + velocity, (velocity,)


@dataclass(frozen=True)
class AdaGrad:
    """AdaGrad that forgets, with momentum: Mahendran & Vedaldi 2016 (arXiv 1512.02017), Sec. 3.

    As in the authors' code, a step is g / (1 / lr + √Σg²): plain gradient descent with the learning rate for small
    gradients, and at most 1 unit of the parameters for large ones.

    Args:
        decay: Factor on the sum of squared gradients at each step, from 0 to 1.
        momentum: Fraction of the last step that is taken again, from 0 to 1.

    Examples:
        >>> adagrad, params = AdaGrad(), torch.zeros(1, 2)
        >>> adagrad.step(params, torch.tensor([[1e-4, 1e9]]), adagrad.init(params), lr=1.0, count=1)[0]
        tensor([[-9.9990e-05, -1.0000e+00]])
    """

    decay: float = 0.9
    momentum: float = 0.9

    def init(self, params: Tensor) -> State:
        """Makes a velocity and a sum of squares of 0.

        Args:
            params: ``(N, ...)``.

        Returns:
            The velocity and the sum of squares, each ``(N, ...)``.
        """
        return torch.zeros_like(params), torch.zeros_like(params)

    def step(self, params: Tensor, gradient: Tensor, state: State, lr: float, count: int) -> tuple[Tensor, State]:
        """Takes a step.

        Args:
            params: ``(N, ...)``.
            gradient: Gradient of the loss, of the same shape.
            state: Velocity and sum of squares from `init` or from the last step.
            lr: Learning rate for small gradients.
            count: Number of steps since `init`, this one included; not used.

        Returns:
            The new parameters and the new state, of the same shapes.
        """
        squares = self.decay * state[1] + gradient.square()
        velocity = self.momentum * state[0] - gradient / (1 / lr + squares.sqrt())
        return params + velocity, (velocity, squares)


@dataclass(frozen=True)
class PyramidDescent:
    """Gradient descent whose steps are equally large at every scale, from fine texture to broad shape.

    The gradient is split into a Laplacian pyramid, and each level is divided by its mean absolute value, as
    Mordvintsev normalises the gradient of DeepDream (``deepdream.ipynb`` in TensorFlow's examples, "Laplacian
    Pyramid Gradient Normalization"). The plain gradient is mostly fine texture.

    Args:
        levels: Number of halvings; 0 only divides the gradient by its mean absolute value.

    Examples:
        >>> descent, params = PyramidDescent(), torch.zeros(1, 1, 8, 8)
        >>> gradient = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> descent.step(params, gradient, descent.init(params), lr=0.01, count=1)[0].abs().mean()
        tensor(0.0100)
    """

    levels: int = 3

    def init(self, params: Tensor) -> State:
        """Makes an empty state.

        Args:
            params: ``(N, ...)``.

        Returns:
            Nothing: a step does not depend on earlier ones.
        """
        return ()

    def step(self, params: Tensor, gradient: Tensor, state: State, lr: float, count: int) -> tuple[Tensor, State]:
        """Takes a step.

        Args:
            params: Pixels ``(N, C, H, W)``.
            gradient: Gradient of the loss, of the same shape.
            state: The empty state.
            lr: Learning rate: the mean absolute change of a pixel.
            count: Number of steps since `init`, this one included; not used.

        Returns:
            The new parameters and the new state, of the same shapes.
        """
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
        # the mean change of a single level again
        return params - lr * _unit(update), ()


def _unit(gradient: Tensor) -> Tensor:
    """Divides each image's gradient by its mean absolute value; 0 stays 0."""
    mean = gradient.abs().flatten(1).mean(1).view(-1, *[1] * (gradient.ndim - 1))
    return gradient / mean.clamp_min(torch.finfo(gradient.dtype).tiny)
