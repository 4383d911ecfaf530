"""Material points: where strain is taken from the displacement and stress is handed back to UFL.

One object owns the measure, the space of the stress, the compiled gradient and the flat arrays (n, 3, 3) that laws
read and write, so that they cannot mismatch. Points of owned cells only: ghosts would waste work.
"""

from __future__ import annotations

from typing import Any

import basix
import basix.ufl
import dolfinx.fem
import numpy as np
import ufl
from numba import njit

from fem import compat

DEGREE = 3  # two Gauss points a direction: exact for the volume and the mean gradient of any trilinear hexahedron


class MeanGradientPoints:
    """One point a cell, with the mean gradient of the cell (exact for distorted trilinear hexahedra).

    Attributes:
        V: Displacement space, P1 vector.
        dx: Measure of the residual (2 x 2 x 2 points, so that the hourglass term is integrated in full).
        n: Number of points on this rank, one an owned cell.
        per_cell: Points a cell, 1.
        volume: Reference volume of each point, (n,), m^3.
        B: Mean gradient of the shape functions, (cells, 8, 3), 1/m.
        stress: DG0 tensor Function that stands for P in UFL.
        mean: DG0 tensor Function that holds the deformation gradient of the points.

    References:
        Flanagan and Belytschko (1981), 10.1002/nme.1620170504, eq. (16): uniform strain hexahedron.
    """

    per_cell = 1

    def __init__(self, V: Any) -> None:
        mesh = V.mesh
        _check_space(V)
        self.V = V
        self.dx = ufl.Measure("dx", domain=mesh, metadata={"quadrature_degree": DEGREE, "quadrature_rule": "default"})
        self.n = _n_cells(mesh)
        W = dolfinx.fem.functionspace(mesh, ("DG", 0, (3, 3)))
        _check_order(W, self.n, 1)
        self.stress = dolfinx.fem.Function(W, name="P")
        self.mean = dolfinx.fem.Function(W, name="F")
        self._P = self.stress.x.array.reshape(-1, 3, 3)[: self.n]
        self._F = self.mean.x.array.reshape(-1, 3, 3)[: self.n]
        self.nodes = np.ascontiguousarray(V.dofmap.list[: self.n])
        self.B, self.cell_volume, self.node_volume = mean_gradient(mesh)
        self.volume = self.cell_volume

    @property
    def F(self) -> np.ndarray:
        """Deformation gradient at the points, (n, 3, 3), a view."""
        return self._F

    @property
    def P(self) -> np.ndarray:
        """First Piola-Kirchhoff stress at the points, (n, 3, 3), Pa, a view: write here, UFL reads it."""
        return self._P

    def gather(self, u: Any) -> np.ndarray:
        """Compute F = I + mean(grad u) at the points from a displacement Function; returns the view `F`."""
        _gather(u.x.array.reshape(-1, 3), self.nodes, self.B, self._F)
        return self._F


class QuadraturePoints:
    """Full integration, 2 x 2 x 2 points a cell.

    Attributes:
        V: Displacement space, P1 vector.
        dx: Measure of the residual, of the same quadrature as `stress`.
        n: Number of points on this rank, eight an owned cell, points of one cell together.
        per_cell: Points a cell, 8.
        volume: Reference volume of each point (weight times Jacobian), (n,), m^3.
        B: Mean gradient of the shape functions, (cells, 8, 3), 1/m.
        stress: Tensor Function on the quadrature points that stands for P in UFL.
    """

    per_cell = 8

    def __init__(self, V: Any) -> None:
        mesh = V.mesh
        _check_space(V)
        self.V = V
        self._u = dolfinx.fem.Function(V)
        self.dx = ufl.Measure("dx", domain=mesh, metadata={"quadrature_degree": DEGREE, "quadrature_rule": "default"})
        element = basix.ufl.quadrature_element("hexahedron", value_shape=(3, 3), degree=DEGREE)
        W = dolfinx.fem.functionspace(mesh, element)
        X, w = basix.make_quadrature(basix.CellType.hexahedron, DEGREE)
        self._cells = np.arange(_n_cells(mesh), dtype=np.int32)
        self.n = len(self._cells) * len(w)
        _check_order(W, len(self._cells), len(w))
        self.stress = dolfinx.fem.Function(W, name="P")
        self._P = self.stress.x.array.reshape(-1, 3, 3)[: self.n]
        self._F = np.zeros((self.n, 3, 3))
        self._expression = dolfinx.fem.Expression(ufl.Identity(3) + ufl.grad(self._u), X)
        detJ = dolfinx.fem.Expression(ufl.JacobianDeterminant(mesh), X)
        values = compat.evaluate(detJ, mesh, self._cells, len(w)).reshape(-1, len(w))
        self.volume = np.ascontiguousarray((np.abs(values) * w).reshape(-1))[: self.n]
        self.B, self.cell_volume, self.node_volume = mean_gradient(mesh)

    @property
    def F(self) -> np.ndarray:
        """Deformation gradient at the points, (n, 3, 3), a view."""
        return self._F

    @property
    def P(self) -> np.ndarray:
        """First Piola-Kirchhoff stress at the points, (n, 3, 3), Pa, a view: write here, UFL reads it."""
        return self._P

    def gather(self, u: Any) -> np.ndarray:
        """Compute F = I + grad u at the points from a displacement Function; returns the view `F`."""
        self._u.x.array[:] = u.x.array
        if self.n:
            values = compat.evaluate(self._expression, self.V.mesh, self._cells, self.per_cell)
            self._F[:] = values.reshape(-1, 3, 3)
        return self._F


