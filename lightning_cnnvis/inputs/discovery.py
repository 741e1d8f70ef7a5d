"""Find out what a network's input looks like from the data that it is trained on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from lightning_cnnvis.inputs.batches import values_of
from lightning_cnnvis.inputs.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from lightning_cnnvis.isolation import isolated_rng


def find_input_spec(source: object = None, sample: Tensor | None = None) -> InputSpec:
    """Finds out what the input looks like, without disturbing the data pipeline.

    Args:
        source: A data module, data loaders or a data set. Its attribute ``input_spec`` is the answer if it has
            one. Otherwise mean and standard deviation are those of a ``Normalize`` in the data set's
            transforms, and the class names are its ``class_names``, ``classes`` or ``class_to_idx``.
        sample: A batch ``(N, C, H, W)`` as the network gets it, from which size, channels and range follow. Without
            one, the first item of the data set is taken, and the global random generators are restored afterwards.

    Returns:
        The description. A warning names what had to be assumed.

    Raises:
        ValueError: If neither the source nor the sample tells the size of the images.

    Examples:
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
    names = find_class_names(source, *datasets)
    statistics = _normalization(datasets)
    # one value counts for every channel; another number than the channels' is not of these images
    if statistics is not None and len(statistics[0]) in {1, channels}:
        return InputSpec((height, width), channels, *statistics, class_names=names)
    mean, std, assumption = _guess_statistics(sample.detach())
    spec = InputSpec((height, width), channels, mean, std, names)
    warnings.warn(
        f"The data set's transforms contain no Normalize for {channels} channels, or several, so {assumption}. If the "
        f"pictures' colours look wrong, describe the input: input_spec=InputSpec(size={spec.size}, "
        f"channels={channels}, mean=..., std=...), or an attribute input_spec of the data module.",
        stacklevel=2,
    )
    return spec


def _datasets(source: Any, seen: dict[int, Any] | None = None) -> Iterator[Any]:
    """Finds the data sets in a data module, loaders or wrappers, outermost first and each once."""
    seen = {} if seen is None else seen
    if source is None or id(source) in seen:
        return
    seen[id(source)] = source
    if isinstance(source, Mapping):
        source = list(source.values())
    if isinstance(source, list | tuple):
        for one in source:
            yield from _datasets(one, seen)
        return
    loaders = [getattr(source, name, None) for name in ("val_dataloader", "train_dataloader")]
    if any(map(callable, loaders)):
        for loader in filter(callable, loaders):
            yield from _datasets(_loaders(loader), seen)
        return
    yield source
    # CombinedLoader, ConcatDataset, and DataLoader, Subset and their like; then wrappers of the user's own
    for name in ("iterables", "datasets", "dataset"):
        yield from _datasets(getattr(source, name, None), seen)
    for held in _attributes(source).values():
        if isinstance(held, Dataset):
            yield from _datasets(held, seen)


def _attributes(owner: object) -> dict[str, Any]:
    return dict(getattr(owner, "__dict__", {}))


def _loaders(loader: Callable[[], Any]) -> Any:
    with isolated_rng():
        try:
            return loader()
        except Exception as error:
            if type(error).__name__ in {"MisconfigurationException", "NotImplementedError"}:
                return None  # Lightning's answer for a hook that the data module leaves out
            raise


def _normalization(datasets: Iterable[Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation of the first transform that normalises; None if there is none, or if it does so twice."""
    for dataset in datasets:
        usual = [getattr(dataset, name, None) for name in ("transform", "transforms")]
        own = [held for name, held in _attributes(dataset).items() if "transform" in name and "inv" not in name]
        for transform in (*usual, *own):
            found = {
                (_floats(step.mean), _floats(step.std))
                for step in _steps(transform)
                if type(step).__name__ == "Normalize" and _has(step, "mean") and _has(step, "std")
            }
            if found:
                return found.pop() if len(found) == 1 else None
    return None


def _steps(transform: Any, depth: int = 6) -> Iterator[Any]:
    """Goes through a transform and all inside it: steps of Compose, of nn.Sequential, of the user's own wrappers."""
    if isinstance(transform, list | tuple | torch.nn.Sequential):
        for step in transform:
            yield from _steps(step, depth)
    elif callable(transform) and not isinstance(transform, type) and depth:
        yield transform
        for inner in _attributes(transform).values():
            yield from _steps(inner, depth - 1)


def _has(owner: object, name: str) -> bool:
    return getattr(owner, name, None) is not None


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(torch.as_tensor(values, dtype=torch.float64, device="cpu").reshape(-1).tolist())


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
            for value in values_of(item):
                if isinstance(value, Tensor) and value.ndim == 3:
                    return value[None]
    raise ValueError(
        "The size of the images is unknown: no data set was found whose first item holds a tensor (C, H, W). "
        "Give an input_spec."
    )


def find_class_names(*owners: object) -> tuple[str, ...]:
    """Finds the names of the classes.

    Args:
        *owners: Data modules and data sets, in the order in which their ``class_names``, ``classes`` and
            ``class_to_idx`` are looked at.

    Returns:
        The names in the order of the classes' numbers; empty where no owner has any.

    Examples:
        >>> class Photos:
        ...     class_to_idx = {"dog": 1, "cat": 0}
        >>> find_class_names(Photos())
        ('cat', 'dog')
    """
    for owner in owners:
        for attribute in ("class_names", "classes"):
            names = getattr(owner, attribute, None)
            if isinstance(names, list | tuple) and names:
                # torchvision's ImageNet has tuples of synonyms
                return tuple(str(name[0] if isinstance(name, list | tuple) and name else name) for name in names)
        numbers = getattr(owner, "class_to_idx", None)
        if isinstance(numbers, Mapping) and sorted(numbers.values()) == list(range(len(numbers))) and numbers:
            return tuple(str(name) for name in sorted(numbers, key=numbers.__getitem__))
    return ()
