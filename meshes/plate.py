"""Plate: a circular or square plate of hexahedra, fine under a punch at its centre and coarser towards the rim.

The axis is z, the plate fills z in [0, thickness], the punch comes from above. In the plane it is an O-grid: a core of
2 n x 2 n cells with rounded sides, rings of equal width up to the radius of the fine region, and rings in geometric
progression from there to the rim:

    cells = 2 (n + m) across the fine region, 4 (n^2 + 2 n (m + outer)) in the plane, n = ceil(cells / 4),

with as many outer rings as their growth needs. Layers through the thickness are as high as the rings of the fine region
are wide. With the default numbers there are 11 520 hexahedra (the paper used about 11 500).

Groups: volume "body"; facets "bottom" (z = 0), "top" (z = thickness), "rim", and for a quarter "symmetry_x" (x = 0) and
"symmetry_y" (y = 0).

References:
    Liu, Kovachki, Li, Azizzadenesheli, Anandkumar, Stuart, Bhattacharya (2022), section 4.2,
    doi:10.1016/j.jmps.2021.104668.
"""

from __future__ import annotations

import math
import numbers
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gmsh
import numpy as np
from numpy.typing import NDArray

from meshes.arguments import Parser, check_cells, check_length, check_positive, run
from meshes.session import new_model, open_session, save, session

GROUPS = ("body", "bottom", "top", "rim", "symmetry_x", "symmetry_y")
SHAPES = ("circular", "square")
MOST_RINGS = 10_000
HEXAHEDRON, QUADRILATERAL = 5, 3  # kinds of gmsh


def rings(inner: float, outer: float, width: float, growth: float) -> NDArray[np.float64]:
    """Radii of rings in geometric progression.

    Args:
        inner: Where the first ring begins, m.
        outer: Where the last one ends, m.
        width: Width of a ring inside of the first one, m.
        growth: Largest ratio of the widths of two neighbours, above 1.

    Returns:
        Ends of the rings, (count,), m: the fewest that keep the ratio, the first one being wider than `width` by it.
    """
    span, count = (outer - inner) / width, 1
    while count <= MOST_RINGS and np.sum(growth ** np.arange(1.0, count + 1.0)) < span:
        count += 1
    if count > MOST_RINGS:
        raise ValueError(f"growth {growth:g} needs more than {MOST_RINGS} rings up to the rim.")
    low, high = 1e-6, growth
    for _ in range(200):  # the ratio that fits
        ratio = 0.5 * (low + high)
        if np.sum(ratio ** np.arange(1.0, count + 1.0)) < span:
            low = ratio
        else:
            high = ratio
    widths = high ** np.arange(1.0, count + 1.0)
    ends: NDArray[np.float64] = inner + (outer - inner) * np.cumsum(widths) / np.sum(widths)
    ends[-1] = outer
    return ends


def divisions(
    thickness: float, width: float, fine: float, cells: int, growth: float, layers: int | None = None
) -> tuple[int, int, NDArray[np.float64], int]:
    """Numbers of cells of the plate.

    Args:
        thickness: Of the plate, m.
        width: Diameter, or length of the sides, m.
        fine: Diameter of the fine region, m, below the width.
        cells: Across the fine region, even, at least 4.
        growth: Largest ratio of the widths of neighbouring rings outside of it.
        layers: Through the thickness; None makes them as high as the rings of the fine region are wide.

    Returns:
        n (half of the core across), m (rings of the fine region), the ends of the outer rings along the axes, m, and
        the layers through the thickness.

    Raises:
        ValueError: For an argument that does not fit.
    """
    for name, value in (("thickness", thickness), ("width", width), ("fine", fine)):
        check_length(name, value)
    check_positive("growth", growth)
    if not fine < width:
        raise ValueError(f"fine must be smaller than the width {width:g} m, got {fine:g}.")
    if not growth > 1.0:
        raise ValueError(f"growth must be above 1, got {growth:g}.")
    if isinstance(cells, bool) or not isinstance(cells, numbers.Integral) or cells < 4 or cells % 2:
        raise ValueError(
            f"cells must be an even whole number of at least 4 (cells across the fine region), got {cells!r}."
        )
    if layers is not None and (isinstance(layers, bool) or not isinstance(layers, numbers.Integral) or layers < 1):
        raise ValueError(f"layers must be a whole number of at least 1, got {layers!r}.")
    n = math.ceil(cells / 4)
    m = int(cells) // 2 - n
    layers = max(1, round(thickness * int(cells) / fine)) if layers is None else int(layers)
    check_cells(4.0 * (n * n + 2.0 * n * m) * layers)
    outer = rings(0.5 * fine, 0.5 * width, fine / int(cells), growth)
    check_cells(4.0 * (n * n + 2.0 * n * (m + len(outer))) * layers)
    return n, m, outer, layers


