"""Equilibrium in UFL: residual, Jacobian and lifting, compiled once, assembled at every Newton iteration.

    R(u; v) = inner(P, grad v) dx + forms(u, v, t)
    J(du, v) = inner(dP_dF : grad du, grad v) dx + derivative(forms, u, du)

P and dP_dF are values on the quadrature points, which a law has filled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dolfinx.fem
import dolfinx.fem.petsc
import dolfinx.la
import numpy as np
import ufl
from petsc4py import PETSc

from fem.discretisation.prescribed import Supports
from fem.discretisation.quadrature import QuadraturePoints

Forms = Callable[[Any, Any, Any], Any]


class Equilibrium:
    """The assembled equations of a body; all methods are collective.

    Args:
        points: Quadrature points with a tangent.
        u: Displacement Function.
        t: Pseudo-time, a Constant.
        forms: The user's `forms(u, v, t)`, or None.
        supports: The prescribed unknowns.

    Attributes:
        A: The Jacobian. b: A vector for the residual.
    """

    def __init__(self, points: QuadraturePoints, u: Any, t: Any, forms: Forms | None, supports: Supports) -> None:
        V = points.V
        self.u, self.supports = u, supports
        self._delta = dolfinx.fem.Function(V)
        v, du = ufl.TestFunction(V), ufl.TrialFunction(V)
        R = ufl.inner(points.stress, ufl.grad(v)) * points.dx
        J = _stiffness(points, du, v)
        lifted = _stiffness(points, self._delta, v)
        user = forms(u, v, t) if forms is not None else None
        if user is not None:
            R += user
            J += ufl.derivative(user, u, du)
            lifted += ufl.derivative(user, u, self._delta)
        self._residual, self._jacobian = dolfinx.fem.form(R), dolfinx.fem.form(J)
        self._lifted = dolfinx.fem.form(lifted)
        self._vector = dolfinx.la.vector(V.dofmap.index_map, V.dofmap.index_map_bs)
        self._n = V.dofmap.index_map_bs * V.dofmap.index_map.size_local
        self.A = dolfinx.fem.petsc.create_matrix(self._jacobian)
        self.b = self.A.createVecLeft()

    def forces(self) -> np.ndarray:
        """Residual of the owned unknowns without conditions, (owned,), N: zero inside, reactions at supports."""
        return self._assemble(self._residual)

    def residual(self, b: PETSc.Vec) -> float:
        """Fill b with the residual at u, lifted by what the prescribed unknowns lack; returns the norm of `forces`."""
        supports, comm = self.supports, b.comm.tompi4py()
        forces = self.forces()
        lack = supports.values - self.u.x.array[supports.dofs]
        norms = comm.allreduce(np.array([forces @ forces, lack @ lack]))
        b.array_w[:] = forces
        if norms[1] > 0.0:
            self._delta.x.array[:] = 0.0
            self._delta.x.array[supports.dofs] = lack
            b.array_w[:] += self._assemble(self._lifted)
        b.array_w[supports.dofs[: supports.owned]] = -lack[: supports.owned]
        return float(np.sqrt(norms[0]))

    def jacobian(self, A: PETSc.Mat) -> None:
        """Fill A with the Jacobian at u; rows and columns of prescribed unknowns hold a one on the diagonal only."""
        A.zeroEntries()
        dolfinx.fem.petsc.assemble_matrix(A, self._jacobian, bcs=self.supports.bcs)
        A.assemble()

    def _assemble(self, form: Any) -> np.ndarray:
        self._vector.array[:] = 0.0
        dolfinx.fem.assemble_vector(self._vector.array, form)
        self._vector.scatter_reverse(dolfinx.la.InsertMode.add)
        return self._vector.array[: self._n].copy()


def _stiffness(points: QuadraturePoints, du: Any, v: Any) -> Any:
    assert points.stiffness is not None
    i, j, k, m = ufl.indices(4)
    return points.stiffness[i, j, k, m] * ufl.grad(du)[k, m] * ufl.grad(v)[i, j] * points.dx
