"""Named recipes for class visualisation, each as its paper has it, and where to register more."""

from __future__ import annotations

from typing import Protocol

from lightning_cnnvis.functional.optimization.optimizers import Adam, Momentum
from lightning_cnnvis.functional.optimization.parameterizations import Fourier, ImageStatistics, Pixels
from lightning_cnnvis.functional.optimization.recipes import Phase, Recipe, with_steps
from lightning_cnnvis.functional.optimization.regularizers import AlphaNorm, Both, Bounds, YosinskiPrior
from lightning_cnnvis.functional.optimization.transforms import RandomAffine
from lightning_cnnvis.functional.registry import Registry
from lightning_cnnvis.inputs import InputSpec


class Preset(Protocol):
    """A function that makes a recipe for a network's input."""

    def __call__(self, input_spec: InputSpec, *, statistics: ImageStatistics | None, coarse: bool) -> Recipe:
        """Makes the recipe.

        Args:
            input_spec: The network's input.
            statistics: Statistics of the user's own images; None stands for everyday photographs.
            coarse: Whether the network also takes inputs of 0.6 times its size, so that `Phase.input_scale` may be
                below 1.

        Returns:
            The recipe.
        """
        ...


PRESETS: Registry[Preset] = Registry("preset")
"""The presets by name. Those registered here can be used wherever a preset's name is taken::

    @PRESETS.register("short")
    def short(input_spec, *, statistics, coarse):
        return Recipe((Phase(steps=16, lr=0.1),), Fourier(statistics))
"""


def preset_recipe(
    preset: str | Recipe,
    input_spec: InputSpec,
    *,
    steps: int | None = None,
    statistics: ImageStatistics | None = None,
    coarse: bool = False,
) -> Recipe:
    """Makes the recipe of a named preset.

    - ``"fourier"``: Fourier basis with decorrelated colour, Adam, random shifts, scales and rotations, after Olah et
      al. 2017 (https://doi.org/10.23915/distill.00007); on networks that take any size, first on smaller inputs, so
      that objects come out large and whole.
    - ``"yosinski2015"``: gradient ascent on pixels with a little decay and a blur every fourth step, the third row
      of Table 1 of Yosinski et al. 2015 (arXiv 1506.06579). Their rate of 100 suits the gradients of their network;
      here the gradient is normalised, and the rate is in grey levels.
    - ``"simonyan2013"``: the logit minus an L2 penalty, from the mean image (arXiv 1312.6034, Sec. 2). The paper gives
      no numbers; the steps are normalised here.
    - ``"none"``: no prior at all, as for the fooling images of Nguyen et al. 2014 (arXiv 1412.1897, Sec. 4).

    Args:
        preset: One of the names above or of those registered in `PRESETS`; or a recipe, which is returned as it is but
            for the number of steps.
        input_spec: The network's input; its mean is the pixel presets' centre.
        steps: Number of steps; None takes the preset's own.
        statistics: Image statistics for ``"fourier"``; None takes everyday photographs.
        coarse: Whether the network takes smaller inputs, too.

    Returns:
        The recipe.

    Raises:
        ValueError: If there is no preset of the name, or ``steps`` is not positive.

    Example:
        >>> preset_recipe("simonyan2013", InputSpec(), steps=20).steps
        20
    """
    if not isinstance(preset, Recipe):
        preset = PRESETS.get(preset)(input_spec, statistics=statistics, coarse=coarse)
    return preset if steps is None else with_steps(preset, steps)


def check_preset(preset: str | Recipe) -> None:
    """Checks, before any work, that a preset can be used.

    Args:
        preset: A preset's name or a recipe.

    Raises:
        ValueError: If it is neither a recipe nor a registered name.
    """
    if not isinstance(preset, Recipe):
        PRESETS.get(preset)


@PRESETS.register("fourier")
def _fourier(input_spec: InputSpec, *, statistics: ImageStatistics | None, coarse: bool) -> Recipe:
    moves = RandomAffine(jitter=0.1, scale=(0.75, 1.3), rotate=15.0)
    first, second = (0.6, 0.8) if coarse else (1.0, 1.0)
    return Recipe(
        phases=(
            Phase(32, 0.12, transform=moves, input_scale=first),
            Phase(24, 0.12, transform=moves, input_scale=second),
            Phase(40, 0.12, final_lr=0.012, transform=moves),
        ),
        # from grey, networks that end in fully connected layers get stuck: the units that support a class are inactive
        parameterization=Fourier(statistics, init_std=0.1 if coarse else 0.6),
        optimizer=Adam(),
    )


@PRESETS.register("yosinski2015")
def _yosinski2015(input_spec: InputSpec, *, statistics: ImageStatistics | None, coarse: bool) -> Recipe:
    return Recipe(
        phases=(Phase(1000, 5.0),),
        parameterization=Pixels(unit=1 / 255, center=input_spec.mean, init_std=10.0),
        optimizer=Momentum(0.0, normalize=True),
        constraint=Both(YosinskiPrior(decay=1e-4, blur_sigma=1.0, blur_every=4), Bounds(-128.0, 128.0)),
    )


@PRESETS.register("simonyan2013")
def _simonyan2013(input_spec: InputSpec, *, statistics: ImageStatistics | None, coarse: bool) -> Recipe:
    return Recipe(
        phases=(Phase(100, 0.0005, final_lr=0.00005),),
        parameterization=Pixels(center=input_spec.mean, init_std=0.01),
        optimizer=Momentum(0.9, normalize=True),
        regularizers=(AlphaNorm(100.0, 2.0, center=input_spec.mean, mean=True),),
    )


@PRESETS.register("none")
def _none(input_spec: InputSpec, *, statistics: ImageStatistics | None, coarse: bool) -> Recipe:
    return Recipe(
        phases=(Phase(64, 0.01),),
        parameterization=Pixels(center=0.5, init_std=0.05),
        optimizer=Adam(),
        constraint=Bounds(-0.5, 0.5),
    )
