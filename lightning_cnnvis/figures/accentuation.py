"""A photograph with what classes, units or layers see in it."""

from __future__ import annotations

import math

from lightning_cnnvis.figures.layout import beside, captioned, figure, mosaic, one_line, tile
from lightning_cnnvis.functional.visualization.accentuation import Accentuations
from lightning_cnnvis.pictures import Picture

ACCENTUATION = (
    "The photograph, changed so that a class, a unit or a layer sees more of itself in it, while early features stay "
    "near the photograph's. What appears is what the network reads into it, and need not be there."
)


def accentuation_caption(found: Accentuations, n: int) -> str:
    """How far an image got: the class's probability, or the score, before and after.

    Args:
        found: The images.
        n: Index of the image.

    Returns:
        Such as ``"p 0.12 to 0.99"``, ``"1.88 to 41"``, or ``"no gradient"``.
    """
    if bool((found.images[n] == found.photographs[n]).all()):
        return "no gradient"
    before, after = found.probabilities[n].tolist()
    if not math.isnan(before):
        return f"p {before:.2g} to {after:.2f}"
    return f"{float(found.before[n]):.3g} to {float(found.after[n]):.3g}"


def accentuation_figure(found: Accentuations, title: str, *, side: int = 224) -> Picture:
    """Draws the photograph, and for each target the image with what was added below it.

    Args:
        found: The images, of one photograph.
        title: Title of the figure.
        side: Length of a tile's longer side in pixels.

    Returns:
        The figure.
    """
    columns = [captioned(captioned(tile(found.photographs[0], side, smooth=True), "", faint=True), "photograph")]
    for n, (label, image, change) in enumerate(zip(found.labels, found.images, found.changes, strict=True)):
        top = captioned(tile(image, side, smooth=True), accentuation_caption(found, n), faint=True)
        added = captioned(tile(change, side, smooth=True), "added", faint=True)
        columns.append(mosaic([captioned(top, one_line(label)), added], 1))
    kept = f"Distance at {found.kept_at[0]}: " + ", ".join(f"{float(value):.2f}" for value in found.distances)
    return figure(beside(columns, gap=10), title, f"{ACCENTUATION} {kept}, relative to the features' norm.")
