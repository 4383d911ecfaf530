"""Time spent, by phase."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from time import perf_counter

from mpi4py import MPI

PHASES = ("gather", "law", "assemble", "contact", "step", "output")


class Clock:
    """Seconds of this rank by phase.

    Attributes:
        seconds: Phase -> seconds so far.
    """

    def __init__(self, phases: Sequence[str] = PHASES) -> None:
        self.seconds = dict.fromkeys(phases, 0.0)

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the time of a block to a phase."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + perf_counter() - start

    def largest(self, comm: MPI.Comm) -> dict[str, float]:
        """Seconds by phase, the largest of all ranks; collective (the phases must be the same on all)."""
        return {phase: float(comm.allreduce(spent, op=MPI.MAX)) for phase, spent in sorted(self.seconds.items())}
