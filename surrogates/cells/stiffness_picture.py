"""Picture of directional stiffness: Young's modulus as a surface over all directions, and in three planes."""

from pathlib import Path
from typing import Any

import numpy as np

from surrogates.cells.stiffness import directional_stiffness

PLANES = (("12", (0, 1), "-"), ("23", (1, 2), "--"), ("13", (0, 2), ":"))  # planes that are alike stay visible


def check_picture(path: Path) -> None:
    """Refuse a file whose ending is none of a picture; ValueError says which there are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    known = sorted(FigureCanvasAgg.get_supported_filetypes())
    if path.suffix.lower().lstrip(".") not in known:
        raise ValueError(f"picture must end in one of {', '.join(known)}, got {path}.")


def write_picture(path: Path, C: np.ndarray, title: str = "") -> None:
    """Draw Young's modulus over directions and write it; the ending of the file says as what (png, pdf, svg).

    Args:
        path: The file.
        C: Stiffness (6, 6), relative to Young's modulus of the solid.
        title: Of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    theta, phi = np.meshgrid(np.linspace(0, np.pi, 91), np.linspace(0, 2 * np.pi, 181), indexing="ij")
    n = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1)
    E = directional_stiffness(C, n)
    top = float(E.max())
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    colours = ScalarMappable(Normalize(float(E.min()), top), "viridis")
    body: Any = figure.add_subplot(1, 2, 1, projection="3d")
    x = n * E[..., None]
    body.plot_surface(*np.moveaxis(x, -1, 0), facecolors=colours.to_rgba(E), rstride=2, cstride=2, shade=False)
    for axis in "xyz":
        getattr(body, f"set_{axis}lim")(-top, top)
        getattr(body, f"set_{axis}label")(f"{'xyz'.index(axis) + 1}")
    body.set_box_aspect((1, 1, 1))
    body.tick_params(labelsize=6)
    figure.colorbar(colours, ax=body, shrink=0.7, pad=0.14, label="E(n) / E solid")
    flat = figure.add_subplot(1, 2, 2, projection="polar")
    angle = np.linspace(0, 2 * np.pi, 361)
    for name, (i, j), line in PLANES:
        directions = np.zeros((len(angle), 3))
        directions[:, i], directions[:, j] = np.cos(angle), np.sin(angle)
        flat.plot(angle, directional_stiffness(C, directions), line, label=f"plane {name}")
    flat.legend(loc="lower left", bbox_to_anchor=(-0.12, -0.12), fontsize=7)
    flat.tick_params(labelsize=7)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
