"""Figures of inversions: images rebuilt from layers, beside the originals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from lightning_cnnvis.figures.layout import picture_grid
from lightning_cnnvis.functional.inversion.metamers import Metamers
from lightning_cnnvis.pictures import Picture


def inversion_pictures(
    originals: Tensor,
    images: Tensor,
    errors: Tensor,
    layers: Sequence[str],
    method: str,
    title: Callable[[str], str],
    metamers: Metamers | None = None,
) -> dict[str, Picture]:
    """Draws reconstructions from each layer, and those from different noise.

    The figures follow Figs 12 and 11 of Mahendran & Vedaldi 2016 (arXiv 1512.02017).

    Args:
        originals: The N original images, ``(N, C, H, W)`` in [0, 1].
        images: Their reconstructions from L layers with R restarts each, ``(L, R, N, C, H, W)`` in [0, 1].
        errors: Inversion errors of the reconstructions, ``(L, R, N)``.
        layers: Names of the layers.
        method: Name of the inversion method, for the note.
        title: Function that turns the subject of a picture into its title.
        metamers: Whether the layers take the reconstructions and their originals for the same, where that is known.

    Returns:
        ``"layers"``: each image and its reconstructions. With several restarts also ``"restarts"``: all reconstructions
        of the first image.
    """
    note = f"Rebuilt from the layer's code ({method}): squared error over the code's squared norm."
    if metamers is not None:
        note += (
            f" Taken for the same: closer to the original's features than {metamers.null['pearson'].shape[1]} pairs of "
            "other images are to each other, and of the same label."
        )
    heads = ["original", *layers]

    def captions(restart: int, image: int) -> list[str]:
        numbers = map(inversion_caption, images[:, restart, image], errors[:, restart, image])
        if metamers is None:
            return ["", *numbers]
        return [" \n ", *(f"{text}\n{metamers.verdict(n, restart, image)}" for n, text in enumerate(numbers))]

    drawn = {
        "layers": picture_grid(
            [[originals[n], *images[:, 0, n]] for n in range(len(originals))],
            heads,
            [captions(0, n) for n in range(len(originals))],
            title("Inversion"),
            note,
        )
    }
    if images.shape[1] > 1:
        drawn["restarts"] = picture_grid(
            [[originals[0], *images[:, r, 0]] for r in range(images.shape[1])],
            heads,
            [captions(r, 0) for r in range(images.shape[1])],
            title("Inversion from different noise"),
            note,
        )
    return drawn


def inversion_caption(image: Tensor, error: Tensor) -> str:
    """Describes a reconstruction by its error, or by the reason why it has none.

    Args:
        image: The reconstruction, ``(C, H, W)``.
        error: Its inversion error, a scalar tensor.

    Returns:
        The caption.

    Examples:
        >>> from torch import tensor, zeros
        >>> inversion_caption(zeros(3, 8, 8), tensor(0.0234))
        '0.023'
    """
    if not image.isfinite().all() or error.isinf():
        return "diverged"
    if error.isnan():
        return "code is 0"
    return f"{float(error):#.2g}" if error < 1 else f"{float(error):.1f}"
