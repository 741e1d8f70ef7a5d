"""Named recipes for class visualisation, each as its paper has it, and where to register more."""

from __future__ import annotations

from typing import Protocol

from lightning_cnnvis.functional.optimization.augmentations import ColorShift, InOrder, RandomBoxes, RandomFlip
from lightning_cnnvis.functional.optimization.magnitude import FixedMagnitude
from lightning_cnnvis.functional.optimization.network_priors import BatchNormPrior
from lightning_cnnvis.functional.optimization.norms import DifferenceNorm, RootNorm
from lightning_cnnvis.functional.optimization.optimizers import Adam, Momentum, Nadam
from lightning_cnnvis.functional.optimization.parameterizations import Fourier, ImageStatistics, Pixels, UniformStart
from lightning_cnnvis.functional.optimization.recipes import Phase, Recipe, with_steps
from lightning_cnnvis.functional.optimization.regularizers import AlphaNorm, Both, Bounds, YosinskiPrior
from lightning_cnnvis.functional.optimization.transforms import RandomAffine, RandomRoll
from lightning_cnnvis.functional.registry import Registry
from lightning_cnnvis.inputs import InputSpec

SMALLEST_COARSE_INPUT = 64
"""Pixels; on smaller inputs, the maps of a network made for small images vanish."""

_LARGEST_INPUT = 224  # pixels, to which small inputs are enlarged


class Preset(Protocol):
    """A function that makes a recipe for a network's input."""

    def __call__(self, input_spec: InputSpec, *, statistics: ImageStatistics | None, any_size: bool) -> Recipe:
        """Makes the recipe.

        Args:
            input_spec: The network's input.
            statistics: Statistics of the user's own images; None stands for everyday photographs.
            any_size: Whether the network takes inputs of other sizes than its own, too, so that `Phase.input_scale` may
                be other than 1.

        Returns:
            The recipe.
        """
        ...


PRESETS: Registry[Preset] = Registry("preset")
"""The presets by name. Those registered here can be used wherever a preset's name is taken::

    @PRESETS.register("short")
    def short(input_spec, *, statistics, any_size):
        return Recipe((Phase(steps=16, lr=0.1),), Fourier(statistics))
"""


def preset_recipe(
    preset: str | Recipe,
    input_spec: InputSpec,
    *,
    steps: int | None = None,
    statistics: ImageStatistics | None = None,
    any_size: bool = False,
) -> Recipe:
    """Makes the recipe of a named preset.

    - ``"fourier"``: Fourier basis with decorrelated colour, Adam, random shifts, scales and rotations, after Olah et
      al. 2017 (https://doi.org/10.23915/distill.00007). What is raised is the margin to the other classes, so that
      siblings do not win. A network that takes any size sees the images enlarged for most of the steps, if its
      own input is below 224 pixels, and at its own size in the last third: what holds at several sizes is also what
      other networks recognise. A class that is not reached is tried again from stronger noise by its
      log-probability, with narrower moves, at the network's own size.
    - ``"yosinski2015"``: gradient ascent on pixels with a little decay and a blur every fourth step, the third row
      of Table 1 of Yosinski et al. 2015 (arXiv 1506.06579). Their rate of 100 suits the gradients of their network;
      here the gradient is normalised, and the rate is in grey levels.
    - ``"simonyan2013"``: the logit minus an L2 penalty, from the mean image (arXiv 1312.6034, Sec. 2). The paper gives
      no numbers; the steps are normalised here.
    - ``"maco"``: the magnitudes of the spectrum are those of photographs, and only the phases are free; random boxes
      with noise (Fel et al. 2023, arXiv 2306.06805): 256 steps of 32 boxes. See `FixedMagnitude` and `RandomBoxes` for
      what differs from the authors' code.
    - ``"deepinversion"``: pixels, penalties on total variation and on the inputs of BatchNorm layers, whose statistics
      shall be those of the training (Yin et al. 2020, arXiv 1912.08795), 2000 and 1000 steps. It needs such layers.
      What differs from the authors' code: each image's own statistics, see `BatchNormPrior`; the first steps at 0.6 of
      the size, and only where the network takes it, not at one half; no warm-up of the rate; no student network.
    - ``"plug_in"``: pixels, seen by the network through random shifts of their colours (Ghiasi et al. 2022, arXiv
      2201.12961), at sizes from a quarter up, 400 steps each: no penalty, so that it suits any network, such as
      transformers. Here there are 8 copies of the image in place of 32, and it grows by resampling, without a border
      of noise.
    - ``"none"``: no prior at all, as for the fooling images of Nguyen et al. 2014 (arXiv 1412.1897, Sec. 4).

    Args:
        preset: One of the names above or of those registered in `PRESETS`; or a recipe, which is returned as it is but
            for the number of steps.
        input_spec: The network's input; its mean is the pixel presets' centre.
        steps: Number of steps; None takes the preset's own.
        statistics: Image statistics for ``"fourier"``; None takes everyday photographs.
        any_size: Whether the network takes smaller and larger inputs, too.

    Returns:
        The recipe.

    Raises:
        ValueError: If there is no preset of the name, or ``steps`` is not positive.

    Examples:
        >>> preset_recipe("simonyan2013", InputSpec(), steps=20).steps
        20
    """
    if not isinstance(preset, Recipe):
        preset = PRESETS.get(preset)(input_spec, statistics=statistics, any_size=any_size)
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
def _fourier(input_spec: InputSpec, *, statistics: ImageStatistics | None, any_size: bool) -> Recipe:
    moves = RandomAffine(jitter=0.1, scale=(0.75, 1.3), rotate=15.0)
    narrow = RandomAffine(jitter=0.05, scale=(0.9, 1.1), rotate=5.0)
    side = min(input_spec.size)
    largest = max(1.0, min(1.75, _LARGEST_INPUT / side)) if any_size else 1.0
    return Recipe(
        phases=(
            Phase(32, 0.12, transform=moves, input_scale=5 / 7 * largest if any_size else 1.0),
            Phase(32, 0.12, transform=moves, input_scale=largest),
            Phase(32, 0.12, final_lr=0.012, transform=moves),
        ),
        # from grey, networks that end in fully connected layers get stuck: the units that support a class are inactive
        parameterization=Fourier(statistics, init_std=0.1 if any_size else 0.6),
        class_score="margin",
        otherwise=Recipe(
            phases=(Phase(48, 0.12, transform=narrow), Phase(48, 0.12, final_lr=0.012, transform=narrow)),
            parameterization=Fourier(statistics, init_std=0.6),
            class_score="log_probability",
            means="log p",
        ),
    )


