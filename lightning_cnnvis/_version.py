"""The version, read by the build and by `lightning_cnnvis.__version__`."""

__version__ = "0.1.0"
