"""The residual in UFL, compiled once and assembled every step.

    inner(P + kappa (grad u - (F_mean - I)), grad w) dx + (the user's forms)

The second term belongs to one-point cells only: a stiffness on what the mean gradient does not see (hourglass modes).
It is zero for every linear displacement, objective (it acts on the referential gradient, whose deviation from the mean
turns with the body), and has the exact energy kappa/2 int |grad u - mean|^2 dx.

References:
    Flanagan and Belytschko (1981), 10.1002/nme.1620170504, section 3 (there orthogonal vectors instead of integration).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dolfinx.fem
import dolfinx.la
import numpy as np
import ufl

from fem.discretisation.quadrature import MeanGradientPoints, Points


class Residual:
    """Internal and user forces of a displacement space.

    Attributes:
        mass: Row-sum lumped mass of the nodes, ghosts included, (nodes,), kg.
        has_user: Whether there are user forms.
    """

    def __init__(
        self,
        points: Points,
        u: Any,
        velocity: Any,
        time: Any,
        density: float,
        kappa: float,
        forms: Callable[[Any, Any, Any, Any], Any] | None,
    ) -> None:
        V = points.V
        mesh = V.mesh
        w = ufl.TestFunction(V)
        dx = points.dx
        stress = points.stress
        self._hourglass = None
        if isinstance(points, MeanGradientPoints) and kappa > 0.0:
            k = dolfinx.fem.Constant(mesh, float(kappa))
            deviation = ufl.grad(u) - (points.mean - ufl.Identity(3))
            stress = stress + k * deviation
            self._hourglass = dolfinx.fem.form(0.5 * k * ufl.inner(deviation, deviation) * dx)
        self._internal = dolfinx.fem.form(ufl.inner(stress, ufl.grad(w)) * dx)
        user = forms(u, velocity, w, time) if forms is not None else None
        self.has_user = user is not None
        self._user = dolfinx.fem.form(user) if user is not None else None
        index_map, bs = V.dofmap.index_map, V.dofmap.index_map_bs
        self._internal_vector = dolfinx.la.vector(index_map, bs)
        self._user_vector = dolfinx.la.vector(index_map, bs)
        self.mass = self._lump(w, dx, mesh, density)

    def _lump(self, w: Any, dx: Any, mesh: Any, density: float) -> np.ndarray:
        rho = dolfinx.fem.Constant(mesh, np.full(3, float(density)))
        vector = dolfinx.la.vector(self._internal_vector.index_map, 3)
        dolfinx.fem.assemble_vector(vector.array, dolfinx.fem.form(ufl.inner(rho, w) * dx))
        vector.scatter_reverse(dolfinx.la.InsertMode.add)
        vector.scatter_forward()
        return vector.array.reshape(-1, 3)[:, 0].copy()

    def internal(self) -> np.ndarray:
        """Force of the stress and the hourglass term on the nodes, to be subtracted, (nodes, 3), N; ghosts added in."""
        return _assemble(self._internal_vector, self._internal)

    def user(self) -> np.ndarray:
        """Force of the user's forms, to be subtracted, (nodes, 3), N; ghosts added in."""
        if self._user is None:
            return self._user_vector.array.reshape(-1, 3)
        return _assemble(self._user_vector, self._user)

    def hourglass_energy(self) -> float:
        """This rank's hourglass energy, J."""
        return float(dolfinx.fem.assemble_scalar(self._hourglass)) if self._hourglass is not None else 0.0


def _assemble(vector: Any, form: Any) -> np.ndarray:
    vector.array[:] = 0.0
    dolfinx.fem.assemble_vector(vector.array, form)
    vector.scatter_reverse(dolfinx.la.InsertMode.add)
    return vector.array.reshape(-1, 3)
