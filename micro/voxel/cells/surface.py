"""Closed surfaces of triangles, filled with voxels.

A voxel is solid if its centre is inside: a line through the centre crosses the surface an odd number of times before
it. STL files are read without further packages, .msh files through gmsh, other formats through pyvista.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from micro.voxel.cells.files import optional
from micro.voxel.cells.frames import as_shape

#: Lines pass the voxels' centres at this distance, in voxels, so that none meets an edge of a surface on the grid.
ASIDE = (1.0e-5, 1.7e-5)
#: Coordinates of a surface are below this, so that products of their differences are finite.
LARGEST = 1e100
#: Distance in voxels that is still counted exactly.
FARTHEST = 1e9


def read_stl(path: Path) -> np.ndarray:
    """Return the triangles (n, 3, 3) of an STL file, binary or text.

    Raises:
        ValueError: The file is not an STL file.
    """
    data = path.read_bytes()
    count = int.from_bytes(data[80:84], "little") if len(data) >= 84 else -1
    if len(data) == 84 + 50 * count:
        record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
        return np.frombuffer(data, dtype=record, offset=84)["corners"].astype(float)
    words = [line.split() for line in data.decode("ascii", errors="replace").splitlines()]
    corners = [word[1:4] for word in words if word and word[0].lower() == "vertex"]
    try:
        triangles = np.array(corners, dtype=float).reshape(-1, 3, 3)
    except ValueError:
        raise ValueError(f"{path} is not a whole STL file.") from None
    if not len(triangles):
        raise ValueError(f"{path} is not a whole STL file.")
    return triangles


def read_triangles(path: str | Path) -> np.ndarray:
    """Return the triangles (n, 3, 3) of a surface: .stl, .msh through gmsh, anything else through pyvista.

    Raises:
        ValueError: The file is missing, is no surface, or the package that reads it is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist.")
    if path.suffix.lower() == ".stl":
        return check_finite(path, read_stl(path))
    if path.suffix.lower() == ".msh":
        gmsh = optional("gmsh", "gmsh", "Reading a .msh file")
        gmsh.initialize(interruptible=False)
        try:
            gmsh.option.setNumber("General.Terminal", 0)
            gmsh.open(str(path))
            tags, places, _ = gmsh.model.mesh.getNodes()
            nodes = gmsh.model.mesh.getElementsByType(2)[1]
        except Exception as error:  # gmsh raises no specific type
            raise ValueError(f"{path} is not a mesh that gmsh reads: {error}.") from None
        finally:
            gmsh.finalize()
        row = np.zeros(int(tags.max(initial=0)) + 1, dtype=int)
        row[tags.astype(int)] = np.arange(len(tags))
        triangles = places.reshape(-1, 3)[row[nodes.astype(int)]].reshape(-1, 3, 3)
    else:
        pyvista = optional("pyvista", "pyvista", f"Reading a {path.suffix} file")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # for a file that cannot be read, an error follows below
                surface = pyvista.read(path).extract_surface().triangulate()
        except Exception as error:  # the readers raise various types
            raise ValueError(f"{path} is not a surface that pyvista reads: {error}.") from None
        triangles = np.asarray(surface.points, dtype=float)[surface.faces.reshape(-1, 4)[:, 1:]]
    if not len(triangles):
        raise ValueError(f"{path} holds no triangles.")
    return check_finite(path, triangles)


def check_finite(path: Path, triangles: np.ndarray) -> np.ndarray:
    """Return triangles (n, 3, 3) whose coordinates are finite and below `LARGEST`; ValueError otherwise."""
    if not (np.isfinite(triangles) & (abs(triangles) < LARGEST)).all():
        worst = float(triangles.flat[np.argmax(np.where(np.isnan(triangles), np.inf, abs(triangles)))])
        raise ValueError(f"{path} must have finite vertices with coordinates below {LARGEST:g}, got {worst:g}.")
    return triangles


def fill(
    triangles: np.ndarray, n: int | Sequence[int], box: tuple[Sequence[float], Sequence[float]] | None = None
) -> np.ndarray:
    """Return the voxels (X, Y, Z), bool, inside a closed surface.

    Args:
        triangles: Corners (n, 3, 3).
        n: Voxels per side of the box, or (X, Y, Z).
        box: Lowest and highest corner of the cell; those of the surface when None.

    Raises:
        ValueError: An argument has the wrong shape, or the surface is not closed.
    """
    shape = as_shape(n)
    triangles = np.asarray(triangles, dtype=float)
    if triangles.ndim != 3 or triangles.shape[1:] != (3, 3) or not np.isfinite(triangles).all():
        raise ValueError(f"triangles must be finite and have shape (n, 3, 3), got {triangles.shape}.")
    low, high = (triangles.min((0, 1)), triangles.max((0, 1))) if box is None else (np.asarray(end) for end in box)
    if low.shape != (3,) or high.shape != (3,) or not (high > low).all():
        raise ValueError(f"box must be two corners, the second above the first, got {low} and {high}.")
    with np.errstate(over="ignore"):
        p = (triangles - low) / (high - low) * np.array(shape)  # in voxels
    if not (abs(p) < FARTHEST).all():
        raise ValueError(f"box must not be so small beside the surface, {FARTHEST:g} voxels, got {low} and {high}.")
    crossings = np.zeros((shape[0], shape[1], shape[2] + 1), dtype=np.int32)  # at or below each centre, along z
    for a, b, c in p:
        first = np.ceil(np.minimum(np.minimum(a, b), c)[:2] - 0.5 - np.array(ASIDE)).astype(int).clip(0)
        last = np.floor(np.maximum(np.maximum(a, b), c)[:2] - 0.5 - np.array(ASIDE)).astype(int) + 1
        last = np.minimum(last, shape[:2])
        if (last <= first).any():
            continue
        x = np.arange(first[0], last[0])[:, None] + 0.5 + ASIDE[0]
        y = np.arange(first[1], last[1]) + 0.5 + ASIDE[1]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if area == 0:
            continue  # parallel to z: no line along z crosses it
        s = ((x - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (y - a[1])) / area
        t = ((b[0] - a[0]) * (y - a[1]) - (x - a[0]) * (b[1] - a[1])) / area
        i, j = np.nonzero((s >= 0) & (t >= 0) & (s + t <= 1))
        z = a[2] + s[i, j] * (b[2] - a[2]) + t[i, j] * (c[2] - a[2])
        layer = np.ceil(z - 0.5).clip(0, shape[2]).astype(int)
        np.add.at(crossings, (i + first[0], j + first[1], layer), 1)
    total = crossings.cumsum(axis=2)
    if (total[..., -1] % 2).any():
        raise ValueError("triangles must form a closed surface, some lines cross it an odd number of times.")
    return total[..., :-1] % 2 == 1
