"""Finite trusses: elastoplastic bars between nodes, small strains, any number of ranks.

Equilibrium in load steps by Newton's method with the tangent of the bar law, in the same way as
`fem.statics.implicit`: the
state is kept where it converged, a step that fails is rolled back and cut. A lattice of n x n x n cells solved here is
what a homogenised law is measured against.

References:
    Masi and Stefanou (2022), section V, doi:10.1016/j.cma.2022.115190.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from fem import failure
from fem.clock import Clock
from fem.io.checkpoint import gather_rows
from fem.parallel import raise_together
from fem.statics import load_steps
from fem.statics.load_steps import Step
from fem.statics.newton import Convergence, ConvergenceError, Newton
from fem.statics.rigid_body import near_nullspace
from fem.truss import checkpoint
from fem.truss.assembly import TrussAssembly
from fem.truss.bar_law import BarLaw
from fem.truss.bars import Bars
from fem.truss.partition import share
from fem.truss.supports import Condition, NodeSupports

PHASES = ("law", "assemble", "solve")
DIRECT_BELOW = {2: 20_000, 3: 1_500}  # unknowns, by dimension: above, multigrid is faster (docs/lattices.md)
# A node is a block, and a lattice is well conditioned: one sweep of block Jacobi a level is the cheapest.
MULTIGRID = {"mg_levels_pc_type": "pbjacobi", "mg_levels_ksp_max_it": 1}


class TrussSolver:
    """Static equilibrium of a truss in pseudo-time; the constructor and all methods are collective.

    A problem of `fem.statics.load_steps`: `run` steps it through a load; `set_time`, `solve`, `commit` and
    `roll_back` do it by
    hand.

    Args:
        nodes: Positions, (N, d), d = 2 or 3, m; on rank 0, elsewhere ignored, as bars and area.
        bars: Nodes of each bar, (B, 2), int.
        area: Cross-section of each bar, (B,), or one number, m^2 (per thickness in two dimensions).
        bar_law: The law of all bars.
        prescribed: Displacements (node ids, component, value), the same on all ranks; see `fem.truss.supports`.
        linear: "direct" (MUMPS, Cholesky), "iterative" (CG with GAMG) or "auto", by the number of unknowns.
        comm: Communicator.
        rtol: Newton's tolerance (`fem.statics.newton`), as atol, maximum, line_search. Whole steps ("basic") cycle
        where many
            bars yield at once; backtracking costs nothing where they do not.
        options: PETSc options of SNES and KSP, without prefix, that override.
        output: Folder for the checkpoint of a failed run; None writes none.

    Attributes:
        part: What this rank owns, with the input ids.
        u_n: Displacement of the owned nodes at the last commit, (n, d), m. force_n: Forces of the bars on them, N.
        released: Forces of released supports, before they fade, (n, d), N.
        bars: Strain, stress and state of the owned bars (`fem.truss.bars`).
        time: Pseudo-time: of the last commit, or that set since.
        last: `Convergence` of the last solve, None before. history: Steps of `run`, in order.
        newton_iterations: Linear systems solved so far, those of failed steps left out.
        external_work: Of the supports, by the trapezoid rule over the steps, J.
        clock: Seconds of this rank by phase; "solve" holds the others.

    Raises:
        ValueError: On all ranks, if an argument does not fit.
    """

    def __init__(
        self,
        nodes: Any,
        bars: Any,
        area: Any,
        bar_law: BarLaw,
        *,
        prescribed: Sequence[Condition] = (),
        linear: Literal["direct", "iterative", "auto"] = "auto",
        comm: MPI.Comm = MPI.COMM_WORLD,
        rtol: float = 1e-10,
        atol: float = 0.0,
        maximum: int = 20,
        line_search: str = "bt",
        options: Mapping[str, Any] | None = None,
        output: str | PathLike[str] | None = None,
    ) -> None:
        self.comm, self.bar_law = comm, bar_law
        self.output = Path(output) if output is not None else None
        self.part = share(comm, nodes, bars, area)
        self.assembly = TrussAssembly(self.part, comm)
        self._newton_arguments: dict[str, Any] = {
            "symmetric": True,
            "direct_below": DIRECT_BELOW[self.assembly.d],
            "linear": linear,
            "rtol": rtol,
            "atol": atol,
            "maximum": maximum,
            "line_search": line_search,
            "options": (MULTIGRID if linear != "direct" else {}) | dict(options or {}),
        }
        self.bars = Bars(bar_law, self.part.area * self.assembly.length, self.part.total_bars, comm)
        self._x, self._b = self.assembly.create_vector(), self.assembly.create_vector()
        self._A = self.assembly.create_matrix()
        self._modes = near_nullspace(self._b, self.part.x[: self.assembly.n])
        self.u_n, self.force_n = np.zeros((2, self.assembly.n, self.assembly.d))
        self._u, self._force = self.u_n, self.force_n
        self.external_work, self._change = 0.0, np.zeros(0)
        self.time, self._time_n = 0.0, 0.0
        self.last: Convergence | None = None
        self.history: list[Step] = []
        self.newton_iterations = 0
        self.clock = Clock(PHASES)
        self._kept, self._fresh = False, True  # whether forces and tangent are still those of the last commit
        # Forces of released supports, and the pseudo-times from which and until which they fade.
        self.released, self.fades_from, self.fades_until = np.zeros_like(self.u_n), 0.0, 0.0
        self.prescribe(prescribed)

    def prescribe(self, prescribed: Sequence[Condition], fade: float = 1.0) -> None:
        """Replace the prescribed displacements from now on.

        Args:
            prescribed: As for the constructor.
            fade: Pseudo-time over which the forces of supports that are left out go to zero.

        Raises:
            ValueError: On all ranks, if a condition does not fit.
        """
        if not (np.isfinite(fade) and fade > 0.0):
            raise ValueError(f"fade must be positive, got {fade}.")
        supports = NodeSupports(self.part, prescribed, self.comm)
        supports.set_time(self._time_n)
        self.supports = supports
        self.assembly.constrain(supports.rows)
        self.released = self.force_n * self.assembly.free[: self.assembly.n]
        self.fades_from, self.fades_until = self._time_n, self._time_n + fade
        self._change = np.zeros(len(supports.rows))
        self._kept = False  # bars that have yielded will mostly unload: the elastic tangent is the better first one
        self.newton = Newton(
            self._b,
            self._A,
            self._residual,
            self._jacobian,
            prescribed=self.supports.rows,
            near_nullspace=self._modes,
            **self._newton_arguments,
        )

    def run(self, until: float = 1.0, **options: Any) -> list[Step]:
        """Step to a pseudo-time; the options are those of `fem.statics.load_steps.run` (step, times, growth,
        progress, ...).

        Returns:
            The steps taken; they are also added to `history`.

        Raises:
            SolverError: On all ranks, if a step fails that cannot be cut any more; the solver is then at the last state
                committed, and the output folder has a checkpoint.
        """
        steps = load_steps.run(self, until, **options)
        self.history += steps
        return steps

    def set_time(self, t: float) -> None:
        """Go to pseudo-time t: prescribed displacements take their values there."""
        self.supports.set_time(t)
        self.time = float(t)

    def solve(self) -> Convergence:
        """Find equilibrium at the time set; the state stays as committed.

        Raises:
            ConvergenceError: On all ranks; `roll_back` then returns to the last state committed.
        """
        change = self.supports.values - self.u_n.ravel()[self.supports.rows]
        if self.comm.allreduce(float(change @ self._change)) < 0.0:
            self._kept = False  # the load turns back: the elastic tangent does not overshoot, that of plastic flow does
        self._fresh, self.last, self._change = not self._kept, None, change
        self._x.array_w[:] = self.u_n.ravel()
        try:
            with self.clock("solve"):
                self.last = self.newton.solve(self._x)
        except ConvergenceError as error:
            raise ConvergenceError(self.bars.failure or str(error)) from error
        self.newton_iterations += self.last.iterations
        return self.last

    def commit(self) -> None:
        """Take the solution as the start of the next step."""
        step, force = self._u - self.u_n, 0.5 * (self._force + self.force_n)
        self.external_work += self.comm.allreduce(float(np.einsum("ni,ni->", step, force)))
        self.u_n, self.force_n = self._u, self._force
        self.bars.commit()
        self._time_n, self._kept = self.time, True

    def roll_back(self) -> None:
        """Return to the last state committed, its time included."""
        self._u, self._force = self.u_n, self.force_n
        self.bars.roll_back()
        self._kept = False
        self.set_time(self._time_n)

    def _residual(self, x: PETSc.Vec, b: PETSc.Vec) -> float:
        """Forces, lifted by what the prescribed components lack; prescribed rows hold minus what they lack."""
        assembly, rows = self.assembly, self.supports.rows
        if self._fresh:
            self._evaluate(x.array_r.reshape(-1, assembly.d).copy())
        self._fresh = True
        with self.clock("assemble"):
            lack = np.zeros(self._u.size)
            lack[rows] = self.supports.values - self._u.ravel()[rows]
            force = self._force.ravel()
            norms = self.comm.allreduce(np.array([force @ force, lack @ lack]))
            left = (self.fades_until - self.time) / (self.fades_until - self.fades_from)
            out = force - min(max(left, 0.0), 1.0) * self.released.ravel()
            if norms[1] > 0.0:
                change = assembly.strain(assembly.with_ghosts(lack.reshape(-1, assembly.d)))
                out += assembly.forces(self.bars.tangent * change).ravel()
            out[rows] = -assembly.diagonal(self.bars.tangent) * lack[rows]
            b.array_w[:] = out
        return float(np.sqrt(norms[0]))

    def _jacobian(self, x: PETSc.Vec, A: PETSc.Mat) -> None:
        with self.clock("assemble"):
            self.assembly.stiffness(self.bars.tangent, A)

    def _evaluate(self, u: np.ndarray) -> None:
        """Bars and forces at displacements (n, d) of the owned nodes."""
        assembly = self.assembly
        self._u, self._kept = u, False
        with self.clock("assemble"):
            strain = assembly.strain(assembly.with_ghosts(u))
        with self.clock("law"):
            self.bars.evaluate(strain)
        with self.clock("assemble"):
            self._force = assembly.forces(self.bars.trial_stress)

    def give_up(self, sentence: str) -> None:
        """Write the checkpoint to the output folder, if there is one."""
        if self.output is None:
            return
        error: Exception | None = None
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as caught:
            error = caught
        raise_together(self.comm, error)
        self.save(self.output / failure.CHECKPOINT)

    @property
    def bar_calls(self) -> int:
        """Calls of the bar law so far, all ranks: bars times evaluations."""
        return self.bars.calls

    def stored_energy(self) -> float:
        """Stored energy at the last time committed, J."""
        return self.bars.stored_energy()

    def dissipation(self) -> float:
        """Energy dissipated up to the last time committed, J."""
        return self.bars.dissipation()

    def reaction(self, nodes: Any) -> np.ndarray:
        """Force of the supports on nodes (input ids), (d,), N, at the last time committed: zero where free."""
        owned = np.isin(self.part.nodes, np.asarray(nodes))
        return self.comm.allreduce(self.force_n[owned].sum(axis=0))

    def displacement(self) -> np.ndarray | None:
        """Displacement of all nodes in the order of the input, (N, d), m, on rank 0; None elsewhere."""
        return gather_rows(self.comm, self.u_n, self.part.nodes)

    def bar_stress(self) -> np.ndarray | None:
        """Stress of all bars in the order of the input, (B,), Pa, on rank 0; None elsewhere."""
        return gather_rows(self.comm, self.bars.stress, self.part.bars)

    def bar_state(self) -> np.ndarray | None:
        """State of all bars in the order of the input, (B, k), on rank 0; None elsewhere."""
        return gather_rows(self.comm, self.bars.state, self.part.bars)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a checkpoint of the last state committed (`fem.truss.checkpoint`)."""
        checkpoint.save(self, path)

    def restore(self, path: str | PathLike[str]) -> None:
        """Go to the state of a checkpoint, written on any number of ranks."""
        checkpoint.restore(self, path)
        self._time_n, self._change = self.time, np.zeros(len(self.supports.rows))
        self.roll_back()

    def total_seconds(self) -> dict[str, float]:
        """Seconds by phase, the largest of all ranks; "solve" holds the others."""
        return self.clock.largest(self.comm)
