"""Networks by name, ``torchvision:alexnet`` or ``timm:resnet18``, and what their published weights expect."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import torchvision
from lightning_utilities.core.imports import module_available
from torch import nn

from lightning_cnnvis.inputs import InputSpec

LIBRARIES = ("torchvision", "timm")


class ModelNameError(ValueError):
    """A name that no network has, or whose weights are not to be had."""


@dataclass(frozen=True)
class NamedModel:
    """A network of a library.

    Args:
        library: ``"torchvision"`` or ``"timm"``.
        name: The network's name there.

    Raises:
        ModelNameError: If the library has no network of that name, or is not installed.

    Example:
        >>> alexnet = NamedModel.parse("torchvision:alexnet")
        >>> len(list(alexnet.build(num_classes=10).children()))
        3
        >>> NamedModel.parse("torchvision:alexnot")
        Traceback (most recent call last):
        ...
        lightning_cnnvis.checkpoints.zoo.ModelNameError: torchvision has no classifier 'alexnot'. Did you mean ...
    """

    library: str
    name: str

    def __post_init__(self) -> None:
        """Checks the name."""
        known = _timm().list_models() if self.library == "timm" else _classifiers()
        # timm's names may go on with the weights: resnet18.a1_in1k
        if self.name.partition(".")[0] not in known:
            near = difflib.get_close_matches(self.name, known, n=3, cutoff=0.5)
            hint = f"Did you mean {', '.join(map(repr, near))}?" if near else "Its documentation lists them."
            raise ModelNameError(f"{self.library} has no classifier {self.name!r}. {hint}")

    @staticmethod
    def is_one(text: str) -> bool:
        """Whether a text names a network in this way."""
        return text.partition(":")[0] in LIBRARIES and ":" in text

    @staticmethod
    def parse(text: str) -> NamedModel:
        """Reads ``library:name``."""
        library, _, name = text.partition(":")
        if library not in LIBRARIES:
            raise ModelNameError(f"{text!r} names no network: write torchvision:NAME or timm:NAME.")
        return NamedModel(library, name)

    def build(self, num_classes: int | None = None) -> nn.Module:
        """The network with random weights, in evaluation mode.

        Args:
            num_classes: Number of logits; None takes the library's, as a rule 1000.
        """
        options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
        if self.library == "timm":
            network: nn.Module = _timm().create_model(self.name, pretrained=False, **options)
        else:
            # what only matters in training
            quiet = {"init_weights": False} if self.name in {"googlenet", "inception_v3"} else {}
            network = torchvision.models.get_model(self.name, weights=None, **options, **quiet)
        return network.eval()

    def build_pretrained(self) -> nn.Module:
        """The network with the library's own weights, which are downloaded unless they were before.

        Raises:
            ModelNameError: If they cannot be had.
        """
        try:
            if self.library == "timm":
                network: nn.Module = _timm().create_model(self.name, pretrained=True)
            else:
                network = torchvision.models.get_model(self.name, weights="DEFAULT")
        except Exception as error:
            if not _is_about_the_network(error):
                raise
            raise ModelNameError(
                f"The weights of {self.library}'s {self.name} could not be downloaded: is there a connection? "
                "Without one, give a file that holds them (.pth or .safetensors)."
            ) from error
        return network.eval()

    def input_spec(self, network: nn.Module, num_classes: int | None = None) -> tuple[InputSpec, int]:
        """What the published weights take, and the size that the shorter side of a photograph is first brought to.

        Args:
            network: The network that was built.
            num_classes: How many classes it tells apart; ImageNet's are named where it is as many.
        """
        if self.library == "timm":
            config = _timm().data.resolve_model_data_config(network)
            channels, *size = config["input_size"]
            spec = InputSpec((size[0], size[1]), channels, config["mean"], config["std"])
            names, resize = imagenet_classes(), int(min(size) / config["crop_pct"])
        else:
            weights = next(iter(torchvision.models.get_model_weights(self.name)))
            transforms = weights.transforms()
            side = transforms.crop_size[0]
            spec = InputSpec((side, side), 3, transforms.mean, transforms.std)
            names, resize = weights.meta["categories"], transforms.resize_size[0]
        if len(names) != (num_classes or len(names)):
            names = ()
        return InputSpec(spec.size, spec.channels, spec.mean, spec.std, tuple(names)), resize


def imagenet_classes() -> Sequence[str]:
    """The names of ImageNet's 1000 classes, as torchvision has them."""
    names: Sequence[str] = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    return names


def _classifiers() -> list[str]:
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _timm() -> Any:
    if not module_available("timm"):
        raise ModelNameError("timm is not installed: python -m pip install 'lightning-cnnvis[timm]'")
    import timm  # noqa: PLC0415 - only there if the user has it

    return timm


def _is_about_the_network(error: Exception) -> bool:
    """Whether a download failed, and not something else; the libraries behind have errors of their own."""
    if isinstance(error, (URLError, ConnectionError, TimeoutError)):
        return True
    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return bool(modules & {"httpx", "requests", "urllib3", "huggingface_hub"})
