"""Invariance of a unit: the directions in which its optimal stimulus may change, and those in which it may not.

Berkes & Wiskott 2006 (https://doi.org/10.1162/neco.2006.18.8.1868); Le et al. 2010 (arXiv 1112.6209 has the networks).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_cnnvis.channel_dim import as_maps
from lightning_cnnvis.functional.deconvnet.batching import plan_windows
from lightning_cnnvis.functional.deconvnet.windows import cut
from lightning_cnnvis.functional.network.chunks import chunk_size, in_chunks
from lightning_cnnvis.functional.network.forward import model_options
from lightning_cnnvis.functional.optimization.recipes import Recipe
from lightning_cnnvis.functional.visualization.units import maximize_activation
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import activations

_COLOR_FREQUENCIES = 1  # of the differences between colours, which networks see at low frequencies


@dataclass(frozen=True, eq=False)
class UnitInvariance:
    """What N units of a layer do not care about, and what they are selective for.

    A unit that does not respond to its stimulus, as a dead one does not, has no directions: they are zeros, curvatures,
    changes and alignments NaN, and the walks stay at the stimulus.

    Attributes:
        layer: Name of the layer.
        channels: Channel of each unit.
        stimuli: ``(N, C, h, w)`` in [0, 1], the stimulus of each unit, cut to its receptive field.
        activations: ``(N,)``, the activation on the stimulus.
        directions: ``(N, 2 D, C, h, w)``, directions of length 1 in the network's input, at right angles to the
            stimulus and to each other: first the D that the unit cares about least, the least first; then the D that it
            cares about most, the most first.
        curvatures: ``(N, 2 D)``, second derivative of the activation along the great circle through the stimulus in the
            direction, over the activation, per square radian: 0 in a direction of no change; -1 where the activation
            falls like the stimulus's share in the image; -2 for a quadratic unit.
        changes: ``(N,)`` by name of a change of the image, the same second derivative in the direction of that change.
        alignments: ``(N, 2 D)`` by name of a change of the image, the absolute cosine between the direction and that
            change: ``"shift down"``, ``"shift right"``, ``"rotation"``, ``"scale"``, ``"phase"``, and with three
            channels ``"hue"`` and ``"saturation"``.
        angles: ``(steps,)``, degrees on the great circle; 0 is the stimulus.
        walks: ``(N, 2 D, steps)``, the activation at each angle.
        images: ``(N, 2 D, steps, C, h, w)``, the images there, clipped to [0, 1].
    """

    layer: str
    channels: tuple[int, ...]
    stimuli: Tensor
    activations: Tensor
    directions: Tensor
    curvatures: Tensor
    changes: Mapping[str, Tensor]
    alignments: Mapping[str, Tensor]
    angles: Tensor
    walks: Tensor
    images: Tensor

    @property
    def responds(self) -> Tensor:
        """``(N,)``, whether each unit responds to its stimulus."""
        return ~self.curvatures.isnan().any(1)

    @staticmethod
    def cat(parts: Sequence[UnitInvariance]) -> UnitInvariance:
        """Joins results for units of one layer, with the same angles and directions.

        Args:
            parts: The results, at least one.

        Returns:
            That of all units, in order.
        """
        first = parts[0]
        joined = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("stimuli", "activations", "directions", "curvatures", "walks", "images")
        }
        return UnitInvariance(
            layer=first.layer,
            channels=tuple(channel for part in parts for channel in part.channels),
            changes={name: torch.cat([part.changes[name] for part in parts]) for name in first.changes},
            alignments={name: torch.cat([part.alignments[name] for part in parts]) for name in first.alignments},
            angles=first.angles,
            **joined,
        )


def unit_invariance(
    model: nn.Module,
    layer: str,
    channels: Sequence[int],
    *,
    input_spec: InputSpec,
    images: Tensor | None = None,
    positions: Sequence[tuple[int, int]] | None = None,
    num_directions: int = 3,
    frequencies: int = 4,
    step: float = 15.0,
    angles: Sequence[float] = (-60, -40, -20, 0, 20, 40, 60),
    preset: str | Recipe = "fourier",
    steps: int | None = None,
    seed: int = 0,
) -> UnitInvariance:
    """Finds the changes of its optimal stimulus that a unit cares about least, and those that it cares about most.

    After Berkes & Wiskott 2006, section 4: on the sphere of images of the stimulus's norm, the second derivative of the
    activation in each direction, and of these the directions of extreme values. A direction of no change is an
    invariance; where the derivative is most negative, the unit is most selective.

    Two things are different. The second derivative of a network of ReLUs and max-pooling is 0 nearly everywhere: the
    difference of its gradients at points ``step`` to either side takes its place, which is exact for a quadratic unit,
    and elsewhere the mean over an arc that one can see. And of the many more pixels than directions that matter, only
    those changes are searched that mean something: low spatial frequencies of the receptive field, in brightness and,
    lower ones, in colour; shifts, rotation, scale, phase, hue and saturation of the stimulus.

    Args:
        model: The network. It is left as it was.
        layer: Dotted name of a layer with maps or units.
        channels: Channel of each unit.
        input_spec: The network's input.
        images: ``(N, C, H, W)`` in [0, 1], a stimulus for each unit, such as the image that excites it most. None
            optimises one, see `maximize_activation`.
        positions: Row and column of each unit in its map. None optimises the middle one, and takes the one that then
            responds most.
        num_directions: Number D of directions of each kind.
        frequencies: Highest frequency of the search, in periods over the receptive field.
        step: Half of the arc in degrees over which the second derivative is taken.
        angles: Degrees of the walk along each direction.
        preset: Recipe of the stimuli, where none are given.
        steps: Number of optimisation steps; None takes the recipe's.
        seed: Seed of the optimisation.

    Returns:
        The directions, and a walk along each; see `UnitInvariance` for units that do not respond.

    Raises:
        LayerError: If the layer does not exist, or has no units.
        ValueError: If shapes do not fit, or a channel, a position or an option is out of range.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
        >>> images = torch.rand(1, 3, 16, 16)
        >>> found = unit_invariance(net, "1", [0], input_spec=InputSpec((16, 16)), images=images, num_directions=2)
        >>> found.directions.shape, found.walks.shape
        (torch.Size([1, 4, 3, 5, 5]), torch.Size([1, 4, 7]))
    """
    _check_numbers(channels, num_directions, frequencies, step, angles)
    optimized = images is None
    if images is None:
        images = _optimal(model, layer, channels, input_spec, positions, preset, steps, seed)
    if images.shape != (len(channels), *input_spec.shape):
        raise ValueError(
            f"images has shape {tuple(images.shape)}: it must be {(len(channels), *input_spec.shape)}, one for each "
            "channel."
        )
    with isolated(model) as network:
        inputs = input_spec.normalize(images.detach().to(model_options(network)))
        units = _units(network, layer, channels, inputs, positions)
        found = [
            _of_one(unit, channel, input_spec, num_directions, frequencies, step, angles, refine=optimized)
            for unit, channel in zip(units, channels, strict=True)
        ]
    return UnitInvariance.cat(found)


def _check_numbers(
    channels: Sequence[int], num_directions: int, frequencies: int, step: float, angles: Sequence[float]
) -> None:
    if len(channels) == 0:
        raise ValueError("channels is empty. Name at least one.")
    for name, value in (("num_directions", num_directions), ("frequencies", frequencies)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    if not 0 < step < 90:
        raise ValueError(f"step={step} must be more than 0 and less than 90 degrees.")
    if not len(angles) or not all(math.isfinite(angle) and abs(angle) <= 180 for angle in angles):
        raise ValueError(f"angles={list(angles)}: give at least one, from -180 to 180 degrees.")


def _optimal(
    model: nn.Module,
    layer: str,
    channels: Sequence[int],
    input_spec: InputSpec,
    positions: Sequence[tuple[int, int]] | None,
    preset: str | Recipe,
    steps: int | None,
    seed: int,
) -> Tensor:
    """The images that the units respond to most."""
    with isolated(model) as network, torch.no_grad():
        blank = model_options(network).new_zeros(1, *input_spec.shape)
        has_map = activations(network, blank, [layer])[layer].ndim == 4
    where = (positions or "center") if has_map else None
    return maximize_activation(
        model,
        layer,
        list(channels),
        input_spec=input_spec,
        positions=where,  # type: ignore[arg-type]
        preset=preset,
        steps=steps,
        seed=seed,
    ).images


@dataclass(frozen=True, eq=False)
class _Unit:
    """A unit as a function of its receptive field, in double precision outside of the network.

    Attributes:
        network: The network.
        layer: Name of the layer.
        channel: The unit's channel.
        place: Row and column of the unit in the layer's map of the window.
        window: ``(C, H', W')``, a window of the input that holds the field.
        box: Top, left, bottom and right of the field in the window.
    """

    network: nn.Module
    layer: str
    channel: int
    place: tuple[int, int]
    window: Tensor
    box: tuple[int, int, int, int]

    @property
    def stimulus(self) -> Tensor:
        """``(C, h, w)``, the field."""
        top, left, bottom, right = self.box
        return self.window[:, top:bottom, left:right]

    def __call__(self, fields: Tensor, *, with_gradient: bool = False) -> tuple[Tensor, Tensor]:
        """Computes activations ``(M,)`` on fields ``(M, C, h, w)``, and their gradients of the same shape."""
        top, left, bottom, right = self.box

        def work(part: slice) -> tuple[Tensor, Tensor]:
            own = fields[part].to(self.window).requires_grad_(with_gradient)
            whole = self.window.expand(len(own), -1, -1, -1).clone()
            whole[:, :, top:bottom, left:right] = own
            with torch.set_grad_enabled(with_gradient):
                output = as_maps(activations(self.network, whole, [self.layer])[self.layer])
                values = output[:, self.channel]
                values = values[:, self.place[0], self.place[1]] if output.ndim == 4 else values
            gradient = torch.autograd.grad(values.sum(), own)[0] if with_gradient else own
            return values.detach().cpu().double(), gradient.detach().cpu().double()

        values, gradients = zip(*in_chunks(work, len(fields), chunk_size(self.window[None])), strict=True)
        return torch.cat(values), torch.cat(gradients)


def _units(
    network: nn.Module,
    layer: str,
    channels: Sequence[int],
    inputs: Tensor,
    positions: Sequence[tuple[int, int]] | None,
) -> list[_Unit]:
    windows = plan_windows(network, layer, inputs, rule="gradient")
    maps, rows, columns = windows.field.map_shape
    for channel in channels:
        if not 0 <= channel < maps:
            raise ValueError(f"Channel {channel} is not in layer {layer!r}: it has channels 0 to {maps - 1}.")
    if positions is None:
        places = _strongest(network, layer, channels, inputs)
    else:
        if len(positions) != len(channels):
            raise ValueError(f"There are {len(positions)} positions for {len(channels)} channels. Give one for each.")
        places = torch.tensor([list(position) for position in positions], device="cpu")
        if (places < 0).any() or (places >= torch.tensor([rows, columns], device="cpu")).any():
            raise ValueError(f"positions={list(positions)}: the map of layer {layer!r} is {rows} × {columns}.")
    corners = windows.corners(places)
    cuts = cut(inputs, corners.to(inputs.device), windows.size)
    # fields that leave the image are moved into it, so that all have one size
    starts = windows.field_corners(places) - corners
    boxes = torch.cat([starts, starts + torch.tensor(windows.field_size, device="cpu")], dim=1)
    within = windows.positions_within(places, corners)
    return [
        _Unit(network, layer, channel, tuple(place), window, tuple(box))
        for channel, place, window, box in zip(channels, within.tolist(), cuts, boxes.tolist(), strict=True)
    ]


@torch.no_grad()
def _strongest(network: nn.Module, layer: str, channels: Sequence[int], inputs: Tensor) -> Tensor:
    """Row and column of the strongest activation of each image's channel, ``(N, 2)`` on the CPU."""
    places = []
    for image, channel in zip(inputs, channels, strict=True):
        output = as_maps(activations(network, image[None], [layer])[layer])
        width = output.shape[3] if output.ndim == 4 else 1
        best = int(output[0, channel].flatten().argmax()) if output.ndim == 4 else 0
        places.append([best // width, best % width])
    return torch.tensor(places, device="cpu")


def _of_one(
    unit: _Unit,
    channel: int,
    input_spec: InputSpec,
    num_directions: int,
    frequencies: int,
    step: float,
    angles: Sequence[float],
    *,
    refine: bool,
) -> UnitInvariance:
    stimulus = unit.stimulus.cpu().double()
    shape, radius = stimulus.shape, stimulus.norm()
    waves = _waves(shape, frequencies)
    if refine and radius > 0:
        stimulus = _refined(unit, stimulus, waves)
    (value,), (gradient,) = unit(stimulus[None], with_gradient=True)
    named = _changes(stimulus, input_spec)
    if not value > 0 or not radius > 0:
        return _silent(unit, channel, stimulus, value, list(named), num_directions, angles, input_spec)
    changes = {name: _tangent(change.flatten(), stimulus.flatten()) for name, change in named.items()}
    basis = _orthonormal(torch.cat([waves, *(change[None] for change in changes.values())]), stimulus.flatten())
    if 2 * num_directions > len(basis):
        raise ValueError(
            f"num_directions={num_directions} of each kind are more than the {len(basis)} that the receptive field of "
            f"{shape[1]} × {shape[2]} pixels leaves. Give fewer, or higher frequencies."
        )
    # the second derivative within the basis, as the difference of gradients to either side
    arc = math.radians(step)
    there = [math.cos(arc) * stimulus + sign * math.sin(arc) * radius * basis.view(-1, *shape) for sign in (1, -1)]
    slopes = [unit(points, with_gradient=True)[1].flatten(1) for points in there]
    hessian = (slopes[0] - slopes[1]) / (2 * radius * math.sin(arc)) @ basis.T
    # the share that all directions have in common: the sphere bends away from the gradient
    bend = (gradient * stimulus).sum() / radius**2
    second = (hessian + hessian.T) / 2 - bend * torch.eye(len(basis), dtype=torch.float64, device="cpu")
    curvatures, vectors = torch.linalg.eigh(second)
    order = curvatures.abs().argsort()
    chosen = torch.cat([order[:num_directions], order.flip(0)[:num_directions]])
    directions = vectors.T[chosen] @ basis
    turns = torch.tensor([math.radians(angle) for angle in angles], dtype=torch.float64, device="cpu")
    turns = turns.view(1, -1, 1, 1, 1)
    walked = turns.cos() * stimulus + turns.sin() * radius * directions.view(-1, 1, *shape)
    walks = unit(walked.flatten(0, 1))[0].view(walked.shape[:2])
    relative = radius**2 / value
    within = {name: basis @ change for name, change in changes.items()}
    return UnitInvariance(
        layer=unit.layer,
        channels=(channel,),
        stimuli=input_spec.denormalize(stimulus.float()).clamp(0, 1)[None],
        activations=value.float()[None],
        directions=directions.view(1, -1, *shape).float(),
        curvatures=(curvatures[chosen] * relative).float()[None],
        changes={name: (c @ second @ c * relative).float()[None] for name, c in within.items()},
        alignments={name: (directions @ change).abs().float()[None] for name, change in changes.items()},
        angles=torch.tensor([float(angle) for angle in angles], device="cpu"),
        walks=walks.float()[None],
        images=input_spec.denormalize(walked.float()).clamp(0, 1)[None],
    )


def _silent(
    unit: _Unit,
    channel: int,
    stimulus: Tensor,
    value: Tensor,
    changes: Sequence[str],
    num_directions: int,
    angles: Sequence[float],
    input_spec: InputSpec,
) -> UnitInvariance:
    """What there is to say of a unit that does not respond to its stimulus: there is no walk from it."""
    rows, steps = 2 * num_directions, len(angles)
    picture = input_spec.denormalize(stimulus.float()).clamp(0, 1)
    unknown = picture.new_full((1, rows), math.nan)
    return UnitInvariance(
        layer=unit.layer,
        channels=(channel,),
        stimuli=picture[None],
        activations=value.float()[None],
        directions=picture.new_zeros(1, rows, *picture.shape),
        curvatures=unknown,
        changes=dict.fromkeys(changes, unknown[:, 0]),
        alignments=dict.fromkeys(changes, unknown),
        angles=torch.tensor([float(angle) for angle in angles], device="cpu"),
        walks=value.float().expand(1, rows, steps).clone(),
        images=picture.expand(1, rows, steps, *picture.shape).clone(),
    )


def _refined(unit: _Unit, stimulus: Tensor, waves: Tensor, steps: int = 40) -> Tensor:
    """Climbs on the sphere within the span of the stimulus and the waves, to a maximum of what is searched.

    An image that was optimised under a prior is one among all images, not on its sphere: it holds what the unit does
    not need, and a direction that takes its place would pass for one that excites the unit.

    Returns:
        The maximum, of the shape and the norm of the stimulus.
    """
    radius = stimulus.norm()
    span = torch.cat([(stimulus / radius).flatten()[None], _orthonormal(waves, stimulus.flatten())])
    place, pace = torch.zeros(len(span), dtype=torch.float64, device="cpu"), 0.5
    place[0] = radius
    for _ in range(steps):
        point = (place @ span).view(1, *stimulus.shape)
        (value,), (gradient,) = unit(point, with_gradient=True)
        uphill = span @ gradient.flatten()
        uphill = uphill - (uphill @ place) / radius**2 * place
        if uphill.norm() <= 1e-9 * gradient.norm():
            break
        paces = pace * torch.tensor([2.0, 0.7, 0.25], dtype=torch.float64, device="cpu")
        tried = place + paces[:, None] * radius * uphill / uphill.norm()
        tried = radius * tried / tried.norm(dim=1, keepdim=True)
        values = unit((tried @ span).view(-1, *stimulus.shape))[0]
        best = int(values.argmax())
        pace = min(float(paces[best]), 1.0)
        if values[best] <= value * (1 + 1e-7):
            if pace < 1e-3:
                break
            pace /= 8
            continue
        place = tried[best]
    return (place @ span).view_as(stimulus)


def _waves(shape: Sequence[int], highest: int) -> Tensor:
    """Waves of low frequency over a field in brightness, of lower ones in differences of colours: ``(M, C·h·w)``."""
    channels, height, width = shape
    rows, columns = (
        (2 * math.pi * (torch.arange(n, dtype=torch.float64, device="cpu") + 0.5) / n) for n in (height, width)
    )
    waves = []
    for color in _colors(channels):
        top = highest if color.min() > 0 else min(highest, _COLOR_FREQUENCIES)
        for down in range(top + 1):
            for right in range(-top if down else 0, top + 1):
                if down > height // 2 or abs(right) > width // 2:
                    continue
                phase = down * rows[:, None] + right * columns[None]
                waves += [(color.view(-1, 1, 1) * wave).flatten() for wave in (phase.cos(), phase.sin())]
    return torch.stack(waves)


def _colors(channels: int) -> Tensor:
    """Brightness, which all channels share, and the differences that are at right angles to it: ``(C, C)``."""
    first = torch.ones(1, channels, dtype=torch.float64, device="cpu")
    others = torch.eye(channels, dtype=torch.float64, device="cpu")[:-1]
    colors: Tensor = torch.linalg.qr(torch.cat([first, others]).T)[0].T
    colors[0] = colors[0].abs()
    return colors


def _changes(stimulus: Tensor, input_spec: InputSpec) -> dict[str, Tensor]:
    """Small changes of a stimulus ``(C, h, w)`` that have names, of any length."""
    changes = {"phase": _quadrature(stimulus)}
    if min(stimulus.shape[1:]) > 1:
        down, right = (torch.gradient(stimulus, dim=dim)[0] for dim in (1, 2))
        rows, columns = (torch.arange(n, dtype=torch.float64, device="cpu") - (n - 1) / 2 for n in stimulus.shape[1:])
        changes |= {
            "shift down": down,
            "shift right": right,
            "rotation": rows[:, None] * right - columns[None] * down,
            "scale": rows[:, None] * down + columns[None] * right,
        }
    if stimulus.shape[0] == 3:
        std = torch.tensor(input_spec.std, dtype=torch.float64, device="cpu").view(-1, 1, 1)
        pictures = input_spec.denormalize(stimulus)
        grey = torch.ones_like(pictures)
        changes["hue"] = torch.linalg.cross(grey, pictures, dim=0) / std
        changes["saturation"] = (pictures - pictures.mean(0, keepdim=True)) / std
    return changes


def _quadrature(stimulus: Tensor) -> Tensor:
    """Turns the phase of every frequency by 90 degrees, on the side of the strongest: a sine for a cosine."""
    spectrum = torch.fft.fft2(stimulus)
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64, device="cpu") for n in stimulus.shape[1:])
    power = spectrum.abs().square().sum(0)
    power[0, 0] = 0
    strongest = int(power.argmax())
    down, right = rows[strongest // len(columns)], columns[strongest % len(columns)]
    side = (down * rows[:, None] + right * columns[None]).sign()
    turned: Tensor = torch.fft.ifft2(-1j * side * spectrum).real
    return turned


def _tangent(change: Tensor, stimulus: Tensor) -> Tensor:
    """A change without the part that only scales the stimulus, of length 1; zeros if there is nothing else."""
    rest = change - (change @ stimulus) / (stimulus @ stimulus) * stimulus
    return rest / rest.norm() if rest.norm() > 1e-9 * change.norm() and change.norm() > 0 else torch.zeros_like(rest)


def _orthonormal(rows: Tensor, stimulus: Tensor) -> Tensor:
    """An orthonormal basis of what rows span at right angles to the stimulus."""
    rows = torch.stack([_tangent(row, stimulus) for row in rows])
    _, strengths, basis = torch.linalg.svd(rows, full_matrices=False)
    kept: Tensor = basis[strengths > 1e-6 * strengths.max()]
    return kept
