"""Make images of what a network takes for its classes.

Simonyan et al. 2013 (arXiv 1312.6034), Yosinski et al. 2015 (arXiv 1506.06579), Olah et al. 2017
(https://doi.org/10.23915/distill.00007).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from io import StringIO
from typing import Any

import torch
from torch import Tensor

from lightning_cnnvis import figures
from lightning_cnnvis.functional.network.defaults import MAX_DEFAULT_CLASSES
from lightning_cnnvis.functional.network.output import class_indices
from lightning_cnnvis.functional.optimization.recipes import Recipe
from lightning_cnnvis.functional.visualization.classes import visualize_classes
from lightning_cnnvis.functional.visualization.judging import Verdict
from lightning_cnnvis.functional.visualization.paths import FEWEST_REAL, PathSimilarity, path_similarity
from lightning_cnnvis.functional.visualization.presets import check_preset, preset_recipe
from lightning_cnnvis.functional.visualization.results import VisualizationOptions, Visualizations, frame_steps
from lightning_cnnvis.methods.checks import check_at_least_one, check_lists
from lightning_cnnvis.methods.judges import JudgeName, check_judges, judges_note, load_judges
from lightning_cnnvis.methods.method import Drawings, Method, Parts, ScalarPlot, Strip, Title
from lightning_cnnvis.methods.own_statistics import OwnStatistics, as_statistics, measured
from lightning_cnnvis.methods.registry import register_method
from lightning_cnnvis.methods.results import Result
from lightning_cnnvis.methods.subject import Subject
from lightning_cnnvis.viewer.content import Gallery, Section
from lightning_cnnvis.viewer.tiles import page_tiles

FRAME_SIDE = 96
"""Longest side in pixels of the images kept on the way, and of those of a strip, which checkpoints keep."""


MAX_LAYERS_OF_PATHS = 8
"""How many layers a path is followed through, evenly chosen."""

PATHS = (
    "Beside each image the rank correlation of its features with those of real images of the class, from the first "
    "layer to the last; grey: between real images. Filled dots: as similar to them as they are to each other."
)
"""Note on the curves of paths."""

Real = Mapping[int, Tensor]
"""Real images ``(M, C, H, W)`` in [0, 1] by number of their class."""


@dataclass(frozen=True)
class ClassesOptions:
    """Makes images of what a network takes for its classes, from noise; see `visualize_classes`.

    Args:
        classes: Names or numbers of the classes; the first twelve if None.
        samples_per_class: Number of images of each class.
        preset: Name of a recipe: ``"fourier"``, ``"maco"``, ``"deepinversion"``, ``"plug_in"``, ``"yosinski2015"``,
            ``"simonyan2013"``, ``"none"`` or one that was registered; or a `Recipe`. See `preset_recipe`.
        steps: Number of optimisation steps; the preset's if None.
        statistics: Colours and spectrum for ``"fourier"`` and ``"maco"``: ``"own"`` measures them on the images at
            hand, during a training once, on its own images; or ``ImageStatistics.measure(images)``. Those of everyday
            photographs if None.
        transparency: Whether a second picture shows only what the steps pulled at; see `Visualizations`.
        real: Number of real images of each class, of the images at hand, whose way through the layers is compared with
            that of the optimised image; see `path_similarity`. 0 leaves that out.
        judges: Other networks with the same classes, which say whether they see the class, too: torchvision:NAME or
            timm:NAME with published weights, a checkpoint, the folder of a run, or NAME=FILE for a file of weights; in
            Python also networks, or `Judge` with an input of their own.
        seed: Seed of the noise to start from.

    Raises:
        ValueError: If an option is out of range, there is no such class, the network is not a classifier, or its
            weights lack its end.
    """

    classes: Sequence[int | str] | None = None
    _: KW_ONLY
    samples_per_class: int = 1
    preset: str | Recipe = "fourier"
    steps: int | None = None
    statistics: OwnStatistics | None = None
    transparency: bool = False
    real: int = 0
    judges: Sequence[JudgeName] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_lists(classes=self.classes)
        check_at_least_one(samples_per_class=self.samples_per_class, steps=self.steps)
        if self.real and self.real < FEWEST_REAL:
            raise ValueError(
                f"real={self.real} must be 0, or at least {FEWEST_REAL}: they are compared with each other."
            )
        check_judges(self.judges)
        object.__setattr__(self, "statistics", as_statistics(self.statistics))
        if not isinstance(self.preset, Recipe):
            check_preset(self.preset)


class ClassesResult(Result):
    """Images optimised for classes."""

    @property
    def visualizations(self) -> Visualizations:
        """The images and how far each got; the frames on the way are small."""
        shown: Visualizations = self.parts[""]
        return shown


def _parts(subject: Subject, options: ClassesOptions) -> Parts:
    if subject.absent:
        raise ValueError(
            f"The weights lack {', '.join(subject.absent)}, which tells the classes apart: give weights of the whole "
            "network."
        )
    if options.classes is not None:
        return {"": list(options.classes)}
    count = subject.number_of_classes()
    if not count:
        raise ValueError(
            f"{type(subject.network).__name__} is not a classifier: it does not return logits (N, classes)."
        )
    return {"": list(range(min(MAX_DEFAULT_CLASSES, count)))}


def _prepare(subject: Subject, options: ClassesOptions, parts: Parts) -> Real:
    """Real images of each class, as far as they are there; none if they are not asked for."""
    if not options.real:
        return {}
    wanted = class_indices(parts[""], subject.number_of_classes(), subject.input_spec)
    names = {subject.input_spec.class_name(index): index for index in wanted}
    found: dict[int, list[Tensor]] = {index: [] for index in wanted}
    for images, labels in subject.images.labelled(subject.input_spec):
        for image, label in zip(images, labels or (), strict=False):
            index = names.get(label, -1) if isinstance(label, str) else int(label)
            if index in found and len(found[index]) < options.real:
                found[index].append(image)
        if all(len(known) == options.real for known in found.values()):
            break
    real = {index: torch.stack(known) for index, known in found.items() if len(known) >= FEWEST_REAL}
    if not real:
        raise ValueError(
            f"real={options.real}: there are no {FEWEST_REAL} labelled images of any of the classes. Give images in a "
            "folder for each class, or real=0."
        )
    return real


def _paths(subject: Subject, shown: Visualizations, real: Real) -> tuple[PathSimilarity | None, ...]:
    """The way of each image beside that of its class."""
    rectified = subject.rectified_layers()
    count = min(MAX_LAYERS_OF_PATHS, len(rectified))
    layers = [rectified[round((n + 1) * len(rectified) / count) - 1] for n in range(count)]
    normalize, paths = subject.input_spec.normalize, []
    for image, target in zip(shown.images, shown.targets, strict=True):
        known = real.get(target)
        paths.append(
            None
            if known is None
            else path_similarity(subject.network, normalize(image[None].cpu()), normalize(known.cpu()), layers)
        )
    return tuple(paths)


def _run(
    subject: Subject, options: ClassesOptions, part: str, classes: Sequence[int | str], prepared: Real | None
) -> Visualizations:
    if isinstance(options.preset, Recipe):
        steps = options.steps or options.preset.steps
    else:
        steps = options.steps or preset_recipe(options.preset, subject.input_spec).steps
    shown = visualize_classes(
        subject.network,
        classes,
        input_spec=subject.input_spec,
        samples_per_class=options.samples_per_class,
        preset=options.preset,
        steps=options.steps,
        seed=options.seed,
        options=VisualizationOptions(
            frames=frame_steps(steps), statistics=measured(options.statistics), transparency=options.transparency
        ),
        judges=load_judges(options.judges),
    )
    small = [figures.reduced(frames, FRAME_SIDE) for frames in shown.frames]
    paths = _paths(subject, shown, prepared) if prepared else None
    return replace(shown, frames=torch.stack(small), paths=paths)


def _trial(subject: Subject, options: ClassesOptions) -> tuple[ClassesOptions, None]:
    return replace(options, steps=1), None


def preset_name(preset: object) -> str:
    """The name of a preset in a caption."""
    return preset if isinstance(preset, str) else "own recipe"


def _draw(subject: Subject, options: ClassesOptions, part: str, result: Visualizations, title: Title) -> Drawings:
    states = [figures.state_of(result, n) for n in range(len(result.labels))]
    first = slice(None, None, options.samples_per_class)
    recipe = preset_name(options.preset)
    score = result.score_name
    note = f"Optimised from noise to reach the class ({recipe}): probability and {score} reached."
    if any(result.means or ()):
        note += " In brackets, by what means a second attempt came nearer to a class that the first one missed."
    if result.verdicts is not None:
        note += f" {judges_note(result.verdicts)}"
    drawn = {
        f"{CLASSES.tag}/classes": figures.labelled_pictures(
            figures.as_bytes(result.images), result.labels, states, title("Classes"), note
        ),
        f"{CLASSES.tag}/forming": figures.forming_strip(
            [figures.from_bytes(figures.as_bytes(frames)) for frames in result.frames[first]],
            frame_steps(result.losses.shape[1]),
            result.labels[first],
            states[first],
            title("Classes out of noise"),
        ),
    }
    if result.paths is not None:
        drawn[f"{CLASSES.tag}/paths"] = figures.labelled_pictures(
            _with_curves(result), result.labels, states, title("Classes and their paths"), PATHS, side=288
        )
    if result.transparency is not None:
        drawn[f"{CLASSES.tag}/transparency"] = figures.labelled_pictures(
            figures.as_bytes(figures.on_paper(result)), result.labels, states, title("Classes"), figures.TRANSPARENCY
        )
    return drawn


def _with_curves(shown: Visualizations) -> Tensor:
    """Each image with the curve of its path beside it, ``(N, 3, H, 2 W)``, ``uint8``."""
    assert shown.paths is not None
    images = figures.as_bytes(shown.images)
    images = images if images.shape[1] == 3 else images[:, :1].expand(-1, 3, -1, -1)
    size = (images.shape[2], images.shape[3])
    curves = torch.stack([figures.path_curve(path, 0, size) for path in shown.paths])
    return torch.cat([images.cpu(), curves], dim=-1)


def _scalars(options: ClassesOptions, part: str, result: Visualizations) -> Mapping[str, float]:
    assert result.probabilities is not None
    first = slice(None, None, options.samples_per_class)
    seen = {} if result.verdicts is None else _seen(result.verdicts)
    reached = zip(result.labels[first], result.probabilities[first].tolist(), strict=True)
    return {
        **{f"class_probability/{label}": probability for label, probability in reached},
        f"{CLASSES.tag}/steps": result.losses.shape[1],
        **{f"class_transfer/{judge}": count / len(result.labels) for judge, count in seen.items()},
    }


def _seen(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Number of images whose class each judge sees."""
    counts = torch.stack([verdict.seen for verdict in verdicts]).sum(0).tolist()
    return dict(zip(verdicts[0].judges, counts, strict=True))


