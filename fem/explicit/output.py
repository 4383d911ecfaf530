"""Fields of an explicit run at the nodes: the volume-weighted (lumped L2) projection of values at material points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import ufl
from dolfinx.fem import Function, assemble_vector, form, functionspace
from dolfinx.la import InsertMode

from fem.discretisation.quadrature import Points, cell_average
from fem.discretisation.strain_measures import cauchy_stress, deviatoric_strain, volume_strain, von_mises
from fem.laws import Law, drawable

MEASURES = ("von_mises", "e_d", "e_d_isochoric", "e_v")


class ProjectedFields:
    """Stress and strain measures, and the observed fields of the law, as nodal Functions; all methods are collective.

    von_mises is the von Mises stress of the Cauchy stress, Pa; e_d = |F^T F/(det F)^2 - I|/2; e_d_isochoric the same
    with the exponent 2/3, which a change of volume alone leaves at zero; e_v = det F - 1.

    Args:
        points: The material points, with their F and P.
        law: The law.
        state: Returns the state of the points, (n, k), at the current time.

    Attributes:
        nodal: Name -> P1 Function.
    """

    def __init__(self, points: Points, law: Law, state: Callable[[], np.ndarray]) -> None:
        self._points, self._law, self._state = points, law, state
        mesh = points.V.mesh
        self._cell = Function(functionspace(mesh, ("DG", 0)))
        W = functionspace(mesh, ("Lagrange", 1))
        w = ufl.TestFunction(W)
        self._load = form(self._cell * w * ufl.dx)
        self._weight = assemble_vector(form(w * ufl.dx(mesh)))
        self._weight.scatter_reverse(InsertMode.add)
        self.nodal = {name: Function(W, name=name) for name in (*MEASURES, *drawable(law))}
        self._owned = mesh.topology.index_map(3).size_local

    def update(self) -> dict[str, np.ndarray]:
        """Fill the nodal Functions at the current time; returns the values of the owned cells, name -> (cells,)."""
        points, law = self._points, self._law
        sigma = cauchy_stress(points.F, points.P)
        values = {
            "von_mises": von_mises(sigma),
            "e_d": deviatoric_strain(points.F, exponent=2.0),
            "e_d_isochoric": deviatoric_strain(points.F, exponent=2.0 / 3.0),
            "e_v": volume_strain(points.F),
        }
        values |= dict(zip(law.observed, np.asarray(law.observe(self._state())).T, strict=True))
        values = {name: value for name, value in values.items() if name in self.nodal}
        cells = {name: cell_average(points, value) for name, value in values.items()}
        for name, value in cells.items():
            self._cell.x.array[self._cell.function_space.dofmap.list[: self._owned, 0]] = value
            self._cell.x.scatter_forward()
            b = assemble_vector(self._load)
            b.scatter_reverse(InsertMode.add)
            nodal = self.nodal[name].x
            n = nodal.index_map.size_local
            nodal.array[:n] = b.array[:n] / self._weight.array[:n]
            nodal.scatter_forward()
        return cells
