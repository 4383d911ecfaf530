"""A material point that fails: the sentence that all ranks raise, and a file to replay the point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fem.errors import SolverError
from fem.io.files import write_arrays
from fem.mesh import Domain
from fem.parallel import raise_together

CHECKPOINT = "failure-checkpoint.h5"
REPLAY = "failure-replay.npz"


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


def describe(domain: Domain, per_cell: int, time: float, problem: Problem | None) -> tuple[str, int]:
    """The sentence of the lowest rank that has a problem, and that rank; collective.

    Args:
        domain: The domain.
        per_cell: Points per cell.
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
    write_arrays(folder / REPLAY, {**values, "dt": dt, "time": time, "law": law, "reason": reason})


def stop(
    domain: Domain, per_cell: int, time: float, problem: Problem | None, folder: Path | None, **values: Any
) -> NoReturn:
    """Raise the problem of the lowest rank that has one, on all ranks, and write the file to replay it; collective.

    Args:
        domain: The domain.
        per_cell: Points per cell.
        time: Time of the problem, s.
        problem: This rank's problem, or None; at least one rank has one.
        folder: Where the file goes; None writes none.
        values: What the law was given and its name, as in `write_replay`.

    Raises:
        SolverError: Always, on all ranks.
    """
    sentence, first = describe(domain, per_cell, time, problem)
    error: Exception | None = None
    if folder is not None and domain.comm.rank == first and problem is not None:
        try:
            write_replay(folder, problem=problem, reason=sentence, time=time, **values)
        except OSError as caught:
            error = SolverError(f"{sentence} The file to replay it cannot be written: {caught}.")
    raise_together(domain.comm, error)
    raise SolverError(sentence)
