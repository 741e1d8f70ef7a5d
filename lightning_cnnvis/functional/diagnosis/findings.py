"""Findings: what is wrong with feature maps and layers, and the limits from which something counts as wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["dead", "always_on", "dominating", "duplicate", "aliased", "noisy"]
"""What may be wrong with feature maps."""

LayerKind = Literal["undersampled", "too_wide", "could_go"]
"""What may be wrong with a layer as a whole."""

KINDS: tuple[str, ...] = (*get_args(Kind), *get_args(LayerKind))
"""The names of both, the gravest first."""


@dataclass(frozen=True)
class FindingLimits:
    """The numbers from which something counts as wrong.

    They lie beyond what healthy networks show: on AlexNet, SqueezeNet 1.1 and EfficientNet-Lite 0, trained on
    ImageNet, less than one map in a hundred passes any of them. See the page on diagnosis.

    Args:
        variation: Standard deviation over the mean of a map that is above 0 everywhere, up to which it says too little
            for being on.
        dominance: Root of a map's mean square activation, over the median of its layer.
        winning_dominance: The same for maps that are also the strongest of their layer where they are on, as a rule.
        winning_share: Share of the positions where a map is on, at which it has to be the strongest for that.
        filter_dominance: Norm of a kernel, over the median of its layer.
        similarity: Absolute cosine similarity of two large kernels; see ``small_similarity``.
        small_similarity: How much more it takes where kernels are small, and similar by chance: the limit is 1 less
            this times their number of weights, if that is above ``similarity``.
        aliased_loss: A first layer's kernel of n weights a channel is aliased if less than this over n of its energy
            lies below the Nyquist frequency of the stride: the larger a kernel, the sharper it can be.
        shift_error: What a shift of the map leaves unexplained where the image is shifted by less than the stride,
            over the variance of the map; see `shift_errors`.
        noise: Probability that a kernel is noise.
        undersampled_energy: Share of a kernel's energy above the Nyquist frequency from which it counts for
            ``undersampled_share``.
        undersampled_share: Share of such kernels in a first layer.
        saturation: Share of directions that explain 99 % of a layer's variance, below which it is too wide.
        lost_share: Share of maps that are dead or duplicates, above which it is, too.
        layer_similarity: Linear CKA with the layer before, above which a layer could go.

    Examples:
        >>> FindingLimits(dominance=10).dominance
        10
    """

    variation: float = 0.15
    dominance: float = 20.0
    winning_dominance: float = 8.0
    winning_share: float = 0.8
    filter_dominance: float = 10.0
    similarity: float = 0.95
    small_similarity: float = 2e-4
    aliased_loss: float = 0.09
    shift_error: float = 2.5
    noise: float = 0.9
    undersampled_energy: float = 0.9
    undersampled_share: float = 0.3
    saturation: float = 0.2
    lost_share: float = 0.25
    layer_similarity: float = 0.985


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with feature maps of a layer, or with the layer.

    Attributes:
        kind: ``"dead"``, ``"always_on"``, ``"dominating"``, ``"duplicate"``, ``"aliased"`` or ``"noisy"``; of a layer,
            ``"undersampled"``, ``"too_wide"`` or ``"could_go"``.
        layer: Name of the layer.
        channels: Numbers of the feature maps, from 0; empty if it is about the layer.
        value: The number behind it: that of the map furthest beyond the limit.
        limit: The limit that it passed.
        share: Share of the layer's maps that it concerns, in [0, 1].
        sentence: What was seen, what it may come from, and what to try.
    """

    kind: str
    layer: str
    channels: tuple[int, ...]
    value: float
    limit: float
    share: float
    sentence: str

    @property
    def severity(self) -> float:
        """How bad it is: the share of the layer that it concerns, and the kind where that is equal."""
        return self.share + 0.1 * (len(KINDS) - KINDS.index(self.kind)) / len(KINDS)


def maps_of(channels: tuple[int, ...]) -> str:
    """Names feature maps in a sentence.

    Args:
        channels: Their numbers; at least one.

    Returns:
        The words, with at most eight numbers.

    Examples:
        >>> maps_of((3,)), maps_of((3, 5, 8))
        ('map 3', 'maps 3, 5 and 8')
    """
    named = [str(channel) for channel in channels[:8]]
    if len(channels) == 1:
        return f"map {named[0]}"
    more = len(channels) - len(named)
    return f"maps {', '.join(named)} and {more} more" if more else f"maps {', '.join(named[:-1])} and {named[-1]}"
