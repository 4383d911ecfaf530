"""A material point that fails: the sentence that all ranks raise, and a file to replay the point.

`python3 -m fem.replay FILE` evaluates the point of such a file again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

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
        text: What is wrong, to follow "cell N, point M".
        F, dt: Deformation gradient of the point and step (s), for the message; None are not told.
    """

    point: int
    text: str
    F: np.ndarray | None = None
    dt: float | None = None


class Monitor(Protocol):
    """What watches the points of a solver in every step; it may stop the run (`fem.range_monitor`, `fem.novelty`).

    `name` is that of its block in a checkpoint. All methods are local to a rank.
    """

    name: str

    def check(self, F_n: np.ndarray, F: np.ndarray, state: np.ndarray, dt: float) -> Problem | None:
        """Look at a step from F_n to F (n, 3, 3) and the new state before it is accepted; a problem undoes it."""

    def accept(self) -> None:
        """Take what the last check has seen: the step is done on all ranks."""

    def rows(self) -> Mapping[str, np.ndarray]:
        """What it has seen, for a checkpoint: name -> (n, ...)."""

    def adopt(self, rows: Mapping[str, np.ndarray]) -> None:
        """Take what `rows` gave when the checkpoint was written."""


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


def raised(
    law: Any, evaluate: Callable[..., Any], F: np.ndarray, state: np.ndarray, dt: float, error: Exception
) -> Problem:
    """The problem of a law that raised an error, with the first point at which it does, found by halving the points.

    Args:
        law: The law.
        evaluate: Its method that raised.
        F: Deformation gradients that it was given, (n, d, d).
        state: States that it was given, (n, k).
        dt: The step, s.
        error: What it raised.
    """

    def evaluate_part(part: slice) -> None:
        # The laws of a body belong to its cells: of several laws those of the part are asked.
        some = getattr(law.at(part, len(F)), evaluate.__name__) if hasattr(law, "at") else evaluate
        some(F[part].copy(), state[part].copy(), dt)

    low, high = 0, len(F)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            evaluate_part(slice(low, middle))
            low = middle
        except Exception:  # of any kind, as the first
            high = middle
    point = -1
    if high > low:
        try:
            evaluate_part(slice(low, high))
        except Exception:
            point = low
    return Problem(point, f"cannot be evaluated by the law {law.name}: {str(error).rstrip('.')}")


def watch(
    monitors: list[Monitor], F_n: np.ndarray, F: np.ndarray, state: np.ndarray, dt: float
) -> Problem | None:
    """First problem that a monitor sees, after all have looked."""
    found = [monitor.check(F_n, F, state, dt) for monitor in monitors]
    return next((problem for problem in found if problem is not None), None)


def values_of(problem: Problem) -> str:
    """The numbers of a problem, as the end of its sentence."""
    if problem.F is None:
        return ""
    F = np.asarray(problem.F)
    size = float(np.linalg.norm(F - np.eye(len(F))))
    step = "" if problem.dt is None else f", dt = {problem.dt:.4g} s"
    return f" (det F = {float(np.linalg.det(F)):.4g}, |F - I| = {size:.4g}{step})"


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
        where = "a cell"
        if problem.point >= 0:
            local, point = divmod(problem.point, per_cell)
            where = f"cell {int(domain.mesh.topology.original_cell_index[local])}, point {point}"
        numbers = values_of(problem)
        text = f"At time {time:.6g} s on rank {domain.comm.rank}, {where} {problem.text}{numbers}."
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
    law: Any,
    reason: str,
    method: str = "update",
) -> None:
    """Write what the law was given, at the point of the problem or at all, to the replay file in a folder.

    Args:
        folder: The folder; it is made if need be.
        problem: The problem.
        F_n: Deformation gradients at the start of the step, (n, d, d).
        F: At its end, (n, d, d).
        state: State at its start, (n, k).
        dt: The step, s.
        time: Its start, s.
        law: The law; its name and how it was asked for are written.
        reason: The sentence.
        method: Method of the law that was called, "update" or "tangent".
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = slice(None) if problem.point < 0 else slice(problem.point, problem.point + 1)
    values = {"F_n": F_n[part], "F": F[part], "state": state[part]}
    source = json.dumps(getattr(law, "source", None), default=str)
    about = {"dt": dt, "time": time, "law": law.name, "source": source, "method": method, "reason": reason}
    write_arrays(folder / REPLAY, {**values, **about})


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
        values: What the law was given and the law, as in `write_replay`.

    Raises:
        SolverError: Always, on all ranks.
    """
    if problem is not None and problem.point >= 0:
        problem = Problem(problem.point, problem.text, values["F"][problem.point], values["dt"])
    sentence, first = describe(domain, per_cell, time, problem)
    error: Exception | None = None
    if folder is not None and domain.comm.rank == first and problem is not None:
        try:
            write_replay(folder, problem=problem, reason=sentence, time=time, **values)
        except OSError as caught:
            error = SolverError(f"{sentence} The file to replay it cannot be written: {caught}.")
    raise_together(domain.comm, error)
    raise SolverError(sentence)
