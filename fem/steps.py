"""A run as an iterator over its steps, and the time that it spends in each phase."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

from mpi4py import MPI

PHASES = ("gather", "law", "assemble", "contact", "step", "output")
S = TypeVar("S")


@dataclass(frozen=True)
class Step:
    """One step of an explicit run.

    Attributes:
        time: At its end, s.
        dt: Its length, s.
        number: Steps since the start of the simulation.
    """

    time: float
    dt: float
    number: int


class Run(Iterator[S], Generic[S]):
    """The steps of a run that takes place while it is iterated; one that is never iterated warns.

        for step in solver.run(until=1e-6):
            ...
        solver.run(until=1e-6).finish()

    Args:
        steps: Iterator that takes one step of the solver for each item. It must not have been started.
        label: What is run, for the warning.
    """

    def __init__(self, steps: Iterator[S], label: str = "run") -> None:
        self._steps = steps
        self._label = label
        self._started = False

    def __iter__(self) -> Run[S]:
        return self

    def __next__(self) -> S:
        self._started = True
        return next(self._steps)

    def finish(self) -> S | None:
        """Take all steps that are left; returns the last one, or None if there was none."""
        last: S | None = None
        for step in self:
            last = step
        return last

    def __del__(self) -> None:
        if not self._started:
            text = f"A {self._label} was never iterated, so that no step was taken: loop over it, or call finish()."
            warnings.warn(text, RuntimeWarning, stacklevel=2)


class _Phase(contextlib.AbstractContextManager[None]):
    """Adds the time of its block to one phase of the seconds of a clock."""

    def __init__(self, seconds: dict[str, float], phase: str, now: Callable[[], float]) -> None:
        self._seconds, self._phase, self._now = seconds, phase, now

    def __enter__(self) -> None:
        self._start = self._now()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + self._now() - self._start


class Clock:
    """Seconds of this rank by phase.

    Args:
        phases: Their names.
        now: The clock, in seconds; None is the time on the wall.

    Attributes:
        seconds: Phase -> seconds so far.
    """

    def __init__(self, phases: Sequence[str] = PHASES, now: Callable[[], float] | None = None) -> None:
        self.seconds, self._now = dict.fromkeys(phases, 0.0), now

    def __call__(self, phase: str) -> contextlib.AbstractContextManager[None]:
        """Add the time of a block to a phase."""
        return _Phase(self.seconds, phase, self._now or perf_counter)

    def largest(self, comm: MPI.Comm) -> dict[str, float]:
        """Seconds by phase, the largest of all ranks; collective (the phases must be the same on all)."""
        return {phase: float(comm.allreduce(spent, op=MPI.MAX)) for phase, spent in sorted(self.seconds.items())}
