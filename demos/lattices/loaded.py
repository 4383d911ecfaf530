"""Loaded boxes: a load case on finite elements with a law, and on a lattice of bars, to be followed in the same way.

Both record the same rows at the same pseudo-times, so that they can be compared step by step.

References:
    Masi and Stefanou (2022), section V, doi:10.1016/j.cma.2022.115190.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ufl
from dolfinx.fem import assemble_vector, form
from dolfinx.la import InsertMode
from load_cases import LoadCase, conditions, nodes_at, prescribed
from mpi4py import MPI
from stopwatch import Stopwatch
from tqdm import tqdm
from two_scale import Lattice

from fem.implicit import ImplicitSolver
from fem.laws import Law
from fem.mesh import Domain
from fem.parallel import raise_together
from fem.truss.bars import BarLaw
from fem.truss.solver import TrussSolver

Row = dict[str, Any]


class LoadedBox:
    """A load case on finite elements; the constructor and all methods are collective.

    Args:
        domain: The box, with the groups "bottom" and "top" (`meshes.box`).
        law: Law of small strain in three dimensions.
        case: The load case.
        **options: Of `ImplicitSolver`: degree, linear, rtol, output, ...

    Attributes:
        solver: The solver.
        rows: What `follow` recorded.
        setup: Seconds that the solver took to be made.
    """

    def __init__(self, domain: Domain, law: Law, case: LoadCase, **options: Any) -> None:
        self.case, self.comm = case, domain.comm
        self.rows: list[Row] = []
        with Stopwatch(self.comm) as watch:
            self.solver = ImplicitSolver(domain, law, prescribed=prescribed(case), **options)
        self.setup = watch.seconds
        self._internal: Any = None

    @property
    def calls(self) -> int:
        """Calls of the law so far: points times evaluations, all ranks."""
        return self.solver.points_evaluated

    def forces(self) -> tuple[np.ndarray, np.ndarray]:
        """Displacement, m, and internal force, N, of the unknowns of this rank at the last commit; collective."""
        solver, points = self.solver, self.solver.points
        if self._internal is None:
            self._internal = form(ufl.inner(solver.P, ufl.grad(solver.test_function)) * solver.dx)
        b = assemble_vector(self._internal)
        b.scatter_reverse(InsertMode.add)
        n = points.V.dofmap.index_map_bs * points.V.dofmap.index_map.size_local
        return self.solver.u.x.array[:n].copy(), b.array[:n].copy()

    def control(self) -> np.ndarray:
        """Displacement of the control point, (3,), m."""
        return self.solver.probe(np.array([self.case.control]))[0]

    def release(self) -> None:
        """Let go of the top: the forces of its supports go to zero within one unit of pseudo-time."""
        self.solver.release("top", over=1.0)


class LoadedLattice:
    """A load case on a finite lattice; the constructor and all methods are collective.

    Args:
        comm: Communicator.
        lattice: The lattice, on rank 0; elsewhere ignored.
        bar_law: Law of the bars.
        case: The load case.
        **options: Of `TrussSolver`: linear, rtol, output, ...

    Attributes:
        solver: The solver.
        rows: What `follow` recorded.
        setup: Seconds that the solver took to be made.
        node: Node of the lattice at the control point.
    """

    def __init__(
        self, comm: MPI.Comm, lattice: Lattice | None, bar_law: BarLaw, case: LoadCase, **options: Any
    ) -> None:
        self.case, self.comm = case, comm
        self.rows: list[Row] = []
        self._reference = comm.bcast(lattice.reference if lattice is not None else None, root=0)
        nodes, bars, area = (lattice.nodes, lattice.bars, lattice.area) if lattice is not None else 3 * (None,)
        supports = conditions(case, self._reference)
        with Stopwatch(comm) as watch:
            self.solver = TrussSolver(nodes, bars, area, bar_law, prescribed=supports, comm=comm, **options)
        self.setup = watch.seconds
        distance = np.abs(self._reference - np.array(case.control)).max(axis=1)
        self.node = int(np.argmin(distance))

    @property
    def calls(self) -> int:
        """Calls of the bar law so far: bars times evaluations, all ranks."""
        return self.solver.bar_calls

    def forces(self) -> tuple[np.ndarray, np.ndarray]:
        """Displacement, m, and internal force, N, of the unknowns of this rank at the last commit."""
        return self.solver.u_n.ravel().copy(), self.solver.force_n.ravel().copy()

    def control(self) -> np.ndarray:
        """Displacement of the control point, (3,), m."""
        u = self.solver.displacement()
        return self.comm.bcast(None if u is None else u[self.node], root=0)

    def release(self) -> None:
        """Let go of the top: the forces of its supports go to zero within one unit of pseudo-time."""
        self.solver.release(nodes_at(self.case, self._reference, "top"), over=1.0)


Loaded = LoadedBox | LoadedLattice


def follow(
    loaded: Loaded,
    times: Sequence[float],
    *,
    label: str = "",
    checkpoint: Path | None = None,
    each: Callable[[Any], None] | None = None,
    progress: bool = False,
) -> list[Row]:
    """Lead a body along its load case and record a row at each time; collective.

    A row holds time, displacement of the control point (3), psi and dissipation (J), Newton iterations of the step (the
    most, if it was cut) and the residuals of the last (N), and so far: calls of the law, seconds of the solver (on the
    clock, and computed by the busiest rank: the same on a machine that has nothing else to do), and bounds of the work
    done (J): psi + phi of a step is convex in the displacement, so that force_n . du is at most, and force . du at
    least, the growth of psi + dissipation.

    Args:
        loaded: The body; its rows are continued, times that they hold are left out.
        times: Pseudo-times to hit (`LoadCase.times`).
        label: For the progress bar.
        checkpoint: File (.h5) to write after every row, with a .json of the rows beside it; None for none.
        each: Called with the body after every row.
        progress: Show a bar on rank 0.

    Returns:
        The rows.

    Raises:
        SolverError: On all ranks, if a step fails that cannot be cut any more.
    """
    comm, rows, case = loaded.comm, loaded.rows, loaded.case
    begun, spent = (rows[-1]["time"], (rows[-1]["seconds"], rows[-1]["cpu_seconds"])) if rows else (0.0, ())
    ahead, watch = [t for t in times if t > begun], Stopwatch(comm, *spent)
    work = _Work(loaded, watch)
    with tqdm(ahead, desc=label, unit="step", disable=not progress or comm.rank != 0) as bar:
        for t in bar:
            with watch:
                if t > case.loaded and begun <= case.loaded:
                    loaded.release()
                steps = []
                for step in loaded.solver.run(times=[t]):
                    work()
                    steps.append(step)
            begun = t
            rows.append(
                {
                    "time": t,
                    "displacement": loaded.control().tolist(),
                    "psi": loaded.solver.stored_energy(),
                    "dissipation": loaded.solver.dissipation(),
                    "iterations": max(step.convergence.iterations for step in steps),
                    "steps": len(steps),
                    "residuals": list(steps[-1].convergence.residuals),
                    "calls": loaded.calls,
                    "seconds": watch.seconds,
                    "cpu_seconds": watch.cpu,
                    "work": work.bounds.tolist(),
                }
            )
            if checkpoint is not None:
                _save(loaded, checkpoint)
            if each is not None:
                each(loaded)
    return rows


class _Work:
    """Bounds of the work of the external forces, a step at a time; the watch does not count it."""

    def __init__(self, loaded: Loaded, watch: Stopwatch) -> None:
        self._loaded, self._watch, (self._u, self._f) = loaded, watch, loaded.forces()
        self.bounds = np.array(loaded.rows[-1]["work"] if loaded.rows else [0.0, 0.0])

    def __call__(self) -> None:
        with self._watch.paused():
            u, f = self._loaded.forces()
            du = u - self._u
            self.bounds = self.bounds + self._loaded.comm.allreduce(np.array([self._f @ du, f @ du]))
            self._u, self._f = u, f


def _save(loaded: Loaded, path: Path) -> None:
    """Write the checkpoint, then the rows, so that rows never tell of more than the checkpoint holds."""
    loaded.solver.save(path)
    error: Exception | None = None
    if loaded.comm.rank == 0:
        part = path.with_name(f".{path.stem}.json.part")
        try:
            part.write_text(json.dumps(loaded.rows))
            os.replace(part, path.with_suffix(".json"))
        except OSError as caught:
            error = caught
    raise_together(loaded.comm, error)


def read_rows(path: Path) -> list[Row]:
    """The rows that `follow` wrote beside a checkpoint.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        rows = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    numbers = ("time", "psi", "dissipation", "seconds", "cpu_seconds")
    whole = isinstance(rows, list) and all(
        isinstance(row, dict)
        and all(isinstance(row.get(name), (int, float)) and np.isfinite(row[name]) for name in numbers)
        and np.shape(row.get("work")) == (2,)
        and np.shape(row.get("displacement")) == (3,)
        for row in rows
    )
    if not whole or any(b["time"] <= a["time"] for a, b in zip(rows, rows[1:])):
        raise ValueError(f"{path} is damaged: it must hold the rows of a run with increasing times.")
    return rows


def resume(loaded: Loaded, path: Path) -> bool:
    """Go to a checkpoint that `follow` wrote, if there is one; collective.

    Returns:
        Whether there was one.

    Raises:
        ValueError: On all ranks, if it is not of such a body.
    """
    rows: list[Row] | None = None
    error: Exception | None = None
    if loaded.comm.rank == 0:
        try:
            if path.is_file() and path.with_suffix(".json").is_file():
                rows = read_rows(path.with_suffix(".json"))
        except (OSError, ValueError) as caught:
            error = caught
    raise_together(loaded.comm, error)
    rows = loaded.comm.bcast(rows, root=0)
    if not rows:
        return False
    loaded.solver.restore(path)
    if loaded.solver.time != rows[-1]["time"]:  # ended between the two files
        rows = [row for row in rows if row["time"] <= loaded.solver.time]
    loaded.rows[:] = rows
    return True
