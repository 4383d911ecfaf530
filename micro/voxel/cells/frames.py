"""Frames: periodic lattices of round bars on the unit cube, as voxels.

A voxel is solid if its centre lies within the radius of a strut or of one of its periodic images. The nine frames
are defined here where the paper shows pictures only. Vintiles are the edges of Kelvin's truncated octahedra as
Dong, Tang and Zhao place them. Their lists of face_center and x_cross_grid also contain the twelve edges of the cube:
`edges` adds these to any frame.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; data set 1. Dong, Tang and Zhao (2019), A 149 line homogenization code for
    three-dimensional cellular materials, doi:10.1115/1.4040555.
"""

import itertools
from collections.abc import Sequence

import numpy as np

FRAMES = (
    *("grid", "x", "star", "face_center", "octet"),
    *("grid_octet", "x_cross_grid", "tesseract", "vintiles"),
)


def struts_between(points: np.ndarray, length: float) -> np.ndarray:
    """Return the struts (m, 2, 3) between all points (p, 3) at a given distance."""
    first, second = np.triu_indices(len(points), 1)
    apart = np.linalg.norm(points[first] - points[second], axis=1)
    return np.stack([points[first], points[second]], axis=1)[abs(apart - length) < 1e-9]


def corners(low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Return the eight corners of a cube (8, 3)."""
    return np.array(list(itertools.product((low, high), repeat=3)))


def kelvin_struts() -> np.ndarray:
    """Return the edges of the truncated octahedra that fill space, centred at (0, 0, 1/2) and (1/2, 1/2, 0)."""
    base = {p for q in (0.25, 0.75) for p in itertools.permutations((0.0, q, 0.5))}
    images = {
        tuple(np.array(p) + (0, 0, 0.5) + shift) for p in base for shift in itertools.product((-1, 0, 1), repeat=3)
    }
    points = np.array(sorted(p for p in images if all(-1e-9 <= x <= 1 + 1e-9 for x in p)))
    return struts_between(points, 0.5**0.5 / 2)


def frame_struts(name: str, *, edges: bool = False) -> np.ndarray:
    """Return the struts of a frame in the closed unit cube, ends (m, 2, 3).

    Args:
        name: One of `FRAMES`.
        edges: Whether to add the twelve edges of the cube.

    Raises:
        ValueError: There is no such frame.
    """
    cube = corners()
    centres = np.array([np.where(np.arange(3) == axis, side, 0.5) for axis in range(3) for side in (0.0, 1.0)])
    parts = {
        "edges": struts_between(cube, 1.0),
        "faces": struts_between(cube, 2**0.5),
        "bodies": struts_between(cube, 3**0.5),
        "octahedron": struts_between(centres, 0.5**0.5),
        "inner": struts_between(corners(0.25, 0.75), 0.5),
        "joints": np.stack([cube, corners(0.25, 0.75)], axis=1),
        "kelvin": kelvin_struts(),
    }
    frames = {
        "grid": ("edges",),
        "x": ("bodies",),
        "star": ("edges", "bodies"),
        "face_center": ("faces",),
        "octet": ("faces", "octahedron"),
        "grid_octet": ("edges", "faces", "octahedron"),
        "x_cross_grid": ("faces", "bodies"),
        "tesseract": ("edges", "inner", "joints"),
        "vintiles": ("kelvin",),
    }
    if name not in frames:
        raise ValueError(f"name must be one of {', '.join(FRAMES)}, got {name!r}.")
    wanted = set(frames[name]) | ({"edges"} if edges else set())
    return np.concatenate([parts[part] for part in parts if part in wanted])


def as_shape(n: int | Sequence[int], name: str = "n") -> tuple[int, int, int]:
    """Return the numbers of voxels (X, Y, Z) from one number or three; `name` is used in the ValueError."""
    shape = (n, n, n) if isinstance(n, int | np.integer) else tuple(n)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"{name} must be one positive number of voxels or three, got {n}.")
    return int(shape[0]), int(shape[1]), int(shape[2])


def voxelise(struts: np.ndarray, n: int | Sequence[int], radius: float | np.ndarray) -> np.ndarray:
    """Return the voxels (X, Y, Z), bool, of round bars in the periodic unit cube.

    Args:
        struts: Ends of the bars (m, 2, 3).
        n: Voxels per side, or (X, Y, Z).
        radius: Of the bars, one number or (m,), in edges of the cube.

    Raises:
        ValueError: An argument has the wrong shape or values.
    """
    shape = as_shape(n)
    struts = np.asarray(struts, dtype=float)
    if struts.ndim != 3 or struts.shape[1:] != (2, 3):
        raise ValueError(f"struts must have shape (m, 2, 3), got {struts.shape}.")
    radii = np.broadcast_to(np.asarray(radius, dtype=float), len(struts))
    if not (np.isfinite(radii) & (radii > 0)).all():
        raise ValueError(f"radius must be positive, got {radius}.")
    solid = np.zeros(shape, dtype=bool)
    reach = int(np.ceil(radii.max(initial=0.0) + abs(struts).max(initial=0.0)))
    shifts = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    for (start, end), r in zip(struts, radii):
        low, high = np.minimum(start, end) - r, np.maximum(start, end) + r
        touching = shifts[((low + shifts < 1) & (high + shifts > 0)).all(axis=1)]
        for shift in touching:
            block = tuple(
                slice(max(0, int((a + s) * m)), min(m, int(np.ceil((b + s) * m)) + 1))
                for a, b, s, m in zip(low, high, shift, shape)
            )
            if solid[block].all():
                continue  # this image adds nothing; thick bars have many images
            x = [(np.arange(part.start, part.stop) + 0.5) / m for part, m in zip(block, shape)]
            p = np.stack(np.meshgrid(*x, indexing="ij"), axis=-1) - (start + shift)
            axis = end - start
            along = np.clip(p @ axis / max(axis @ axis, 1e-300), 0, 1)
            distance = np.linalg.norm(p - along[..., None] * axis, axis=-1)
            solid[block] |= distance <= r * (1 + 1e-12)  # a centre at the radius is inside, whatever the rounding
    return solid


def make_frame(
    name: str, n: int | Sequence[int], radius: float, *, edges: bool = False, shift: Sequence[float] = (0.0, 0.0, 0.0)
) -> np.ndarray:
    """Return the voxels (X, Y, Z), bool, of a frame moved by a shift (3,); see `frame_struts` and `voxelise`."""
    return voxelise(frame_struts(name, edges=edges) + np.asarray(shift, dtype=float), n, radius)
