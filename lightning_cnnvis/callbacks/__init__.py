"""Callbacks for a Lightning Trainer."""

from lightning_cnnvis.callbacks.base import VisualizationCallback, VisualizationContext
from lightning_cnnvis.callbacks.deconvnet import DeconvNetProjection
from lightning_cnnvis.callbacks.feature_convergence import FeatureConvergence
from lightning_cnnvis.callbacks.filter_renormalization import FilterRenormalization

__all__ = [
    "DeconvNetProjection",
    "FeatureConvergence",
    "FilterRenormalization",
    "VisualizationCallback",
    "VisualizationContext",
]