def _texts(options: ClassesOptions, part: str, result: Visualizations) -> Mapping[str, Sequence[str]]:
    if result.verdicts is None:
        return {}
    seen = [f"{judge} sees {count} of {len(result.labels)}" for judge, count in _seen(result.verdicts).items()]
    return {f"{CLASSES.tag}/transfer": [f"Images whose class other networks see: {'; '.join(seen)}."]}


def _tables(options: ClassesOptions, part: str, result: Visualizations) -> Mapping[str, str]:
    """Every judge's opinion of every image."""
    if result.verdicts is None:
        return {}
    file = StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["class", "sample", "judge", "probability", "rank", "seen"])
    for n, (label, verdict) in enumerate(zip(result.labels, result.verdicts, strict=True)):
        opinions = (verdict.judges, verdict.probabilities.tolist(), verdict.ranks.tolist(), verdict.seen.tolist())
        for judge, probability, rank, seen in zip(*opinions, strict=True):
            table.writerow([label, n % options.samples_per_class + 1, judge, f"{probability:.4f}", rank, int(seen)])
    return {f"{CLASSES.tag}/transfer": file.getvalue()}


def _strip(options: ClassesOptions, part: str, result: Visualizations) -> Strip:
    first = slice(None, None, options.samples_per_class)
    # its tiles are too small to say by what means
    states = [figures.state_of(replace(result, means=None), n) for n in range(len(result.labels))]
    small = figures.as_bytes(figures.reduced(figures.from_bytes(figures.as_bytes(result.images[first])), FRAME_SIDE))
    return Strip(
        f"{CLASSES.tag}/evolution", "Classes · evolution", result.labels[first], small, states[first], side=FRAME_SIDE
    )


