"""From the numbers of a layer to findings, each with a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lightning_cnnvis.functional.diagnosis.findings import Finding, FindingLimits, Kind, LayerKind, maps_of
from lightning_cnnvis.functional.diagnosis.measures import LayerMeasures

Judge = Callable[[LayerMeasures, FindingLimits], Iterator[Finding]]


def findings_of(found: LayerMeasures, limits: FindingLimits | None = None) -> list[Finding]:
    """Judges the feature maps of a layer.

    Args:
        found: Its numbers.
        limits: The limits; the defaults if None.

    Returns:
        The findings, one of a kind, but for duplicates: one for each group.
    """
    return [finding for judge in _OF_MAPS for finding in judge(found, limits or FindingLimits())]


def layer_findings_of(found: LayerMeasures, limits: FindingLimits | None = None) -> list[Finding]:
    """Judges a layer as a whole.

    Args:
        found: Its numbers.
        limits: The limits; the defaults if None.

    Returns:
        The findings, one of a kind.
    """
    return [finding for judge in _OF_LAYERS for finding in judge(found, limits or FindingLimits())]


def duplicates(found: LayerMeasures, limits: FindingLimits | None = None) -> list[list[int]]:
    """Finds the groups of maps whose kernels are the same, up to sign and shift.

    Args:
        found: The numbers of a layer.
        limits: The limits; the defaults if None.

    Returns:
        The numbers of the maps of each group, at least two.
    """
    group = {channel: {channel} for channel in range(found.maps)}
    alike = found.similarity >= _similarity_limit(found, limits or FindingLimits())
    for channel in alike.nonzero().flatten().tolist():
        joined = group[channel] | group[int(found.nearest[channel])]
        for member in joined:
            group[member] = joined
    return [list(members) for members in sorted({tuple(sorted(one)) for one in group.values() if len(one) > 1})]


def _similarity_limit(found: LayerMeasures, limits: FindingLimits) -> float:
    weights = 0 if found.convolution is None else found.convolution.weight[0].numel()
    return max(limits.similarity, 1 - limits.small_similarity * weights)


def _of_maps(
    kind: Kind, found: LayerMeasures, mask: Tensor, value: float, limit: float, verb: str, rest: str
) -> Iterator[Finding]:
    """A finding on the maps in a mask, if there are any: what they are or do, as several of them, and the rest."""
    channels = tuple(mask.nonzero().flatten().tolist())
    if not channels:
        return
    named = f"{maps_of(channels)} of layer {found.layer!r} ({len(channels)} of {found.maps})"
    if len(channels) == 1:
        verb = {"are": "is", "dominate": "dominates", "look": "looks"}.get(verb, verb)
    sentence = f"{named[0].upper()}{named[1:]} {verb} {rest}"
    yield Finding(kind, found.layer, channels, value, limit, len(channels) / found.maps, sentence)


def _of_layer(
    kind: LayerKind, found: LayerMeasures, value: float, limit: float, share: float, rest: str
) -> Iterator[Finding]:
    yield Finding(kind, found.layer, (), value, limit, share, f"Layer {found.layer!r} {rest}")


def _extreme(values: Tensor, mask: Tensor, *, lowest: bool = False) -> float:
    """The number of the map furthest beyond a limit; 0 if there is none."""
    chosen = values[mask]
    return float(chosen.min() if lowest else chosen.max()) if len(chosen) else 0.0


def _dead(found: LayerMeasures, limits: FindingLimits) -> Iterator[Finding]:
    broken = found.is_dead & ~found.mean.isfinite()
    silent = found.is_dead & ~broken
    yield from _of_maps(
        "dead", found, broken, math.nan, 0.0, "are",
        "not a number on at least one image: the training has diverged, or a weight is damaged. Go back to an earlier "
        "checkpoint, and lower the learning rate or clip the gradients.",
    )  # fmt: skip
    yield from _of_maps(
        "dead", found, silent, _extreme(found.highest, silent), 0.0, "are",
        f"dead: never above 0 on any of {found.images:,} images. A learning rate that is too high, a bias far below 0 "
        "or a poor initialisation does this. Try a lower rate or a warm-up, He initialisation or batch normalisation; "
        "or make the layer narrower.",
    )  # fmt: skip


def _always_on(found: LayerMeasures, limits: FindingLimits) -> Iterator[Finding]:
    mask = found.is_always_on & (found.variation <= limits.variation) & ~found.is_dead
    value = _extreme(found.variation, mask, lowest=True)
    yield from _of_maps(
        "always_on", found, mask, value, limits.variation, "are",
        f"always on: above 0 at every position of all {found.images:,} images, and hardly varying there (standard "
        f"deviation {value:.2g} of the mean), so that the rectifier does nothing. A large bias or a shift of batch "
        "normalisation does this. Try weight decay on biases, or a smaller initial bias.",
    )  # fmt: skip


def _dominating(found: LayerMeasures, limits: FindingLimits) -> Iterator[Finding]:
    winning = found.wins >= limits.winning_share * found.active.clamp_min(torch.finfo(torch.float32).tiny)
    winning &= found.dominance >= limits.winning_dominance
    strong = ((found.dominance >= limits.dominance) | winning) & ~found.is_dead
    heavy = (found.filter_dominance >= limits.filter_dominance) & ~found.is_dead
    if bool(strong.any()):
        value, wins = _extreme(found.dominance, strong), float(found.wins[strong].sum())
        limit = limits.winning_dominance if bool((strong & winning).any()) else limits.dominance
        seen = f"activations are up to {value:.0f} times the median, and the strongest at {wins:.0%} of the positions"
    else:
        value, limit = _extreme(found.filter_dominance, heavy), limits.filter_dominance
        seen = f"kernels are up to {value:.0f} times as large as the layer's median"
    yield from _of_maps(
        "dominating", found, strong | heavy, value, limit, "dominate",
        f"the layer: {seen}. Without a limit, single filters outgrow the others. Try weight decay, normalisation, or "
        "FilterRenormalization, as Zeiler & Fergus did.",
    )  # fmt: skip


def _duplicate(found: LayerMeasures, limits: FindingLimits) -> Iterator[Finding]:
    for group in duplicates(found, limits):
        mask = torch.zeros_like(found.is_dead)
        mask[group] = True
        value = _extreme(found.similarity, mask)
        yield from _of_maps(
            "duplicate", found, mask, value, _similarity_limit(found, limits), "look",
            f"for the same: up to sign and shift, the cosine of their kernels is {value:.3f}. The layer has more maps "
            "than it finds uses for. Try fewer maps, more data augmentation, or another seed.",
        )  # fmt: skip


def _aliased(found: LayerMeasures, limits: FindingLimits) -> Iterator[Finding]:
    moved, sharp, limit = found.shift_error >= limits.shift_error, torch.zeros_like(found.is_dead), 1.0
    if found.convolution is not None and found.reads_image:
        limit = 1 - limits.aliased_loss / found.convolution.weight[0, 0].numel()
        sharp = found.aliased_energy >= limit
    mask = (moved | sharp) & ~found.is_dead
    if bool((mask & sharp).any()):
        value = _extreme(found.aliased_energy, mask & sharp)
        seen = f"up to {value:.1%} of the energy of the kernels lies above what the stride can sample"
    else:
        value, limit = _extreme(found.shift_error, mask), limits.shift_error
        seen = f"moved by less than the stride, the image makes another map, not a moved one (error {value:.1f})"
    stride = f"A stride of {max(found.stride)} pixels" if max(found.stride) else "A stride"
    yield from _of_maps(
        "aliased", found, mask, value, limit, "are",
        f"aliased: {seen}. {stride} is too large for such detail. Try a smaller stride and smaller kernels, as Zeiler "
        "& Fergus did with AlexNet's first layer, or blurring before the stride.",
    )  # fmt: skip


def _noisy(found: LayerMeasures, limits: FindingLimits) -> Iterator[Finding]:
    mask = (found.noise >= limits.noise) & ~found.is_dead
    value = _extreme(found.noise, mask)
    yield from _of_maps(
        "noisy", found, mask, value, limits.noise, "never",
        f"formed: the spectrum of the kernels is that of noise (probability {value:.2f}). Too little training, too "
        "small a learning rate or too little weight decay leaves kernels as they were drawn. Train longer or with a "
        "higher rate, or make the layer narrower.",
    )  # fmt: skip


_OF_MAPS: tuple[Judge, ...] = (_dead, _always_on, _dominating, _duplicate, _aliased, _noisy)


def _undersampled(found: LayerMeasures, limits: FindingLimits) -> Iterator[Finding]:
    number = int((found.aliased_energy >= limits.undersampled_energy).sum())
    if found.convolution is None or number < limits.undersampled_share * found.maps:
        return
    height, width = found.convolution.weight.shape[2:]
    yield from _of_layer(
        "undersampled", found, number / found.maps, limits.undersampled_share, number / found.maps,
        f"samples too seldom: {number} of its {found.maps} kernels have at least {limits.undersampled_energy:.0%} of "
        f"their energy above what a stride of {max(found.convolution.stride)} can hold, so that fine patterns appear "
        "as coarse ones. Zeiler & Fergus mended AlexNet's 11×11 kernels with stride 4 by 7×7 with stride 2; here they "
        f"are {height}×{width}. Try half the stride.",
    )  # fmt: skip


def _too_wide(found: LayerMeasures, limits: FindingLimits) -> Iterator[Finding]:
    dead = int(found.is_dead.sum())
    spare = sum(len(group) - 1 for group in duplicates(found, limits))
    lost = (dead + spare) / found.maps
    if lost >= limits.lost_share:
        yield from _of_layer(
            "too_wide", found, lost, limits.lost_share, lost,
            f"is wider than it needs: {dead} of its {found.maps} maps are dead, and {spare} repeat others. Try "
            f"{max(1, found.maps - dead - spare)} maps; or find out what kills them.",
        )  # fmt: skip
    elif found.saturation <= limits.saturation:
        enough = math.ceil(found.saturation * found.maps)
        yield from _of_layer(
            "too_wide", found, found.saturation, limits.saturation, 1 - found.saturation,
            f"is wider than it needs: {enough} of {found.maps} directions hold 99 % of what its maps say. Try "
            f"{min(found.maps - 1, max(2 * enough, 8))} maps, and see whether the accuracy stays.",
        )  # fmt: skip


def _could_go(found: LayerMeasures, limits: FindingLimits) -> Iterator[Finding]:
    alike = found.similarity_to_previous
    if alike >= limits.layer_similarity:  # not NaN
        yield from _of_layer(
            "could_go", found, alike, limits.layer_similarity, alike,
            f"could go: what its maps say of an image, those of {found.previous!r} say already (linear CKA "
            f"{alike:.3f}). Leave it out, and see whether the accuracy stays.",
        )  # fmt: skip


_OF_LAYERS: tuple[Judge, ...] = (_undersampled, _too_wide, _could_go)
