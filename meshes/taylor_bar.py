"""Taylor bar: a round cylinder of hexahedra, an O-grid disc swept along the axis.

The axis is z, the foot lies at z = 0 on the wall, the bar fills z in [0, length]. The disc is a core of 2n x 2n
cells with slightly rounded sides inside a ring of m layers:

    cells = 2 (n + m) across the diameter, 4 (n^2 + 2 n m) in the disc, n = ceil(cells / 4).

Every ring cell at the rim subtends the angle pi / (4 n); its arc is also the mean height of the layers along the
axis, so that cells are about as high as wide. Length and diameter 5 : 1 with 10 cells across give 3192 hexahedra
(the paper used 3167).

Groups: volume "body"; facets "foot" (z = 0), "top", "side", and for a quarter "symmetry_x" (x = 0) and "symmetry_y"
(y = 0).

References:
    Liu, Kovachki, Li, Azizzadenesheli, Anandkumar, Stuart, Bhattacharya (2022), section 4.1,
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

from meshes.arguments import Parser, check_cells, check_length, layers, run
from meshes.session import new_model, open_session, save, session

GROUPS = ("body", "foot", "side", "top", "symmetry_x", "symmetry_y")


def divisions(length: float, diameter: float, cells: int) -> tuple[int, int, int]:
    """Numbers of cells of the O-grid bar.

    Args:
        length: of the bar, m.
        diameter: of the bar, m.
        cells: across the diameter, even, at least 4.

    Returns:
        n (half of the core across), m (ring layers) and the number of layers along the axis.

    Raises:
        ValueError: for a length or diameter that is not positive and finite, or cells odd or below 4.
    """
    check_length("length", length)
    check_length("diameter", diameter)
    if isinstance(cells, bool) or not isinstance(cells, numbers.Integral) or cells < 4 or cells % 2:
        raise ValueError(
            f"cells must be an even whole number of at least 4 (cells across the diameter), got {cells!r}."
        )
    n = math.ceil(cells / 4)
    along = max(1, round(length / (math.pi * diameter / (8 * n))))
    m = int(cells) // 2 - n
    check_cells(4.0 * (n * n + 2.0 * n * m) * along)
    return n, m, along


def taylor_bar(
    length: float, diameter: float, cells: int, *, quarter: bool = False, grading: float = 1.0, tetrahedra: bool = False
) -> Any:
    """Mesh the bar in the live gmsh session, which is opened if need be and left open.

    Coordinates are mirror symmetric about x = 0 and y = 0 to the last bit.

    Args:
        length: of the bar along z, m.
        diameter: of the bar, m.
        cells: across the diameter, even, at least 4; the layers along the axis follow from it.
        quarter: mesh x >= 0, y >= 0 only, with symmetry planes.
        grading: height of the topmost layer over that of the foot layer; above 1 refines towards the foot.
        tetrahedra: six tetrahedra in place of each hexahedron, on the same nodes.

    Returns:
        `gmsh.model`, whose current model is the bar.

    Raises:
        ValueError: for a bad argument.
    """
    n, m, along = divisions(length, diameter, cells)
    heights = _heights(along, grading)
    open_session()
    new_model("taylor_bar")
    faces = _disc(diameter / 2.0, n, m, quadrants=1 if quarter else 4, recombine=not tetrahedra)
    gmsh.model.geo.extrude(
        [(2, face) for face in faces],
        0.0, 0.0, length,
        numElements=[1] * along, heights=heights.tolist(), recombine=not tetrahedra,
    )  # fmt: skip
    gmsh.model.geo.synchronize()
    # Centres of arcs bound no curve; if they remained, each would become a node without a cell.
    gmsh.model.removeEntities([(0, tag) for _, tag in gmsh.model.getEntities(0) if not len(_curves_at(tag))])
    _name_groups(length, diameter, quarter)
    gmsh.model.mesh.generate(3)
    _snap(length * np.concatenate([[0.0], heights]), 1e-6 * diameter)
    return gmsh.model


def write(
    path: str | os.PathLike[str],
    length: float,
    diameter: float,
    cells: int,
    *,
    quarter: bool = False,
    grading: float = 1.0,
) -> Path:
    """Mesh the bar and write it to a `.msh` file, whole or not at all; arguments as in `taylor_bar`.

    Returns:
        The path written.

    Raises:
        ValueError: for a bad argument or path.
    """
    with session():
        taylor_bar(length, diameter, cells, quarter=quarter, grading=grading)
        return save(path)


def _heights(count: int, grading: float) -> NDArray[np.float64]:
    """Relative heights of the tops of the layers, in geometric progression; the last is 1."""
    steps = layers(count, grading)
    heights: NDArray[np.float64] = np.cumsum(steps) / np.sum(steps)
    heights[-1] = 1.0
    return heights


def _disc(radius: float, n: int, m: int, *, quadrants: int, recombine: bool) -> list[int]:
    """Surfaces of the O-grid at z = 0: per quadrant one core block and two ring blocks, transfinite.

    Points of a quadrant, with c the half width of the core and b its corner:

        E (0,R) ---- D (R,R)/sqrt(2)
        |            |   \
        C (0,c) -- B (b,b) |
        |            |     |
        O -------- A (c,0) F (R,0)
    """
    geo = gmsh.model.geo
    # Core reduced and its corner moved inwards: scaled Jacobian 0.8, shortest edge 0.8 of the mean.
    c = radius * min(0.95 * n / (n + m), 0.6)
    b = 0.86 * c
    d = (c * c - 2.0 * b * b) / (2.0 * (b - c))  # centre of the core's right side at (-d, 0)

    def point(r: float, s: float) -> int:
        return int(geo.addPoint(r, s, 0.0))

    turns = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    origin = point(0.0, 0.0)
    centres = [point(-d * p, -d * q) for p, q in turns]
    corner = radius * math.sqrt(0.5)
    axes, rims, cores, corners = [], [], [], []
    for p, q in turns[: quadrants + 1]:
        cores.append(point(c * p, c * q))
        axes.append(point(radius * p, radius * q))
    for p, q in turns[:quadrants]:
        # The diagonal between the axes (p, q) and (-q, p).
        corners.append(point(b * (p - q), b * (p + q)))
        rims.append(point(corner * (p - q), corner * (p + q)))

    spokes = [geo.addLine(origin, a) for a in cores]
    straights = [geo.addLine(a, f) for a, f in zip(cores, axes, strict=True)]
    count = {line: n for line in spokes} | {line: m for line in straights}
    faces = []
    for k in range(quadrants):
        j = (k + 1) % len(cores)
        # gmsh places nodes along an arc to some 1e-10 only; every arc runs from its axis to the diagonal, so that
        # the error is the same in every octant, and quarter and full bar have the same nodes.
        side = geo.addCircleArc(cores[k], centres[k], corners[k])
        lid = geo.addCircleArc(cores[j], centres[(k + 1) % 4], corners[k])
        diagonal = geo.addLine(corners[k], rims[k])
        lower = geo.addCircleArc(axes[k], origin, rims[k])
        upper = geo.addCircleArc(axes[j], origin, rims[k])
        count |= {side: n, lid: n, lower: n, upper: n, diagonal: m}
        for loop in (
            [spokes[k], side, -lid, -spokes[j]],
            [straights[k], lower, -diagonal, -side],
            [diagonal, -upper, -straights[j], lid],
        ):
            faces.append(int(geo.addPlaneSurface([geo.addCurveLoop(loop)])))
    for line, number in count.items():
        geo.mesh.setTransfiniteCurve(line, number + 1)
    for face in faces:
        geo.mesh.setTransfiniteSurface(face)
        if recombine:
            geo.mesh.setRecombine(2, face)
    return faces


def _curves_at(point: int) -> NDArray[np.int32]:
    """Curves that a point bounds."""
    upward: NDArray[np.int32] = gmsh.model.getAdjacencies(0, point)[0]
    return upward


def _name_groups(length: float, diameter: float, quarter: bool) -> None:
    """Name the volume, and every boundary surface by where its bounding box lies."""
    volumes = gmsh.model.getEntities(3)
    names: dict[str, list[int]] = {"foot": [], "top": [], "side": []}
    if quarter:
        names |= {"symmetry_x": [], "symmetry_y": []}
    near = 1e-4 * min(length, diameter)  # gmsh pads its bounding boxes
    for _, tag in gmsh.model.getBoundary(volumes, combined=True, oriented=False):
        low, high = np.reshape(gmsh.model.getBoundingBox(2, tag), (2, 3))
        if high[2] < near:
            name = "foot"
        elif low[2] > length - near:
            name = "top"
        elif quarter and high[0] < near:
            name = "symmetry_x"
        elif quarter and high[1] < near:
            name = "symmetry_y"
        else:
            name = "side"
        names[name].append(tag)
    gmsh.model.addPhysicalGroup(3, [tag for _, tag in volumes], name="body")
    for name, tags in names.items():
        gmsh.model.addPhysicalGroup(2, tags, name=name)


def _snap(planes: NDArray[np.float64], near: float) -> None:
    """Put nodes exactly on the mean of their mirror images, and every layer exactly on its plane.

    Args:
        planes: (layers + 1,) heights of the node planes, m.
        near: nodes closer than this in |x| and |y| are images of each other, m.
    """
    tags, flat, _ = gmsh.model.mesh.getNodes()
    x = np.reshape(flat, (-1, 3))
    size = np.abs(x[:, :2])
    size[size < near] = 0.0
    # The half offset keeps images, equal but for round-off, away from the edge of a bin.
    _, image = np.unique(np.floor(size / near + 0.5).astype(np.int64), axis=0, return_inverse=True)
    image = image.ravel()
    number = np.bincount(image)
    mean = np.stack([np.bincount(image, weights=size[:, i]) / number for i in range(2)], axis=-1)
    layer = np.abs(x[:, 2, None] - planes).argmin(axis=1)
    new = np.column_stack([np.copysign(mean[image], x[:, :2]) + 0.0, planes[layer]])
    for tag, coordinate in zip(tags, new, strict=True):
        gmsh.model.mesh.setNode(int(tag), coordinate.tolist(), [])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: write a mesh file; returns the exit status."""
    parser = Parser(prog="python3 -m meshes.taylor_bar", description="Write a Taylor bar mesh.")
    parser.add_argument("--length", type=float, default=5e-3, help="length along z, m (default %(default)s)")
    parser.add_argument("--diameter", type=float, default=1e-3, help="diameter, m (default %(default)s)")
    parser.add_argument("--cells", type=int, default=10, help="cells across the diameter, even (default %(default)s)")
    parser.add_argument("--quarter", action="store_true", help="x >= 0, y >= 0 only, with symmetry planes")
    text = "height of the top layer over that of the foot layer; above 1 refines the foot (default %(default)s)"
    parser.add_argument("--grading", type=float, default=1.0, help=text)
    parser.add_argument("--output", type=Path, default=Path("taylor_bar.msh"), help="mesh file (default %(default)s)")
    return run(
        parser,
        arguments,
        lambda o: write(o.output, o.length, o.diameter, o.cells, quarter=o.quarter, grading=o.grading),
    )


if __name__ == "__main__":
    sys.exit(main())
