"""Load stepping: pseudo-time in steps that are cut where Newton fails and grow again where it is easy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from mpi4py import MPI
from tqdm import tqdm

from fem.errors import ConvergenceError, SolverError
from fem.statics.newton import Convergence

EASY = 6  # Newton iterations up to which the next step may grow


class Problem(Protocol):
    """A problem that is stepped through pseudo-time. All methods are collective.

    A problem may also have `on_failure(sentence)`, which is called, collectively, before the run ends with a
    SolverError: the place to write a checkpoint.
    """

    comm: MPI.Comm
    time: float

    def set_time(self, t: float) -> None:
        """Go to pseudo-time t: the values of loads and prescribed unknowns become those of t."""

    def solve(self) -> Convergence:
        """Find the state at the time set; raises ConvergenceError on all ranks."""

    def commit(self) -> None:
        """Take the state found as the start of the next step."""

    def roll_back(self) -> None:
        """Return to the last state committed, its time included."""


@dataclass(frozen=True)
class Step:
    """A step that converged.

    Attributes:
        time: Pseudo-time at its end.
        dt: Its length in pseudo-time.
        number: Its number, from 1.
        attempts: Solves that it took: 1, and one more for each cut.
        convergence: Of the last solve.
    """

    time: float
    dt: float
    number: int
    attempts: int
    convergence: Convergence

    @property
    def iterations(self) -> int:
        """Newton iterations of the last solve."""
        return self.convergence.iterations


def run(
    problem: Problem,
    until: float = 1.0,
    step: float | None = None,
    *,
    times: Sequence[float] | None = None,
    growth: float = 1.5,
    cut: float = 0.5,
    largest: float | None = None,
    smallest: float | None = None,
    progress: bool = False,
    done: int = 0,
) -> Iterator[Step]:
    """Step a problem from its time to the end, while the result is iterated; collective, as the iteration.

    Args:
        problem: The problem.
        until: Time to end at, exactly; ignored with `times`.
        step: First step; None tries to reach each time in one step.
        times: Times to hit exactly, increasing; those not after the problem's time are left out (a restart).
        growth: Factor on the step after an easy one (at most 6 iterations at the first attempt), at least 1.
        cut: Factor on a step that failed, in (0, 1).
        largest: Steps grow up to this; None is `step`, so that steps grow only after cuts.
        smallest: No step is cut below this; None is 1e-4 of the run's length.
        progress: Show a bar on rank 0.
        done: Number of the last step before.

    Returns:
        An iterator that takes a step and returns it, once it is committed.

    Raises:
        ValueError: At once, if an argument does not fit.
        SolverError: In the iteration, if a step fails that cannot be cut any more. The problem is then at the last
            state committed.
    """
    targets = [float(until)] if times is None else [float(t) for t in times]
    _check(targets, problem.time, step, growth, cut, largest, smallest, given=times is not None)
    top = np.inf if step is None and largest is None else float(largest if largest is not None else step or np.inf)
    floor = None if smallest is None else float(smallest)
    return _steps(problem, targets, top if step is None else min(float(step), top), top, floor, growth, cut, progress,
                  done)


def _steps(
    problem: Problem,
    targets: list[float],
    size: float,
    top: float,
    floor: float | None,
    growth: float,
    cut: float,
    progress: bool,
    done: int,
) -> Iterator[Step]:
    start = problem.time
    targets = [t for t in targets if t > start]
    if not targets:
        return
    floor = 1e-4 * (targets[-1] - start) if floor is None else floor
    attempts = 0
    bar = tqdm(
        total=targets[-1] - start,
        disable=not progress or problem.comm.rank != 0,
        bar_format="{l_bar}{bar}| t = {n:.4g}/{total:.4g} [{elapsed}<{remaining}{postfix}]",
    )
    with bar:
        for target in targets:
            while problem.time < target:
                remaining = target - problem.time
                count = max(1, int(np.ceil(remaining / size - 1e-9)))  # equal steps: no tiny one at the end
                end = target if count == 1 else problem.time + remaining / count
                length, attempts = end - problem.time, attempts + 1
                problem.set_time(end)
                try:
                    convergence = problem.solve()
                except ConvergenceError as error:
                    problem.roll_back()
                    size = cut * length
                    if size < floor:
                        _fail(problem, length, error)
                    bar.set_postfix_str(f"step cut to {size:.3g}")
                    continue
                problem.commit()
                done += 1
                taken = Step(problem.time, length, done, attempts, convergence)
                if attempts == 1 and convergence.iterations <= EASY:
                    size = min(growth * size, top)
                attempts = 0
                bar.update(length)
                bar.set_postfix_str(f"{convergence.iterations} iterations")
                yield taken


def _fail(problem: Problem, length: float, error: ConvergenceError) -> None:
    text = f"At time {problem.time:.6g} the step cannot be cut any further, the last was {length:.3g}: {error}"
    on_failure = getattr(problem, "on_failure", None)
    if on_failure is not None:
        on_failure(text)
    raise SolverError(text) from error


def _check(
    targets: list[float],
    start: float,
    step: float | None,
    growth: float,
    cut: float,
    largest: float | None,
    smallest: float | None,
    *,
    given: bool,
) -> None:
    if not all(np.isfinite(targets)) or any(b <= a for a, b in zip(targets, targets[1:])):
        raise ValueError("times must be finite and increase.")
    if not given and targets[0] < start:
        raise ValueError(f"The run cannot end at {targets[0]}, it is at {start}.")
    for name, value in (("step", step), ("largest", largest), ("smallest", smallest)):
        if value is not None and not (np.isfinite(value) and value > 0.0):
            raise ValueError(f"{name} must be positive, got {value}.")
    if not (growth >= 1.0 and 0.0 < cut < 1.0):
        raise ValueError(f"growth must be at least 1 and cut in (0, 1), got {growth} and {cut}.")
