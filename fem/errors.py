"""A run that cannot go on: one sentence on all ranks, a checkpoint, and a file to replay the point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from fem.io import checkpoint
from fem.mesh import Domain

if TYPE_CHECKING:
    from fem.explicit.solver import ExplicitSolver

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
    sentence, first = describe(solver.domain, solver.points.per_cell, solver.time, problem)
    if solver.output is not None and solver.comm.rank == first and problem is not None:
        write_replay(
            solver.output, problem=problem, F_n=F_n, F=F, state=solver.state, dt=dt, time=solver.time,
            law=solver.law.name, reason=sentence,
        )
    raise SolverError(sentence)


def describe(domain: Domain, per_cell: int, time: float, problem: Problem | None) -> tuple[str, int]:
    """The sentence of the lowest rank that has a problem, and that rank; collective.

    Args:
        domain: The domain.
        per_cell: Points a cell.
        time: Time of the problem.
        problem: This rank's problem, or None; at least one rank has one.
    """
    text = None
    if problem is not None:
        cells = domain.mesh.topology.original_cell_index
        where = f"cell {int(cells[problem.point // per_cell])}" if problem.point >= 0 else "a cell"
        text = f"At time {time:.6g} s on rank {domain.comm.rank}, {where} {problem.text}."
    texts = domain.comm.allgather(text)
    first = next(rank for rank, found in enumerate(texts) if found is not None)
    return texts[first], first


def write_replay(
    folder: Path,
    *,
    problem: Problem,
    F_n: np.ndarray,
    F: np.ndarray,
    state: np.ndarray,
    dt: float,
    time: float,
    law: str,
    reason: str,
) -> None:
    """Write what the law was given, at the point of the problem or at all, to the replay file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    part = slice(None) if problem.point < 0 else slice(problem.point, problem.point + 1)
    values = {"F_n": F_n[part], "F": F[part], "state": state[part]}
    checkpoint.write(folder / REPLAY, {**values, "dt": dt, "time": time, "law": law, "reason": reason})


def write_checkpoint(solver: ExplicitSolver) -> None:
    """Write the solver as it is to its output folder, if it has one; collective."""
    if solver.output is not None:
        if solver.comm.rank == 0:
            solver.output.mkdir(parents=True, exist_ok=True)
        checkpoint.save(solver, solver.output / CHECKPOINT)
