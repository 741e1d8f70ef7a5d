"""Data modules for the examples: labelled images, their class names and their `InputSpec`."""

from lightning_cnnvis.data.base import ImageDataModule
from lightning_cnnvis.data.image_folder import ImageError, ImageFolder
from lightning_cnnvis.data.photo_crops import PhotoCrops
from lightning_cnnvis.data.torchvision_datasets import CIFAR10, Imagenette

__all__ = ["CIFAR10", "ImageDataModule", "ImageError", "ImageFolder", "Imagenette", "PhotoCrops"]
