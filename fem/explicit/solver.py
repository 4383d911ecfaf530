"""Explicit dynamics: central differences with lumped mass, a law at every point, rigid walls, and the books kept.

One step from time n, with a = force / mass (velocity form of central differences):

    v_half = v_n + dt/2 a_n          (walls: impulse so that no node ends inside; fixed components set)
    u_n+1  = u_n + dt v_half
    F_n+1  -> law -> P_n+1 -> a_n+1
    v_n+1  = v_half + dt/2 a_n+1     (walls: nodes in contact do not approach; fixed components set)

so that displacement, velocity, stress and state belong to one time after each step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import dolfinx.fem
import numpy as np
from mpi4py import MPI

from fem import errors
from fem.clock import Clock
from fem.discretisation.quadrature import Points, explicit_points
from fem.errors import SolverError
from fem.explicit import boundary, contact, energy_balance, rebound
from fem.explicit.boundary import Fixed
from fem.explicit.contact import PlaneWall
from fem.explicit.forces import Residual
from fem.explicit.initial import Field, fill
from fem.explicit.time_step import MARGIN, cell_metric, highest_frequency, smallest_step
from fem.laws import Law, check_fit
from fem.mesh import Domain
from fem.parallel import raise_together

__all__ = ["ExplicitSolver", "Fixed", "PlaneWall", "SolverError"]


class ExplicitSolver:
    """Impact of a body on rigid walls; the constructor and the methods that say so are collective.

    Args:
        domain: Mesh and groups.
        law: Material law (`fem.load_law`).
        walls: Rigid planes.
        fixed: Fixed velocity components on surface groups (symmetry planes, clamps, drives).
        forms: `forms(u, velocity, w, t)` returns a UFL form that is added to the residual: displacement, velocity (of
            the last half step), test function, time (a Constant, s). A body force is `-inner(b, w) * dx`.
        velocity: Initial velocity, m/s: three numbers, an array (nodes of this rank with ghosts, 3), or a function of
            the node coordinates (3, n) that returns (3, n).
        displacement: Initial displacement, in the same ways; m. None is zero.
        density: Reference density, kg/m^3; None takes the law's.
        integration: "one-point" (mean gradient and hourglass stiffness) or "full" (2 x 2 x 2 points).
        hourglass: Hourglass stiffness over the shear modulus (0.03 to 0.1 is usual); one-point only.
        safety: Factor on the stable step of the cells, in (0, 1]; lowered for meshes that need it
        (`fem.explicit.time_step`).
        output: Folder for the checkpoint and replay file of a failed run; None writes none.

    Attributes:
        u, velocity: Displacement and velocity Functions (P1 vector), at `time`.
        points: Material points. state: Their internal state, (n, k).
        time: s. steps: Steps done. dt: Last step, s. next_step: Stable step from here, s.
        internal_force, user_force: On the nodes, to be subtracted, (nodes, 3), N.
        clock: Seconds of this rank by phase. points_evaluated: Law evaluations of this rank.
        in_contact: Whether any node of any rank was in contact in the last step. last_contact: Time of that, s.

    Raises:
        ValueError: If an argument does not fit.
    """

    def __init__(
        self,
        domain: Domain,
        law: Law,
        *,
        walls: Sequence[PlaneWall] = (),
        fixed: Sequence[Fixed] = (),
        forms: Callable[[Any, Any, Any, Any], Any] | None = None,
        velocity: Field = (0.0, 0.0, 0.0),
        displacement: Field = None,
        density: float | None = None,
        integration: Literal["one-point", "full"] = "one-point",
        hourglass: float = 0.05,
        safety: float = 0.9,
        output: str | PathLike[str] | None = None,
    ) -> None:
        self.density = law.density if density is None else float(density)
        if not 0.0 < safety <= 1.0:
            raise ValueError(f"safety must be in (0, 1], got {safety}.")
        if not (np.isfinite(self.density) and self.density > 0.0):
            raise ValueError(f"density must be positive, got {self.density}.")
        if not (np.isfinite(hourglass) and hourglass >= 0.0):
            raise ValueError(f"hourglass must not be negative, got {hourglass}.")
        self.domain, self.law, self.comm = domain, law, domain.comm
        self.walls = tuple(walls)
        self.output = Path(output) if output is not None else None
        V = dolfinx.fem.functionspace(domain.mesh, ("Lagrange", 1, (3,)))
        self.u, self.velocity = dolfinx.fem.Function(V, name="u"), dolfinx.fem.Function(V, name="velocity")
        self.t = dolfinx.fem.Constant(domain.mesh, 0.0)
        self._x = V.tabulate_dof_coordinates()
        error: Exception | None = None
        try:
            check_fit(law, "explicit", ("finite",), 3)
            self.points: Points = explicit_points(V, integration)
            fill(self.u, displacement, self._x, "displacement")
            fill(self.velocity, velocity, self._x, "velocity")
            self.state = law.initial_state(self.points.n)
        except ValueError as caught:
            error = caught
        raise_together(self.comm, error)
        kappa = hourglass * law.shear_modulus
        self.residual = Residual(self.points, self.u, self.velocity, self.t, self.density, kappa, forms)
        self.n_nodes = V.dofmap.index_map.size_local  # owned
        self.mass = self.residual.mass[: self.n_nodes]
        self._fixed = boundary.fixed_nodes(domain, V, fixed)
        self._metric = cell_metric(self.points.B, self.points.cell_volume, self.points.node_volume)
        self._u, self._v = (f.x.array.reshape(-1, 3)[: self.n_nodes] for f in (self.u, self.velocity))
        self._tolerance = 1e-9 * float(self.comm.allreduce(np.abs(self._x).max(initial=0.0), op=MPI.MAX))
        wave_speed = np.sqrt((law.bulk_modulus + 4.0 / 3.0 * law.shear_modulus) / self.density)
        self._transit = rebound.transit_time(self.comm, self._x, self.walls[0], wave_speed) if self.walls else np.inf
        self.time, self.steps, self.dt = 0.0, 0, 0.0
        self.in_contact, self.last_contact, self._touching = False, -np.inf, 0
        self.points_evaluated = 0
        self.clock = Clock()
        self.books = energy_balance.Books()
        highest = highest_frequency(self.points, self.residual, self.u, law.bulk_modulus, law.shear_modulus)
        rest, _ = self._step_bound(np.tile(np.eye(3), (self.points.n, 1, 1)))
        self._factor = min(safety, MARGIN * 2.0 / highest / float(self.comm.allreduce(rest, op=MPI.MIN)))
        self._start(strained=displacement is not None)

    def _start(self, strained: bool) -> None:
        """Stress, forces and totals at time zero."""
        boundary.apply(self._fixed, self._v, self.mass)
        self.u.x.scatter_forward()
        self.velocity.x.scatter_forward()
        F = self.points.gather(self.u)
        bound, bad = self._step_bound(F)
        dt = self._factor * float(self.comm.allreduce(bound, op=MPI.MIN))
        state = self._evaluate(F, dt if np.isfinite(dt) and dt > 0.0 else 1.0, F, bound, bad, 0)
        # Without an initial strain nothing happened: the law must not count the time of this call.
        self.state = state if strained else self.state
        self.internal_force, self.user_force = self.residual.internal().copy(), self.residual.user().copy()
        hourglass = self.comm.allreduce(self.residual.hourglass_energy())
        self.opening = {**energy_balance.totals(self.comm, self.mass, self._v), "hourglass": hourglass}

    @property
    def F(self) -> np.ndarray:
        """Deformation gradient at the points of this rank, (n, 3, 3)."""
        return self.points.F

    @property
    def P(self) -> np.ndarray:
        """First Piola-Kirchhoff stress at the points of this rank, (n, 3, 3), Pa."""
        return self.points.P

    @property
    def x(self) -> np.ndarray:
        """Current positions of the nodes of this rank, ghosts included, (nodes, 3), m."""
        return self._x + self.u.x.array.reshape(-1, 3)

    def step(self, limit: float | None = None) -> float:
        """Advance one stable step, never past time `limit`; collective.

        Returns:
            The step taken, s.

        Raises:
            SolverError: On every rank, if on any rank the stress is not finite, a cell is inverted or the law fails.
                The solver is then back at the start of the step.
        """
        dt = self.next_step
        if limit is not None and self.time + 2.0 * dt > limit:
            remaining = limit - self.time
            dt = remaining if remaining <= dt else 0.5 * remaining  # two equal steps, rather than one and a sliver
        if not (np.isfinite(dt) and dt > 0.0):
            raise ValueError(f"The step must be positive, got {dt} s at time {self.time} s.")
        n, mass = self.n_nodes, self.mass
        u_n, v_n, F_n, P_n = self._u.copy(), self._v.copy(), self.F.copy(), self.P.copy()
        internal_n, user_n = self.internal_force, self.user_force
        with self.clock("contact"):
            self._v -= (0.5 * dt / mass)[:, None] * (internal_n + user_n)[:n]
            wall, touching = contact.keep_out(self.walls, self._x[:n] + u_n, self._v, mass, dt)
            fixed = boundary.apply(self._fixed, self._v, mass)
            v_half = self._v.copy()
            self._u += dt * v_half
            first = energy_balance.Kick(wall, fixed, 0.5 * (v_n + v_half))
        with self.clock("gather"):
            self.u.x.scatter_forward()
            F = self.points.gather(self.u)
        with self.clock("step"):
            bound, bad = self._step_bound(F)
        try:
            state = self._evaluate(F_n, dt, F, bound, bad, int(np.count_nonzero(touching)))
        except SolverError:
            self._u[:], self._v[:], self.P[:] = u_n, v_n, P_n
            self.u.x.scatter_forward()
            self.points.gather(self.u)
            errors.write_checkpoint(self)
            raise
        with self.clock("assemble"):
            self.t.value = self.time + dt
            if self.residual.has_user:
                self.velocity.x.scatter_forward()
            self.internal_force, self.user_force = self.residual.internal().copy(), self.residual.user().copy()
        with self.clock("contact"):
            self._v -= (0.5 * dt / mass)[:, None] * (self.internal_force + self.user_force)[:n]
            x = self._x[:n] + self._u
            wall = contact.stop_approach(self.walls, x, self._v, mass, touching, self._tolerance)
            fixed = boundary.apply(self._fixed, self._v, mass)
            second = energy_balance.Kick(wall, fixed, 0.5 * (v_half + self._v))
            user = 0.5 * (user_n + self.user_force)[:n] if self.residual.has_user else None
            self.books.record((first, second), self._u - u_n, 0.5 * (internal_n + self.internal_force)[:n], user, dt)
        self.state, self.dt = state, dt
        self.time = limit if limit is not None and abs(limit - self.time - dt) <= 1e-12 * dt else self.time + dt
        self.steps += 1
        self.last_contact = self.time if self.in_contact else self.last_contact
        return dt

    def _step_bound(self, F: np.ndarray) -> tuple[float, int]:
        law = self.law
        return smallest_step(F, self.points.per_cell, self._metric, law.bulk_modulus, law.shear_modulus, self.density)

    def _evaluate(self, F_n: np.ndarray, dt: float, F: np.ndarray, bound: float, bad: int, touching: int) -> np.ndarray:
        """The law at all points, then one reduction: next step, contact, failure. Returns the new state."""
        problem: errors.Problem | None = None
        state = self.state
        with self.clock("law"):
            if bad >= 0:
                problem = errors.Problem(bad, f"is inverted (det F = {np.linalg.det(F[bad]):.3g})")
            else:
                try:
                    P, state = self.law.update(F, self.state, dt)
                    self.P[:] = P
                    problem = errors.find(self.P, state)
                except Exception as error:  # a law may fail in any way; the ranks must still decide together
                    problem = errors.Problem(-1, f"cannot be evaluated by the law {self.law.name}: {error}")
        self.points_evaluated += self.points.n
        total = np.empty(3)
        self.comm.Allreduce(np.array([bound, -float(touching > 0), -float(problem is not None)]), total, op=MPI.MIN)
        if total[2] < 0.0:
            errors.stop(self, problem, F_n, F, dt)
        self.next_step = self._factor * float(total[0])
        self.in_contact, self._touching = bool(total[1] < 0.0), touching
        return state

    def run(
        self,
        until: float | Literal["rebound"],
        *,
        limit: float | None = None,
        callback: Callable[[ExplicitSolver], None] | None = None,
    ) -> str:
        """Step until a time or the rebound; collective.

        Args:
            until: Time to end at exactly, s, or "rebound": see `fem.explicit.rebound`.
            limit: Latest time when running to the rebound, s.
            callback: Called with the solver after every step.

        Returns:
            "time", "rebound" or "limit": why it ended.
        """
        if until == "rebound" and not self.walls:
            raise ValueError("A rebound needs a wall.")
        end = limit if until == "rebound" else float(until)
        if end is not None and not end >= self.time:
            raise ValueError(f"The run cannot end at {end} s, it is at {self.time} s.")
        while end is None or self.time < end:
            self.step(end)
            if callback is not None:
                callback(self)
            if until == "rebound" and self.rebounded():
                return "rebound"
        return "limit" if until == "rebound" else "time"

    def rebounded(self) -> bool:
        """Whether the body has left the first wall for good (`fem.explicit.rebound`); collective."""
        if self.time - self.last_contact < self._transit or self.last_contact == -np.inf:
            return False
        momentum = energy_balance.totals(self.comm, self.mass, self._v)["momentum"]
        return rebound.left_for_good(self.time, self.last_contact, self._transit, momentum, self.walls[0])

    def ledger(self) -> energy_balance.Ledger:
        """Energy and momentum now; collective."""
        here = self.residual.hourglass_energy(), self._touching
        return energy_balance.close(self.comm, self.books, self.opening, self.time, self.mass, self._v, *here)

    def timed(self, phase: str) -> contextlib.AbstractContextManager[None]:
        """Add the time of a block to a phase, for example "output"."""
        return self.clock(phase)

    def total_seconds(self) -> dict[str, float]:
        """Seconds by phase, the largest of all ranks; collective."""
        return self.clock.largest(self.comm)

    def total_points(self) -> int:
        """Law evaluations of all ranks so far; collective."""
        return int(self.comm.allreduce(self.points_evaluated))
