"""Looking at trained networks: from a checkpoint, or from all those of a run."""

from lightning_cnnvis.posthoc.analysis import Analysis, analyze
from lightning_cnnvis.posthoc.epochs import Evolution, evolve
from lightning_cnnvis.posthoc.images import DataError
from lightning_cnnvis.posthoc.layer_table import LayerInfo, LayerTable
from lightning_cnnvis.posthoc.results import ClassesResult, DeconvResult, DreamResult, InvertResult, Result

__all__ = [
    "Analysis",
    "ClassesResult",
    "DataError",
    "DeconvResult",
    "DreamResult",
    "Evolution",
    "InvertResult",
    "LayerInfo",
    "LayerTable",
    "Result",
    "analyze",
    "evolve",
]
