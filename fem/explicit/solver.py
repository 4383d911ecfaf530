"""Explicit dynamics: central differences, lumped mass, a law at every point, rigid obstacles, and an energy balance.

One step from time n, with a = (external - internal force) / mass (velocity form of central differences):

    v_half = v_n + dt/2 a_n          (obstacles: no node ends inside; prescribed displacements set)
    u_n+1  = u_n + dt v_half
    F_n+1  -> law -> P_n+1 -> a_n+1
    v_n+1  = v_half + dt/2 a_n+1     (obstacles: nodes in contact do not approach; prescribed components as in v_half)

so that displacement, velocity, stress and state belong to one time after each step. The half step of a prescribed
displacement is v_half = (u_prescribed(t_n+1) - u_n) / dt.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dolfinx.fem
import numpy as np
from mpi4py import MPI

from fem import failure
from fem.discretisation import loads
from fem.discretisation.body_law import body_law, density_field
from fem.discretisation.dirichlet import Dirichlet, DirichletSet, Value, Where, body_nodes
from fem.discretisation.mean_dilatation import explicit_points
from fem.errors import SolverError
from fem.explicit import energy_balance
from fem.explicit.contact import ContactSystem, Obstacle, rigid_obstacles
from fem.explicit.contact.system import left_for_good, transit_time
from fem.explicit.energy_balance import EnergyBalance, Sums
from fem.explicit.forces import Forces
from fem.explicit.initial import Field, check_end, check_numbers, end_of_run, fill
from fem.explicit.motion import Motion
from fem.explicit.supports import Supports
from fem.explicit.time_step import StableStep, step_towards
from fem.laws import Law, check_fit
from fem.laws.composite import cell_constants
from fem.mesh import Domain, as_domain
from fem.parallel import fail_together
from fem.steps import Clock, Run, Step

if TYPE_CHECKING:
    from fem.explicit.output import ProjectedFields
    from fem.io.fields import Writer


class ExplicitSolver:
    """Motion of a body under loads, prescribed displacements and contact with rigid obstacles.

    The constructor, assignments to forms, and all methods are collective.

    Args:
        mesh: A DOLFINx mesh of linear hexahedra or tetrahedra, or a `Domain` (with named groups, from `read_mesh`).
        law: Material law, or what `load_law` makes one of; or one for each group of cells, as `{"core": law, "skin":
            law}` or `(MeshTags, {tag: law})`.
        contact: Rigid obstacles that the body cannot enter (`fem.explicit.contact`).
        initial_velocity: m/s: three numbers, an array (nodes of this rank with ghosts, 3), or a function of the node
            coordinates (3, n) that returns (3, n).
        initial_displacement: m, in the same ways; None is zero.
        density: Reference density of the whole body, kg/m^3; None takes that of the laws.
        integration: "one-point" (mean gradient and hourglass stiffness) or "full" (2 x 2 x 2 points, mean dilatation);
            tetrahedra have one point and the mean dilatation of their nodes.
        hourglass: Hourglass stiffness over the shear modulus (`fem.explicit.hourglass`); one-point hexahedra only.
        viscosity: Linear and quadratic coefficient of the bulk viscosity (`fem.explicit.time_step`); zeros for none.
        safety: Factor on the stable step of the cells, in (0, 1]; lowered for meshes that need it
            (`fem.explicit.time_step`).
        mass_scaling: Stable step that the body at rest shall have, s: smaller cells become heavier; None scales none.
        output: Folder for the checkpoint and replay file of a failed run; None writes none.

    Attributes:
        u, velocity: Displacement (m) and velocity (m/s) Functions (P1 vector), at `time`.
        test_function: Test function v of the forms. time_constant: Time as a UFL Constant, s.
        P: First Piola-Kirchhoff stress at the material points as a UFL coefficient, Pa. dx: Measure of these points.
        points: Material points, with the arrays F and P. state: Their internal state, (n, k).
        time: s. steps: Steps done. dt: Last step, s. next_step: Stable step from here, s.
        mass: Lumped mass of the owned nodes, (n_nodes,), kg, mass scaling included. density: Without it, kg/m^3, for
            forms: a number, or a Function of a body with several laws.
        stable: Stable step of the cells; `stable.added` is what mass scaling added (`fem.explicit.time_step`).
        clock: Seconds of this rank by phase. points_evaluated: Law evaluations of this rank.
        in_contact: Whether any node of any rank was in contact in the last step. last_contact: Time of that, s.
        monitors: What watches the points in every step (`fem.failure.Monitor`).
        wish, agreed: What this rank asks all to do, and what all agreed on in the last step
            (`fem.explicit.checkpoints`).

    Raises:
        ValueError: On all ranks, if an argument does not fit.
    """

    def __init__(
        self,
        mesh: Domain | Any,
        law: Law | Any,
        *,
        contact: Obstacle | Sequence[Obstacle] = (),
        initial_velocity: Field = (0.0, 0.0, 0.0),
        initial_displacement: Field = None,
        density: float | None = None,
        integration: Literal["one-point", "full"] = "one-point",
        hourglass: float = 0.3,
        viscosity: tuple[float, float] = (0.06, 1.2),
        safety: float = 0.9,
        mass_scaling: float | None = None,
        output: str | PathLike[str] | None = None,
    ) -> None:
        self.domain = as_domain(mesh)
        self.comm, self.integration = self.domain.comm, integration
        self.law = law = body_law(self.domain, law)
        with fail_together(self.comm):
            check_numbers(law.density if density is None else density, hourglass, safety, viscosity, mass_scaling)
            check_fit(law, "explicit", ("finite",), 3)
            obstacles = rigid_obstacles(contact)
        self.output = Path(output) if output is not None else None
        V = dolfinx.fem.functionspace(self.domain.mesh, ("Lagrange", 1, (3,)))
        self.u, self.velocity = dolfinx.fem.Function(V, name="displacement"), dolfinx.fem.Function(V, name="velocity")
        self.time_constant = dolfinx.fem.Constant(self.domain.mesh, 0.0)
        self._x = V.tabulate_dof_coordinates()
        with fail_together(self.comm):
            self.points = explicit_points(V, integration)
            fill(self.u, initial_displacement, self._x, "displacement")
            fill(self.velocity, initial_velocity, self._x, "velocity")
            self.state = law.initial_state(self.points.n)
        constants = cell_constants(law, self.points.n // self.points.per_cell, density)
        self.density = density_field(self.domain.mesh, law, constants, density)
        self.forces = Forces(self.points, self.u, constants, hourglass)
        self.stable = StableStep(
            self.points, constants, self.forces, self.u, viscosity=(viscosity[0], viscosity[1]), safety=safety,
            wanted=mass_scaling,
        )
        self.test_function, self.P, self.dx = self.forces.test_function, self.points.stress, self.points.dx
        self.n_nodes = V.dofmap.index_map.size_local  # owned
        self.mass = self.forces.mass[: self.n_nodes]
        self.prescribed = DirichletSet(body_nodes(self.domain, V), dynamic=True)
        self.supports = Supports(self.prescribed)
        self._u, self._v = (f.x.array.reshape(-1, 3)[: self.n_nodes] for f in (self.u, self.velocity))
        size = float(self.comm.allreduce(np.abs(self._x).max(initial=0.0), op=MPI.MAX))
        self._tolerance = 1e-9 * size
        self.contact = ContactSystem(self.comm, obstacles, self.mass, self._tolerance)
        with fail_together(self.comm):
            self.contact.check_gaps(self.x, size)
        self.time, self.steps, self.dt = 0.0, 0, 0.0
        self.in_contact, self.last_contact = False, -np.inf
        self.points_evaluated, self._viscosity, self._hourglass = 0, tuple(map(float, viscosity)), float(hourglass)
        self._mass_scaling = mass_scaling or 0.0
        self.monitors: list[failure.Monitor] = []
        self.wish = self.agreed = 0
        self.clock, self._sums = Clock(), Sums()
        self._initial: dict[str, Any] = {}
        self._start(strained=initial_displacement is not None)

    def _start(self, *, strained: bool) -> None:
        """Stable step, stress and state at time zero."""
        self.motion = Motion(self._x[: self.n_nodes], self._u, self._v, self.mass, self.supports, self.contact)
        plane, wave = self.contact.plane(), self.stable.slowest_wave()
        self._transit = transit_time(self.comm, self._x, plane, wave) if plane is not None else np.inf
        self.contact.set_rest_step(self.stable.rest)
        self.stable.stiffen(self.contact.penalty)
        F = self.points.gather(self.u)
        bound, bad, _ = self.stable.bound(F, F, 1.0)
        dt = self.stable.allowed(float(self.comm.allreduce(bound, op=MPI.MIN)))
        state = self._evaluate(F, dt if np.isfinite(dt) and dt > 0.0 else 1.0, F, bound, bad)
        # Without an initial strain nothing happened: the law must not count the time of this call.
        self.state = state if strained else self.state
        self._given = energy_balance.totals(self.comm, self.mass, self._v)
        self.velocity.x.scatter_forward()
        self._before = tuple(a.copy() for a in self._arrays())
        self._internal_force = self._external_force = self._no_force = np.zeros_like(self._x)
        self._changed = True

    @property
    def x(self) -> np.ndarray:
        """Current positions of the nodes of this rank, ghosts included, (nodes, 3), m."""
        return self._x + self.u.x.array.reshape(-1, 3)

    @property
    def internal_force(self) -> np.ndarray:
        """Internal force on the nodes now, the hourglass term included, (nodes, 3), N; of owned nodes only."""
        self._prepare()
        return self._internal_force

    @property
    def external_force(self) -> np.ndarray:
        """External force on the nodes now, (nodes, 3), N; of owned nodes only."""
        self._prepare()
        return self._external_force

    @property
    def external(self) -> Any:
        """Linear form of the external forces in `test_function`, with the sign of a load; empty at first.

        It may hold `u`, `velocity` (of the last half step) and `time_constant`. `solver.external += form` adds a load.
        """
        return self.forces.external

    @external.setter
    def external(self, form: Any) -> None:
        self.forces.external = form

    @property
    def internal(self) -> Any:
        """Form of the internal forces, `inner(P, grad(test_function)) * dx` at first; hourglass forces are added."""
        return self.forces.internal

    @internal.setter
    def internal(self, form: Any) -> None:
        self.forces.internal = form

    def prescribe(
        self, where: Where, component: int | None = None, value: Value = 0.0, *, velocity: Value | None = None
    ) -> None:
        """Prescribe a displacement, or a velocity.

        Args:
            where: A function of the node coordinates (3, n) that is true on the nodes, the name of a group, a pair
                (`dolfinx.mesh.MeshTags`, tag), or None for all nodes.
            component: 0, 1 or 2; None for all three.
            value: The displacement, m: a number, or a function `value(x, t)` of coordinates (3, n) and time (s). Where
                it begins, it must be the displacement that the nodes have.
            velocity: In place of a displacement, m/s, in the same ways.

        Raises:
            ValueError: On all ranks, if no node is there, or if it contradicts what was prescribed before.
        """
        with fail_together(self.comm):
            condition = Dirichlet(where, component, value if velocity is None else velocity, velocity is not None)
        self.prescribed.set_time(self.time)
        self.prescribed.add(condition)
        self._changed = True

    def symmetry(self, where: Where) -> None:
        """Hold the nodes of a plane of symmetry in it, in any direction; `where` as in `prescribe`.

        Planes may meet in lines and corners, with each other and with prescribed components.

        Raises:
            ValueError: On all ranks, if the nodes lie on no plane.
        """
        self.prescribed.set_time(self.time)
        self.supports.add_plane(where)
        self._changed = True

    def pressure(self, where: str | tuple[Any, int] | None, p: Any) -> Any:
        """Pressure p (Pa; a number or UFL) on the deformed surface, for `external` (`fem.discretisation.loads`)."""
        return loads.pressure(self.domain, self.u, self.test_function, where, p)

    def _prepare(self) -> None:
        """Apply what was prescribed, or added to the forms, since the last step."""
        if not (self._changed or self.forces.changed):
            return
        self.prescribed.set_time(self.time)
        self.supports.check_start(self._u, self.time)
        if self.steps == 0:
            self.supports.drive(self._v, self.supports.rates(self._u, self.time, self.next_step), self.mass)
            self.velocity.x.scatter_forward()
            hourglass = self.comm.allreduce(self.forces.hourglass_energy())
            self._initial = {**energy_balance.totals(self.comm, self.mass, self._v), "hourglass": hourglass}
        self.time_constant.value = self.time
        self._internal_force = self.forces.internal_force().copy()
        self._external_force = self.forces.external_force().copy()
        self._changed = False

    def step(self, limit: float | None = None) -> float:
        """Advance one stable step, never past time `limit`.

        Returns:
            The step taken, s.

        Raises:
            SolverError: On every rank, if on any rank the stress is not finite, a cell is inverted or the law fails.
                The solver is then back at the start of the step.
        """
        self._prepare()
        dt = step_towards(limit, self.time, self.next_step)
        for former, now in zip(self._before, self._arrays(), strict=True):
            np.copyto(former, now)
        u_n, v_n, F_n, P_n, _ = self._before
        obstacles_n, internal_n, external_n = self.contact.state, self._internal_force, self._external_force
        with self.clock("contact"):
            first = self.motion.first_half(internal_n, external_n, v_n, self.time, dt)
        with self.clock("gather"):
            self.u.x.scatter_forward()
            F = self.points.gather(self.u)
        with self.clock("step"):
            bound, bad, viscous = self.stable.bound(F, F_n, dt)
        try:
            state = self._evaluate(F_n, dt, F, bound, bad)
        except SolverError:
            self.contact.state = obstacles_n
            self._go_back()
            raise
        with self.clock("assemble"):
            self.forces.relax(F_n, P_n)
            self.time_constant.value = self.time + dt
            if self.forces.has_external:
                self.velocity.x.scatter_forward()
            self._internal_force = self.forces.internal_force().copy()
            self._external_force = self.forces.external_force().copy() if self.forces.has_external else self._no_force
        with self.clock("contact"):
            second = self.motion.second_half(self._internal_force, self._external_force, dt)
            internal = internal_n, self._internal_force
            external = (external_n, self._external_force) if self.forces.has_external else None
            self._sums.record((first, second), self._u - u_n, internal, external, viscous, dt)
        self.state, self.dt, self.steps = state, dt, self.steps + 1
        self.time = limit if limit is not None and abs(limit - self.time - dt) <= 1e-12 * dt else self.time + dt
        self.last_contact = self.time if self.in_contact else self.last_contact
        return dt

    def _evaluate(self, F_n: np.ndarray, dt: float, F: np.ndarray, bound: float, bad: int) -> np.ndarray:
        """The law at all points, then one reduction: next step, contact, failure, wishes. Returns the new state."""
        problem: failure.Problem | None = None
        state = self.state
        with self.clock("law"):
            if self.prescribed.failed is not None:
                problem = failure.Problem(-1, f"cannot follow what is prescribed: {self.prescribed.failed}")
            elif bad >= 0:
                problem = failure.Problem(bad, "is inverted")
            else:
                try:
                    P, state = self.law.update(F, self.state, dt)
                    self.points.P[:] = P
                    problem = failure.find(P, state) or failure.watch(self.monitors, F_n, F, state, dt)
                except Exception as error:  # a law may fail in any way; the ranks must still decide together
                    problem = failure.raised(self.law, self.law.update, F, self.state, dt, error)
        self.points_evaluated += self.points.n
        total = np.empty(4)
        mine = [bound, -float(self.contact.touching > 0), -float(problem is not None), -float(self.wish)]
        self.comm.Allreduce(np.array(mine), total, op=MPI.MIN)
        if total[2] < 0.0:
            given = {"F_n": F_n, "F": F, "state": self.state, "dt": dt, "law": self.law}
            failure.stop(self.domain, self.points.per_cell, self.time, problem, self.output, **given)
        for monitor in self.monitors:
            monitor.accept()
        self.agreed = int(-total[3])
        self.next_step = self.stable.allowed(float(total[0]))
        self.in_contact = bool(total[1] < 0.0)
        return state

    def _arrays(self) -> tuple[np.ndarray, ...]:
        """What a step changes in place, to be kept for a return to its start."""
        return self._u, self._v, self.points.F, self.points.P, self.points.viscous

    def _go_back(self) -> None:
        """Return to the start of a step that failed; write a checkpoint to the output folder, if there is one."""
        for former, now in zip(self._before, self._arrays(), strict=True):
            np.copyto(now, former)
        self.u.x.scatter_forward()
        self.points.gather(self.u)
        if self.output is not None:
            with contextlib.suppress(OSError):  # raised on all ranks; report the error that stopped the run
                self.save(self.output / failure.CHECKPOINT)

    def run(self, until: float | Literal["rebound"], *, limit: float | None = None) -> Run[Step]:
        """Run to a time or to the rebound, as an iterator over the steps.

        Args:
            until: Time to end at exactly, s, or "rebound": when the body has left the first rigid plane for good
                (`fem.explicit.contact`).
            limit: Latest time of a run to the rebound, s; None is 1000 transit times of a wave through the body.

        Returns:
            The run: each item takes a step. `finish()` takes all.

        Raises:
            ValueError: On all ranks, if it cannot end there, or would take more than 1e9 steps.
        """
        end = end_of_run(until, limit, self.time, None if self.contact.plane() is None else self._transit)
        self.check_end(end)
        return Run(self._run(end, rebound=until == "rebound"), f"run to {until}")

    def check_end(self, end: float) -> None:
        """Refuse a time (s) that a run cannot end at, or not within 1e9 steps.

        Raises:
            ValueError: On all ranks.
        """
        check_end(self.time, end, self.next_step)

    def _run(self, end: float, *, rebound: bool) -> Iterator[Step]:
        while self.time < end:
            self.step(end)
            yield Step(self.time, self.dt, self.steps)
            if rebound and self.rebounded():
                return

    def rebounded(self) -> bool:
        """Whether the body has left the first rigid plane for good (`fem.explicit.contact`)."""
        plane = self.contact.plane()
        if plane is None or self.time - self.last_contact < self._transit or self.last_contact == -np.inf:
            return False
        momentum = energy_balance.totals(self.comm, self.mass, self._v)["momentum"]
        return left_for_good(self.time, self.last_contact, self._transit, momentum, plane)

    def energy_balance(self) -> EnergyBalance:
        """Energy and momentum now, and the work and impulses since the start."""
        self._prepare()
        here = self.forces.hourglass_energy(), self.contact, self.x[: self.n_nodes]
        found = energy_balance.balance(self.comm, self._sums, self._initial, self.time, self.mass, self._v, *here)
        return dataclasses.replace(found, added_mass=self.stable.added.fraction)

    def writer(self, folder: str | PathLike[str], every: float | None = None) -> Writer:
        """Writer of fields and history (`fem.io.fields`): displacement, velocity, projected measures, energy balance.

        Args:
            folder: Where `fields.bp` (or `fields.xdmf`) and `history.csv` go; it is made if need be.
            every: Time between two frames, s; None writes one at each `update`.
        """
        from fem.io.fields import Writer

        functions = [self.u, self.velocity, *self.projected.nodal.values()]
        time = lambda: self.time
        return Writer(folder, functions, time=time, refresh=self.project, row=self._row, every=every)

    @functools.cached_property
    def projected(self) -> ProjectedFields:
        """Nodal fields of stress, strain and what the law observes (`fem.explicit.output`), as `project` left them."""
        from fem.explicit.output import ProjectedFields

        return ProjectedFields(self.points, self.law, lambda: self.state)

    def project(self) -> dict[str, np.ndarray]:
        """Bring the nodal fields `projected` up to date; returns averages over the owned cells, name -> (cells,)."""
        self._prepare()
        self.velocity.x.scatter_forward()
        return self.projected.update()

    def _row(self) -> dict[str, float]:
        return {**self.energy_balance().as_dict(), "steps": self.steps, "dt": self.dt}

    def save(self, path: str | PathLike[str], former: str | PathLike[str] | None = None) -> None:
        """Write a checkpoint, which any number of ranks can restore; the folder must exist.

        Args:
            path: The file.
            former: Name under which the file that has been there is kept; None does not keep it.

        Raises:
            OSError: On all ranks, if it cannot be written.
        """
        from fem.explicit import state

        self._prepare()
        state.save(self, path, former)

    def restore(self, path: str | PathLike[str], *, same_law: bool = True) -> None:
        """Go to the state of a checkpoint of the same problem; `fem.explicit.state` says what must be the same.

        Args:
            path: The file.
            same_law: False takes another law of the same name as well, one that was repaired or trained again.

        Raises:
            ValueError: On all ranks, if the file is no checkpoint of such a solver, or is damaged.
            FileNotFoundError: On all ranks, if it is not there.
        """
        from fem.explicit import state

        state.restore(self, path, same_law=same_law)
        self._changed = self.forces.changed = False

    def timed(self, phase: str) -> contextlib.AbstractContextManager[None]:
        """Add the time of a block to a phase, for example "output"."""
        return self.clock(phase)

    def total_seconds(self) -> dict[str, float]:
        """Seconds by phase, the largest of all ranks."""
        return self.clock.largest(self.comm)

    def total_points(self) -> int:
        """Law evaluations of all ranks so far."""
        return int(self.comm.allreduce(self.points_evaluated))
