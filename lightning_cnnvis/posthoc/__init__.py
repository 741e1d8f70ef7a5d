"""Looking at trained networks: from a checkpoint, or from all those of a run."""

from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.posthoc.analysis import Analysis, analyze
from lightning_cnnvis.posthoc.epochs import Evolution, evolve
from lightning_cnnvis.posthoc.layer_table import LayerInfo, LayerTable
from lightning_cnnvis.posthoc.reading import DataError

__all__ = [
    "Analysis",
    "DataError",
    "Evolution",
    "LayerInfo",
    "LayerTable",
    "Result",
    "analyze",
    "evolve",
]
