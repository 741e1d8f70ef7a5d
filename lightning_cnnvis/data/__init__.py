"""Data modules for the examples: labelled images, their class names and their `InputSpec`."""

from lightning_cnnvis.data.base import ImageDataModule
from lightning_cnnvis.data.photo_crops import PhotoCrops

__all__ = ["ImageDataModule", "PhotoCrops"]
