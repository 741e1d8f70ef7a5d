"""What the network's input looks like: size, channels, normalisation and class names."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from lightning_cnnvis.isolation import isolated_rng

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """The images a network expects, and how to go from them to pictures and back.

    Args:
        size: Height and width in pixels.
        channels: Number of image channels.
        mean: Mean that the data pipeline subtracts from pixels in [0, 1], one value for each channel. A
            single value is taken for every channel.
        std: Standard deviation that the data pipeline divides by, like ``mean``.
        class_names: Names of the classes, in the order of the logits. Empty when unknown.

    Raises:
        ValueError: If a size, a channel count or a standard deviation is not positive, or if ``mean`` or
            ``std`` has neither one value nor one for each channel.

    Example:
        >>> spec = InputSpec(size=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        >>> spec.normalize(torch.full((1, 3, 64, 64), 0.75)).unique()
        tensor([1.])
        >>> spec.denormalize(torch.ones(1, 3, 64, 64)).unique()
        tensor([0.7500])
    """

    size: tuple[int, int] = (224, 224)
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the values and spreads single means and deviations over the channels."""
        # a YAML file gives lists
        for field in ("size", "mean", "std", "class_names"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size={self.size} is not a height and a width of at least 1 pixel.")
        if self.channels < 1:
            raise ValueError(f"channels={self.channels}: an image has at least 1 channel.")
        for field in ("mean", "std"):
            values: tuple[float, ...] = getattr(self, field)
            if len(values) == 1:
                object.__setattr__(self, field, values * self.channels)
            elif len(values) != self.channels:
                raise ValueError(
                    f"{field}={values} has {len(values)} values for {self.channels} channels: "
                    "give one value, or one for each channel."
                )
        if min(self.std) <= 0:
            raise ValueError(f"std={self.std}: every standard deviation must be positive.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(C, H, W)`` of one image."""
        return (self.channels, *self.size)

    def class_name(self, index: int) -> str:
        """The name of a class, or its number when the names are unknown."""
        return self.class_names[index] if index < len(self.class_names) else str(index)

    def normalize(self, images: Tensor) -> Tensor:
        """Turns pictures into network inputs.

        Args:
            images: ``(..., C, H, W)``, pixels in [0, 1].

        Returns:
            The inputs, of the same shape.
        """
        mean, std = self._statistics(images)
        return (images - mean) / std

    def denormalize(self, inputs: Tensor) -> Tensor:
        """Turns network inputs back into pictures; the inverse of `normalize`.

        Args:
            inputs: ``(..., C, H, W)``.

        Returns:
            Images of the same shape; in [0, 1] if the inputs came from such images. Not clipped.
        """
        mean, std = self._statistics(inputs)
        return inputs * std + mean

    def _statistics(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.ndim < 3 or images.shape[-3] != self.channels:
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not end in ({self.channels}, height, width): "
                f"this input has {self.channels} channels."
            )
        dtype = images.dtype if images.is_floating_point() else torch.float32
        mean, std = (
            torch.tensor(values, dtype=dtype, device=images.device).view(-1, 1, 1) for values in (self.mean, self.std)
        )
        return mean, std


_IMAGE_KEYS = ("images", "image", "pixel_values", "inputs", "x")


def images_of(batch: Any, images: str | Callable[[Any], Tensor] | None = None) -> Tensor:
    """The images of a batch.

    Args:
        batch: A tensor, or a sequence or mapping with one in it, nested as it may be. In a mapping the keys
            ``images``, ``image``, ``pixel_values``, ``inputs`` and ``x`` come first.
        images: Function that takes the batch and returns its images, or the dotted name of one,
            ``"package.module.function"``. None: the first tensor ``(N, C, H, W)`` is taken.

    Returns:
        ``(N, C, H, W)``.

    Raises:
        ValueError: If there is no such tensor, or no such function.

    Example:
        >>> images_of([torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])]).shape
        torch.Size([2, 3, 8, 8])
        >>> images_of({"mask": torch.zeros(2, 1, 8, 8), "image": torch.zeros(2, 3, 8, 8)}).shape
        torch.Size([2, 3, 8, 8])
    """
    if images is not None:
        found: Any = (_function(images) if isinstance(images, str) else images)(batch)
        if not _is_images(found):
            raise ValueError(f"images={images!r} returned {_describe(found)}, not a tensor (N, C, H, W).")
        return found
    for value in _values(batch):
        if _is_images(value):
            return value
    raise ValueError(
        f"The batch holds no tensor (N, C, H, W): it is {_describe(batch)}. Name a function that takes the batch "
        "and returns its images: images='package.module.function'."
    )


def _is_images(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim == 4 and (value.is_floating_point() or value.dtype == torch.uint8)


def _values(batch: Any) -> Iterator[Any]:
    """Everything in a nested batch, likely images first."""
    if isinstance(batch, Mapping):
        first = [key for key in _IMAGE_KEYS if key in batch]
        for key in (*first, *(key for key in batch if key not in first)):
            yield from _values(batch[key])
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from _values(value)
    else:
        yield batch


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
    if isinstance(value, Mapping):
        return "a mapping with " + (", ".join(f"{key!r}: {_describe(v)}" for key, v in value.items()) or "no keys")
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of " + (", ".join(map(_describe, value[:4])) or "nothing")
    return f"a {type(value).__name__}"


def _function(name: str) -> Callable[[Any], Any]:
    module, _, attribute = name.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"images={name!r} is not the dotted name of a function that can be imported.") from error
    if not callable(function):
        raise ValueError(f"images={name!r} is a {type(function).__name__}, not a function.")
    return function  # type: ignore[no-any-return]


def find_input_spec(source: object = None, sample: Tensor | None = None) -> InputSpec:
    """Finds out what the input looks like, without disturbing the data pipeline.

    Args:
        source: A data module, data loader(s) or data set. Its attribute ``input_spec`` is the answer if it has
            one. Otherwise mean and standard deviation are those of a ``Normalize`` in the data set's
            transforms, and the class names are its ``classes``.
        sample: A batch ``(N, C, H, W)`` as the network gets it; tells size, channels and range. Without one, the
            data set is asked for its first item, and the global random generators are put back afterwards.

    Returns:
        The description. A warning names what had to be assumed.

    Raises:
        ValueError: If neither the source nor the sample tells the size of the images.

    Example:
        >>> from torchvision.datasets import FakeData
        >>> from torchvision.transforms import Compose, Normalize, ToTensor
        >>> data = FakeData(4, (3, 32, 32), transform=Compose([ToTensor(), Normalize((0.5,), (0.25,))]))
        >>> spec = find_input_spec(data)
        >>> spec.size, spec.mean, spec.std
        ((32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    """
    datasets = list(_datasets(source))
    for owner in (source, *datasets):
        known = getattr(owner, "input_spec", None)
        if isinstance(known, InputSpec):
            return known
    if sample is None:
        sample = _first_images(datasets)
    channels, height, width = sample.shape[-3:]
    names = _class_names(source, datasets)
    statistics = _normalization(datasets)
    # one value counts for every channel; another number than the channels' is not of these images
    if statistics is not None and len(statistics[0]) in {1, channels}:
        return InputSpec((height, width), channels, *statistics, class_names=names)
    mean, std, assumption = _guess_statistics(sample.detach())
    spec = InputSpec((height, width), channels, mean, std, names)
    warnings.warn(
        f"The data set's transforms hold no Normalize for {channels} channels, so {assumption}. If the pictures' "
        f"colours look wrong, say what the input looks like: input_spec=InputSpec(size={spec.size}, "
        f"channels={channels}, mean=..., std=...), or an attribute input_spec of the data module.",
        stacklevel=2,
    )
    return spec


def _datasets(source: Any) -> Iterator[Any]:
    """The data sets behind a data module, loaders or wrappers, outermost first."""
    if source is None:
        return
    if isinstance(source, Mapping):
        source = list(source.values())
    if isinstance(source, list | tuple):
        for one in source:
            yield from _datasets(one)
        return
    loaders = [getattr(source, name, None) for name in ("val_dataloader", "train_dataloader")]
    if any(map(callable, loaders)):
        for loader in filter(callable, loaders):
            yield from _datasets(_loaders(loader))
        return
    yield source
    # CombinedLoader, ConcatDataset, and DataLoader, Subset and their like
    for inner in ("iterables", "datasets", "dataset"):
        if getattr(source, inner, None) is not None:
            yield from _datasets(getattr(source, inner))


def _loaders(loader: Callable[[], Any]) -> Any:
    with isolated_rng():
        try:
            return loader()
        except Exception as error:
            if type(error).__name__ in {"MisconfigurationException", "NotImplementedError"}:
                return None  # Lightning's answer for a hook that the data module leaves out
            raise


def _normalization(datasets: Iterable[Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    for dataset in datasets:
        for attribute in ("transform", "transforms"):
            for step in _steps(getattr(dataset, attribute, None)):
                mean, std = getattr(step, "mean", None), getattr(step, "std", None)
                if type(step).__name__ == "Normalize" and mean is not None and std is not None:
                    return _floats(mean), _floats(std)
    return None


def _steps(transform: Any) -> Iterator[Any]:
    """A transform and everything inside it: the steps of Compose, of nn.Sequential, of a data set's wrapper."""
    if transform is None:
        return
    if isinstance(transform, list | tuple | torch.nn.Sequential):
        for step in transform:
            yield from _steps(step)
        return
    yield transform
    for inner in ("transform", "transforms"):
        yield from _steps(getattr(transform, inner, None))


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(torch.as_tensor(values, dtype=torch.float64).reshape(-1).tolist())


def _guess_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    low, high = images.min().item(), images.max().item()
    found = f"values from {low:.2f} to {high:.2f} were taken"
    if low >= 0 and high <= 1:
        return (0.0,), (1.0,), f"{found} for pixels in [0, 1]"
    if low >= 0 and high <= 255:
        return (0.0,), (1 / 255,), f"{found} for pixels in [0, 255]"
    if low >= -1 and high <= 1:
        return (0.5,), (0.5,), f"{found} for pixels scaled to [-1, 1]"
    if images.shape[-3] == 3:
        return IMAGENET_MEAN, IMAGENET_STD, f"{found} for pixels normalised with ImageNet's mean and std"
    return (0.5,), (0.25,), f"{found} for pixels normalised with mean 0.5 and std 0.25"


def _first_images(datasets: Sequence[Any]) -> Tensor:
    for dataset in datasets:
        if hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset):
            with isolated_rng():
                item = dataset[0]
            for value in _values(item):
                if isinstance(value, Tensor) and value.ndim == 3:
                    return value[None]
    raise ValueError(
        "The size of the images is unknown: no data set was found whose first item holds a tensor (C, H, W). "
        "Give an input_spec."
    )


def _class_names(source: Any, datasets: Iterable[Any]) -> tuple[str, ...]:
    for owner, attribute in [(source, "class_names"), *((dataset, "classes") for dataset in datasets)]:
        names = getattr(owner, attribute, None)
        if isinstance(names, list | tuple) and names:
            # torchvision's ImageNet has tuples of synonyms
            return tuple(str(name[0] if isinstance(name, list | tuple) and name else name) for name in names)
    return ()
