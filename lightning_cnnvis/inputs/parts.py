"""Parts of photographs that are marked by boxes in a file."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from lightning_cnnvis.inputs.photographs import fit_photograph

Boxes = Mapping[str, Sequence[Sequence[int]]]
"""Boxes of parts by name, one for each image: top, left, bottom and right in pixels; bottom and right are exclusive."""

_COLUMNS = ("image", "part", "top", "left", "bottom", "right")


class PartsError(ValueError):
    """Parts that cannot be read. The message says which, and what to do."""


def read_parts(file: str | Path) -> tuple[list[str], dict[str, list[list[int]]]]:
    """Reads marked parts from a file.

    A CSV file has the columns image, part, top, left, bottom and right. A YAML file has the same as mappings:
    ``{part: {image: [top, left, bottom, right]}}``.

    Args:
        file: The file, whose name ends in ``.csv``, ``.yaml`` or ``.yml``.

    Returns:
        The names of the images, and by part the box in each image, in pixels of the photograph.

    Raises:
        PartsError: If the file cannot be read, or a part is not marked in every image.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PartsError(f"The parts in {path} cannot be read ({error}). Give a CSV or YAML file.") from error
    marked = _of_csv(text, path) if path.suffix.lower() == ".csv" else _of_yaml(text, path)
    if not marked:
        raise PartsError(f"{path} marks no part. Give the boxes of at least one.")
    images = list(dict.fromkeys(image for boxes in marked.values() for image in boxes))
    for part, boxes in marked.items():
        missing = [image for image in images if image not in boxes]
        if missing:
            raise PartsError(
                f"Part {part!r} of {path} has {len(boxes)} boxes for {len(images)} images. Mark it in {missing[0]}."
            )
    return images, {part: [boxes[image] for image in images] for part, boxes in marked.items()}


def _of_csv(text: str, path: Path) -> dict[str, dict[str, list[int]]]:
    rows = list(csv.DictReader(text.splitlines()))
    lacking = [column for column in _COLUMNS if rows and column not in rows[0]]
    if lacking:
        raise PartsError(f"{path} has no column {lacking[0]!r}. It needs {', '.join(_COLUMNS)}.")
    marked: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        marked.setdefault(row["part"], {})[row["image"]] = _box([row[side] for side in _COLUMNS[2:]], path, row["part"])
    return marked


def _of_yaml(text: str, path: Path) -> dict[str, dict[str, list[int]]]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PartsError(
            f"{path} is not YAML ({str(error).partition(chr(10))[0]}). Write it as YAML or CSV."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(boxes, dict) for boxes in content.values()):
        raise PartsError(f"{path} does not have the form part: {{image: [top, left, bottom, right]}}. Write it so.")
    return {
        str(part): {str(image): _box(box, path, str(part)) for image, box in boxes.items()}
        for part, boxes in content.items()
    }


def _box(box: Any, path: Path, part: str) -> list[int]:
    try:
        numbers = [int(side) for side in box]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4:
        raise PartsError(
            f"Part {part!r} of {path} has the box {box!r}. Give 4 whole numbers: top, left, bottom, right."
        )
    return numbers


def fit_box(box: Sequence[int], photograph: Tensor, size: tuple[int, int]) -> list[int]:
    """Finds where a box of a photograph lies in the network's input, to which the photograph is scaled and cut.

    Args:
        box: Top, left, bottom and right in pixels of the photograph.
        photograph: ``(C, H, W)``.
        size: Height and width of the input in pixels.

    Returns:
        Top, left, bottom and right in pixels of the input.

    Raises:
        PartsError: If the box is empty, or not within the photograph, or within what is cut off.

    Examples:
        >>> fit_box([0, 10, 20, 30], torch.rand(3, 20, 60), (10, 20))
        [0, 0, 10, 10]
    """
    height, width = photograph.shape[-2:]
    top, left, bottom, right = box
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise PartsError(
            f"The box {list(box)} is empty or not within the photograph of {height} × {width} pixels. Give top, left, "
            "bottom and right; bottom and right are exclusive."
        )
    mask = torch.zeros(1, height, width, dtype=torch.float32, device="cpu")
    mask[:, top:bottom, left:right] = 1
    fitted = fit_photograph(mask, size)[0] >= 0.5
    rows, columns = (fitted.any(dim=dim).nonzero().flatten().tolist() for dim in (1, 0))
    if not rows:
        raise PartsError(
            f"The box {list(box)} lies in a part of the photograph of {height} × {width} pixels that is cut off at an "
            f"input of {size[0]} × {size[1]}. Choose another photograph or part."
        )
    return [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