def plate(
    thickness: float = 1e-3,
    width: float = 20e-3,
    *,
    fine: float = 2.4e-3,
    cells: int = 24,
    growth: float = 1.22,
    layers: int | None = None,
    shape: str = "circular",
    quarter: bool = False,
) -> Any:
    """Mesh the plate in the live gmsh session, which is opened if need be and left open.

    Coordinates are mirror symmetric about x = 0 and y = 0 to the last bit.

    Args:
        thickness: Along z, m.
        width: Diameter, or length of the sides, m.
        fine: Diameter of the fine region, m.
        cells: Across the fine region, even, at least 4.
        growth: Largest ratio of the widths of neighbouring rings outside of it.
        layers: Through the thickness; None makes them as high as the rings of the fine region are wide.
        shape: "circular" or "square".
        quarter: Mesh x >= 0, y >= 0 only, with symmetry planes.

    Returns:
        `gmsh.model`, whose current model is the plate.

    Raises:
        ValueError: For a bad argument.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}.")
    n, m, outer, count = divisions(thickness, width, fine, cells, growth, layers)
    open_session()
    new_model("plate")
    points, quads, rim = _plane(0.5 * fine, n, m, outer, square=shape == "square", quadrants=1 if quarter else 4)
    heights: NDArray[np.float64] = np.linspace(0.0, thickness, count + 1, dtype=np.float64)
    _put(points, quads, rim, heights, quarter)
    return gmsh.model


def _quadrant(radius: float, n: int, m: int, outer: NDArray[np.float64], square: bool) -> list[NDArray[np.float64]]:
    """Points of the first quadrant: of the core, (n + 1, n + 1, 2), and of the rings, (2 n + 1, rings + 1, 2)."""
    inner = radius * min(0.95 * n / (n + m), 0.6)  # half width of the core along the axes; its corner moves inwards
    corner = 0.86 * inner
    s = np.linspace(0.0, 1.0, n + 1)
    # Sides bulge: a line of the core at s goes from (inner s, 0) to (x, y) = corner at both ends of the diagonal.
    a, b = np.meshgrid(s, s, indexing="ij")
    shrink = 1.0 - (1.0 - corner / inner) * np.stack([b**2, a**2])
    core = np.stack([inner * a * shrink[0], inner * b * shrink[1]], axis=-1)
    edge = np.concatenate([core[n, :], core[n - 1 :: -1, n]])  # from the x axis to the y axis
    angle = np.linspace(0.0, 0.5 * np.pi, 2 * n + 1)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    circle[n] = math.sqrt(0.5)
    circle[n:] = circle[n::-1, ::-1]  # mirrored about the diagonal, to the last bit
    bound = circle / np.abs(circle).max(axis=1, keepdims=True) if square else circle
    part = np.linspace(0.0, 1.0, m + 1)[:, None, None]
    fine = (1.0 - part) * edge + part * radius * circle
    reach = ((outer - radius) / (outer[-1] - radius))[:, None, None]
    coarse = radius * circle + reach * (outer[-1] * bound - radius * circle)
    return [core, np.concatenate([fine, coarse]).transpose(1, 0, 2)]


def _plane(
    radius: float, n: int, m: int, outer: NDArray[np.float64], *, square: bool, quadrants: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Points (k, 2), quadrilaterals (q, 4), in order around each, and which points lie on the rim."""
    core, ring = _quadrant(radius, n, m, outer, square)
    turns = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    points: list[NDArray[np.float64]] = []
    quads: list[NDArray[np.int64]] = []
    far: list[NDArray[np.bool_]] = []
    for p, q in turns[:quadrants]:
        for k, grid in enumerate((core, ring)):
            rows, columns = grid.shape[:2]
            number = sum(len(part) for part in points) + np.arange(rows * columns).reshape(rows, columns)
            x, y = grid[..., 0].ravel(), grid[..., 1].ravel()
            points.append(np.column_stack([x * p - y * q, x * q + y * p]))
            cell = np.stack([number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]], axis=-1)
            quads.append((cell if k == 0 else cell[..., [0, 3, 2, 1]]).reshape(-1, 4))
            far.append(np.isin(number, number[:, -1] if k == 1 else []).ravel())
    whole = np.concatenate(points) + 0.0
    near = 1e-6 * radius / (n + m)
    _, first, image = np.unique(np.round(whole / near).astype(np.int64), axis=0, return_index=True, return_inverse=True)
    rim = np.concatenate(far)[first]
    flat = whole[first]
    flat[np.abs(flat) < near] = 0.0
    return flat, image.ravel()[np.concatenate(quads)], np.flatnonzero(rim)


