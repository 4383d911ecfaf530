"""Fields of an implicit run for its writer: displacement, and nodal projections of values at quadrature points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dolfinx.fem
import numpy as np

from fem.discretisation.projection import NodalFields
from fem.discretisation.strain_measures import cauchy_stress, von_mises
from fem.laws import drawable

if TYPE_CHECKING:
    from fem.statics.implicit import ImplicitSolver


class OutputFields:
    """Functions of degree 1 that show the state of a body; all methods are collective.

    They are the displacement, m; in three dimensions the von Mises stress, Pa (of the Cauchy stress, if the law is of
    finite strain); and the observed fields of the law.

    Args:
        solver: The solver.

    Attributes:
        functions: The Functions, each named after what it holds.
    """

    def __init__(self, solver: ImplicitSolver) -> None:
        self._solver, mesh = solver, solver.domain.mesh
        d = mesh.geometry.dim
        self._projection = NodalFields(solver.points)
        self._displacement = dolfinx.fem.Function(
            dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (d,))), name="displacement"
        )
        names = (*(("von_mises",) if d == 3 else ()), *drawable(solver.law))
        self._nodal = {name: dolfinx.fem.Function(self._projection.W, name=name) for name in names}
        self.functions: list[Any] = [self._displacement, *self._nodal.values()]

    def update(self) -> None:
        """Fill the Functions with the state at the last time committed."""
        solver = self._solver
        self._displacement.interpolate(solver.u)
        observed = np.asarray(solver.law.observe(solver.state)).reshape(solver.points.n, -1)
        values = dict(zip(solver.law.observed, observed.T, strict=True))
        if "von_mises" in self._nodal:
            F, P = solver.points.F, solver.points.P
            values["von_mises"] = von_mises(cauchy_stress(F, P) if solver.law.strain == "finite" else P)
        for name, function in self._nodal.items():
            self._projection.project(values[name], out=function)
