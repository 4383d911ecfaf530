"""Pole figures: the density of the normals of a family of planes over the directions of the sample.

Densities are in multiples of a random distribution (m.r.d.), by a kernel estimate on the sphere: each pole p, taken
with both its signs, contributes the von Mises-Fisher density

    f(x) = kappa / sinh(kappa) exp(kappa x . p),

whose mean over the sphere is one. The half width at half maximum of the kernel, alpha, fixes
kappa = ln 2 / (1 - cos alpha). Figures are drawn in the equal-area projection (Lambert, Schmidt net) of the upper
half of the sphere, r = sqrt(2) sin(theta / 2), so that the rim has the radius one.

References:
    H.-J. Bunge, Texture Analysis in Materials Science (1982), doi:10.1016/C2013-0-11769-2.
"""

import math

import numpy as np
import torch
from torch import Tensor

from micro.crystal.materials import CrystalParameters, Indices, load_material
from micro.crystal.systems import plane_normals
from micro.crystal.texture import Texture

#: Directions whose kernels are evaluated at once.
CHUNK = 4096


def poles(texture: Texture, plane: Indices, parameters: CrystalParameters | None = None) -> tuple[Tensor, Tensor]:
    """Return the poles of all equivalents of a plane.

    Args:
        texture: Texture of g grains.
        plane: Miller indices (hkl), or Miller-Bravais indices (hkil) on the hcp lattice.
        parameters: Material, magnesium by default.

    Returns:
        Unit normals (g k, 3) in the frame of the sample, one of each pair of opposite ones, and their weights (g k,),
        with the sum one.

    Raises:
        ValueError: The indices do not fit the lattice.
    """
    n = plane_normals(parameters or load_material(), plane).to(texture.orientations)
    turned = torch.einsum("gij,kj->gki", texture.orientations, n)
    return turned.reshape(-1, 3), (texture.weights[:, None] / len(n)).expand(-1, len(n)).reshape(-1)


def pole_density(
    directions: np.ndarray,
    texture: Texture,
    plane: Indices,
    parameters: CrystalParameters | None = None,
    *,
    half_width: float = 10.0,
) -> np.ndarray:
    """Return the pole density at unit `directions` (n, 3) of the sample, in multiples of a random distribution.

    Args:
        directions: Unit vectors (n, 3).
        texture: Texture.
        plane: Miller indices of the plane.
        parameters: Material, magnesium by default.
        half_width: Half width at half maximum of the kernel, degrees.

    Raises:
        ValueError: The indices do not fit the lattice, a direction is not a unit vector, or the half width is not
            between 1 and 90 degrees.
    """
    if not 1 <= half_width <= 90:
        raise ValueError(f"half_width must lie between 1 and 90 degrees, got {half_width}.")
    directions = np.asarray(directions, dtype=float)
    if directions.ndim != 2 or directions.shape[1] != 3 or not np.allclose(np.linalg.norm(directions, axis=1), 1):
        raise ValueError(f"directions must be unit vectors of shape (n, 3), got shape {directions.shape}.")
    kappa = math.log(2) / (1 - math.cos(math.radians(half_width)))
    found, weights = (a.cpu().numpy() for a in poles(texture, plane, parameters))
    density = np.empty(len(directions))
    # kappa / sinh(kappa) (e^(kappa t) + e^(-kappa t)) / 2, written such that nothing overflows
    factor = kappa / -math.expm1(-2 * kappa)
    for start in range(0, len(directions), CHUNK):
        t = np.abs(directions[start : start + CHUNK] @ found.T)
        kernel = np.exp(kappa * (t - 1)) + np.exp(-kappa * (t + 1))
        density[start : start + CHUNK] = factor * (kernel @ weights)
    return density


def project(directions: np.ndarray) -> np.ndarray:
    """Return the equal-area projection (n, 2) of unit `directions` (n, 3); the lower half is reflected first."""
    v = np.asarray(directions, dtype=float)
    v = np.where(v[:, 2:] < 0, -v, v)
    return v[:, :2] / np.sqrt(1 + v[:, 2:])


def disc(points: int = 101) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a square grid over the disc of the projection.

    Returns:
        Coordinates x, y (points,) from -1 to 1, and the directions (points, points, 3), of which [i, j] belongs to
        (x[j], y[i]); they are not numbers outside the disc.

    Raises:
        ValueError: There are fewer than two points.
    """
    if points < 2:
        raise ValueError(f"points must be at least 2, got {points}.")
    x = np.linspace(-1.0, 1.0, points)
    X, Y = np.meshgrid(x, x)
    square = X**2 + Y**2
    factor = np.sqrt(np.where(square <= 1, 2 - square, np.nan))
    return x, x.copy(), np.stack([X * factor, Y * factor, 1 - square + 0 * factor], axis=-1)


def pole_figure(
    texture: Texture,
    plane: Indices,
    parameters: CrystalParameters | None = None,
    *,
    half_width: float = 10.0,
    points: int = 101,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a pole figure: x, y (points,) and the density (points, points), not a number outside the disc.

    The sample's z axis is in the middle, x to the right and y upwards. See `pole_density` for the arguments.

    Raises:
        ValueError: The indices do not fit the lattice, or an argument is out of its range.
    """
    x, y, directions = disc(points)
    inside = np.isfinite(directions[..., 0])
    density = np.full(inside.shape, np.nan)
    density[inside] = pole_density(directions[inside], texture, plane, parameters, half_width=half_width)
    return x, y, density
