"""Looking at trained networks: from a checkpoint, or from all those of a run."""

from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.posthoc.analysis import Analysis, analyze
from lightning_cnnvis.posthoc.epochs import Evolution, evolve
from lightning_cnnvis.posthoc.images import DataError
from lightning_cnnvis.posthoc.layer_table import LayerInfo, LayerTable

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
