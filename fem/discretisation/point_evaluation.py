"""Values of a field at points in space, wherever they lie among the ranks."""

from __future__ import annotations

from typing import Any

import basix
import dolfinx.geometry
import numpy as np

SIMPLEX = ("triangle", "tetrahedron")
ITERATIONS = 12  # of Newton for the reference coordinates; affine cells need two
TOLERANCE = 1e-8  # of the size of the mesh: how far outside a point may lie that is meant to be on the surface


class Probe:
    """Finds the cells of points once for a mesh.

    Args:
        mesh: The mesh.

    Raises:
        ValueError: See `evaluate`.
    """

    def __init__(self, mesh: Any) -> None:
        self._mesh, self._comm = mesh, mesh.comm
        n = mesh.topology.index_map(mesh.topology.dim).size_local
        low = mesh.geometry.x.min(axis=0, initial=np.inf)
        high = mesh.geometry.x.max(axis=0, initial=-np.inf)
        sizes = self._comm.allgather((low, high))
        self._size = float(np.max(np.max([s[1] for s in sizes], axis=0) - np.min([s[0] for s in sizes], axis=0)))
        cells, padding = np.arange(n, dtype=np.int32), TOLERANCE * self._size
        self._tree = dolfinx.geometry.bb_tree(mesh, mesh.topology.dim, entities=cells, padding=padding)
        self._n = n

    def evaluate(self, u: Any, points: np.ndarray) -> np.ndarray:
        """Values of a vector Function; collective.

        Args:
            u: A Function with d components.
            points: The same on all ranks, (m, d) or (m, 3), m.

        Returns:
            Values, (m, d), on all ranks.

        Raises:
            ValueError: On all ranks, if a point is not in the mesh or the shape does not fit.
        """
        mine, x, cells = self.locate(points)
        d = self._mesh.geometry.dim
        values = np.zeros((len(points), d))
        if len(mine):
            values[mine] = u.eval(x, cells).reshape(len(mine), d)
        return self._comm.allreduce(values)

    def locate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distribute points among the ranks, each to one that owns a cell there; collective.

        Args:
            points: As for `evaluate`.

        Returns:
            Indices of this rank's points (k,), the points (k, 3) and their cells (k,), for `Function.eval`.

        Raises:
            ValueError: As `evaluate`.
        """
        d = self._mesh.geometry.dim
        points = np.asarray(points, dtype=float)
        if points.ndim != 2 or points.shape[1] not in (d, 3):
            raise ValueError(f"points must have shape (m, {d}), got {points.shape}.")
        x = np.zeros((len(points), 3))
        x[:, : points.shape[1]] = points
        cells, distance = self._nearest(x)
        # The rank with the nearest cell evaluates the point, the lowest of several such ranks.
        keys = np.array(self._comm.allgather(distance)).reshape(self._comm.size, len(x))
        if len(x) and keys.min(axis=0).max() > TOLERANCE * self._size:
            lost = int(np.argmax(keys.min(axis=0)))
            raise ValueError(f"Point {points[lost].tolist()} is not in the mesh.")
        mine = np.flatnonzero(np.argmin(keys, axis=0) == self._comm.rank)
        return mine, x[mine], cells[mine]

    def _nearest(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A cell for each point, and the distance from it; infinite where this rank has none near."""
        cells, distance = np.full(len(x), -1, dtype=np.int32), np.full(len(x), np.inf)
        if self._n == 0 or len(x) == 0:
            return cells, distance
        candidates = dolfinx.geometry.compute_collisions_points(self._tree, x)
        counts = np.diff(candidates.offsets)
        point = np.repeat(np.arange(len(x)), counts)
        if len(point) == 0:
            return cells, distance
        outside = self._outside(x[point], candidates.array)
        # Best candidate of each point: the last one written stays, so the nearest comes last.
        order = np.argsort(-outside, kind="stable")
        cells[point[order]] = candidates.array[order]
        distance[point[order]] = outside[order]
        distance[distance <= TOLERANCE * self._size] = 0.0
        return cells, distance

    def _outside(self, x: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """How far points (m, 3) lie outside cells (m,), about, (m,), m: by their reference coordinates.

        Cells with warped faces are not convex: distances from their hull would let a point lie in two of them.
        """
        mesh = self._mesh
        d, name = mesh.geometry.dim, mesh.topology.cell_type.name
        nodes = mesh.geometry.x[mesh.geometry.dofmap[cells], :d]
        kind = getattr(basix.CellType, name)
        lagrange = basix.LagrangeVariant.equispaced
        element = basix.create_element(basix.ElementFamily.P, kind, mesh.geometry.cmap.degree, lagrange)
        X = np.tile(np.mean(basix.geometry(kind), axis=0), (len(x), 1))
        for _ in range(ITERATIONS):
            table = element.tabulate(1, X)[..., 0]  # (1 + d, m, nodes)
            J = np.einsum("dma,mai->mid", table[1:], nodes)
            step = np.linalg.solve(J, (x[:, :d] - np.einsum("ma,mai->mi", table[0], nodes))[:, :, None])[:, :, 0]
            # A point far outside may have no reference coordinates: keep the iterates bounded.
            X = np.clip(X + step, -1.0, 2.0)
            if np.abs(step).max() < 1e-14:
                break
        excess = np.maximum(-X.min(axis=1), (X.sum(axis=1) if name in SIMPLEX else X.max(axis=1)) - 1.0)
        size = np.linalg.norm(nodes.max(axis=1) - nodes.min(axis=1), axis=1)
        return np.maximum(excess, 0.0) * size
