"""The diagnosis of a network: findings, and the numbers behind them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from lightning_cnnvis.functional.diagnosis.findings import Finding
from lightning_cnnvis.functional.diagnosis.measures import LayerMeasures


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The diagnosis of a network.

    Attributes:
        findings: What is wrong with feature maps, the worst first.
        layer_findings: What is wrong with layers as a whole, the worst first: one that samples too seldom, is too wide,
            or could go.
        layers: The numbers behind them, by layer, in the order in which the layers run.
        images: Number of images that were seen.
        settled: The epoch at which each layer had settled, where that is known; see `FeatureConvergence`.
    """

    findings: tuple[Finding, ...]
    layer_findings: tuple[Finding, ...]
    layers: Mapping[str, LayerMeasures]
    images: int
    settled: Mapping[str, int] = field(default_factory=dict)

    @property
    def maps(self) -> int:
        """The number of feature maps of all layers."""
        return sum(layer.maps for layer in self.layers.values())

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of findings that there are, each once."""
        return tuple(dict.fromkeys(finding.kind for finding in self.ranked))

    @property
    def ranked(self) -> tuple[Finding, ...]:
        """All findings, the worst first."""
        return tuple(sorted((*self.findings, *self.layer_findings), key=lambda finding: -finding.severity))

    def sentences(self, count: int = 5) -> list[str]:
        """Says what is wrong.

        Args:
            count: Greatest number of findings to name.

        Returns:
            A sentence that sums up, then one for each finding, the worst first.
        """
        seen = f"{self.maps:,} feature maps of {len(self.layers)} layers on {self.images:,} images"
        if not self.ranked:
            return [f"Nothing is wrong with {seen}."]
        touched = {(finding.layer, channel) for finding in self.findings for channel in finding.channels}
        said = [finding.sentence for finding in self.ranked[:count]]
        more = len(self.ranked) - len(said)
        head = f"Looked at {seen}: there are findings on {len(touched):,} of the maps."
        return [head, *said, *([f"There are {more} more findings; all are in the table."] if more else [])]

    def table(self) -> str:
        """Writes the numbers behind the findings as CSV, a row a feature map.

        Returns:
            The lines, with a head.
        """
        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(["layer", "map", "findings", *_COLUMNS])
        kinds: dict[tuple[str, int], list[str]] = {}
        for finding in self.findings:
            for channel in finding.channels:
                kinds.setdefault((finding.layer, channel), []).append(finding.kind)
        for layer, measures in self.layers.items():
            columns = [getattr(measures, name).tolist() for name in _COLUMNS]
            for channel, values in enumerate(zip(*columns, strict=True)):
                named = " ".join(kinds.get((layer, channel), ()))
                writer.writerow([layer, channel, named, *(_written(value) for value in values)])
        return rows.getvalue()

    def findings_table(self) -> str:
        """Writes the findings as CSV, a row each, the worst first.

        Returns:
            The lines, with a head.
        """
        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(["kind", "layer", "maps", "value", "limit", "sentence"])
        for one in self.ranked:
            channels = " ".join(map(str, one.channels))
            writer.writerow([one.kind, one.layer, channels, _written(one.value), _written(one.limit), one.sentence])
        return rows.getvalue()

    def to_json(self) -> str:
        """Writes the findings, and the numbers of each layer as a whole, as JSON.

        Returns:
            An object with ``images``, ``findings`` and ``layers``; numbers that are not known are null.
        """
        layers = {
            name: {
                "maps": layer.maps,
                **self.shares(name),
                "saturation": layer.saturation,
                "working_share": layer.working_share,
                "similarity_to_previous": layer.similarity_to_previous,
                "settled_epoch": self.settled.get(name),
            }
            for name, layer in self.layers.items()
        }
        found = {"images": self.images, "findings": [asdict(one) for one in self.ranked], "layers": layers}
        return json.dumps(_finite(found), indent=2)

    def shares(self, layer: str) -> dict[str, float]:
        """Sums a layer up.

        Args:
            layer: Its name.

        Returns:
            The shares of its maps that are dead, always on and duplicates, and the mean share of its kernels' energy
            above the Nyquist frequency, NaN where it does not read the image.
        """
        measures = self.layers[layer]
        return {
            "dead": float(measures.is_dead.float().mean()),
            "always_on": self._share_of("always_on", layer),
            "duplicate": self._share_of("duplicate", layer),
            "aliased_energy": float(measures.aliased_energy[~measures.is_dead].nanmean()),
        }

    def _share_of(self, kind: str, layer: str) -> float:
        """The share of a layer's maps with findings of a kind."""
        found = [one.channels for one in self.findings if one.kind == kind and one.layer == layer]
        return len({channel for channels in found for channel in channels}) / self.layers[layer].maps


_COLUMNS = (
    "is_dead", "is_always_on", "highest", "lowest", "active", "wins", "mean", "variation", "dominance",
    "filter_dominance", "similarity", "nearest", "aliased_energy", "noise", "shift_error",
)  # fmt: skip


def _written(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    return (
        "" if isinstance(value, float) and math.isnan(value) else f"{value:.6g}" if isinstance(value, float) else value
    )


def _finite(value: object) -> object:
    """JSON has no NaN and no infinity."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
