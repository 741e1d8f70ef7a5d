"""Recipes: the settings of an optimisation, apart from its objective and its images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from lightning_cnnvis.functional.optimization.network_priors import NetworkPrior
from lightning_cnnvis.functional.optimization.optimizers import Adam, Optimizer
from lightning_cnnvis.functional.optimization.parameterizations import Fourier, Parameterization
from lightning_cnnvis.functional.optimization.regularizers import Constraint, Regularizer
from lightning_cnnvis.functional.optimization.transforms import Transform


@dataclass(frozen=True)
class Phase:
    """A run of steps with the same settings.

    Args:
        steps: Number of steps.
        lr: Learning rate at the first step.
        final_lr: Learning rate that a cosine reaches at the last step; None keeps ``lr``.
        transform: Random moves of the image before it goes through the network; None makes none.
        input_scale: Size of the network's input, relative to the input spec's. Only networks that take any size can
            use a value other than 1.
        reset: Whether the phase starts with a fresh optimiser state, as Mahendran & Vedaldi 2014 reset the momentum.
        decay: Fraction of the parameters that is subtracted in a step of learning rate 1, independently of the loss
            (decoupled weight decay, arXiv 1711.05101).
        copies: Number of copies of the image at each step, each moved by random numbers of its own; the loss is their
            mean. They go through the network one after the other.
        image_scale: Size of the image, relative to its final size. Between phases of different sizes it is resampled,
            and the optimiser starts afresh. Images that start from given ones keep to 1 in the first phase.

    Raises:
        ValueError: If ``steps``, ``lr``, ``copies`` or a scale is not positive.

    Examples:
        >>> phase = Phase(steps=3, lr=0.1, final_lr=0.0)
        >>> [phase.lr_at(index) for index in range(3)]
        [0.1, 0.05, 0.0]
    """

    steps: int
    lr: float
    final_lr: float | None = None
    transform: Transform | None = None
    input_scale: float = 1.0
    reset: bool = False
    decay: float = 0.0
    copies: int = 1
    image_scale: float = 1.0

    def __post_init__(self) -> None:
        """Checks that the numbers are positive."""
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: an optimisation takes at least 1 step.")
        if self.lr <= 0:
            raise ValueError(f"lr={self.lr} is not positive. Give a learning rate above 0.")
        if self.copies < 1:
            raise ValueError(f"copies={self.copies}: the network sees at least 1 copy of the image at each step.")
        for name in ("input_scale", "image_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is not positive. Give a scale above 0, such as 1.")

    def lr_at(self, index: int) -> float:
        """Computes the learning rate of a step.

        Args:
            index: Number of the step within the phase, from 0.

        Returns:
            The learning rate, ``lr`` at the first step and ``final_lr`` at the last.
        """
        if self.final_lr is None or self.steps == 1:
            return self.lr
        return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * index / (self.steps - 1))) / 2

    def transform_at(self, index: int) -> Transform | None:
        """Finds the random moves of a step.

        Args:
            index: Number of the step within the phase, from 0.

        Returns:
            The transform; where it has a method ``at``, as `RandomBoxes` does, what that returns for the fraction of
            the phase that has passed, from 0 to 1.
        """
        at = getattr(self.transform, "at", None)
        return at(index / max(1, self.steps - 1)) if callable(at) else self.transform


ClassScore = Literal["logit", "margin", "log_probability"]
"""What is raised of a class; see `Recipe`."""


@dataclass(frozen=True)
class Recipe:
    """A way to optimise images, whatever the objective.

    Args:
        phases: The schedule, one or more phases.
        parameterization: The parameters in which the steps are taken.
        optimizer: The rule by which the steps are taken.
        regularizers: Penalties on the image, added to the loss.
        prior: Coefficient of the mean squared parameter, added to the loss. With `Fourier`, in whose parameters natural
            images are independent and normal, it measures how unlikely the image is.
        constraint: A map of the parameters that is applied after each step; None applies none.
        precision: Precision of the network's forward and backward pass, ``"float32"`` or ``"bfloat16"``. The latter is
            faster on GPUs, but rounding may make an image depend visibly on its batch.
        network_prior: A penalty on what the layers of the network see, such as `BatchNormPrior`; None adds none.
        class_score: What is raised of a class: ``"logit"``; ``"margin"``, which also lowers the other logits, by half;
            or ``"log_probability"`` (minus the cross-entropy), which lowers them as well, and hardly changes once the
            class is reached.
        otherwise: A recipe by which class images that do not reach their class are tried once more, from other noise,
            in as many steps; None leaves them. The better image of the two is kept.
        means: What tells this recipe from the one before it, in a few words, for captions of images made by it when it
            is the ``otherwise`` of another.
        rescue: Whether gradients pass through dead ReLUs during the first 16 steps, only for images whose objective has
            no gradient at all.

    Raises:
        ValueError: If there is no phase, or ``precision`` or ``class_score`` is not one of its choices.

    Examples:
        >>> Recipe(phases=(Phase(steps=32, lr=0.1), Phase(steps=16, lr=0.1, final_lr=0.01))).steps
        48
    """

    phases: tuple[Phase, ...]
    parameterization: Parameterization = field(default_factory=Fourier)
    optimizer: Optimizer = field(default_factory=Adam)
    regularizers: tuple[Regularizer, ...] = ()
    prior: float = 0.0
    constraint: Constraint | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    rescue: bool = True
    network_prior: NetworkPrior | None = None
    class_score: ClassScore = "logit"
    otherwise: Recipe | None = None
    means: str = "again"

    def __post_init__(self) -> None:
        """Checks that there are phases, and the precision."""
        object.__setattr__(self, "phases", tuple(self.phases))
        object.__setattr__(self, "regularizers", tuple(self.regularizers))
        if not self.phases:
            raise ValueError("phases=() is empty. Give at least one phase of steps.")
        if self.precision not in {"float32", "bfloat16"}:
            raise ValueError(f"precision={self.precision!r} is not supported. Choose 'float32' or 'bfloat16'.")
        if self.class_score not in get_args(ClassScore):
            choices = ", ".join(map(repr, get_args(ClassScore)))
            raise ValueError(f"class_score={self.class_score!r} is not supported. Choose one of {choices}.")

    @property
    def steps(self) -> int:
        """Number of steps in all phases."""
        return sum(phase.steps for phase in self.phases)


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """Changes the number of steps of a recipe; the phases keep their shares of it.

    Args:
        recipe: Any recipe.
        steps: Number of steps in all phases. If there are fewer steps than phases, the first phases are left out. The
            recipe's ``otherwise`` gets as many.

    Returns:
        The recipe with that number of steps.

    Raises:
        ValueError: If ``steps`` is not positive.

    Examples:
        >>> recipe = Recipe((Phase(steps=30, lr=0.1), Phase(steps=10, lr=0.01)))
        >>> [phase.steps for phase in with_steps(recipe, 8).phases]
        [6, 2]
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: an optimisation takes at least 1 step.")
    phases: list[Phase] = []
    left, total = steps, recipe.steps
    for phase in reversed(recipe.phases):
        share = min(left, max(1, round(steps * phase.steps / total)))
        if share:
            phases.insert(0, replace(phase, steps=share))
        left -= share
    # the remainder of the rounding
    phases[-1] = replace(phases[-1], steps=phases[-1].steps + left)
    otherwise = recipe.otherwise and with_steps(recipe.otherwise, steps)
    return replace(recipe, phases=tuple(phases), otherwise=otherwise)
