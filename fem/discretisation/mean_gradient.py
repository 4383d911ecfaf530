"""Material points with the mean gradient of linear hexahedra or tetrahedra: one point in each cell.

The mean gradient is integrated exactly, so that the forces of a distorted cell are in balance and a linear displacement
has its exact gradient. The solver adds a stiffness for the modes without a mean gradient (hourglass modes).
"""

from __future__ import annotations

from typing import Any

import basix
import dolfinx.fem
import numpy as np
import ufl
from numba import njit

from fem.laws.kernels import compiled, invert

DEGREE = 3  # two Gauss points in each direction: exact for volume and mean gradient of any trilinear hexahedron
NODES = {"hexahedron": 8, "tetrahedron": 4}


class MeanGradientPoints:
    """One point per cell, with the mean gradient of the cell (exact for distorted cells).

    Attributes:
        V: Displacement space, P1 vector.
        dx: Measure of the residual (2 x 2 x 2 points in a hexahedron, which integrate the hourglass term in full).
        n: Number of points on this rank, one for each owned cell.
        per_cell: Points per cell, 1.
        volume: Reference volume of each point, (n,), m^3.
        B: Mean gradient of the shape functions, (cells, 8, 3) or (cells, 4, 3), 1/m.
        nodes: Nodes of the cells, (cells, 8) or (cells, 4).
        stress: DG0 tensor Function that stands for P in UFL: P and the bulk viscosity, as `transfer` left them.
        viscous: Viscous Kirchhoff pressure, (n,), Pa, positive in compression; zero unless the solver sets it.
        mean: DG0 tensor Function that holds the deformation gradient of the points.

    References:
        Flanagan and Belytschko (1981), 10.1002/nme.1620170504, eq. (16): uniform strain hexahedron.
    """

    per_cell = 1

    def __init__(self, V: Any) -> None:
        mesh = V.mesh
        check_cells(V)
        self.V = V
        degree = _degree(mesh)
        self.dx = ufl.Measure("dx", domain=mesh, metadata={"quadrature_degree": degree, "quadrature_rule": "default"})
        self.n = count_cells(mesh)
        W = dolfinx.fem.functionspace(mesh, ("DG", 0, (3, 3)))
        check_order(W, self.n, 1)
        self.stress = dolfinx.fem.Function(W, name="P")
        self.mean = dolfinx.fem.Function(W, name="F")
        self.total = self.stress.x.array.reshape(-1, 3, 3)[: self.n]
        self._P, self.viscous = np.zeros((self.n, 3, 3)), np.zeros(self.n)
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
        """First Piola-Kirchhoff stress of the law at the points, (n, 3, 3), Pa, a view: write here, then `transfer`."""
        return self._P

    @property
    def F_cell(self) -> np.ndarray:
        """Deformation gradient of the shape of the cells, (n, 3, 3), a view."""
        return self._F

    def transfer(self) -> None:
        """Bring `stress` up to date with `P` and `viscous`."""
        add_pressure(self._P, self._F, self.viscous, self.total)

    def gather(self, u: Any) -> np.ndarray:
        """Compute F = I + mean(grad u) at the points from a displacement Function; returns the view `F`."""
        _gather(u.x.array.reshape(-1, 3), self.nodes, self.B, self._F)
        return self._F


def mean_gradient(mesh: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean gradient of the shape functions of the owned cells, integrated exactly.

    grad N dx is a polynomial of degree two in each reference direction, so 2 x 2 x 2 Gauss points are exact.

    Args:
        mesh: Mesh of linear hexahedra or tetrahedra.

    Returns:
        B (cells, a, 3) in 1/m, volume (cells,) in m^3, and the integral of each shape function (cells, a) in m^3, of
        the a = 8 or 4 nodes of a cell.
    """
    n = count_cells(mesh)
    kind = getattr(basix.CellType, mesh.topology.cell_type.name)
    X, w = basix.make_quadrature(kind, _degree(mesh))
    element = basix.create_element(basix.ElementFamily.P, kind, 1)
    table = element.tabulate(1, X)[..., 0]  # (4, q, a): values, then derivatives along the reference axes
    x = mesh.geometry.x[mesh.geometry.dofmap[:n]]  # (c, a, 3)
    J = np.einsum("dqa,cai->cqid", table[1:], x)
    det = np.linalg.det(J)
    if np.any(det == 0.0):
        raise ValueError(f"Cell {int(np.argmax((det == 0.0).any(axis=1)))} of the mesh is degenerate.")
    weight = np.abs(det) * w
    gradient = np.einsum("dqa,cqdi->cqai", table[1:], np.linalg.inv(J))
    volume = weight.sum(axis=1)
    B = np.einsum("cq,cqai->cai", weight, gradient) / volume[:, None, None]
    return np.ascontiguousarray(B), volume, weight @ table[0]


@compiled
def add_pressure(P: np.ndarray, F: np.ndarray, pressure: np.ndarray, total: np.ndarray) -> None:
    """Write P - p F^-T with the Kirchhoff pressure p (n,) to `total`; the others are (n, 3, 3)."""
    inverse = np.empty((3, 3))
    for n in range(F.shape[0]):
        if pressure[n] == 0.0:
            total[n] = P[n]
            continue
        invert(F[n], inverse)
        for i in range(3):
            for j in range(3):
                total[n, i, j] = P[n, i, j] - pressure[n] * inverse[j, i]


@njit(cache=True)
def _gather(u: np.ndarray, nodes: np.ndarray, B: np.ndarray, F: np.ndarray) -> None:
    for c in range(nodes.shape[0]):
        for i in range(3):
            for j in range(3):
                F[c, i, j] = 1.0 if i == j else 0.0
        for a in range(nodes.shape[1]):
            node = nodes[c, a]
            for i in range(3):
                for j in range(3):
                    F[c, i, j] += u[node, i] * B[c, a, j]


def check_cells(V: Any) -> None:
    """Check that a space holds P1 vectors on linear hexahedra or tetrahedra.

    Raises:
        ValueError: If the space is another one.
    """
    cell, geometry = V.mesh.topology.cell_type.name, V.mesh.geometry.cmap.degree
    if cell not in NODES or geometry != 1:
        raise ValueError(f"The mesh must be of linear hexahedra or tetrahedra, got {cell} of degree {geometry}.")
    if V.dofmap.index_map_bs != 3 or V.dofmap.list.shape[1] != NODES[cell]:
        raise ValueError("The displacement space must be P1 with three components.")


def _degree(mesh: Any) -> int:
    """Degree of the quadrature: that of hexahedra, or one point in a tetrahedron."""
    return DEGREE if mesh.topology.cell_type.name == "hexahedron" else 1


def count_cells(mesh: Any) -> int:
    """Cells that this rank owns."""
    return int(mesh.topology.index_map(mesh.topology.dim).size_local)


def check_order(W: Any, cells: int, per_cell: int) -> None:
    """The flat view holds only if degrees of freedom are numbered cell by cell, as DOLFINx does for such spaces."""
    if not np.array_equal(W.dofmap.list[:cells].reshape(-1), np.arange(cells * per_cell)):
        raise RuntimeError("The degrees of freedom of the stress space are not numbered cell by cell.")