Points = MeanGradientPoints | QuadraturePoints


def cell_average(points: Points, values: np.ndarray) -> np.ndarray:
    """Volume average over the points of each cell, for output on DG0: (n, ...) -> (owned cells, ...)."""
    if points.per_cell == 1:
        return values
    weight = points.volume.reshape(-1, points.per_cell)
    shaped = values.reshape(weight.shape + values.shape[1:])
    return np.einsum("cq,cq...->c...", weight / weight.sum(axis=1, keepdims=True), shaped)


def mean_gradient(mesh: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean gradient of the shape functions of the owned cells, integrated exactly.

    grad N dx is a polynomial of degree two in each reference direction, so 2 x 2 x 2 Gauss points are exact.

    Args:
        mesh: Mesh of trilinear hexahedra.

    Returns:
        B (cells, 8, 3) in 1/m, volume (cells,) in m^3, and the integral of each shape function (cells, 8) in m^3.
    """
    n = _n_cells(mesh)
    X, w = basix.make_quadrature(basix.CellType.hexahedron, DEGREE)
    element = basix.create_element(basix.ElementFamily.P, basix.CellType.hexahedron, 1)
    table = element.tabulate(1, X)[..., 0]  # (4, q, 8): values, then derivatives along the reference axes
    x = mesh.geometry.x[mesh.geometry.dofmap[:n]]  # (c, 8, 3)
    J = np.einsum("dqa,cai->cqid", table[1:], x)
    det = np.linalg.det(J)
    if np.any(det == 0.0):
        raise ValueError(f"Cell {int(np.argmax((det == 0.0).any(axis=1)))} of the mesh is degenerate.")
    weight = np.abs(det) * w
    gradient = np.einsum("dqa,cqdi->cqai", table[1:], np.linalg.inv(J))
    volume = weight.sum(axis=1)
    B = np.einsum("cq,cqai->cai", weight, gradient) / volume[:, None, None]
    return np.ascontiguousarray(B), volume, weight @ table[0]


@njit(cache=True)
def _gather(u: np.ndarray, nodes: np.ndarray, B: np.ndarray, F: np.ndarray) -> None:
    for c in range(nodes.shape[0]):
        for i in range(3):
            for j in range(3):
                F[c, i, j] = 1.0 if i == j else 0.0
        for a in range(8):
            node = nodes[c, a]
            for i in range(3):
                for j in range(3):
                    F[c, i, j] += u[node, i] * B[c, a, j]


def _n_cells(mesh: Any) -> int:
    return int(mesh.topology.index_map(3).size_local)


def _check_space(V: Any) -> None:
    cell, geometry = V.mesh.topology.cell_type.name, V.mesh.geometry.cmap.degree
    if cell != "hexahedron" or geometry != 1:
        raise ValueError(f"The mesh must be of linear hexahedra, got {cell} of degree {geometry}.")
    if V.dofmap.index_map_bs != 3 or V.dofmap.list.shape[1] != 8:
        raise ValueError("The displacement space must be P1 with three components.")


def _check_order(W: Any, cells: int, per_cell: int) -> None:
    """The flat view holds only if degrees of freedom are numbered cell by cell, as DOLFINx does for such spaces."""
    if not np.array_equal(W.dofmap.list[:cells].reshape(-1), np.arange(cells * per_cell)):
        raise RuntimeError("The degrees of freedom of the stress space are not numbered cell by cell.")
