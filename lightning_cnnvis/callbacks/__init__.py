"""Callbacks for a Lightning Trainer."""

from lightning_cnnvis.callbacks.base import VisualizationCallback, VisualizationContext
from lightning_cnnvis.callbacks.deconvnet import DeconvNetProjection

__all__ = ["DeconvNetProjection", "VisualizationCallback", "VisualizationContext"]
