"""A run that cannot go on: one sentence on all ranks, a checkpoint, and a file to replay the point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from fem import checkpoint

if TYPE_CHECKING:
    from fem.explicit import ExplicitSolver

CHECKPOINT = "failure-checkpoint.npz"
REPLAY = "failure-replay.npz"


class SolverError(RuntimeError):
    """The run cannot go on; the solver is back at the start of the step."""


@dataclass(frozen=True)
class Problem:
    """What is wrong on this rank.

    Attributes:
        point: Index of the point on this rank, -1 if it concerns all.
        text: What is wrong, to follow "cell N".
    """

    point: int
    text: str


def find(P: np.ndarray, state: np.ndarray) -> Problem | None:
    """First point with a stress or a state that is not finite, or None."""
    # The sum is finite if all are (overflow aside): one quick pass in the common case.
    if np.isfinite(P.sum()) and np.isfinite(state.sum()):
        return None
    for name, values in (("stress", P), ("state", state)):
        wrong = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if wrong.any():
            return Problem(int(np.argmax(wrong)), f"has a {name} that is not finite")
    return None


def stop(solver: ExplicitSolver, problem: Problem | None, F_n: np.ndarray, F: np.ndarray, dt: float) -> NoReturn:
    """Raise the problem of the lowest rank that has one, on all ranks; collective.

    Args:
        solver: The solver; its output folder takes the replay file.
        problem: This rank's problem, or None.
        F_n: Deformation gradients at the start of the step, (n, 3, 3).
        F: At its end, (n, 3, 3).
        dt: The step, s.
    """
    comm = solver.comm
    text = None
    if problem is not None:
        cells = solver.domain.mesh.topology.original_cell_index
        cell = problem.point // solver.points.per_cell
        where = f"cell {int(cells[cell])}" if problem.point >= 0 else "a cell"
        text = f"At time {solver.time:.6g} s on rank {comm.rank}, {where} {problem.text}."
    texts = comm.allgather(text)
    first = next(rank for rank, found in enumerate(texts) if found is not None)
    if solver.output is not None and comm.rank == first and problem is not None:
        solver.output.mkdir(parents=True, exist_ok=True)
        points = slice(None) if problem.point < 0 else slice(problem.point, problem.point + 1)
        checkpoint.write(
            solver.output / REPLAY,
            {
                "F_n": F_n[points],
                "F": F[points],
                "state": solver.state[points],
                "dt": dt,
                "time": solver.time,
                "law": solver.law.name,
                "reason": texts[first],
            },
        )
    raise SolverError(texts[first])


def write_checkpoint(solver: ExplicitSolver) -> None:
    """Write the solver as it is to its output folder, if it has one; collective."""
    if solver.output is not None:
        if solver.comm.rank == 0:
            solver.output.mkdir(parents=True, exist_ok=True)
        checkpoint.save(solver, solver.output / CHECKPOINT)
