"""Images rebuilt from layers beside the originals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from lightning_cnnvis.figures.layout import picture_grid
from lightning_cnnvis.pictures import Picture


def inversion_pictures(
    originals: Tensor,
    images: Tensor,
    errors: Tensor,
    layers: Sequence[str],
    method: str,
    title: Callable[[str], str],
) -> dict[str, Picture]:
    """What was rebuilt from each layer, and from different noise.

    Mahendran & Vedaldi 2016 (arXiv 1512.02017), Figs 12 and 11.

    Args:
        originals: ``(N, C, H, W)`` in [0, 1].
        images: ``(L, R, N, C, H, W)`` in [0, 1].
        errors: ``(L, R, N)``.
        layers: Names of the L layers.
        method: How they were rebuilt.
        title: Makes a picture's title of what it shows.

    Returns:
        ``"layers"``, each image and its reconstructions; and ``"restarts"`` if there are several, those of the first.
    """
    note = f"Rebuilt from the layer's code ({method}): squared error over the code's squared norm."
    heads = ["original", *layers]
    drawn = {
        "layers": picture_grid(
            [[originals[n], *images[:, 0, n]] for n in range(len(originals))],
            heads,
            [["", *map(inversion_caption, images[:, 0, n], errors[:, 0, n])] for n in range(len(originals))],
            title("Inversion"),
            note,
        )
    }
    if images.shape[1] > 1:
        drawn["restarts"] = picture_grid(
            [[originals[0], *images[:, r, 0]] for r in range(images.shape[1])],
            heads,
            [["", *map(inversion_caption, images[:, r, 0], errors[:, r, 0])] for r in range(images.shape[1])],
            title("Inversion from different noise"),
            note,
        )
    return drawn


def inversion_caption(image: Tensor, error: Tensor) -> str:
    """What is said of a reconstruction: its error, or why it has none."""
    if not image.isfinite().all() or error.isinf():
        return "diverged"
    if error.isnan():
        return "code is 0"
    return f"{float(error):#.2g}" if error < 1 else f"{float(error):.1f}"
