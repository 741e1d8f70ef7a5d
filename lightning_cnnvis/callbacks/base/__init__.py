"""The common part of the callbacks: when they run, on what, under which guard, and at what cost."""

from lightning_cnnvis.callbacks.base.callback import VisualizationCallback
from lightning_cnnvis.callbacks.base.context import VisualizationContext

__all__ = ["VisualizationCallback", "VisualizationContext"]
