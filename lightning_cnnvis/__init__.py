"""See what a convnet learns, while it learns.

The callbacks go into a Lightning Trainer; the methods behind them are in `lightning_cnnvis.functional`.

Examples:
    >>> from lightning_cnnvis import DeconvNetProjection, ZFNet
    >>> network = ZFNet(num_classes=10, image_size=32, width=0.25)
    >>> callback = DeconvNetProjection(layers=["relu1", "relu5"], every_n_epochs=5)
"""

import lazy_loader

# The names are in `__init__.pyi`, each with its module. They are imported on first use, so that a script that needs one
# of them does not wait for all.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
