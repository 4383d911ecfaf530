"""Internal and external forces in UFL, compiled when they have changed and assembled at every step.

    mass * acceleration = external(v) - internal(v),      internal = inner(P, grad(v)) * dx  by default

On one-point cells a stiffness is added for the modes without a mean gradient (hourglass modes):

    inner(kappa (grad u - (F_mean - I)), grad(v)) * dx

It is zero for every linear displacement, objective (it acts on the referential gradient, whose deviation from the mean
turns with the body), and has the exact energy kappa/2 int |grad u - mean|^2 dx.

References:
    Flanagan and Belytschko (1981), 10.1002/nme.1620170504, section 3 (there orthogonal vectors instead of integration).
"""

from __future__ import annotations

from typing import Any

import dolfinx.fem
import dolfinx.la
import numpy as np
import ufl

from fem.discretisation.quadrature import MeanGradientPoints, Points


class Forces:
    """Forces on the nodes of a displacement space.

    Args:
        points: Material points.
        u: Displacement Function.
        density: Reference density, kg/m^3.
        kappa: Hourglass stiffness, Pa; one-point cells only.

    Attributes:
        test_function: Test function v of the forms.
        mass: Row-sum lumped mass of the nodes, ghosts included, (nodes,), kg.
        changed: Whether a form was assigned since `internal_force` was last called.
    """

    def __init__(self, points: Points, u: Any, density: float, kappa: float) -> None:
        self._V = V = points.V
        self._mesh = mesh = V.mesh
        self.test_function = v = ufl.TestFunction(V)
        stress, dx = points.stress, points.dx
        self._default = self._internal = ufl.inner(stress, ufl.grad(v)) * dx
        self._external = ufl.Form([])
        self._hourglass: Any = None
        self._energy: Any = None
        self._with_hourglass = self._default
        if isinstance(points, MeanGradientPoints) and kappa > 0.0:
            k = dolfinx.fem.Constant(mesh, float(kappa))
            deviation = ufl.grad(u) - (points.mean - ufl.Identity(3))
            self._hourglass = ufl.inner(k * deviation, ufl.grad(v)) * dx
            self._with_hourglass = ufl.inner(stress + k * deviation, ufl.grad(v)) * dx
            self._energy = dolfinx.fem.form(0.5 * k * ufl.inner(deviation, deviation) * dx)
        self._compiled: dict[str, Any] = {}
        self.changed = True
        index_map, bs = V.dofmap.index_map, V.dofmap.index_map_bs
        self._vectors = {name: dolfinx.la.vector(index_map, bs) for name in ("internal", "external")}
        self.mass = self._lump(dx, density)

    @property
    def internal(self) -> Any:
        """Form of the internal forces, without the hourglass term."""
        return self._internal

    @internal.setter
    def internal(self, form: Any) -> None:
        self._internal = self._checked("internal", form)
        self._compiled.pop("internal", None)
        self.changed = True

    @property
    def external(self) -> Any:
        """Form of the external forces, with the sign of a load."""
        return self._external

    @external.setter
    def external(self, form: Any) -> None:
        self._external = self._checked("external", form)
        self._compiled.pop("external", None)
        self.changed = True

    @property
    def has_external(self) -> bool:
        """Whether there are external forces."""
        return not self._external.empty()

    def _checked(self, name: str, form: Any) -> Any:
        """Check that a form is linear in the test function of this space."""
        if not isinstance(form, ufl.Form):
            raise ValueError(f"{name} must be a UFL form in solver.test_function, got {type(form).__name__}.")
        if form.empty():
            return form
        arguments = form.arguments()
        if len(arguments) != 1 or arguments[0] != self.test_function:
            raise ValueError(f"{name} must be linear in solver.test_function, got a form of rank {len(arguments)}.")
        return form

    def _lump(self, dx: Any, density: float) -> np.ndarray:
        rho = dolfinx.fem.Constant(self._mesh, np.full(3, float(density)))
        vector = dolfinx.la.vector(self._vectors["internal"].index_map, 3)
        dolfinx.fem.assemble_vector(vector.array, dolfinx.fem.form(ufl.inner(rho, self.test_function) * dx))
        vector.scatter_reverse(dolfinx.la.InsertMode.add)
        vector.scatter_forward()
        return vector.array.reshape(-1, 3)[:, 0].copy()

    def internal_force(self) -> np.ndarray:
        """Internal force on the nodes, the hourglass term included, (nodes, 3), N; ghosts added in; collective."""
        form = self._with_hourglass
        if self._internal is not self._default:
            form = self._internal if self._hourglass is None else self._internal + self._hourglass
        self.changed = False
        return self._assemble("internal", form)

    def external_force(self) -> np.ndarray:
        """External force on the nodes, (nodes, 3), N; ghosts added in; collective."""
        return self._assemble("external", self._external)

    def hourglass_energy(self) -> float:
        """This rank's hourglass energy, J."""
        return float(dolfinx.fem.assemble_scalar(self._energy)) if self._energy is not None else 0.0

    def _assemble(self, name: str, form: Any) -> np.ndarray:
        vector = self._vectors[name]
        vector.array[:] = 0.0
        if not form.empty():
            if name not in self._compiled:
                self._compiled[name] = dolfinx.fem.form(form)
            dolfinx.fem.assemble_vector(vector.array, self._compiled[name])
            vector.scatter_reverse(dolfinx.la.InsertMode.add)
        return vector.array.reshape(-1, 3)
