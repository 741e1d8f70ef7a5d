"""Build networks by name, ``torchvision:alexnet`` or ``timm:resnet18``, and find what their weights expect."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import torchvision
from lightning_utilities.core.imports import module_available
from torch import nn

from lightning_cnnvis.inputs import InputSpec

LIBRARIES = ("torchvision", "timm")
AUXILIARY = {"aux1", "aux2", "AuxLogits"}
"""Names of the auxiliary heads of GoogLeNet and Inception."""
_WITH_AUXILIARY = {"googlenet", "inception_v3"}
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
"""Names that the layers of torchvision's DenseNets have in its published files: ``norm.1`` for ``norm1``."""


class ModelNameError(ValueError):
    """An unknown model name, or one whose weights cannot be downloaded."""


@dataclass(frozen=True)
class NamedModel:
    """A network of a library.

    Args:
        library: ``"torchvision"`` or ``"timm"``.
        name: The network's name there.

    Raises:
        ModelNameError: If the library has no network of that name, or is not installed.

    Examples:
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
        """Whether a text is the name of a network in this notation.

        Args:
            text: The text.

        Returns:
            True if it begins with the name of a library and a colon.
        """
        return text.partition(":")[0] in LIBRARIES and ":" in text

    @staticmethod
    def parse(text: str) -> NamedModel:
        """Reads a name in the notation ``library:name``.

        Args:
            text: The name.

        Returns:
            The network.

        Raises:
            ModelNameError: If the library or the network is unknown.
        """
        library, _, name = text.partition(":")
        if library not in LIBRARIES:
            raise ModelNameError(f"{text!r} does not name a network. Write torchvision:NAME or timm:NAME.")
        return NamedModel(library, name)

    def build(self, num_classes: int | None = None, *, auxiliary: bool = True) -> nn.Module:
        """Builds the network with random weights.

        Args:
            num_classes: Number of logits; None for the library's default, as a rule 1000.
            auxiliary: Whether GoogLeNet and Inception have their auxiliary heads, which only training uses.

        Returns:
            The network, in evaluation mode.
        """
        options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
        if self.library == "timm":
            network: nn.Module = _timm().create_model(self.name, pretrained=False, **options)
        else:
            quiet: dict[str, Any] = {}
            if self.name in _WITH_AUXILIARY:
                # the published weights, whose input this package describes, are of networks that transform it
                quiet = {"init_weights": False, "aux_logits": auxiliary, "transform_input": True}
            network = torchvision.models.get_model(self.name, weights=None, **options, **quiet)
        return network.eval()

    def build_pretrained(self) -> nn.Module:
        """Builds the network with the library's own weights, which are downloaded unless they were before.

        Returns:
            The network, in evaluation mode.

        Raises:
            ModelNameError: If the weights cannot be downloaded.
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
                f"The weights of {self.library}'s {self.name} could not be downloaded. Check the connection, "
                "or give a file with the weights (.pth or .safetensors)."
            ) from error
        return network.eval()

    def renamed(self, weights: Mapping[str, Any], network: nn.Module) -> Mapping[str, Any]:
        """Brings weights to the names and shapes that the library now has, as it does itself when it loads them.

        Args:
            weights: Tensors by name, as they were published or saved.
            network: The network that was built.

        Returns:
            The weights under the network's names; those given, if they have these already or cannot be renamed.
        """
        if set(weights) <= set(network.state_dict()):
            return weights
        if self.library == "torchvision":
            return {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in weights.items()}
        rename = getattr(inspect.getmodule(type(network)), "checkpoint_filter_fn", None)
        if rename is None:
            return weights
        try:
            found: Mapping[str, Any] = rename(dict(weights), network)
        except Exception:  # it was written for the forms that its authors knew
            return weights
        return found if isinstance(found, Mapping) else weights

    def input_spec(self, network: nn.Module, num_classes: int | None = None) -> tuple[InputSpec, int]:
        """Describes the input that the published weights expect.

        Args:
            network: The network that was built.
            num_classes: Number of classes that it tells apart; None for as many as the published weights. They are
                named if it is that many.

        Returns:
            The input, and the size in pixels that the shorter side of a photograph is brought to before the cut.
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
    """Lists the names of ImageNet's 1000 classes.

    Returns:
        The names as torchvision has them, in the order of the logits.
    """
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
    """Whether a download failed, and not something else; the libraries have errors of their own for it."""
    if isinstance(error, (URLError, ConnectionError, TimeoutError)):
        return True
    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return bool(modules & {"httpx", "requests", "urllib3", "huggingface_hub"})
