"""Results as labelled pictures, ``uint8`` arrays ``(H, W, 3)``: one function per kind of figure."""

from lightning_cnnvis.figures.accentuation import ACCENTUATION, accentuation_caption, accentuation_figure
from lightning_cnnvis.figures.correspondence import (
    colours_of,
    correspondence_figure,
    delta_bars,
    images_with_parts,
    small_bars,
)
from lightning_cnnvis.figures.diagnosis import activity_figure, kernel_pictures, kernels_figure, spectra_figure
from lightning_cnnvis.figures.invariance import invariance_figure, small_curves
from lightning_cnnvis.figures.inversions import inversion_caption, inversion_pictures
from lightning_cnnvis.figures.layout import picture_grid, reduced, stacked, tile
from lightning_cnnvis.figures.occlusion import heat, heat_over, occlusion_cells, occlusion_figure, small_maps
from lightning_cnnvis.figures.optimized import (
    TRANSPARENCY,
    forming_strip,
    labelled_pictures,
    on_paper,
    picture_strip,
    state_of,
)
from lightning_cnnvis.figures.patches import outlined, part_pictures, patch_pictures, patches_figure
from lightning_cnnvis.figures.paths import path_curve
from lightning_cnnvis.figures.projections import STRIP_SIDE, contrast, evolution_strip, strip_column, top_features
from lightning_cnnvis.figures.randomization import randomization_figure
from lightning_cnnvis.figures.style import style_caption, style_figure
from lightning_cnnvis.figures.unit_invariance import unit_invariance_figure
from lightning_cnnvis.pictures import Picture, as_bytes, from_bytes

__all__ = [
    "ACCENTUATION",
    "STRIP_SIDE",
    "TRANSPARENCY",
    "Picture",
    "accentuation_caption",
    "accentuation_figure",
    "activity_figure",
    "as_bytes",
    "colours_of",
    "contrast",
    "correspondence_figure",
    "delta_bars",
    "evolution_strip",
    "forming_strip",
    "from_bytes",
    "heat",
    "heat_over",
    "images_with_parts",
    "invariance_figure",
    "inversion_caption",
    "inversion_pictures",
    "kernel_pictures",
    "kernels_figure",
    "labelled_pictures",
    "occlusion_cells",
    "occlusion_figure",
    "on_paper",
    "outlined",
    "part_pictures",
    "patch_pictures",
    "patches_figure",
    "path_curve",
    "picture_grid",
    "picture_strip",
    "randomization_figure",
    "reduced",
    "small_bars",
    "small_curves",
    "small_maps",
    "spectra_figure",
    "stacked",
    "state_of",
    "strip_column",
    "style_caption",
    "style_figure",
    "tile",
    "top_features",
    "unit_invariance_figure",
]
