"""Periodic Voronoi tessellations on a grid: the grains of a polycrystal.

References:
    Fritzen, Boehlke and Schnack (2009), Periodic three-dimensional mesh generation for crystalline aggregates based on
    Voronoi tessellations, doi:10.1007/s00466-008-0339-2 (the paper's reference for its cell).
"""

import numpy as np
from scipy.spatial import cKDTree


def stream(seed: int, sample: int) -> np.random.Generator:
    """Return the random stream of one cell: Philox with the key `seed` and the counter `sample`."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, sample]))


def seeds(grains: int, dimension: int, rng: np.random.Generator) -> np.ndarray:
    """Return seeds (grains, dimension), uniform in the unit cell.

    Raises:
        ValueError: There are no grains, or the dimension is not 2 or 3.
    """
    if grains < 1:
        raise ValueError(f"grains must be at least 1, got {grains}.")
    if dimension not in (2, 3):
        raise ValueError(f"dimension must be 2 or 3, got {dimension}.")
    return rng.uniform(size=(grains, dimension))


def voronoi(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return which of the `points` is nearest to the centre of each voxel, in the periodic distance.

    Args:
        points: Seeds (g, d) in units of the periods of the cell, of any real value.
        shape: Voxels along each axis (d,). Voxels are cubic, so the periods are in the ratio of these numbers.

    Returns:
        Grain numbers (N...), int64. A small grain may hold no voxel.

    Raises:
        ValueError: The shapes do not fit.
    """
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] != len(shape) or len(points) < 1:
        raise ValueError(f"points must have shape (g, {len(shape)}), got {points.shape}.")
    box = np.asarray(shape, dtype=float)
    axes = [np.arange(n) + 0.5 for n in shape]
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape))
    wrapped = np.mod(points, 1.0) * box
    wrapped = np.where(wrapped >= box, 0.0, wrapped)  # the product may round up to the period
    return cKDTree(wrapped, boxsize=box).query(centres)[1].reshape(shape)


def random_voronoi(grains: int, shape: tuple[int, ...], seed: int, sample: int) -> np.ndarray:
    """Return the grain numbers (N...) of one random cell, which depend on `seed` and `sample` alone."""
    return voronoi(seeds(grains, len(shape), stream(seed, sample)), shape)
