"""Implicit statics of bodies: equilibrium by Newton's method with the law's tangent, in load steps.

One step from pseudo-time t_n to t, with the state at t_n given:

    find u:  internal(P, u; v) - external(u, t; v) = 0,   (P, state, dP_dF) = law(I + grad u, state_n, dt (t - t_n))

A law of small strain takes sym(grad u) from F itself: small and finite strain are the same here. Steps, conditions and
checkpoints are those of `fem.statics.driver`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dolfinx.fem
import numpy as np
import ufl
from mpi4py import MPI
from petsc4py import PETSc

from fem.discretisation import loads
from fem.discretisation.body_law import body_law
from fem.discretisation.dirichlet import Dirichlet, Where, body_nodes
from fem.discretisation.point_evaluation import Probe
from fem.discretisation.quadrature import QuadraturePoints
from fem.errors import ConvergenceError, SolverError
from fem.io.checkpoint import Block, Scalar, cell_numbers, check_same
from fem.laws import Law, check_fit
from fem.laws.digest import law_digest
from fem.mesh import as_domain
from fem.statics.assembly import Equilibrium, check_form, internal_form
from fem.statics.constitutive import Material
from fem.statics.driver import QuasiStatic
from fem.statics.linear_solver import near_nullspace
from fem.statics.newton import Convergence, Newton, check_options
from fem.statics.output import OutputFields

if TYPE_CHECKING:
    from fem.io.fields import Writer

__all__ = ["Dirichlet", "ImplicitSolver", "SolverError"]

# Unknowns up to which a direct solver is the faster one (measured, one core), by dimension.
DIRECT_BELOW = {2: 100_000, 3: 6_000}
PHASES = ("gather", "law", "assemble", "solve")


class ImplicitSolver(QuasiStatic):
    """Static equilibrium of a body in pseudo-time; the constructor and all methods are collective.

    `prescribe`, `release`, `run`, `save` and `restore` are those of `fem.statics.driver.QuasiStatic`.

    Args:
        mesh: A `dolfinx.mesh.Mesh`, or a `fem.mesh.Domain` with named groups; of triangles, quadrilaterals, tetrahedra
            or hexahedra.
        law: Material law of the mesh's dimension (`fem.load_law`), of small or finite strain; or one for each group of
            cells, as `{"core": law, "skin": law}` or `(MeshTags, {tag: law})`.
        prescribed: Prescribed displacements, as by `prescribe`.
        degree: Of the displacement, 1 or 2.
        quadrature_degree: None takes full integration (`fem.discretisation.quadrature.quadrature_degree`).
        linear: "direct", "iterative", or "auto" by the number of unknowns (`fem.statics.newton`).
        symmetric: Whether the Jacobian is symmetric; None tests it.
        dt: Seconds in one unit of pseudo-time, for laws that use the time step.
        rtol: Newton's tolerance (`fem.statics.newton`), as atol, stol, maximum.
        line_search: "energy" shortens Newton steps that overshoot (`fem.statics.line_search`); "basic" never does.
        options: PETSc options of SNES and KSP, without prefix, that override.
        output: Folder for the checkpoint and the replay file of a failed run; None writes none.

    Attributes:
        u: Displacement Function.
        test_function: Test function v of the user's forms.
        time_constant: Pseudo-time for the user's forms, a `dolfinx.fem.Constant`.
        P: First Piola-Kirchhoff stress for the user's forms, Pa, values at the quadrature points.
        dx: Measure that fits P.
        points: Quadrature points, with the numbers of F, P and dP_dF there.
        domain: Mesh and groups. law: The law.
        material: The law at the points, with its state.

    Raises:
        ValueError: On all ranks, if an argument does not fit.
    """

    def __init__(
        self,
        mesh: Any,
        law: Law,
        *,
        prescribed: Sequence[Dirichlet] = (),
        degree: int = 1,
        quadrature_degree: int | None = None,
        linear: Literal["direct", "iterative", "auto"] = "auto",
        symmetric: bool | None = None,
        dt: float = 1.0,
        rtol: float = 1e-10,
        atol: float = 0.0,
        stol: float = 0.0,
        maximum: int = 20,
        line_search: str = "energy",
        options: Mapping[str, Any] | None = None,
        output: str | PathLike[str] | None = None,
    ) -> None:
        domain = as_domain(mesh)
        d = domain.mesh.geometry.dim
        law = body_law(domain, law)
        check_fit(law, "implicit", ("small", "finite"), d)
        if degree not in (1, 2):
            raise ValueError(f"degree must be 1 or 2, got {degree}.")
        if not (np.isfinite(dt) and dt > 0.0):
            raise ValueError(f"dt must be positive, got {dt}.")
        V = dolfinx.fem.functionspace(domain.mesh, ("Lagrange", degree, (d,)))
        super().__init__(body_nodes(domain, V), PHASES, output)
        self.domain, self.law, self.dt = domain, law, float(dt)
        self.u, self._scratch = dolfinx.fem.Function(V, name="displacement"), dolfinx.fem.Function(V)
        self.time_constant = dolfinx.fem.Constant(domain.mesh, 0.0)
        self.points = QuadraturePoints(V, quadrature_degree, tangent=True)
        self.material = Material(domain, self.points, law, self.clock)
        self.test_function = ufl.TestFunction(V)
        self.P, self.dx = self.points.stress, self.points.dx
        self._internal: Any | None = None
        self._external: Any = ufl.Form([])
        self._newton_arguments: dict[str, Any] = {
            "linear": linear,
            "symmetric": symmetric,
            "direct_below": DIRECT_BELOW[d],
            "rtol": rtol,
            "atol": atol,
            "stol": stol,
            "maximum": maximum,
            "line_search": line_search,
            "options": options,
        }
        check_options(linear, line_search, maximum, rtol=rtol, atol=atol, stol=stol)
        self._equilibrium: Equilibrium | None = None
        self._probe: Probe | None = None
        self.points.gather(self.u)
        self._bcs: list[Any] = []
        self._prescribe(*prescribed)

    # Forms.

    @property
    def external(self) -> Any:
        """Loads: a UFL form, linear in `test_function`, with the sign of a load; empty at first.

        It may depend on `u` and `time_constant`: `solver.external += ufl.inner(b, solver.test_function) * ufl.dx`.
        Its derivative by `u` is part of the tangent. It is compiled at the first step after a change.
        """
        return self._external

    @external.setter
    def external(self, form: Any) -> None:
        self._external = check_form("external", form, self.test_function)
        self._forms_changed()

    def pressure(self, where: str | tuple[Any, int] | None, p: Any) -> Any:
        """Pressure p (Pa; a number or UFL) on the deformed surface, for `external` (`fem.discretisation.loads`)."""
        return loads.pressure(self.domain, self.u, self.test_function, where, p)

    @property
    def internal(self) -> Any:
        """Internal forces: a UFL form, linear in `test_function`; `inner(P, grad(v)) * dx` at first.

        A form of the user's own may hold the law's stress `P`, integrated with `dx`, for example
        `ufl.inner((1 - d)**2 * solver.P, ufl.grad(v)) * solver.dx`; the tangent follows from it.
        """
        return internal_form(self.points, self.test_function) if self._internal is None else self._internal

    @internal.setter
    def internal(self, form: Any) -> None:
        self._internal = check_form("internal", form, self.test_function)
        if self._internal.empty():
            raise ValueError("internal must not be empty: a body without internal forces has no equilibrium.")
        self._forms_changed()

    def _forms_changed(self) -> None:
        self._equilibrium = self._newton = None

    @property
    def equilibrium(self) -> Equilibrium:
        """The assembled equations of the forms as they are."""
        if self._equilibrium is None:
            self._equilibrium = Equilibrium(self.points, self.u, self.test_function, self._internal, self._external)
        return self._equilibrium

    # What the driver requires of a body.

    def _evaluate(self, u: np.ndarray) -> None:
        self._set(u)
        self.material.evaluate(self.u, self.dt * (self.time - self._time_n), self.time)

    def _set(self, u: np.ndarray) -> None:
        self.u.x.array[: u.size] = u.ravel()
        self.u.x.scatter_forward()

    def _forces(self) -> np.ndarray:
        return self.equilibrium.forces()

    def _lifted(self, change: np.ndarray) -> np.ndarray:
        return self.equilibrium.lifted(change)

    def _diagonal(self) -> float:
        return 1.0

    def _jacobian(self, x: PETSc.Vec, A: PETSc.Mat) -> None:
        with self.clock("assemble"):
            self.equilibrium.jacobian(A, self._bcs)

    def _make_newton(self) -> Newton:
        b, V, d = self.equilibrium.b, self.points.V, self.points.dimension
        rows = self.supports.rows
        self._bcs = [dolfinx.fem.dirichletbc(0.0, rows[rows % d == i], V.sub(i)) for i in range(d)]
        nodes = self.supports.nodes
        return Newton(
            b,
            self.equilibrium.A,
            self._residual,
            self._jacobian,
            prescribed=self._rows,
            near_nullspace=near_nullspace(b, nodes.x[:d, : nodes.owned].T),
            **self._newton_arguments,
        )

    def _keep(self) -> None:
        self.u_n = self.u.x.array[: self.u_n.size].reshape(self.u_n.shape).copy()
        self.material.commit()

    def _return(self) -> None:
        self._set(self.u_n)
        self.material.roll_back(self.u)

    def set_time(self, t: float) -> None:
        """Go to pseudo-time t: prescribed displacements and loads take their values there."""
        super().set_time(t)
        self.time_constant.value = float(t)

    def solve(self) -> Convergence:
        """Find equilibrium at the time set; the state stays as committed.

        Raises:
            ConvergenceError: On all ranks; `roll_back` then returns to the last state committed.
        """
        self.material.forget_failure()
        return super().solve()

    def _write_replay(self, folder: Path) -> None:
        self.material.write_replay(folder)

    # Checkpoint: rows are cells, displacements included, since edges have no number in the input.

    def _by_cell(self, values: np.ndarray) -> np.ndarray:
        """Values of the owned nodes (n, d) at the nodes of the owned cells, (cells, nodes * d)."""
        array = self._scratch.x.array
        array[: values.size] = values.ravel()
        self._scratch.x.scatter_forward()
        cells = self.points.n // self.points.per_cell
        by_node = array.reshape(-1, self.points.dimension)
        return by_node[self.points.V.dofmap.list[:cells]].reshape(cells, -1)

    def _by_node(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `_by_cell`, ghosts included, (nodes, d)."""
        d, array = self.points.dimension, self._scratch.x.array
        array.reshape(-1, d)[self.points.V.dofmap.list[: len(rows)]] = rows.reshape(len(rows), -1, d)
        self._scratch.x.scatter_forward()
        return array.reshape(-1, d).copy()

    def _content(self) -> tuple[dict[str, Block], dict[str, Scalar], dict[str, str | int | float]]:
        points, material = self.points, self.material
        numbers, topology = cell_numbers(self.domain.mesh), self.domain.mesh.topology
        per_cell = points.per_cell
        arrays = {name: self._by_cell(values) for name, values in self._component_arrays().items()}
        at_points = {"P": material.P_n, "state": material.state, "state_before": material.state_before}
        for name, values in at_points.items():
            width = int(np.prod(values.shape[1:]))
            arrays[name] = values.reshape(len(numbers), per_cell * width)
        total = topology.index_map(topology.dim).size_global
        geometry = self.domain.mesh.geometry
        arrays["middle"] = geometry.x[geometry.dofmap[: len(numbers)]].mean(axis=1)
        identity: dict[str, str | int | float] = {"solver": "implicit", "law": self.law.name}
        identity["law digest"] = law_digest(self.law)
        return {"cells": Block(numbers, total, arrays)}, {"points_evaluated": self.points_evaluated}, identity

    def _check_mesh(
        self, path: str | PathLike[str], here: Mapping[str, Block], found: Mapping[str, Mapping[str, np.ndarray]]
    ) -> None:
        block, middle = here["cells"], here["cells"].arrays["middle"]
        size = self.comm.allreduce(float(np.abs(middle).max(initial=0.0)), op=MPI.MAX)
        was = found["cells"]["middle"]
        check_same(self.comm, path, "midpoint of cell", block.numbers, was, middle, 1e-9 * size)

    def _adopt(self, arrays: Mapping[str, Mapping[str, np.ndarray]], scalars: Mapping[str, Any]) -> None:
        found, points = arrays["cells"], self.points
        by_node = {name: self._by_node(found[name]) for name in self._component_arrays()}
        owned = {name: values[: len(self.u_n)] for name, values in by_node.items()}
        self._adopt_components(owned, by_node["released"], scalars)
        self._set(self.u_n)
        state, before = (found[name].reshape(points.n, self.law.state_size) for name in ("state", "state_before"))
        P, evaluated = found["P"].reshape(points.P.shape), int(scalars["points_evaluated"])
        try:
            self.material.restore(self.u, P, state, before, self.dt * self._length, evaluated)
        except ConvergenceError:
            self._kept = False  # the next step evaluates the law again, from the state committed

    # Results.

    @property
    def state(self) -> np.ndarray:
        """State of the points at the last time committed, (n, k)."""
        return self.material.state

    @property
    def points_evaluated(self) -> int:
        """Law evaluations of all ranks so far."""
        return self.material.evaluated

    def reaction(self, where: Where) -> np.ndarray:
        """Force of the supports on some nodes, (d,), N, with what is left of that of released ones; else zero.

        A node on the edge of two groups counts in both.

        Args:
            where: The nodes, as for `prescribe`.
        """
        nodes = self.supports.nodes.find(where)
        owned = nodes[nodes < len(self.u_n)]
        return self.comm.allreduce(self.equilibrium.forces().reshape(self.u_n.shape)[owned].sum(axis=0))

    def probe(self, points: np.ndarray) -> np.ndarray:
        """Displacement (m, d), m, at points (m, d) of the undeformed body, the same on all ranks; on all ranks.

        Raises:
            ValueError: On all ranks, if a point is not in the mesh.
        """
        if self._probe is None:
            self._probe = Probe(self.domain.mesh)
        return self._probe.evaluate(self.u, points)

    def writer(self, folder: str | PathLike[str], every: float | None = None) -> Writer:
        """Writer of fields and history (`fem.io.fields`): displacement, von Mises stress, observed fields, energies.

        Args:
            folder: Where `fields.bp` (or `fields.xdmf`) and `history.csv` go; it is made if need be.
            every: Pseudo-time between two frames; None writes one at each `update`.
        """
        from fem.io.fields import Writer

        fields = OutputFields(self.u, self.points, self.law, lambda: self.state)
        return Writer(
            folder, fields.functions, time=lambda: self.time, refresh=fields.update, row=self._row, every=every
        )

    def _row(self) -> dict[str, float]:
        law, F, state = self.law, self.points.F, self.state
        row: dict[str, float] = {"time": self.time, "step": self.steps, "newton_iterations": self.newton_iterations}
        for name, density in (("stored_energy", law.stored_energy(F, state)), ("dissipation", law.dissipation(state))):
            if density is not None:
                row[name] = self.material.total(name, density)
        return row

    def stored_energy(self) -> float:
        """Stored energy of the body at the last time committed, J (a metre thick in two dimensions).

        Raises:
            ValueError: If the law does not provide it.
        """
        return self.material.total("stored energy", self.law.stored_energy(self.points.F, self.state))

    def dissipation(self) -> float:
        """Energy dissipated up to the last time committed, J.

        Raises:
            ValueError: If the law does not provide it.
        """
        return self.material.total("dissipation", self.law.dissipation(self.state))
