"""Callbacks for a Lightning Trainer."""

from lightning_cnnvis.callbacks.accentuation import Accentuation
from lightning_cnnvis.callbacks.activation_maximization import ActivationMaximization
from lightning_cnnvis.callbacks.base import VisualizationCallback, VisualizationContext
from lightning_cnnvis.callbacks.base.method import MethodCallback, callback_class, callback_of
from lightning_cnnvis.callbacks.class_visualization import ClassVisualization
from lightning_cnnvis.callbacks.correspondence import Correspondence
from lightning_cnnvis.callbacks.deconvnet import DeconvNetProjection
from lightning_cnnvis.callbacks.deepdream import DeepDream
from lightning_cnnvis.callbacks.default_set import methods_to_show, visualizations
from lightning_cnnvis.callbacks.diagnosis import Diagnosis
from lightning_cnnvis.callbacks.feature_convergence import FeatureConvergence
from lightning_cnnvis.callbacks.filter_renormalization import FilterRenormalization
from lightning_cnnvis.callbacks.inversion import FeatureInversion
from lightning_cnnvis.callbacks.occlusion import Occlusion
from lightning_cnnvis.callbacks.patches import Patches
from lightning_cnnvis.callbacks.randomization import Randomization
from lightning_cnnvis.callbacks.style import Style
from lightning_cnnvis.callbacks.transformation_invariance import TransformationInvariance
from lightning_cnnvis.callbacks.unit_invariance import UnitInvariance
from lightning_cnnvis.callbacks.visualization_checkpoint import VisualizationCheckpoint

__all__ = [
    "Accentuation",
    "ActivationMaximization",
    "ClassVisualization",
    "Correspondence",
    "DeconvNetProjection",
    "DeepDream",
    "Diagnosis",
    "FeatureConvergence",
    "FeatureInversion",
    "FilterRenormalization",
    "MethodCallback",
    "Occlusion",
    "Patches",
    "Randomization",
    "Style",
    "TransformationInvariance",
    "UnitInvariance",
    "VisualizationCallback",
    "VisualizationCheckpoint",
    "VisualizationContext",
    "callback_class",
    "callback_of",
    "methods_to_show",
    "visualizations",
]
