"""Named methods of inversion, the published ones and this library's own, and where to register more."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from lightning_cnnvis.functional.network.receptive_field import ReceptiveField
from lightning_cnnvis.functional.optimization.optimizers import AdaGrad, Adam, Momentum
from lightning_cnnvis.functional.optimization.parameterizations import (
    Fourier,
    GaussianStart,
    ImageStatistics,
    UniformStart,
)
from lightning_cnnvis.functional.optimization.recipes import Phase, Recipe, with_steps
from lightning_cnnvis.functional.optimization.regularizers import AlphaNorm, ColorNormBound, TotalVariation
from lightning_cnnvis.functional.optimization.transforms import RandomCrop
from lightning_cnnvis.functional.registry import Registry
from lightning_cnnvis.inputs import InputSpec

_T = TypeVar("_T")

_GREY_LEVEL = 1 / 255
_SIGMA_2014 = 27098.1157  # mean norm of mean-subtracted images of 227×227×3 in grey levels
_RMS_2014 = _SIGMA_2014 / math.sqrt(227 * 227 * 3)
_SIGMA_2016 = 80.0
_BOUND_2016 = 160.0


@dataclass(frozen=True)
class InversionStage:
    """A part of an inversion.

    Args:
        recipe: The way to optimise the images.
        margin: Number of pixels by which the images are larger than the network's input, for `RandomCrop`. They are cut
            off at the end of the stage.
    """

    recipe: Recipe
    margin: int = 0


@dataclass(frozen=True)
class InversionMethod:
    """Settings for the inversion of one layer.

    Args:
        stages: The stages, one after the other, each from the images of the last.
        weight: Factor on the normalised error in the loss, the C of Mahendran & Vedaldi 2016 (arXiv 1512.02017).

    Examples:
        >>> coarse, fine = Recipe((Phase(steps=60, lr=0.1),)), Recipe((Phase(steps=40, lr=0.01),))
        >>> InversionMethod((InversionStage(coarse), InversionStage(fine)), weight=20.0).weight
        20.0
    """

    stages: tuple[InversionStage, ...]
    weight: float = 1.0


class MethodOfLayer(Protocol):
    """A function that makes the settings of a method for one layer."""

    def __call__(
        self, field: ReceptiveField | None, input_spec: InputSpec, *, statistics: ImageStatistics | None
    ) -> InversionMethod:
        """Makes the settings.

        Args:
            field: The layer's receptive field; None stands for the whole image.
            input_spec: The network's input.
            statistics: Statistics of the user's own images; None stands for everyday photographs.

        Returns:
            The settings. Layers that get equal stages share their batches.
        """
        ...


INVERSION_METHODS: Registry[MethodOfLayer] = Registry("method")
"""The methods of inversion by name. Those registered here can be used wherever a method's name is taken::

    @INVERSION_METHODS.register("plain")
    def plain(field, input_spec, *, statistics):
        return InversionMethod((InversionStage(Recipe((Phase(steps=100, lr=0.05),))),))
