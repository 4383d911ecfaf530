"""Equilibrium in UFL: forces, Jacobian and lifting, compiled once, assembled at every Newton iteration.

    R(u; v) = internal(P, u; v) - external(u, t; v),      internal = inner(P, grad v) dx by default
    J(du, v) = derivative of R by u in the direction du + derivative of R by P in the direction dP_dF : grad du

P and dP_dF are values on the quadrature points, which a law has filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dolfinx.fem
import dolfinx.fem.petsc
import dolfinx.la
import numpy as np
import ufl
from petsc4py import PETSc

from fem.discretisation.quadrature import QuadraturePoints


def internal_form(points: QuadraturePoints, v: Any) -> Any:
    """inner(P, grad v) dx: the virtual work of the stress."""
    return ufl.inner(points.stress, ufl.grad(v)) * points.dx


def check_form(name: str, form: Any, v: Any) -> Any:
    """A user's form as a UFL form; None and 0 are the empty one.

    Args:
        name: What it is called, for messages.
        form: The form.
        v: Test function that it must be linear in.

    Raises:
        ValueError: If it is not a form, or not linear in the test function alone.
    """
    if form is None or (isinstance(form, (int, float)) and form == 0):
        form = ufl.Form([])
    if not isinstance(form, ufl.Form):
        raise ValueError(f"{name} must be a UFL form, an integral over dx or ds, got {type(form).__name__}.")
    arguments = form.arguments()
    if not form.empty() and arguments != (v,):
        raise ValueError(
            f"{name} must be linear in solver.test_function and hold no other argument, got {len(arguments)} arguments."
        )
    return form


class Equilibrium:
    """The assembled equations of a body; all methods are collective.

    Args:
        points: Quadrature points with a tangent.
        u: Displacement Function.
        v: Test function.
        internal: Form of the internal forces; None is `internal_form`.
        external: Form of the loads.

    Attributes:
        A: The Jacobian. b: A vector for the residual.

    Raises:
        ValueError: If a form cannot be compiled.
    """

    def __init__(self, points: QuadraturePoints, u: Any, v: Any, internal: Any | None, external: Any) -> None:
        V = points.V
        self._delta = dolfinx.fem.Function(V)
        R = (internal_form(points, v) if internal is None else internal) - external
        J, lifted = (_tangent(points, u, v, du, internal, external) for du in (ufl.TrialFunction(V), self._delta))
        try:
            self._residual, self._jacobian = dolfinx.fem.form(R), dolfinx.fem.form(J)
            self._lifted = dolfinx.fem.form(lifted)
        except Exception as error:  # UFL and FFCx fail in many ways, on all ranks alike
            raise ValueError(
                "solver.internal or solver.external cannot be compiled (the stress P exists inside of cells only): "
                f"{' '.join(str(error).split()) or type(error).__name__}"
            ) from error
        self._vector = dolfinx.la.vector(V.dofmap.index_map, V.dofmap.index_map_bs)
        self._n = V.dofmap.index_map_bs * V.dofmap.index_map.size_local
        self.A = dolfinx.fem.petsc.create_matrix(self._jacobian)
        self.b = self.A.createVecLeft()

    def forces(self) -> np.ndarray:
        """Internal less external forces of the owned unknowns, (owned,), N: zero inside, reactions at supports."""
        return self._assemble(self._residual)

    def lifted(self, change: np.ndarray) -> np.ndarray:
        """Jacobian times a change of the owned unknowns (owned,), m, in the same order, N."""
        self._delta.x.array[: self._n] = change
        self._delta.x.scatter_forward()
        return self._assemble(self._lifted)

    def jacobian(self, A: PETSc.Mat, bcs: Sequence[Any]) -> None:
        """Fill A with the Jacobian at u; rows and columns of prescribed unknowns hold a one on the diagonal only."""
        A.zeroEntries()
        dolfinx.fem.petsc.assemble_matrix(A, self._jacobian, bcs=list(bcs))
        A.assemble()

    def _assemble(self, form: Any) -> np.ndarray:
        self._vector.array[:] = 0.0
        dolfinx.fem.assemble_vector(self._vector.array, form)
        self._vector.scatter_reverse(dolfinx.la.InsertMode.add)
        return self._vector.array[: self._n].copy()


def _tangent(points: QuadraturePoints, u: Any, v: Any, du: Any, internal: Any | None, external: Any) -> Any:
    """Derivative of the residual by u in the direction du; the stress follows u by the law's tangent."""
    if internal is None:
        J = _stiffness(points, du, v)
    else:
        J = ufl.derivative(internal, u, du) + _through_stress(points, internal, du)
    if external.empty():
        return J
    J -= ufl.derivative(external, u, du)
    return J - _through_stress(points, external, du) if points.stress in external.coefficients() else J


def _stiffness(points: QuadraturePoints, du: Any, v: Any) -> Any:
    assert points.stiffness is not None
    i, j, k, m = ufl.indices(4)
    return points.stiffness[i, j, k, m] * ufl.grad(du)[k, m] * ufl.grad(v)[i, j] * points.dx


def _through_stress(points: QuadraturePoints, form: Any, du: Any) -> Any:
    """Derivative of a form by P in the direction dP_dF : grad du."""
    assert points.stiffness is not None
    i, j, k, m = ufl.indices(4)
    dP = ufl.as_tensor(points.stiffness[i, j, k, m] * ufl.grad(du)[k, m], (i, j))
    return ufl.derivative(form, points.stress, dP)
