"""The methods as pure functions of a model and tensors; no Lightning, no files."""

from lightning_cnnvis.functional.activation_maximization import maximize_activation
from lightning_cnnvis.functional.class_visualization import visualize_classes
from lightning_cnnvis.functional.deconvnet import Projections, project
from lightning_cnnvis.functional.deepdream import Dream, DreamOptions, dream, zoom
from lightning_cnnvis.functional.harvest import Harvest, top_activations
from lightning_cnnvis.functional.inversion import invert, invert_layers
from lightning_cnnvis.functional.inversions import Inversions
from lightning_cnnvis.functional.receptive_field import ReceptiveField, receptive_field
from lightning_cnnvis.functional.top_activations import TopActivations
from lightning_cnnvis.functional.visualization import VisualizationOptions, Visualizations

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
