"""Internal and external forces: UFL forms, compiled when they have changed and assembled at every step.

    mass * acceleration = external(v) - internal(v),      internal = inner(P, grad(v)) * dx  by default

On one-point cells the default form is P B_a V exactly, with the mean gradient B_a: it is summed cell by cell without
UFL, together with the hourglass forces (`fem.explicit.hourglass`). Hourglass forces are added to a form of a user, too.
"""

from __future__ import annotations

from typing import Any

import dolfinx.fem
import dolfinx.la
import numpy as np
import ufl

from fem.discretisation.mean_dilatation import ExplicitPoints
from fem.discretisation.mean_gradient import MeanGradientPoints
from fem.explicit.hourglass import Hourglass
from fem.laws.composite import CellConstants

HEXAHEDRON = 8  # nodes
NOTHING = ufl.Form([])


class Forces:
    """Forces on the nodes of a displacement space.

    Args:
        points: Material points.
        u: Displacement Function.
        constants: Of the law of each cell: density, and the shear modulus of the hourglass stiffness.
        hourglass: Hourglass stiffness over the shear modulus; one-point hexahedra only.

    Attributes:
        test_function: Test function v of the forms.
        mass: Row-sum lumped mass of the nodes, ghosts included, (nodes,), kg.
        changed: Whether a form was assigned since `internal_force` was last called.
    """

    def __init__(self, points: ExplicitPoints, u: Any, constants: CellConstants, hourglass: float) -> None:
        self._V = V = points.V
        self._points, self._u = points, u.x.array.reshape(-1, 3)
        self._mesh = V.mesh
        self.test_function = v = ufl.TestFunction(V)
        stress, dx = points.stress, points.dx
        self._default = self._internal = ufl.inner(stress, ufl.grad(v)) * dx
        self._external = NOTHING
        self.hourglass: Hourglass | None = None
        if isinstance(points, MeanGradientPoints) and points.nodes.shape[1] == HEXAHEDRON:
            self.hourglass = Hourglass(points, hourglass, constants)
        self._compiled: dict[str, Any] = {}
        self.changed = True
        index_map, bs = V.dofmap.index_map, V.dofmap.index_map_bs
        self._vectors = {name: dolfinx.la.vector(index_map, bs) for name in ("internal", "external")}
        self.mass = np.zeros(index_map.size_local + index_map.num_ghosts)
        self.lump(constants.density)

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

    def lump(self, density: np.ndarray) -> None:
        """Set `mass` to the row sums of the mass matrix for the density of each owned cell, (cells,); collective."""
        self.mass[:] = self.nodal_sums(density[:, None] * self._points.node_volume)

    def nodal_sums(self, parts: np.ndarray) -> np.ndarray:
        """Sums over the cells around each node, (nodes,), of parts for the nodes of a cell, (cells, a); collective."""
        vector = dolfinx.la.vector(self._vectors["internal"].index_map, 1)
        nodes = self._V.dofmap.list[: len(parts)]
        vector.array[:] = np.bincount(nodes.reshape(-1), parts.reshape(-1), minlength=len(vector.array))
        vector.scatter_reverse(dolfinx.la.InsertMode.add)
        vector.scatter_forward()
        return np.asarray(vector.array)

    def internal_force(self) -> np.ndarray:
        """Internal force on the nodes, the hourglass term included, (nodes, 3), N; ghosts added in; collective."""
        self.changed = False
        default = self._internal is self._default
        vector = self._vectors["internal"]
        vector.array[:] = 0.0
        self._points.transfer()
        if self.hourglass is not None:
            self.hourglass.add_force(self._u, vector.array.reshape(-1, 3), stress=default)
        return self._assemble("internal", NOTHING if default and self.hourglass is not None else self._internal)

    def relax(self, F_n: np.ndarray, P_n: np.ndarray) -> None:
        """Let the hourglass shape follow the plastic flow of a step from F_n and P_n, (n, 3, 3), of this rank."""
        if self.hourglass is not None:
            self.hourglass.relax(self._u, F_n, P_n)

    def external_force(self) -> np.ndarray:
        """External force on the nodes, (nodes, 3), N; ghosts added in; collective."""
        self._vectors["external"].array[:] = 0.0
        return self._assemble("external", self._external)

    def hourglass_energy(self) -> float:
        """This rank's hourglass energy, stored and dissipated, J."""
        return 0.0 if self.hourglass is None else self.hourglass.stored(self._u) + self.hourglass.dissipated

    def _assemble(self, name: str, form: Any) -> np.ndarray:
        vector = self._vectors[name]
        if not form.empty():
            if name not in self._compiled:
                self._compiled[name] = dolfinx.fem.form(form)
            dolfinx.fem.assemble_vector(vector.array, self._compiled[name])
        if not form.empty() or name == "internal":
            vector.scatter_reverse(dolfinx.la.InsertMode.add)
        return vector.array.reshape(-1, 3)