def _put(
    points: NDArray[np.float64],
    quads: NDArray[np.int64],
    rim: NDArray[np.int64],
    heights: NDArray[np.float64],
    quarter: bool,
) -> None:
    """Sweep the plane through the heights and put the cells and named facets into the current model."""
    k, layers = len(points), len(heights) - 1
    x = np.column_stack([np.tile(points, (layers + 1, 1)), np.repeat(heights, k)])
    cells = np.concatenate([np.hstack([quads + k * i, quads + k * (i + 1)]) for i in range(layers)])
    edges = np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)])
    _, where, count = np.unique(np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True)
    border = edges[where[count == 1]]
    on = {"rim": np.isin(border, rim).all(axis=1)}
    if quarter:
        on |= {
            "symmetry_x": (points[border, 0] == 0.0).all(axis=1),
            "symmetry_y": (points[border, 1] == 0.0).all(axis=1),
        }
    facets = {"bottom": quads[:, ::-1], "top": quads + k * layers}
    for name, mask in on.items():
        side = border[mask]
        strips = [np.column_stack([side + k * i, side[:, ::-1] + k * (i + 1)]) for i in range(layers)]
        facets[name] = np.concatenate(strips)
    volume = gmsh.model.addDiscreteEntity(3)
    gmsh.model.mesh.addNodes(3, volume, np.arange(1, len(x) + 1), x.ravel())
    gmsh.model.mesh.addElementsByType(volume, HEXAHEDRON, [], (cells + 1).ravel())
    gmsh.model.addPhysicalGroup(3, [volume], name="body")
    for name, nodes in facets.items():
        surface = gmsh.model.addDiscreteEntity(2)
        gmsh.model.mesh.addElementsByType(surface, QUADRILATERAL, [], (nodes + 1).ravel())
        gmsh.model.addPhysicalGroup(2, [surface], name=name)


def write(path: str | os.PathLike[str], thickness: float = 1e-3, width: float = 20e-3, **options: Any) -> Path:
    """Mesh the plate and write it to a `.msh` file, whole or not at all; arguments as in `plate`.

    Returns:
        The path written.

    Raises:
        ValueError: For a bad argument or path.
    """
    with session():
        plate(thickness, width, **options)
        return save(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: write a mesh file; returns the exit status."""
    parser = Parser(prog="python3 -m meshes.plate", description="Write a plate mesh.")
    parser.add_argument("--thickness", type=float, default=1e-3, help="along z, m (default %(default)s)")
    parser.add_argument("--width", type=float, default=20e-3, help="diameter or side, m (default %(default)s)")
    parser.add_argument(
        "--fine", type=float, default=2.4e-3, help="diameter of the fine region, m (default %(default)s)"
    )
    parser.add_argument(
        "--cells", type=int, default=24, help="cells across the fine region, even (default %(default)s)"
    )
    text = "largest ratio of the widths of neighbouring rings (default %(default)s)"
    parser.add_argument("--growth", type=float, default=1.22, help=text)
    text = "layers through the thickness (default: as high as the fine cells are wide)"
    parser.add_argument("--layers", type=int, help=text)
    parser.add_argument("--shape", choices=SHAPES, default=SHAPES[0], help="of the rim (default %(default)s)")
    parser.add_argument("--quarter", action="store_true", help="x >= 0, y >= 0 only, with symmetry planes")
    parser.add_argument("--output", type=Path, default=Path("plate.msh"), help="mesh file (default %(default)s)")
    names = ("thickness", "width", "fine", "cells", "growth", "layers", "shape", "quarter")
    return run(parser, arguments, lambda o: write(o.output, **{name: getattr(o, name) for name in names}))


if __name__ == "__main__":
    sys.exit(main())