"""


def inversion_method(
    method: str | Recipe | InversionMethod,
    field: ReceptiveField | None,
    input_spec: InputSpec,
    *,
    steps: int | None = None,
    statistics: ImageStatistics | None = None,
) -> InversionMethod:
    """Makes the settings of a method for a layer.

    - ``"fourier"``: Fourier basis with decorrelated colour, Adam with large steps and decay first, then without decay
      and with a falling learning rate, under a Gaussian prior and total variation: the more of both, the deeper the
      layer.
    - ``"mahendran2014"``: arXiv 1412.0035, Sec. 3 and the authors' experiments: pixels, gradient descent with
      momentum, α-norm with α = 6, total variation with β = 2 in three strengths.
    - ``"mahendran2016"``: arXiv 1512.02017, Sec. 3 and the authors' code: pixels of bounded colour, AdaGrad, jitter
      by cropping, error weights C of 300, 100, 20 and 1.

    The papers choose the regularisation by the layer of AlexNet. For other networks, it is chosen by the size of the
    receptive field relative to the image, with limits that give AlexNet's layers what the papers give them.

    Args:
        method: One of the names above or of those registered in `INVERSION_METHODS`; or the settings themselves; or a
            recipe, which makes a method of one stage.
        field: The layer's receptive field; None is the whole image.
        input_spec: The network's input. Its mean is what the published methods subtract, or grey if it is 0.
        steps: Number of steps; None takes the method's own.
        statistics: Image statistics for ``"fourier"``; None takes everyday photographs.

    Returns:
        The settings.

    Raises:
        ValueError: If there is no method of the name, or ``steps`` is not positive.

    Examples:
        >>> field = ReceptiveField((51, 51), (8, 8), (0, 0), (192, 27, 27), (227, 227))
        >>> inversion_method("mahendran2016", field, InputSpec(size=(227, 227))).weight
        100.0
    """
    if isinstance(method, Recipe):
        method = InversionMethod((InversionStage(method),))
    elif not isinstance(method, InversionMethod):
        method = INVERSION_METHODS.get(method)(field, input_spec, statistics=statistics)
    return method if steps is None else _with_steps(method, steps)


def check_method(method: str | Recipe | InversionMethod) -> None:
    """Checks, before any work, that a method can be used.

    Args:
        method: A method's name, a recipe, or a method's settings.

    Raises:
        ValueError: If it is neither of these, or there is no method of the name.
    """
    if not isinstance(method, Recipe | InversionMethod):
        INVERSION_METHODS.get(method)


def _depth(field: ReceptiveField | None) -> float:
    """Computes the size of the receptive field relative to the image; infinite where units may depend on all of it."""
    if field is None or field.whole_image:
        return math.inf
    return max(size / side for size, side in zip(field.size, field.input_size, strict=True))


def _by_depth(depth: float, limits: Sequence[float], values: Sequence[_T]) -> _T:
    """Picks the value of the interval in which a depth lies; a limit is part of the interval below it."""
    return values[bisect_left(limits, depth)]


@INVERSION_METHODS.register("fourier")
def _fourier(
    field: ReceptiveField | None, input_spec: InputSpec, *, statistics: ImageStatistics | None
) -> InversionMethod:
    depth = _depth(field)
    # Large steps find the image, while the decay keeps it near the natural ones. Then, without decay, the features
    # determine the image, and the prior whatever they leave open: the more, the deeper the layer.
    limits = (0.1, 0.25)  # in AlexNet: up to pool1, up to relu2, and all later ones
    lr, beta2, decay = _by_depth(depth, limits, ((0.3, 0.9, 0.2), (0.3, 0.9, 0.2), (0.2, 0.95, 0.5)))
    prior, smoothness = _by_depth(depth, limits, ((0.0015, 0.04), (0.015, 0.4), (0.1, 8.0)))
    recipe = Recipe(
        phases=(Phase(60, lr, decay=decay), Phase(90, lr, final_lr=0.001)),
        parameterization=Fourier(statistics),
        optimizer=Adam(beta2=beta2),
        regularizers=(TotalVariation(smoothness, mean=True),),
        prior=prior,
    )
    return InversionMethod((InversionStage(recipe),))


@INVERSION_METHODS.register("mahendran2014")
def _mahendran2014(
    field: ReceptiveField | None, input_spec: InputSpec, *, statistics: ImageStatistics | None
) -> InversionMethod:
    # In the paper, the objective is a function of x/σ, and the steps are taken for x: hence σ² in both.
    sigma2 = _RMS_2014**2 * math.prod(input_spec.shape)
    center = _center(input_spec)
    # in AlexNet: up to relu2, up to relu4, and from conv5 on
    tv = _by_depth(_depth(field), (0.25, 0.65), (0.5, 5.0, 50.0))
    recipe = Recipe(
        phases=tuple(
            Phase(steps, 0.004 * factor * sigma2, reset=True) for steps, factor in ((100, 1), (200, 0.1), (100, 0.01))
        ),
        parameterization=GaussianStart(_GREY_LEVEL, center, _RMS_2014),
        optimizer=Momentum(0.9),
        regularizers=(
            AlphaNorm(4e-10 / sigma2, 6.0, center=center, unit=_GREY_LEVEL),
            TotalVariation(tv / sigma2, 2.0, unit=_GREY_LEVEL),
        ),
    )
    return InversionMethod((InversionStage(recipe),))


@INVERSION_METHODS.register("mahendran2016")
def _mahendran2016(
    field: ReceptiveField | None, input_spec: InputSpec, *, statistics: ImageStatistics | None
) -> InversionMethod:
    center = _center(input_spec)
    rate = 0.05 * _SIGMA_2016**2 / 6 * math.prod(input_spec.size)
    recipe = Recipe(
        phases=(Phase(300, rate, transform=RandomCrop()),),
        parameterization=UniformStart(_GREY_LEVEL, center, _SIGMA_2016 / math.sqrt(3)),
        optimizer=AdaGrad(decay=0.9, momentum=0.9),
        regularizers=(
            AlphaNorm(_SIGMA_2016**-6, 6.0, center=center, unit=_GREY_LEVEL, vector=True, mean=True),
            TotalVariation((6.5 / _SIGMA_2016) ** 2, 2.0, unit=_GREY_LEVEL, mean=True),
        ),
        constraint=ColorNormBound(_BOUND_2016),
    )
    # in AlexNet: up to pool1, up to relu2, all later maps, and the fully connected layers
    weight = _by_depth(_depth(field), (0.1, 0.25, math.nextafter(math.inf, 0)), (300.0, 100.0, 20.0, 1.0))
    # a fully connected layer has no stride
    shifts = 1 if field is None else max(round(max(field.stride) / 4), 1)
    still = replace(recipe, phases=(Phase(50, 0.1 * rate),))
    return InversionMethod((InversionStage(recipe, margin=shifts - 1), InversionStage(still)), weight)


def _center(input_spec: InputSpec) -> tuple[float, ...]:
    return input_spec.mean if any(input_spec.mean) else (0.5,) * input_spec.channels


def _with_steps(method: InversionMethod, steps: int) -> InversionMethod:
    """Changes the number of steps; the stages keep their shares of it, the last stages first."""
    if steps < 1:
        raise ValueError(f"steps={steps}: an optimisation takes at least 1 step.")
    total = sum(stage.recipe.steps for stage in method.stages)
    stages: list[InversionStage] = []
    left = steps
    for stage in reversed(method.stages[1:]):
        share = min(left - 1, round(steps * stage.recipe.steps / total))
        if share > 0:
            stages.insert(0, replace(stage, recipe=with_steps(stage.recipe, share)))
            left -= share
    first = method.stages[0]
    return replace(method, stages=(replace(first, recipe=with_steps(first.recipe, left)), *stages))