def _sections(
    subject: Subject, options: ClassesOptions, result: ClassesResult, evolutions: Mapping[str, Any]
) -> list[Section]:
    shown = result.visualizations
    states = [figures.state_of(shown, n) for n in range(len(shown.labels))]
    tiles = page_tiles(shown.images, shown.labels, states)
    note = (
        "Images optimised from noise until the network takes them for the class: the probability and the "
        f"{shown.score_name} that were reached."
    )
    if shown.verdicts is not None:
        note += f" {judges_note(shown.verdicts)}"
    galleries = [Gallery(tiles)]
    if shown.paths is not None:
        curves = figures.from_bytes(_with_curves(shown)[..., shown.images.shape[-1] :])
        galleries.append(Gallery(page_tiles(curves, shown.labels, states)))
        note += f" {PATHS}"
    if shown.transparency is not None:
        galleries.append(Gallery(page_tiles(figures.on_paper(shown), shown.labels, states)))
        note += f" Below: {figures.TRANSPARENCY[0].lower()}{figures.TRANSPARENCY[1:]}"
    return [Section("Classes", tuple(galleries), note)]


CLASSES = Method(
    name="classes",
    tag="class_visualization",
    summary=__doc__,
    options=ClassesOptions,
    parts=_parts,
    prepare=_prepare,
    run=_run,
    merge=Visualizations.cat,
    draw=_draw,
    trial=_trial,
    scalars=_scalars,
    tables=_tables,
    texts=_texts,
    plots={
        "class_probability": ScalarPlot("Probability of optimised classes"),
        "class_transfer": ScalarPlot(
            "Class images that other networks see", "Share of the images whose class a judge sees, too."
        ),
    },
    strip=_strip,
    result=ClassesResult,
    section=_sections,
    training={"steps": 64},
    needs_output=True,
)
register_method(CLASSES)
