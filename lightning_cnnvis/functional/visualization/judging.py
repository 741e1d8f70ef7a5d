"""Transfer: whether networks that had no part in making class images see the classes in them, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.network.chunks import in_chunks
from lightning_cnnvis.functional.network.forward import blank_input, is_about_shapes, model_options
from lightning_cnnvis.functional.network.output import ClassOutput, class_indices, read_output, tensor_of
from lightning_cnnvis.functional.optimization.transforms import resize
from lightning_cnnvis.inputs import InputSpec
from lightning_cnnvis.isolation import isolated

MOST_SEEN = 5
"""A judge sees a class that is among its so many most probable ones, or fewer where it has less than 100 classes."""

_LUCK = 20  # one class in so many may be seen by luck
_CHUNK = 16


@dataclass(frozen=True, eq=False)
class Judge:
    """A network that says whether it sees the classes of images that it had no part in making.

    Args:
        network: A classifier of the same classes. Left as it was, on the device where it is.
        input_spec: Its input, which may have another size and another normalisation; None takes that of the network
            whose images it judges.
        name: Its name on pictures; the name of its class if empty.

    Examples:
        >>> Judge(nn.Linear(2, 2)).title
        'Linear'
    """

    network: nn.Module
    input_spec: InputSpec | None = None
    name: str = ""

    @property
    def title(self) -> str:
        """Its name, or that of its class."""
        return self.name or type(self.network).__name__


@dataclass(frozen=True, eq=False)
class Verdict:
    """The judges' opinions of one image.

    Attributes:
        judges: Names of the J judges.
        probabilities: ``(J,)`` in [0, 1], each judge's probability of the image's class.
        ranks: ``(J,)``, integers from 1: how many classes are at least as probable to the judge. A network of a single
            class ranks it second below 0.5.
        top: Number of most probable classes among which a judge sees the class: 5, or a twentieth of the classes if
            that is less, but at least 1.
    """

    judges: tuple[str, ...]
    probabilities: Tensor
    ranks: Tensor
    top: int

    @property
    def seen(self) -> Tensor:
        """``(J,)`` bool, whether each judge sees the class."""
        return self.ranks <= self.top

    @property
    def words(self) -> str:
        """A few words for a tile."""
        count, seen = len(self.judges), int(self.seen.sum())
        if count == 1:
            return "seen by the judge" if seen else "not seen by the judge"
        return f"seen by {seen} of {count} judges"


@dataclass(frozen=True, eq=False)
class Bench:
    """Judges that were found to tell the same classes apart.

    Attributes:
        judges: The judges, each with its input.
        outputs: What the output of each means.
        orders: Each judge's numbers of the classes.
    """

    judges: tuple[Judge, ...]
    outputs: tuple[ClassOutput, ...]
    orders: tuple[tuple[int, ...], ...]

    def verdicts(self, images: Tensor, targets: Sequence[int]) -> tuple[Verdict, ...]:
        """Asks the judges for the classes of images.

        Args:
            images: ``(N, C, H, W)``; clipped to [0, 1] first.
            targets: The class of each image, by the number that the network has for it.

        Returns:
            A verdict for each image.
        """
        given = [
            _asked(judge, output, images, [order[target] for target in targets])
            for judge, output, order in zip(self.judges, self.outputs, self.orders, strict=True)
        ]
        probabilities, ranks = (torch.stack(values, 1) for values in zip(*given, strict=True))
        top = min(MOST_SEEN, max(1, self.outputs[0].count // _LUCK))
        names = tuple(judge.name for judge in self.judges)
        return tuple(Verdict(names, probabilities[n], ranks[n], top) for n in range(len(images)))


def bench_of(judges: Sequence[Judge | nn.Module], input_spec: InputSpec, count: int | None = None) -> Bench:
    """Finds out whether judges can judge images of a network's classes.

    Args:
        judges: The judges; a network by itself has the input of the network whose images it judges.
        input_spec: The network's input, with the names of the classes where they are known.
        count: Number of the network's classes; None for as many as the first judge has.

    Returns:
        The judges.

    Raises:
        ValueError: If there is none, or one is not a classifier, does not run on its input, or tells other classes
            apart.
    """
    if not judges:
        raise ValueError("judges=[] leaves nobody to judge. Name at least one network.")
    found = [_with_input(judge, input_spec) for judge in judges]
    names = tuple(f"{judge.title} ({n})" if _is_taken(found, n) else judge.title for n, judge in enumerate(found, 1))
    seated = tuple(Judge(judge.network, judge.input_spec, name) for judge, name in zip(found, names, strict=True))
    outputs = tuple(map(_output_of, seated))
    count = outputs[0].count if count is None else count
    for judge, output in zip(seated, outputs, strict=True):
        if output.count != count:
            raise ValueError(
                f"The judge {judge.name} has {output.count} classes, and not {count}, as the network. Give "
                "judges that tell the same classes apart."
            )
    return Bench(seated, outputs, tuple(_order(judge, count, input_spec) for judge in seated))


def judge_images(
    images: Tensor, classes: Sequence[int | str], judges: Sequence[Judge | nn.Module], *, input_spec: InputSpec
) -> tuple[Verdict, ...]:
    """Asks networks for the classes of images. Each image is shown at each judge's own size, with its normalisation.

    Images that were optimised on one network and are recognised by others, of another family, show the class; others
    may show patterns that only the one network takes for it.

    Args:
        images: ``(N, C, H, W)``; clipped to [0, 1] first.
        classes: The class of each image: numbers, or names from ``input_spec.class_names``.
        judges: The judges; a network by itself takes the input that ``input_spec`` describes.
        input_spec: The input of the network that the images were made on, with the names of its classes if known.

    Returns:
        A verdict for each image.

    Raises:
        ValueError: If a judge is not a classifier, does not run on its input, or tells other classes apart; or there is
            not one class for each image.

    Examples:
        >>> net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> images = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
        >>> red, = judge_images(images, [0], [net], input_spec=InputSpec(size=(8, 8)))
        >>> red.probabilities, red.ranks, red.words
        (tensor([0.5761]), tensor([1]), 'seen by the judge')
    """
    bench = bench_of(judges, input_spec)
    if len(classes) != len(images):
        raise ValueError(f"There are {len(classes)} classes for {len(images)} images. Give one for each image.")
    return bench.verdicts(images, class_indices(classes, bench.outputs[0].count, input_spec))


def _with_input(judge: Judge | nn.Module, input_spec: InputSpec) -> Judge:
    if not isinstance(judge, Judge):
        judge = Judge(judge)
    spec = judge.input_spec or input_spec
    if spec.channels != input_spec.channels:
        raise ValueError(
            f"The judge {judge.title} takes images of {spec.channels} channels, and the network of "
            f"{input_spec.channels}. Give judges of the same kind of image."
        )
    return Judge(judge.network, spec, judge.name)


def _is_taken(judges: Sequence[Judge], number: int) -> bool:
    """Whether a judge has the name of one before it."""
    return any(judge.title == judges[number - 1].title for judge in judges[: number - 1])


def _output_of(judge: Judge) -> ClassOutput:
    assert judge.input_spec is not None
    with isolated(judge.network) as network:
        try:
            output = read_output(network, judge.input_spec, blank_input(network, judge.input_spec))
        except Exception as error:
            if not is_about_shapes(error):
                raise
            raise ValueError(
                f"The judge {judge.name} does not run on an image of shape {judge.input_spec.shape}: {error}. Say what "
                "its input looks like: Judge(network, InputSpec(size=...))."
            ) from error
    if output is None:
        raise ValueError(f"The judge {judge.name} is not a classifier: it does not return logits (N, classes).")
    return output


def _order(judge: Judge, count: int, input_spec: InputSpec) -> tuple[int, ...]:
    """The judge's number of each class: by its name where both have names."""
    assert judge.input_spec is not None
    ours, theirs = input_spec.class_names, judge.input_spec.class_names
    if not ours or not theirs or ours == theirs:
        return tuple(range(count))
    if sorted(ours) == sorted(theirs) and len(set(ours)) == len(ours):
        return tuple(theirs.index(name) for name in ours)
    other = next((name for name in ours if name not in theirs), None)
    what = "has the classes in another order" if other is None else f"has no class {other!r}"
    raise ValueError(
        f"The judge {judge.name} {what}. Give judges that tell the same classes apart; if it calls the same ones by "
        "other names, give it an InputSpec without class_names."
    )


def _asked(judge: Judge, output: ClassOutput, images: Tensor, targets: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Probability and rank of each image's class, ``(N,)`` each, on the CPU."""
    spec = judge.input_spec
    assert spec is not None
    with isolated(judge.network) as network, torch.no_grad():
        weights = model_options(network)

        def work(part: slice) -> Tensor:
            inputs = spec.normalize(resize(images[part].detach().to("cpu", torch.float32).clamp(0, 1), spec.size))
            return output.probabilities(tensor_of(network(inputs.to(weights)))).float().cpu()

        given = torch.cat(list(in_chunks(work, len(images), _CHUNK)))
    own = given.gather(1, torch.tensor(targets, dtype=torch.int64, device="cpu")[:, None])
    ranks = (given >= own).sum(1)
    if given.shape[1] == 1:  # the class, or not
        ranks += (own[:, 0] < 0.5).long()
    return own[:, 0], ranks
