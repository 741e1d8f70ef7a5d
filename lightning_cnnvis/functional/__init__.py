"""The methods as pure functions of a model and tensors; no Lightning, no files."""

from lightning_cnnvis.functional.deconvnet import Projections, project
from lightning_cnnvis.functional.harvest import Harvest, top_activations
from lightning_cnnvis.functional.receptive_field import ReceptiveField, receptive_field
from lightning_cnnvis.functional.top_activations import TopActivations

__all__ = [
    "Harvest",
    "Projections",
    "ReceptiveField",
    "TopActivations",
    "project",
    "receptive_field",
    "top_activations",
]
