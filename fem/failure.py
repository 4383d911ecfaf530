"""A material point that fails: the sentence that all ranks raise, and a file to replay the point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fem.io.files import write_arrays
from fem.mesh import Domain

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
