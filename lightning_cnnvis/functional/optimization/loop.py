"""The one optimisation loop: parameterisation -> transforms -> network -> loss -> step.

Class visualisation, activation maximisation, dreams and inversions are recipes for it. Images are optimised side
by side in a batch, yet an image depends only on its own target and seed: every random number is drawn from the
image's own generator, every step is computed row by row, and nothing is averaged over the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_cnnvis.functional.network.chunks import in_chunks
from lightning_cnnvis.functional.network.forward import model_options
from lightning_cnnvis.functional.noise import uniform
from lightning_cnnvis.functional.optimization.gradients import Gradient, model_gradient
from lightning_cnnvis.functional.optimization.objectives import Objective
from lightning_cnnvis.functional.optimization.optimizers import State
from lightning_cnnvis.functional.optimization.progress import report
from lightning_cnnvis.functional.optimization.recipes import Phase, Recipe
from lightning_cnnvis.functional.optimization.transforms import Transform, resize
from lightning_cnnvis.functional.tensors import cat_fields
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated

RESCUE_STEPS = 16
"""Number of steps at the start in which gradients may pass through dead ReLUs; see `Recipe`."""


@dataclass(frozen=True)
class Batch:
    """The images to optimise, and how they share the work.

    Args:
        seeds: One seed for each of the N images; see `image_seeds`.
        size: Height and width of the images in pixels; None takes the network's input size.
        starts: Images ``(N, C, H, W)`` in [0, 1] to start from; None starts each image from noise of its own seed.
        group: Number of consecutive images that may depend on each other, such as the samples of a class under
            a diversity term. They stay in one chunk.
        chunk: Number of images that are optimised at a time; halved when memory runs out.
        frames: Steps after which a copy of the images is kept; 0 is the start.
        transparency: Whether to add up how strongly each pixel was pulled; see `Optimized`.

    Raises:
        ValueError: If there are no seeds, not as many starts as seeds, or not a whole number of groups, or if
            ``chunk`` is not positive.

    Examples:
        >>> Batch(image_seeds(0, "cat", "dog"), size=(64, 64)).chunk
        16
    """

    seeds: Sequence[int]
    size: tuple[int, int] | None = None
    starts: Tensor | None = None
    group: int = 1
    chunk: int = 16
    frames: Sequence[int] = ()
    transparency: bool = False

    def __post_init__(self) -> None:
        """Checks that the numbers fit together."""
        if not self.seeds:
            raise ValueError("seeds is empty. Give one seed for each image to optimise.")
        if self.starts is not None and len(self.starts) != len(self.seeds):
            raise ValueError(
                f"There are {len(self.starts)} starts for {len(self.seeds)} seeds. Give one for each image."
            )
        if self.group < 1 or len(self.seeds) % self.group:
            raise ValueError(f"group={self.group} does not divide the {len(self.seeds)} images. Give a divisor.")
        if self.chunk < 1:
            raise ValueError(f"chunk={self.chunk}: at least 1 image is optimised at a time.")


@dataclass(frozen=True)
class Optimized:
    """Optimised images and their history.

    Attributes:
        images: ``(N, C, H, W)``, nominally in [0, 1]; not clipped, so that only a bounded parameterisation stays there.
        losses: ``(N, steps)``, objective plus penalties before each step.
        frames: ``(N, F, C, H, W)``, the images after the F requested steps, in ascending order.
        rescued: ``(N,)`` bool, whether gradients had to pass through dead ReLUs.
        dead: ``(N,)`` bool, whether the objective had no gradient at the last step.
        transparency: ``(N, H, W)``, the absolute gradient of the objective with respect to each pixel, summed over the
            steps, mean over the channels (Fel et al. 2023, arXiv 2306.06805); None if not requested.
    """

    images: Tensor
    losses: Tensor
    frames: Tensor
    rescued: Tensor
    dead: Tensor
    transparency: Tensor | None = None


def image_seeds(seed: int, *identities: object) -> list[int]:
    """Derives a seed for each image that depends only on ``seed`` and on what the image shows.

    Args:
        seed: The run's seed.
        *identities: One value for each image whose ``repr`` identifies it, such as ``("class", 3, 0)``.

    Returns:
        One seed for each image, for `torch.Generator`; the same on every machine.

    Examples:
        >>> image_seeds(0, "cat", "dog") == [image_seeds(0, "cat")[0], image_seeds(0, "dog")[0]]
        True
    """
    digests = (hashlib.blake2b(repr((seed, i)).encode(), digest_size=8).digest() for i in identities)
    return [int.from_bytes(digest, "big") >> 1 for digest in digests]


def optimize(
    model: nn.Module,
    objective: Objective,
    recipe: Recipe,
    batch: Batch,
    *,
    input_spec: InputSpec,
    gradient_of: Callable[[slice], Gradient] | None = None,
) -> Optimized:
    """Optimises images so that the network's activations minimise an objective.

    The model is left as it was (`isolated`). Nothing in the loop waits for the device.

    Args:
        model: The network.
        objective: The loss of each image.
        recipe: The way to optimise.
        batch: The images, by their seeds.
        input_spec: Size, channels and normalisation of the network's input.
        gradient_of: A function that takes a part of the images and returns the function that computes their losses
            and gradients; None takes `model_gradient`. A dream goes tile by tile here, and inversion lets each image
            leave the forward pass at its own layer. The recipe's network prior is not asked then.

    Returns:
        The images, on the model's device, with their history.

    Raises:
        LayerError: If a layer of the objective does not exist.
        ValueError: If the number of channels of the starts is not that of the network's input, or a frame is not one of
            the steps.

    Examples:
        Each of two images raises the mean of a channel. An objective of the user's own keeps the maps even.

        >>> from lightning_cnnvis.functional import Batch, InputSpec, Objective, Phase, RandomRoll, Recipe
        >>> from lightning_cnnvis.functional import TotalVariation, channel, image_seeds, optimize
        >>> def unevenness(images, device):
        ...     return lambda activations: activations["0"].flatten(2).var(2).mean(1)
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> optimized = optimize(
        ...     net,
        ...     channel("0", [0, 5]) + 0.1 * Objective(("0",), unevenness),
        ...     Recipe((Phase(4, lr=0.05, transform=RandomRoll(1)),), regularizers=(TotalVariation(1e-4),)),
        ...     Batch(image_seeds(0, "first", "second")),
        ...     input_spec=InputSpec(size=(16, 16)),
        ... )
        >>> optimized.images.shape, bool((optimized.losses[:, -1] < optimized.losses[:, 0]).all())
        (torch.Size([2, 3, 16, 16]), True)
    """
    if batch.starts is not None and batch.starts.shape[1] != input_spec.channels:
        raise ValueError(
            f"starts has shape {tuple(batch.starts.shape)}, and the network's input {input_spec.channels} channels. "
            "Give images of as many channels."
        )
    frames = sorted(set(batch.frames))
    if frames and not 0 <= frames[0] <= frames[-1] <= recipe.steps:
        raise ValueError(f"frames={list(batch.frames)} is out of range. Give steps from 0 to {recipe.steps}.")
    group = batch.group

    def work(groups: slice) -> Optimized:
        part = slice(groups.start * group, groups.stop * group)
        gradient = (
            gradient_of(part)
            if gradient_of
            else model_gradient(
                network, objective, part, precision=recipe.precision, network_prior=recipe.network_prior
            )
        )
        return _optimize_part(gradient, recipe, batch, part, input_spec=input_spec, like=_like(network))

    with isolated(model) as network:
        # the resampling of images has no deterministic backward pass on GPUs
        torch.use_deterministic_algorithms(False)
        for parameter in network.parameters():
            if not is_lazy(parameter):  # of a layer that no pass has reached yet
                parameter.requires_grad_(False)
        parts = list(in_chunks(work, len(batch.seeds) // group, max(1, batch.chunk // group)))
    return cat_fields(parts)


def _optimize_part(
    gradient: Gradient, recipe: Recipe, batch: Batch, part: slice, *, input_spec: InputSpec, like: Tensor
) -> Optimized:
    """Runs the loop for the images of one chunk; ``like`` has the device and dtype of the work."""
    generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds[part]]
    way = _Way.start(recipe, batch, part, generators, input_spec, like)
    numbers = [_draw(phase, generators).to(like) for phase in recipe.phases]
    # the normalisation as a factor and an offset, computed once: otherwise its constants are copied from the host at
    # every step
    offset = input_spec.normalize(like.new_zeros(1, input_spec.channels, 1, 1))
    factor = input_spec.normalize(like.new_ones(1, input_spec.channels, 1, 1)) - offset
    dead = rescue = torch.zeros(len(generators), dtype=torch.bool, device=like.device)
    losses, frames = [], []
    pulled = like.new_zeros(len(generators), *way.size) if batch.transparency else None
    for phase, drawn in zip(recipe.phases, numbers, strict=True):
        input_size = _scaled(input_spec.size, phase.input_scale)
        way.enter(phase)
        for index in range(phase.steps):
            images = way.images()
            if way.step in batch.frames:
                frames.append(resize(images.detach(), way.size))
            rescued = rescue if recipe.rescue and way.step < RESCUE_STEPS else None
            leaf = images.detach().requires_grad_()
            loss = slope = torch.zeros((), dtype=like.dtype, device=like.device)
            for view in _views(leaf, phase.transform_at(index), drawn[index], input_size):
                inputs = view * factor + offset
                of_view, slope_of_view = gradient(inputs.detach(), rescued)
                loss, slope = loss + of_view, slope + torch.autograd.grad(inputs, leaf, slope_of_view)[0]
            if phase.copies > 1:
                loss, slope = loss / phase.copies, slope / phase.copies
            dead = slope.flatten(1).abs().amax(1) == 0
            if rescued is not None:
                rescue = rescue | dead
            if pulled is not None:
                pulled = pulled + resize(slope.abs().mean(1, keepdim=True), way.size).squeeze(1)
            penalty = way.penalty(images)
            losses.append(loss + penalty.detach())
            way.take_step(way.steepest(images, slope, penalty), phase, phase.lr_at(index))
            report(part.start * recipe.steps + way.step * len(generators), len(batch.seeds) * recipe.steps)
    final = resize(way.images().detach(), way.size)
    if way.step in batch.frames:
        frames.append(final)
    kept = torch.stack(frames, 1) if frames else final.new_zeros(len(final), 0, *final.shape[1:])
    return Optimized(final, torch.stack(losses, 1), kept, rescue, dead, pulled)


@dataclass
class _Way:
    """The way of a chunk of images through the phases of a recipe: where they are, and the optimiser's state.

    Attributes:
        recipe: The recipe.
        size: Height and width that the images have in the end.
        shown: Height and width that they have now.
        params: Their parameters.
        state: The optimiser's state.
        step: Number of steps taken.
        since_reset: Number of steps taken since the state was made.
    """

    recipe: Recipe
    size: tuple[int, int]
    shown: tuple[int, int]
    params: Tensor
    state: State
    step: int = 0
    since_reset: int = 0

    @classmethod
    def start(
        cls,
        recipe: Recipe,
        batch: Batch,
        part: slice,
        generators: Sequence[torch.Generator],
        input_spec: InputSpec,
        like: Tensor,
    ) -> _Way:
        """Starts from the batch's images, or from noise."""
        if batch.starts is None:
            size = batch.size or input_spec.size
            shown = _scaled(size, recipe.phases[0].image_scale)
            params = recipe.parameterization.init(generators, (input_spec.channels, *shown)).to(like)
        else:
            size = shown = (batch.starts.shape[-2], batch.starts.shape[-1])
            params = recipe.parameterization.encode(batch.starts[part].to(like))
        return cls(recipe, size, shown, params, recipe.optimizer.init(params))

    def images(self) -> Tensor:
        """Computes the images; what is computed from them is differentiable with respect to the parameters."""
        self.params = self.params.detach().requires_grad_()
        return self.recipe.parameterization.decode(self.params, self.shown)

    def enter(self, phase: Phase) -> None:
        """Resamples the images to the phase's size, and forgets the optimiser's state where it no longer fits."""
        wanted = _scaled(self.size, phase.image_scale)
        if wanted != self.shown:
            with torch.no_grad():
                self.params = self.recipe.parameterization.encode(resize(self.images(), wanted))
            self.shown = wanted
        elif not phase.reset:
            return
        self.state, self.since_reset = self.recipe.optimizer.init(self.params.detach()), 0

    def penalty(self, images: Tensor) -> Tensor:
        """Computes the penalties ``(N,)`` of the images."""
        penalty = images.new_zeros(len(images))
        for regularizer in self.recipe.regularizers:
            penalty = penalty + regularizer(images)
        if self.recipe.prior:
            penalty = penalty + self.recipe.prior * self.params.flatten(1).square().mean(1)
        return penalty

    def steepest(self, images: Tensor, slope: Tensor, penalty: Tensor) -> Tensor:
        """Computes the gradient of the loss with respect to the parameters from the objective's, ``slope``."""
        outputs = [images, penalty] if penalty.requires_grad else [images]
        (gradient,) = torch.autograd.grad(outputs, self.params, [slope, torch.ones_like(penalty)][: len(outputs)])
        return gradient

    @torch.no_grad()
    def take_step(self, steepest: Tensor, phase: Phase, lr: float) -> None:
        """Takes a step down the gradient."""
        self.step, self.since_reset = self.step + 1, self.since_reset + 1
        decayed = self.params * (1 - lr * phase.decay)
        self.params, self.state = self.recipe.optimizer.step(decayed, steepest, self.state, lr, self.since_reset)
        if self.recipe.constraint is not None:
            self.params = self.recipe.constraint(self.params, steepest, self.step)


def _views(images: Tensor, transform: Transform | None, drawn: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Yields what the network is shown of the images, ``(N, C, *size)``, once for each of a step's copies."""
    for numbers in drawn:
        yield resize(transform(images, numbers, size) if transform else images, size)


def _draw(phase: Phase, generators: Sequence[torch.Generator]) -> Tensor:
    """Draws uniform numbers ``(steps, copies, N, draws)`` for the phase's transform."""
    draws = phase.transform.draws if phase.transform else 0
    return torch.stack([uniform((phase.steps, phase.copies, draws), g) for g in generators], 2)


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def _like(model: nn.Module) -> Tensor:
    """Makes an empty tensor on the model's device, in the precision of its parameters but at least float32."""
    weight = model_options(model)
    return weight.to(torch.promote_types(weight.dtype, torch.float32))
