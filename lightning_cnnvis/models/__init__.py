"""Networks to train and to look into."""

from lightning_cnnvis.models.alexnet import AlexNet
from lightning_cnnvis.models.classifier import ImageClassifier
from lightning_cnnvis.models.zfnet import ZFNet

__all__ = ["AlexNet", "ImageClassifier", "ZFNet"]
