"""Implicit statics: equilibrium by Newton with the law's tangent, in load steps, the state kept where it converged.

One step from pseudo-time t_n to t, with the state at t_n given:

    find u:  inner(P, grad v) dx + forms(u, v, t) = 0,   (P, state, dP_dF) = law(I + grad u, state_n, dt (t - t_n))

A law of small strain takes sym(grad u) from F itself: small and finite strain are the same here. The first residual and
Jacobian of a step are those at the end of the last one, kept from there, unless the prescribed displacements turn back:
the law is called once a Newton iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import dolfinx.fem
import numpy as np

from fem import failure
from fem.clock import Clock
from fem.discretisation.point_evaluation import Probe
from fem.discretisation.prescribed import Group, Prescribed, Supports, find_nodes
from fem.discretisation.quadrature import QuadraturePoints
from fem.errors import SolverError
from fem.laws import Law, check_fit
from fem.mesh import Domain
from fem.parallel import raise_together
from fem.statics import implicit_checkpoint, load_steps
from fem.statics.assembly import Equilibrium
from fem.statics.constitutive import Material
from fem.statics.load_steps import Step
from fem.statics.newton import Convergence, Newton
from fem.statics.rigid_body import near_nullspace

__all__ = ["ImplicitSolver", "Prescribed", "SolverError"]

# Unknowns up to which a direct solver is the faster one (measured, one core), by dimension.
DIRECT_BELOW = {2: 100_000, 3: 6_000}
PHASES = ("gather", "law", "assemble", "solve")


class ImplicitSolver:
    """Static equilibrium of a body in pseudo-time; the constructor and all methods are collective.

    It is a problem of `fem.statics.load_steps`: `run` steps it through a load; `set_time`, `solve`, `commit` and
    `roll_back` do
    a step by hand.

    Args:
        domain: Mesh and groups; triangles, quadrilaterals, tetrahedra or hexahedra.
        law: Material law of the mesh's dimension (`fem.load_law`), of small or finite strain.
        prescribed: Prescribed displacements.
        forms: `forms(u, v, t)` returns a UFL form that is added to the residual: displacement, test function, and
            pseudo-time (a Constant). A body force is `-inner(b, v) * dx`; its derivative to u is taken by UFL.
        degree: Of the displacement, 1 or 2.
        quadrature_degree: None takes full integration (`fem.discretisation.quadrature.quadrature_degree`).
        linear: "direct", "iterative", or "auto" by the number of unknowns (`fem.statics.newton`).
        symmetric: Whether the Jacobian is symmetric; None tests it.
        dt: Seconds in one unit of pseudo-time, for laws that ask for the time step.
        rtol: Newton's tolerance (`fem.statics.newton`), as atol, stol, maximum.
        line_search: "energy" shortens Newton steps that overshoot (`fem.statics.line_search`); "basic" never does.
        options: PETSc options of SNES and KSP, without prefix, that override.
        output: Folder for the checkpoint and the replay file of a failed run; None writes none.

    Attributes:
        u: Displacement Function. points: Quadrature points, with F, P and dP_dF there.
        time: Pseudo-time: of the last commit, or that set since.
        last: `Convergence` of the last solve, None before. history: Steps of `run`, in order.
        clock: Seconds of this rank by phase.

    Raises:
        ValueError: On all ranks, if an argument does not fit.
    """

    def __init__(
        self,
        domain: Domain,
        law: Law,
        *,
        prescribed: Sequence[Prescribed] = (),
        forms: Callable[[Any, Any, Any], Any] | None = None,
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
        mesh, d = domain.mesh, domain.mesh.geometry.dim
        check_fit(law, "implicit", ("small", "finite"), d)
        if degree not in (1, 2):
            raise ValueError(f"degree must be 1 or 2, got {degree}.")
        if not (np.isfinite(dt) and dt > 0.0):
            raise ValueError(f"dt must be positive, got {dt}.")
        self.domain, self.law, self.comm, self.dt = domain, law, domain.comm, float(dt)
        self.output = Path(output) if output is not None else None
        V = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (d,)))
        self.u, self._u_n = dolfinx.fem.Function(V, name="u"), dolfinx.fem.Function(V)
        self.t = dolfinx.fem.Constant(mesh, 0.0)
        self.clock = Clock(PHASES)
        self.points = QuadraturePoints(V, quadrature_degree, tangent=True)
        self.material = Material(domain, self.points, law, self.clock)
        self.supports = Supports(domain, V, prescribed)
        self.equilibrium = Equilibrium(self.points, self.u, self.t, forms, self.supports)
        self._n_owned = d * V.dofmap.index_map.size_local
        nodes = V.tabulate_dof_coordinates()[: V.dofmap.index_map.size_local, :d]
        self.newton = Newton(
            self.equilibrium.b,
            self.equilibrium.A,
            self._residual,
            self._jacobian,
            prescribed=self.supports.dofs[: self.supports.owned],
            linear=linear,
            symmetric=symmetric,
            near_nullspace=near_nullspace(self.equilibrium.b, nodes),
            direct_below=DIRECT_BELOW[d],
            rtol=rtol,
            atol=atol,
            stol=stol,
            maximum=maximum,
            line_search=line_search,
            options=options,
        )
        self._x = self.equilibrium.b.duplicate()
        self._probe: Probe | None = None
        self.time, self._time_n = 0.0, 0.0
        self.last: Convergence | None = None
        self.history: list[Step] = []
        self._fresh, self._change = True, np.zeros(self.supports.owned)
        self.points.gather(self.u)

    @property
    def state(self) -> np.ndarray:
        """State of the points at the last time committed, (n, k)."""
        return self.material.state

    @property
    def points_evaluated(self) -> int:
        """Law evaluations of all ranks so far."""
        return self.material.evaluated

    def run(self, until: float = 1.0, **options: Any) -> list[Step]:
        """Step to a pseudo-time; the options are those of `fem.statics.load_steps.run` (step, times, growth,
        progress, ...).

        Returns:
            The steps taken; they are also added to `history`.

        Raises:
            SolverError: On all ranks, if a step fails that cannot be cut any more; the solver is then at the last state
                committed, and the output folder has a checkpoint and a file to replay the point that failed.
        """
        steps = load_steps.run(self, until, **options)
        self.history += steps
        return steps

    def set_time(self, t: float) -> None:
        """Go to pseudo-time t: prescribed displacements and the user's forms take their values there."""
        self.supports.set_time(t)
        self.time = self.t.value = float(t)

    def solve(self) -> Convergence:
        """Find equilibrium at the time set; the state stays as committed.

        Raises:
            ConvergenceError: On all ranks; `roll_back` then returns to the last state committed.
        """
        owned = slice(self.supports.owned)
        change = self.supports.values[owned] - self._u_n.x.array[self.supports.dofs[owned]]
        if self.comm.allreduce(float(change @ self._change)) < 0.0:
            # The load turns back: the tangent of plastic flow would overshoot, the law's at rest (elastic) does not.
            self.material.kept = False
        self._change = change
        self._fresh = not self.material.kept
        self.material.forget_failure()
        self._x.array_w[:] = self.u.x.array[: self._n_owned]
        self.last = None
        with self.clock("solve"):
            self.last = self.newton.solve(self._x)
        return self.last

    def commit(self) -> None:
        """Take the solution as the start of the next step."""
        self._u_n.x.array[:] = self.u.x.array
        self._time_n = self.time
        self.material.commit()

    def roll_back(self) -> None:
        """Return to the last state committed, its time included."""
        self.u.x.array[:] = self._u_n.x.array
        self.material.roll_back(self.u)
        self.set_time(self._time_n)

    def adopt(self, state: np.ndarray) -> None:
        """Commit a state (n, k) with u, P and the time as they are, and keep nothing else of the past."""
        self._u_n.x.array[:] = self.u.x.array
        self._time_n, self._change = self.time, np.zeros(self.supports.owned)
        self.material.adopt(self.u, state)
        self.newton.linear.forget()

    def _residual(self, x: Any, b: Any) -> float:
        self.u.x.array[: self._n_owned] = x.array_r
        self.u.x.scatter_forward()
        if self._fresh:
            self.material.evaluate(self.u, self.dt * (self.time - self._time_n), self.time)
        self._fresh = True
        with self.clock("assemble"):
            return self.equilibrium.residual(b)

    def _jacobian(self, x: Any, A: Any) -> None:
        with self.clock("assemble"):
            self.equilibrium.jacobian(A)

    def give_up(self, sentence: str) -> None:
        """Write the checkpoint and, if the law failed, the replay file to the output folder, if there is one."""
        if self.output is None:
            return
        error: Exception | None = None
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            self.material.write_replay(self.output)
        except OSError as caught:
            error = caught
        raise_together(self.comm, error)
        self.save(self.output / failure.CHECKPOINT)

    def reaction(self, group: Group) -> np.ndarray:
        """Force of the supports on the nodes of a group, (d,), N: zero where nothing is prescribed.

        A node on the edge of two groups counts in both.
        """
        nodes = find_nodes(self.domain, self.points.V, group)
        d = self.points.dimension
        owned = nodes[nodes < self._n_owned // d]
        return self.comm.allreduce(self.equilibrium.forces().reshape(-1, d)[owned].sum(axis=0))

    def probe(self, points: np.ndarray) -> np.ndarray:
        """Displacement (m, d), m, at points (m, d) of the undeformed body, the same on all ranks; on all ranks.

        Raises:
            ValueError: On all ranks, if a point is not in the mesh.
        """
        if self._probe is None:
            self._probe = Probe(self.domain.mesh)
        return self._probe.evaluate(self.u, points)

    def stored_energy(self) -> float:
        """Stored energy of the body at the last time committed, J (a metre thick in two dimensions).

        Raises:
            ValueError: If the law cannot tell it.
        """
        return self.material.total("stored energy", self.law.stored_energy(self.points.F, self.state))

    def dissipation(self) -> float:
        """Energy dissipated up to the last time committed, J.

        Raises:
            ValueError: If the law cannot tell it.
        """
        return self.material.total("dissipation", self.law.dissipation(self.state))

    def save(self, path: str | PathLike[str]) -> None:
        """Write a checkpoint of the last state committed (`fem.statics.implicit_checkpoint`)."""
        implicit_checkpoint.save(self, path)

    def restore(self, path: str | PathLike[str]) -> None:
        """Go to the state of a checkpoint, written on any number of ranks."""
        implicit_checkpoint.restore(self, path)

    def total_seconds(self) -> dict[str, float]:
        """Seconds by phase, the largest of all ranks; "solve" holds the others."""
        return self.clock.largest(self.comm)

