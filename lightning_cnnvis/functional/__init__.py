"""The methods as pure functions of a model and tensors; no Lightning, no files."""

from lightning_cnnvis.functional.activations.harvest import Harvest, top_activations
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.functional.deconvnet.projection import Projections, project
from lightning_cnnvis.functional.deepdream.octaves import Dream, DreamOptions, dream, zoom
from lightning_cnnvis.functional.inversion.reconstruction import invert, invert_layers
from lightning_cnnvis.functional.inversion.results import Inversions
from lightning_cnnvis.functional.network.receptive_field import ReceptiveField, receptive_field
from lightning_cnnvis.functional.visualization.classes import visualize_classes
from lightning_cnnvis.functional.visualization.results import VisualizationOptions, Visualizations
from lightning_cnnvis.functional.visualization.units import maximize_activation

__all__ = [
    "Dream",
    "DreamOptions",
    "Harvest",
    "Inversions",
    "Projections",
    "ReceptiveField",
    "TopActivations",
    "VisualizationOptions",
    "Visualizations",
    "dream",
    "invert",
    "invert_layers",
    "maximize_activation",
    "project",
    "receptive_field",
    "top_activations",
    "visualize_classes",
    "zoom",
]
