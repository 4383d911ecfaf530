"""Box: a cuboid of equal tetrahedra or hexahedra, from the origin to its lengths along x, y, z.

Edges are divided evenly, into cells as near to the given size as possible. A tetrahedral mesh is the hexahedral one
with each cell cut into six: its nodes are the same, and it depends on nothing but these numbers. Where a load makes
boundary layers, layers can be made thinner towards the top or the bottom, and the cells at the sides thinner than those
inside.

Groups: volume "body"; facets "bottom" (z = 0), "top" (z = height) and "side".

References:
    Masi and Stefanou (2022), section V and appendix B, doi:10.1016/j.cma.2022.115190: elements of uniform size.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gmsh
import numpy as np
from numpy.typing import NDArray

from meshes.arguments import THINNEST, Parser, check_cells, check_length, check_positive, layers, run
from meshes.session import new_model, open_session, save, session

GROUPS = ("body", "bottom", "top", "side")
KINDS = ("tetrahedra", "hexahedra")


def divisions(lengths: Sequence[float], size: float) -> tuple[int, int, int]:
    """Numbers of cells along the edges.

    Args:
        lengths: of the box along x, y, z, m.
        size: of a cell, m.

    Returns:
        At least one cell along each edge; lengths / divisions are the edges of the cells.

    Raises:
        ValueError: for lengths that are not three positive finite numbers, or such a size.
    """
    if len(lengths) != 3:
        raise ValueError(f"lengths must be three numbers, got {len(lengths)}.")
    for name, value in (*(("a length", length) for length in lengths), ("size", size)):
        check_length(name, value)
    x, y, z = (max(1, round(length / size)) for length in lengths)
    check_cells(float(x) * y * z)
    return x, y, z


def planes(length: float, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions (n + 1,) of the node planes of n cells along an edge, their widths in proportion to the weights, m."""
    found = np.concatenate([[0.0], np.cumsum(weights)])
    found *= length / found[-1]
    found[-1] = length
    return found


def box(
    lengths: Sequence[float], size: float, *, kind: str = "tetrahedra", grading: float = 1.0, rim: float = 1.0
) -> Any:
    """Mesh the box in the live gmsh session, which is opened if need be and left open.

    Args:
        lengths: of the box along x, y, z, m.
        size: of a cell, m: the edge of a hexahedron, or of the cube that six tetrahedra fill.
        kind: "tetrahedra" or "hexahedra".
        grading: height of the top layer over that of the bottom one; above 1 refines towards the bottom.
        rim: width of the cells at the sides over that of those inside, along x and y; below 1 refines the sides.

    Returns:
        `gmsh.model`, whose current model is the box.

    Raises:
        ValueError: for a bad argument.
    """
    counts = divisions(lengths, size)
    along = layers(counts[2], grading)
    check_positive("rim", rim)
    across = [_across(count, rim) for count in counts[:2]]
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    open_session()
    new_model("box")
    geo, (a, b, c) = gmsh.model.geo, lengths
    corners = [geo.addPoint(*x, 0.0) for x in ((0.0, 0.0), (a, 0.0), (a, b), (0.0, b))]
    edges = [geo.addLine(corners[i], corners[(i + 1) % 4]) for i in range(4)]
    for i, edge in enumerate(edges):
        geo.mesh.setTransfiniteCurve(edge, counts[i % 2] + 1)
    bottom = geo.addPlaneSurface([geo.addCurveLoop(edges)])
    geo.mesh.setTransfiniteSurface(bottom)
    bricks = kind == "hexahedra"
    if bricks:
        geo.mesh.setRecombine(2, bottom)
    # Layers that are cut into tetrahedra, or left unchanged; the surfaces are: top, volume, then the sides.
    made = geo.extrude([(2, bottom)], 0.0, 0.0, c, numElements=[counts[2]], recombine=bricks)
    geo.synchronize()
    tags = [tag for _, tag in made]
    gmsh.model.addPhysicalGroup(3, [tags[1]], name="body")
    for name, group in (("bottom", [bottom]), ("top", [tags[0]]), ("side", tags[2:])):
        gmsh.model.addPhysicalGroup(2, group, name=name)
    gmsh.model.mesh.generate(3)
    if grading != 1.0 or rim != 1.0:
        _move([planes(length, weights) for length, weights in zip(lengths, (*across, along), strict=True)])
    return gmsh.model


def _across(count: int, rim: float) -> NDArray[np.float64]:
    """Widths of the cells across, up to a factor; those at both ends are `rim` times as wide as those inside."""
    widths = np.ones(count)
    widths[[0, -1]] = rim
    if widths.min() / widths.sum() < THINNEST:
        raise ValueError(f"rim {rim:g} makes cells narrower than {THINNEST:g} of the length.")
    return widths


def _move(new: list[NDArray[np.float64]]) -> None:
    """Move the nodes from planes that divide the edges evenly to others."""
    tags, flat, _ = gmsh.model.mesh.getNodes()
    x = np.reshape(flat, (-1, 3))
    place = [np.rint(x[:, i] / at[-1] * (len(at) - 1)).astype(int) for i, at in enumerate(new)]
    moved = np.column_stack([at[k] for at, k in zip(new, place, strict=True)])
    for tag, position in zip(tags, moved, strict=True):
        gmsh.model.mesh.setNode(int(tag), position.tolist(), [])


def write(path: str | os.PathLike[str], lengths: Sequence[float], size: float, **options: Any) -> Path:
    """Mesh the box and write it to a `.msh` file, whole or not at all; arguments and options as in `box`.

    Returns:
        The path written.

    Raises:
        ValueError: for a bad argument or path.
    """
    with session():
        box(lengths, size, **options)
        return save(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: write a mesh file; returns the exit status."""
    parser = Parser(prog="python3 -m meshes.box", description="Write a mesh of a box.")
    add = parser.add_argument
    add("--lengths", type=float, nargs=3, default=[10.0, 10.0, 10.0], help="along x, y and z, m (default %(default)s)")
    add("--size", type=float, default=1.0, help="size of a cell, m (default %(default)s)")
    add("--kind", choices=KINDS, default=KINDS[0], help="kind of the cells (default %(default)s)")
    add("--grading", type=float, default=1.0, help="height of the top layer over the bottom one (default %(default)s)")
    add(
        "--rim", type=float, default=1.0, help="width of the cells at the sides over those inside (default %(default)s)"
    )
    add("--output", type=Path, default=Path("box.msh"), help="mesh file (default %(default)s)")
    names = ("kind", "grading", "rim")
    options = lambda o: {name: getattr(o, name) for name in names}
    return run(parser, arguments, lambda o: write(o.output, o.lengths, o.size, **options(o)))


if __name__ == "__main__":
    sys.exit(main())
