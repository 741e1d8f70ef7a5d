"""Input images: their format, how it is found out, batches and photographs."""

from lightning_cnnvis.inputs.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec, OutputKind

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "InputSpec", "OutputKind"]
