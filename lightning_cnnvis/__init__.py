"""See what a convnet learns, while it learns.

The callbacks go into a Lightning Trainer; the methods behind them are in `lightning_cnnvis.functional`.

Example:
    >>> from lightning_cnnvis import DeconvNetProjection, ZFNet
    >>> network = ZFNet(num_classes=10, image_size=32, width=0.25)
    >>> callback = DeconvNetProjection(layers=["relu1", "relu5"], every_n_epochs=5)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lightning_cnnvis._version import __version__

# Imported when first used (PEP 562): a script that only wants one of them does not wait for all.
_HOMES = {
    "ActivationMaximization": "lightning_cnnvis.callbacks",
    "AlexNet": "lightning_cnnvis.models",
    "CIFAR10": "lightning_cnnvis.data",
    "ClassVisualization": "lightning_cnnvis.callbacks",
    "DeconvNetProjection": "lightning_cnnvis.callbacks",
    "DeepDream": "lightning_cnnvis.callbacks",
    "FeatureConvergence": "lightning_cnnvis.callbacks",
    "FeatureInversion": "lightning_cnnvis.callbacks",
    "FilterRenormalization": "lightning_cnnvis.callbacks",
    "ImageClassifier": "lightning_cnnvis.models",
    "ImageFolder": "lightning_cnnvis.data",
    "Imagenette": "lightning_cnnvis.data",
    "InputSpec": "lightning_cnnvis.inputs",
    "MethodCallback": "lightning_cnnvis.callbacks",
    "PhotoCrops": "lightning_cnnvis.data",
    "VisualizationCheckpoint": "lightning_cnnvis.callbacks",
    "ZFNet": "lightning_cnnvis.models",
    "analyze": "lightning_cnnvis.posthoc",
    "evolve": "lightning_cnnvis.posthoc",
    "register_method": "lightning_cnnvis.methods",
}

__all__ = [
    "CIFAR10",
    "ActivationMaximization",
    "AlexNet",
    "ClassVisualization",
    "DeconvNetProjection",
    "DeepDream",
    "FeatureConvergence",
    "FeatureInversion",
    "FilterRenormalization",
    "ImageClassifier",
    "ImageFolder",
    "Imagenette",
    "InputSpec",
    "MethodCallback",
    "PhotoCrops",
    "VisualizationCheckpoint",
    "ZFNet",
    "__version__",
    "analyze",
    "evolve",
    "register_method",
]

if TYPE_CHECKING:
    from lightning_cnnvis.callbacks import (
        ActivationMaximization,
        ClassVisualization,
        DeconvNetProjection,
        DeepDream,
        FeatureConvergence,
        FeatureInversion,
        FilterRenormalization,
        MethodCallback,
        VisualizationCheckpoint,
    )
    from lightning_cnnvis.data import CIFAR10, ImageFolder, Imagenette, PhotoCrops
    from lightning_cnnvis.inputs import InputSpec
    from lightning_cnnvis.methods import register_method
    from lightning_cnnvis.models import AlexNet, ImageClassifier, ZFNet
    from lightning_cnnvis.posthoc import analyze, evolve


def __getattr__(name: str) -> Any:
    """Imports a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
