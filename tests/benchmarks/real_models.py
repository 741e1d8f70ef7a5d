"""Real weights and photographs for the benchmarks; not part of the project."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from lightning_cnnvis.inputs.photographs import fit_photograph

EFFICIENTNET = InputSpec(size=(224, 224), mean=(0.5,), std=(0.5,))
IMAGENET = InputSpec(size=(224, 224), mean=IMAGENET_MEAN, std=IMAGENET_STD)


def data_folder() -> Path:
    """The folder that ``CNNVIS_SHARED_DATA`` names, or ``../shared/data`` next to the checkout."""
    folder = Path(os.environ.get("CNNVIS_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}: set CNNVIS_SHARED_DATA.")
    return folder


def squeezenet(device: str = "cpu") -> nn.Module:
    """SqueezeNet 1.1, trained on ImageNet."""
    model = torchvision.models.squeezenet1_1(weights=None)
    model.load_state_dict(load_file(data_folder() / "squeezenet1_1_imagenet.safetensors"))
    return model.eval().to(device)


def efficientnet(device: str = "cpu") -> nn.Module:
    """EfficientNet-Lite 0, trained on ImageNet."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = load_file(data_folder() / "efficientnet_lite0_imagenet.safetensors")
    model.load_state_dict(weights, strict=False)  # which lack the counts of batches
    return model.eval().to(device)


def imagenet_photographs(count: int) -> Tensor:
    """``(count, 3, 224, 224)`` in [0, 1], of as many classes, from all over photos500.tar."""
    with tarfile.open(data_folder() / "photos500.tar") as archive:
        names = sorted(member.name for member in archive if member.isfile())
        chosen = names[:: max(1, len(names) // count)][:count]
        files = [archive.extractfile(name) for name in chosen]
        photos = [pil_to_tensor(Image.open(file).convert("RGB")) / 255 for file in files]
    return torch.stack([fit_photograph(photo, (224, 224)) for photo in photos])


def photograph(name: str) -> Tensor:
    """``(3, H, W)`` in [0, 1]."""
    return pil_to_tensor(Image.open(data_folder() / name).convert("RGB")) / 255


def photographs(count: int = 500) -> Tensor:
    """``(count, 3, 64, 64)`` in [0, 1], from the validation images of tiny10."""
    images = []
    with tarfile.open(data_folder() / "tiny10.tar") as archive:
        for member in archive:
            if member.isfile() and "/val/" in member.name and len(images) < count:
                file = archive.extractfile(member)
                images.append(pil_to_tensor(Image.open(file).convert("RGB")) / 255)
    return torch.stack(images)


def save_sheet(images: Tensor, path: str | os.PathLike[str], columns: int = 8) -> None:
    """Writes images ``(N, 3, H, W)`` as one PNG."""
    grid = torchvision.utils.make_grid(images.clamp(0, 1), nrow=columns, padding=4, pad_value=1)
    torchvision.utils.save_image(grid, path)
