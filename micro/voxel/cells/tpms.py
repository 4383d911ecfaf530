"""Triply periodic minimal surfaces of the paper's Table 2, filled on one side, as voxels.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; Table 2.
"""

from collections.abc import Sequence

import numpy as np

from micro.voxel.cells.frames import as_shape

SURFACES = ("primitive", "gyroid", "diamond", "iwp", "frd")


def tpms_function(name: str, n: int | Sequence[int], shift: Sequence[float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Return the function I(x, y, z) of Table 2, moved by a shift (3,), at the centres of the voxels (X, Y, Z).

    Raises:
        ValueError: There is no such surface.
    """
    if name not in SURFACES:
        raise ValueError(f"name must be one of {', '.join(SURFACES)}, got {name!r}.")
    angles = [2 * np.pi * ((np.arange(m) + 0.5) / m - s) - np.pi for m, s in zip(as_shape(n), shift)]
    X, Y, Z = np.meshgrid(*angles, indexing="ij", sparse=True)
    sin, cos = np.sin, np.cos
    if name == "primitive":
        return cos(X) + cos(Y) + cos(Z)
    if name == "gyroid":
        return sin(X) * cos(Y) + sin(Z) * cos(X) + sin(Y) * cos(Z)
    if name == "diamond":
        return cos(X) * cos(Y) * cos(Z) - sin(X) * sin(Y) * sin(Z)
    if name == "iwp":
        pairs = cos(X) * cos(Y) + cos(Y) * cos(Z) + cos(Z) * cos(X)
        return 2 * pairs - (cos(2 * X) + cos(2 * Y) + cos(2 * Z))
    pairs = cos(2 * X) * cos(2 * Y) + cos(2 * X) * cos(2 * Z) + cos(2 * Y) * cos(2 * Z)
    return 4 * cos(X) * cos(Y) * cos(Z) - pairs


def make_tpms(
    name: str,
    n: int | Sequence[int],
    level: float = 0.0,
    *,
    above: bool = True,
    shift: Sequence[float] = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """Return the voxels (X, Y, Z), bool, where the function is above a level, or those where it is not.

    Args:
        name: One of `SURFACES`.
        n: Voxels per side, or (X, Y, Z).
        level: The level c; a centre on the surface itself, up to rounding, does not count as above.
        above: Whether the solid is where I > c, else where I <= c.
        shift: By which the surface is moved (3,), in edges of the cell.
    """
    if not np.isfinite(level):
        raise ValueError(f"level must be finite, got {level}.")
    return (tpms_function(name, n, shift) - level > 1e-9) == above