@PRESETS.register("yosinski2015")
def _yosinski2015(input_spec: InputSpec, *, statistics: ImageStatistics | None, any_size: bool) -> Recipe:
    return Recipe(
        phases=(Phase(1000, 5.0),),
        parameterization=Pixels(unit=1 / 255, center=input_spec.mean, init_std=10.0),
        optimizer=Momentum(0.0, normalize=True),
        constraint=Both(YosinskiPrior(decay=1e-4, blur_sigma=1.0, blur_every=4), Bounds(-128.0, 128.0)),
    )


@PRESETS.register("simonyan2013")
def _simonyan2013(input_spec: InputSpec, *, statistics: ImageStatistics | None, any_size: bool) -> Recipe:
    return Recipe(
        phases=(Phase(100, 0.0005, final_lr=0.00005),),
        parameterization=Pixels(center=input_spec.mean, init_std=0.01),
        optimizer=Momentum(0.9, normalize=True),
        regularizers=(AlphaNorm(100.0, 2.0, center=input_spec.mean, mean=True),),
    )


@PRESETS.register("maco")
def _maco(input_spec: InputSpec, *, statistics: ImageStatistics | None, any_size: bool) -> Recipe:
    return Recipe(
        phases=(Phase(256, 1.0, transform=RandomBoxes(), copies=32),),
        parameterization=FixedMagnitude(statistics),
        optimizer=Nadam(eps=1e-7),
    )


@PRESETS.register("deepinversion")
def _deepinversion(input_spec: InputSpec, *, statistics: ImageStatistics | None, any_size: bool) -> Recipe:
    std = sum(input_spec.std) / len(input_spec.std)
    smaller = 0.6 if any_size and 0.6 * min(input_spec.size) >= SMALLEST_COARSE_INPUT else 1.0
    moves = InOrder((RandomRoll(max(1, round(min(input_spec.size) * 30 / 224))), RandomFlip()))
    return Recipe(
        phases=(
            Phase(2000, 0.2 * std, final_lr=0.0, transform=moves, input_scale=smaller),
            Phase(1000, 0.2 * std, final_lr=0.0, transform=moves, reset=True),
        ),
        parameterization=Pixels(center=0.5, init_std=std),
        optimizer=Adam(beta1=0.5, beta2=0.9),
        regularizers=(DifferenceNorm(1e-4, unit=std), RootNorm(1e-5, center=input_spec.mean, unit=std)),
        constraint=Bounds(-0.5, 0.5),
        network_prior=BatchNormPrior(weight=0.01, first=10.0),
        class_score="log_probability",
    )


@PRESETS.register("plug_in")
def _plug_in(input_spec: InputSpec, *, statistics: ImageStatistics | None, any_size: bool) -> Recipe:
    moves = InOrder((ColorShift(channels=input_spec.channels), RandomRoll(max(1, round(min(input_spec.size) / 12)))))
    phases = tuple(
        Phase(400, 0.1, final_lr=0.0, transform=moves, copies=8, image_scale=eighths / 8) for eighths in range(2, 9)
    )
    return Recipe(
        phases=phases,
        parameterization=UniformStart(center=0.5, init_std=0.475),
        optimizer=Adam(beta1=0.5, beta2=0.99),
        constraint=Bounds(-0.5, 0.5),
        class_score="log_probability",
    )


@PRESETS.register("none")
def _none(input_spec: InputSpec, *, statistics: ImageStatistics | None, any_size: bool) -> Recipe:
    return Recipe(
        phases=(Phase(64, 0.01),),
        parameterization=Pixels(center=0.5, init_std=0.05),
        optimizer=Adam(),
        constraint=Bounds(-0.5, 0.5),
    )
