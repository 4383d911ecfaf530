"""The quasi-static driver of bodies and trusses: equilibrium in pseudo-time, in load steps.

One step from pseudo-time t_n to t, with the state at t_n given:

    find u with u = g(t) where prescribed:   internal(u) - external(u, t) - left(t) released = 0

`released` are the former forces of released supports, and the factor `left` falls from one to zero. The state is kept
where Newton's method has converged; a step that fails is rolled back and cut. The first residual and Jacobian of a step
are those at the end of the last one, kept from there, unless the prescribed displacements turn back: the law is called
once in each Newton iteration.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from petsc4py import PETSc

from fem import failure
from fem.discretisation.dirichlet import Dirichlet, DirichletSet, Nodes, Value, Where
from fem.io import checkpoint
from fem.io.checkpoint import Block, Scalar
from fem.parallel import raise_together
from fem.statics import load_steps
from fem.statics.load_steps import Step
from fem.statics.newton import Convergence, Newton
from fem.steps import Clock, Run


@dataclass(frozen=True)
class Fading:
    """Forces of released supports.

    Attributes:
        force: On the owned components when they were released, (n * d,), N.
        begin, end: Pseudo-times from which and until which they go to zero in proportion to the time.
    """

    force: np.ndarray
    begin: float = 0.0
    end: float = 0.0

    def at(self, t: float) -> np.ndarray:
        """Forces at pseudo-time t, (n * d,), N."""
        left = (self.end - t) / (self.end - self.begin) if self.end > self.begin else 0.0
        return min(max(left, 0.0), 1.0) * self.force


class QuasiStatic(abc.ABC):
    """Static equilibrium in pseudo-time; the constructor and all methods are collective.

    A body or a truss provides forces and tangent as functions of the displacements; the conditions, the steps, the
    release of supports and the checkpoint are the same for both. It is a problem of `fem.statics.load_steps`: `run`
    steps it through a load; `set_time`, `solve`, `commit` and `roll_back` do a step by hand.

    Args:
        nodes: The nodes, on which displacements can be prescribed.
        phases: Phases of the clock.
        output: Folder for the checkpoint and the replay file of a failed run; None writes none.

    Attributes:
        u_n: Displacement of the owned nodes at the last time committed, (n, d), m.
        supports: The prescribed displacements.
        fading: Forces of released supports.
        time: Pseudo-time: of the last time committed, or that set since.
        last: `Convergence` of the last solve, None before. history: Steps of `run`, in order.
        steps: Number of the last step. newton_iterations: Linear systems solved so far, those of failed steps left out.
        clock: Seconds of this rank by phase; "solve" holds the others.
    """

    def __init__(self, nodes: Nodes, phases: Sequence[str], output: str | PathLike[str] | None) -> None:
        self.comm: MPI.Comm = nodes.comm
        self.clock = Clock(phases)
        self.output = Path(output) if output is not None else None
        self.supports = DirichletSet(nodes)
        self.u_n = np.zeros((nodes.owned, nodes.dimension))
        self.fading = Fading(np.zeros(self.u_n.size))
        self.time, self._time_n = 0.0, 0.0
        self.last: Convergence | None = None
        self.history: list[Step] = []
        self.steps, self.newton_iterations = 0, 0
        # Whether forces and tangent are still those of the last commit; the length of the step that ended there; what
        # the prescribed displacements of all owned components last changed by.
        self._kept, self._fresh, self._length = False, True, 0.0
        self._change = np.zeros(self.u_n.size)
        self._newton: Newton | None = None
        self._x: PETSc.Vec | None = None

    # What a body or a truss provides.

    @abc.abstractmethod
    def _evaluate(self, u: np.ndarray) -> None:
        """Call the law at the displacements (n, d) of the owned nodes, from the state at the last time committed.

        Raises:
            ConvergenceError: On all ranks, if the law fails.
        """

    @abc.abstractmethod
    def _forces(self) -> np.ndarray:
        """Internal less external forces of the last evaluation on the owned components, (n * d,), N."""

    @abc.abstractmethod
    def _lifted(self, change: np.ndarray) -> np.ndarray:
        """Tangent times a change of the owned components (n * d,), m, in the same order, N."""

    @abc.abstractmethod
    def _diagonal(self) -> float:
        """Number on the diagonal of the tangent in the rows of prescribed components."""

    @abc.abstractmethod
    def _jacobian(self, x: PETSc.Vec, A: PETSc.Mat) -> None:
        """Fill and assemble the tangent of the last evaluation."""

    @abc.abstractmethod
    def _make_newton(self) -> Newton:
        """Newton's method for the conditions as they are."""

    @abc.abstractmethod
    def _keep(self) -> None:
        """Take forces and state of the last evaluation as those of the start of the next step."""

    @abc.abstractmethod
    def _return(self) -> None:
        """Return to forces and state of the last time committed."""

    @abc.abstractmethod
    def _content(self) -> tuple[dict[str, Block], dict[str, Scalar], dict[str, str | int | float]]:
        """Blocks of rows, scalars and identity of a checkpoint (`fem.io.checkpoint`) at the last time committed."""

    @abc.abstractmethod
    def _adopt(self, arrays: Mapping[str, Mapping[str, np.ndarray]], scalars: Mapping[str, Any]) -> None:
        """Take what `_content` describes from a checkpoint, as committed; with the tangent, if `_kept`."""

    @abc.abstractmethod
    def _check_mesh(
        self, path: str | PathLike[str], here: Mapping[str, Block], found: Mapping[str, Mapping[str, np.ndarray]]
    ) -> None:
        """Check that the mesh of a checkpoint is that here; collective.

        Raises:
            ValueError: On all ranks, if it is another one.
        """

    def _write_replay(self, folder: Path) -> None:  # noqa: B027
        """Write what the law was given where it failed, if it did so on this rank; a truss writes nothing."""

    # Conditions.

    def prescribe(self, where: Where, component: int | None = None, value: Value = 0.0) -> None:
        """Prescribe displacements from now on, beside those that are prescribed already.

        Args:
            where: A function of the node coordinates (3, n) that is true on the nodes; of a body the name of a group,
                or (`dolfinx.mesh.MeshTags`, tag); of a truss the numbers of nodes; or None for all nodes.
            component: 0, 1, or 2 in three dimensions; None for all.
            value: The displacement at the time in question, m: a number, or a function `value(x, t)` of the node
                coordinates (3, n) and the pseudo-time (`fem.discretisation.dirichlet.Dirichlet`).

        Raises:
            ValueError: On all ranks, if there is no such node, if the value does not fit, or if another value is
                already prescribed for a component there.
        """
        self._prescribe(Dirichlet(where, component, value))

    def _prescribe(self, *conditions: Dirichlet) -> None:
        self.roll_back()
        self.supports.add(*conditions)
        self._conditions_changed()

    def release(self, where: Where = None, over: float = 1.0) -> None:
        """Release supports at the last time committed; their forces fade, so that equilibrium is satisfied throughout.

        All components that are prescribed on the nodes become free. What is left of the forces of an earlier
        release fades from now on over the new interval.

        Args:
            where: The nodes, as for `prescribe`; None releases all supports.
            over: Pseudo-time over which the forces go to zero.

        Raises:
            ValueError: On all ranks, if nothing is prescribed there, or `over` is not positive.
        """
        if not (np.isfinite(over) and over > 0.0):
            raise ValueError(f"over must be positive, got {over}.")
        supports = self.supports
        d = supports.nodes.dimension
        rows = supports.rows[np.isin(supports.rows // d, supports.nodes.find(where))]
        if self.comm.allreduce(len(rows)) == 0:
            raise ValueError("Nothing is prescribed on the nodes to be released.")
        self.roll_back()
        force = self._forces().copy()
        supports.release(rows)
        force[self._rows] = 0.0
        self.fading = Fading(force, self._time_n, self._time_n + over)
        self._conditions_changed()

    def _conditions_changed(self) -> None:
        """Set up Newton's method again, from the elastic tangent: most material that has yielded will unload."""
        self._change = np.zeros(self.u_n.size)
        self._kept, self._newton = False, None

    @property
    def _rows(self) -> np.ndarray:
        """Prescribed components that this rank owns."""
        return self.supports.rows[: self.supports.owned]

    @property
    def newton(self) -> Newton:
        """Newton's method for the conditions as they are."""
        if self._newton is None:
            self._newton = self._make_newton()
        return self._newton

    # Steps.

    def run(
        self,
        until: float = 1.0,
        step: float | None = None,
        *,
        times: Sequence[float] | None = None,
        growth: float = 1.5,
        cut: float = 0.5,
        largest: float | None = None,
        smallest: float | None = None,
        progress: bool = False,
    ) -> Run[Step]:
        """Step to a pseudo-time, while the result is iterated: `for step in solver.run(1.0, 0.25): ...`.

        Args:
            until: Pseudo-time to end at, exactly; ignored with `times`.
            step: First step; None tries to reach each time in one step.
            times: Pseudo-times to hit exactly, increasing; those not after the present one are left out (a restart).
            growth: Factor on the step after an easy one (at most 6 iterations at the first attempt), at least 1.
            cut: Factor on a step that failed, in (0, 1).
            largest: Steps grow up to this; None is `step`, so that steps grow only after cuts.
            smallest: No step is cut below this; None is 1e-4 of the run's length.
            progress: Show a bar on rank 0.

        Returns:
            An iterator over the steps, each a `Step` after it is committed; they are also added to `history`.
            `list(...)` or `.finish()` takes all steps at once.

        Raises:
            ValueError: At once, if an argument does not fit.
            SolverError: On all ranks, in the iteration, if a step fails that cannot be cut any more; the solver is then
                at the last state committed, and the output folder has a checkpoint and, if the law of a body failed, a
                file to replay the point.
        """
        taken = load_steps.run(
            self, until, step, times=times, growth=growth, cut=cut, largest=largest, smallest=smallest,
            progress=progress, done=self.steps,
        )

        def recorded() -> Any:
            for one in taken:
                self.history.append(one)
                self.steps = one.number
                yield one

        return Run(recorded(), f"run of the {type(self).__name__}")

    def set_time(self, t: float) -> None:
        """Go to pseudo-time t: prescribed displacements and loads take their values there."""
        self.supports.set_time(t)
        self.time = float(t)

    def solve(self) -> Convergence:
        """Find equilibrium at the time set; the state stays as committed.

        Raises:
            ConvergenceError: On all ranks; `roll_back` then returns to the last state committed.
        """
        newton, rows = self.newton, self._rows
        if self._x is None:
            self._x = newton.vector.duplicate()
        change = np.zeros(self.u_n.size)
        change[rows] = self.supports.values[: len(rows)] - self.u_n.ravel()[rows]
        if self.comm.allreduce(float(change[rows] @ self._change[rows])) < 0.0:
            # The load turns back: the tangent of plastic flow would overshoot, the law's at rest (elastic) does not.
            self._kept = False
        self._fresh, self.last, self._change = not self._kept, None, change
        self._x.array_w[:] = self.u_n.ravel()
        with self.clock("solve"):
            self.last = newton.solve(self._x)
        self.newton_iterations += self.last.iterations
        return self.last

    def commit(self) -> None:
        """Take the solution as the start of the next step."""
        self._keep()
        self._length = self.time - self._time_n
        self._time_n, self._kept = self.time, True

    def roll_back(self) -> None:
        """Return to the last state committed, its time included."""
        self._return()
        self._kept = False
        self.set_time(self._time_n)

    def _residual(self, x: PETSc.Vec, b: PETSc.Vec) -> float:
        """Forces, lifted by what the prescribed components lack; prescribed rows hold minus what they lack."""
        u, rows = x.array_r.reshape(self.u_n.shape), self._rows
        if self._fresh:
            self._kept = False
            self._evaluate(u.copy())
        self._fresh = True
        with self.clock("assemble"):
            force = self._forces()
            lack = np.zeros(self.u_n.size)
            lack[rows] = self.supports.values[: len(rows)] - u.ravel()[rows]
            norms = self.comm.allreduce(np.array([force @ force, lack @ lack]))
            out = force - self.fading.at(self.time)
            if norms[1] > 0.0:
                out += self._lifted(lack)
            out[rows] = -self._diagonal() * lack[rows]
            b.array_w[:] = out
        return float(np.sqrt(norms[0]))

    def on_failure(self, sentence: str) -> None:
        """Write the checkpoint and, if the law failed, the replay file to the output folder, if there is one."""
        if self.output is None:
            return
        error: Exception | None = None
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            self._write_replay(self.output)
        except OSError as caught:
            error = caught
        raise_together(self.comm, error)
        self.save(self.output / failure.CHECKPOINT)

    # Checkpoint.

    def save(self, path: str | PathLike[str]) -> None:
        """Write a checkpoint of the last state committed; the steps that follow are the same as without it.

        Args:
            path: The file (HDF5); its folder must exist.

        Raises:
            OSError: On all ranks, if it cannot be written.
        """
        blocks, scalars, identity = self._content()
        checkpoint.save(
            path, self.comm, time=self._time_n, blocks=blocks, scalars={**self._scalars(), **scalars}, identity=identity
        )

    def restore(self, path: str | PathLike[str], *, same_law: bool = True) -> None:
        """Go to the state of a checkpoint, written on any number of ranks; the steps that follow are the same.

        Supports that were released before the checkpoint are released here as well.

        Args:
            path: The file.
            same_law: False takes another law of the same name as well, one that was repaired or trained again.

        Raises:
            ValueError: On all ranks, if it is no checkpoint of such a solver, mesh and law, or damaged.
            FileNotFoundError: On all ranks, if it is not there.
        """
        blocks, scalars, identity = self._content()
        wanted = {**self._scalars(), **scalars}
        if not same_law:
            identity.pop("law digest")
        found = checkpoint.restore(path, self.comm, blocks=blocks, scalars=wanted, identity=identity)
        self._check_mesh(path, blocks, found.arrays)
        values = found.scalars
        self.time = self._time_n = found.time
        self._length, self._kept = float(values["length"]), bool(values["kept"])
        self.steps, self.newton_iterations = int(values["steps"]), int(values["newton_iterations"])
        self._newton = None
        self._adopt(found.arrays, values)
        self.set_time(self.time)
        self.newton.linear.symmetric_before(bool(values["symmetric"]))

    def _scalars(self) -> dict[str, Scalar]:
        return {
            "length": self._length,
            "kept": self._kept,
            "steps": self.steps,
            "newton_iterations": self.newton_iterations,
            "fades_from": self.fading.begin,
            "fades_until": self.fading.end,
            "symmetric": self.newton.linear.symmetric,
        }

    def _component_arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint holds for the owned components, each (n, d); for `_content`."""
        released = np.zeros(self.u_n.size)
        mine = self.supports.released
        released[mine[mine < self.u_n.size]] = 1.0
        values = {"u": self.u_n, "force": self.fading.force, "change": self._change, "released": released}
        return {name: value.reshape(self.u_n.shape) for name, value in values.items()}

    def _adopt_components(
        self, arrays: Mapping[str, np.ndarray], released: np.ndarray, scalars: Mapping[str, Any]
    ) -> None:
        """Take the arrays of `_component_arrays`, and the released components with ghosts; for `_adopt`."""
        self.u_n = arrays["u"].copy()
        self._change = arrays["change"].reshape(-1).copy()
        self.fading = Fading(arrays["force"].reshape(-1).copy(), scalars["fades_from"], scalars["fades_until"])
        self.supports.release(np.flatnonzero(released.reshape(-1)))

    def total_seconds(self) -> dict[str, float]:
        """Seconds by phase, the largest of all ranks; "solve" holds the others."""
        return self.clock.largest(self.comm)
