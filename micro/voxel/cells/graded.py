"""Graded cells: densities and volume fractions that are smooth functions of one parameter per cell.

A cell is solid where a distance function d(x) is below the parameter t (radius of struts, level of a surface), with a
ramp of two voxels of edge h from void to solid, so that the stiffness has a derivative by t:

    rho = s((t - d) / 2h + 1/2),   s(x) = 3 x^2 - 2 x^3 within [0, 1].

For frames d is the distance to the nearest strut; for a surface it is the function of the surface over the root mean
square of its slope.
"""

import numpy as np
import torch
from torch import Tensor

from micro.voxel.cells.frames import as_shape, frame_struts
from micro.voxel.cells.tpms import SURFACES, tpms_function


def strut_distance(struts: np.ndarray, n: int) -> np.ndarray:
    """Return the distances (n, n, n) of the voxels' centres to the nearest periodic image of struts (m, 2, 3)."""
    axis = (np.arange(n) + 0.5) / n
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    found = np.full((n, n, n), np.inf)
    for shift in np.stack(np.meshgrid(*3 * [[-1, 0, 1]], indexing="ij"), axis=-1).reshape(-1, 3):
        for start, end in struts + shift:
            along = np.clip((points - start) @ (end - start) / ((end - start) @ (end - start)), 0.0, 1.0)
            found = np.minimum(found, np.linalg.norm(points - start - along[..., None] * (end - start), axis=-1))
    return found


class GradedCells:
    """Cells of one kind on a grid: the parameter t of a cell, radius or level, to its densities.

    Args:
        name: One of `micro.voxel.cells.frames.FRAMES` or `micro.voxel.cells.tpms.SURFACES`.
        n: Voxels per side.

    Attributes:
        distance: d at the voxels' centres (n, n, n), in edges of the cell.

    Raises:
        ValueError: There is no such frame or surface, or n is not a positive number.
    """

    def __init__(self, name: str, n: int) -> None:
        as_shape(n)
        if name in SURFACES:
            level = tpms_function(name, n)
            slope = n / 2 * np.stack([np.roll(level, -1, i) - np.roll(level, 1, i) for i in range(3)])
            d = -level / np.sqrt((slope**2).sum(0).mean())  # solid above the level
        else:
            d = strut_distance(frame_struts(name), n)
        self.n, self.distance = n, torch.from_numpy(d)

    def density(self, t: Tensor) -> Tensor:
        """Return the densities (cells, n, n, n) of parameters (cells,), differentiable."""
        x = ((t[:, None, None, None] - self.distance) * (self.n / 2) + 0.5).clamp(0.0, 1.0)
        return x * x * (3.0 - 2.0 * x)

    def fraction(self, t: np.ndarray) -> np.ndarray:
        """Return the volume fractions of the solid (cells,)."""
        return self.density(torch.from_numpy(t)).mean((1, 2, 3)).numpy()

    def slope(self, t: np.ndarray) -> np.ndarray:
        """Return the derivatives of the volume fractions (cells,) by the parameters."""
        x = torch.from_numpy(t).requires_grad_()
        return torch.autograd.grad(self.density(x).mean((1, 2, 3)).sum(), x)[0].numpy()

    def parameter(self, fraction: np.ndarray) -> np.ndarray:
        """Return the parameters (cells,) of volume fractions of the solid, by bisection."""
        low = np.full(fraction.shape, float(self.distance.min()) - 1.0)
        high = np.full(fraction.shape, float(self.distance.max()) + 1.0)
        for _ in range(60):
            middle = 0.5 * (low + high)
            more = self.fraction(middle) < fraction
            low, high = np.where(more, middle, low), np.where(more, high, middle)
        return 0.5 * (low + high)
