"""Material points: where strain is taken from the displacement and stress is handed back to UFL.

One object owns the measure, the space of the stress, the compiled gradient and the flat arrays (n, d, d) that laws
read and write, so that they cannot mismatch. Points of owned cells only: ghosts would waste work.
"""

from __future__ import annotations

import functools
from typing import Any

import basix
import basix.ufl
import dolfinx.fem
import numpy as np
import ufl

from fem import compat
from fem.discretisation.mean_gradient import (
    MeanGradientPoints,
    check_order,
    count_cells,
    mean_gradient,
)


class QuadraturePoints:
    """Full integration on any cell and degree: a law at every quadrature point.

    Args:
        V: Displacement space, Lagrange with as many components as the mesh has dimensions (d = 2 or 3).
        degree: Degree of the quadrature; None takes `quadrature_degree` (2 x 2 x 2 points in a trilinear hexahedron).
        tangent: Whether to keep dP_dF as well.

    Attributes:
        V: Displacement space.
        dx: Measure of the residual, of the same quadrature as `stress`.
        n: Number of points on this rank, those of one owned cell together.
        per_cell: Points per cell.
        dimension: d.
        volume: Reference volume of each point (weight times Jacobian), (n,), m^3 (m^2 in two dimensions).
        stress: Tensor Function on the quadrature points that stands for P in UFL.
        stiffness: Same for dP_dF, rank four; None without `tangent`.
    """

    def __init__(self, V: Any, degree: int | None = None, *, tangent: bool = False) -> None:
        mesh = V.mesh
        d = self.dimension = _dimension(V)
        degree = quadrature_degree(V) if degree is None else degree
        self.V = V
        self._u = dolfinx.fem.Function(V)
        self.dx = ufl.Measure("dx", domain=mesh, metadata={"quadrature_degree": degree, "quadrature_rule": "default"})
        X, w = basix.make_quadrature(getattr(basix.CellType, mesh.topology.cell_type.name), degree)
        self._cells = np.arange(count_cells(mesh), dtype=np.int32)
        self.per_cell = len(w)
        self.n = len(self._cells) * len(w)
        self.stress = self._function((d, d), degree, "P")
        self.stiffness = self._function((d, d, d, d), degree, "dP_dF") if tangent else None
        self._P = self.stress.x.array.reshape(-1, d, d)[: self.n]
        self._F = np.zeros((self.n, d, d))
        self._expression = dolfinx.fem.Expression(ufl.Identity(d) + ufl.grad(self._u), X)
        detJ = dolfinx.fem.Expression(ufl.JacobianDeterminant(mesh), X)
        values = compat.evaluate(detJ, mesh, self._cells, len(w)).reshape(-1, len(w))
        self.volume = np.ascontiguousarray((np.abs(values) * w).reshape(-1))[: self.n]

    def _function(self, shape: tuple[int, ...], degree: int, name: str) -> Any:
        mesh = self.V.mesh
        element = basix.ufl.quadrature_element(mesh.topology.cell_type.name, value_shape=shape, degree=degree)
        W = dolfinx.fem.functionspace(mesh, element)
        check_order(W, len(self._cells), self.per_cell)
        return dolfinx.fem.Function(W, name=name)

    @functools.cached_property
    def _mean(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return mean_gradient(self.V.mesh)

    @property
    def B(self) -> np.ndarray:
        """Mean gradient of the shape functions of trilinear hexahedra, (cells, 8, 3), 1/m."""
        return self._mean[0]

    @property
    def cell_volume(self) -> np.ndarray:
        """Volume of trilinear hexahedra, (cells,), m^3."""
        return self._mean[1]

    @property
    def node_volume(self) -> np.ndarray:
        """Integral of each shape function of trilinear hexahedra, (cells, 8), m^3."""
        return self._mean[2]

    @property
    def F(self) -> np.ndarray:
        """Deformation gradient at the points, (n, d, d), a view."""
        return self._F

    @property
    def P(self) -> np.ndarray:
        """First Piola-Kirchhoff stress at the points, (n, d, d), Pa, a view: write here, UFL reads it."""
        return self._P

    @property
    def dP_dF(self) -> np.ndarray:
        """Tangent at the points, (n, d, d, d, d), Pa, a view; `tangent` only."""
        assert self.stiffness is not None
        return self.stiffness.x.array.reshape((-1,) + 4 * (self.dimension,))[: self.n]

    def gather(self, u: Any) -> np.ndarray:
        """Compute F = I + grad u at the points from a displacement Function; returns the view `F`."""
        self._u.x.array[:] = u.x.array
        if self.n:
            values = compat.evaluate(self._expression, self.V.mesh, self._cells, self.per_cell)
            self._F[:] = values.reshape(self._F.shape)
        return self._F


def quadrature_degree(V: Any) -> int:
    """Degree of full integration: the stiffness of an affine cell is exact, and tensor cells have (p + 1)^d points."""
    degree = int(V.element.basix_element.degree)
    simplex = V.mesh.topology.cell_type.name in ("triangle", "tetrahedron")
    return max(1, 2 * (degree - 1)) if simplex else 2 * degree + 1


Points = MeanGradientPoints | QuadraturePoints


def cell_average(points: Points, values: np.ndarray) -> np.ndarray:
    """Volume average over the points of each cell, for output on DG0: (n, ...) -> (owned cells, ...)."""
    if points.per_cell == 1:
        return values
    weight = points.volume.reshape(-1, points.per_cell)
    shaped = values.reshape(weight.shape + values.shape[1:])
    return np.einsum("cq,cq...->c...", weight / weight.sum(axis=1, keepdims=True), shaped)


def _dimension(V: Any) -> int:
    d, cell = V.mesh.geometry.dim, V.mesh.topology.cell_type.name
    if V.mesh.topology.dim != d or cell not in ("triangle", "quadrilateral", "tetrahedron", "hexahedron"):
        raise ValueError(f"The mesh must fill its space with cells of two or three dimensions, got {cell} in {d}.")
    if V.dofmap.index_map_bs != d:
        raise ValueError(f"The displacement space must have {d} components, got {V.dofmap.index_map_bs}.")
    return int(d)
