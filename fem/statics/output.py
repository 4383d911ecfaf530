"""Fields of an implicit run for its writer: displacement, and nodal projections of values at quadrature points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dolfinx.fem
import numpy as np

from fem.discretisation.projection import NodalFields
from fem.discretisation.quadrature import QuadraturePoints
from fem.discretisation.strain_measures import cauchy_stress, von_mises
from fem.laws import Law, drawable


class OutputFields:
    """Functions of degree 1 that show the state of a body; all methods are collective.

    They are the displacement, m; in three dimensions the von Mises stress, Pa (of the Cauchy stress, if the law is of
    finite strain); and the observed fields of the law.

    Args:
        u: Displacement, m.
        points: The quadrature points, with their F and P.
        law: The law.
        state: Returns the state of the points, (n, k), at the last time committed.

    Attributes:
        functions: The Functions, each named after what it holds.
    """

    def __init__(self, u: Any, points: QuadraturePoints, law: Law, state: Callable[[], np.ndarray]) -> None:
        self._u, self._points, self._law, self._state = u, points, law, state
        mesh = u.function_space.mesh
        d = mesh.geometry.dim
        self._projection = NodalFields(points)
        self._displacement = dolfinx.fem.Function(
            dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (d,))), name="displacement"
        )
        names = (*(("von_mises",) if d == 3 else ()), *drawable(law))
        self._nodal = {name: dolfinx.fem.Function(self._projection.W, name=name) for name in names}
        self.functions: list[Any] = [self._displacement, *self._nodal.values()]

    def update(self) -> None:
        """Fill the Functions with the state at the last time committed."""
        points, law = self._points, self._law
        self._displacement.interpolate(self._u)
        observed = np.asarray(law.observe(self._state())).reshape(points.n, -1)
        values = dict(zip(law.observed, observed.T, strict=True))
        if "von_mises" in self._nodal:
            F, P = points.F, points.P
            values["von_mises"] = von_mises(cauchy_stress(F, P) if law.strain == "finite" else P)
        for name, function in self._nodal.items():
            self._projection.project(values[name], out=function)
