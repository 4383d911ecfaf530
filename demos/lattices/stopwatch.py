"""Stopwatch: seconds that all ranks spend on something, on the clock and of computing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import numpy as np
from mpi4py import MPI


class Stopwatch:
    """Runs within a `with` block, which is collective, from when all ranks have come to when all have gone.

    Args:
        comm: Communicator.
        seconds: To begin with, as after a restart.
        cpu: The same.

    Attributes:
        seconds: On the clock, summed over the blocks, the same on all ranks.
        cpu: Computed by the busiest rank; as `seconds`, where the machine has nothing else to do.
    """

    def __init__(self, comm: MPI.Comm, seconds: float = 0.0, cpu: float = 0.0) -> None:
        self._comm, self.seconds, self.cpu = comm, seconds, cpu
        self._start, self._pause = np.zeros(2), np.zeros(2)

    def __enter__(self) -> Stopwatch:
        self._comm.barrier()
        self._start, self._pause = _now(), np.zeros(2)
        return self

    def __exit__(self, *_: object) -> None:
        computed = _now()[1] - self._start[1] - self._pause[1]
        self.cpu += self._comm.allreduce(computed, op=MPI.MAX)
        self._comm.barrier()
        passed = _now()[0] - self._start[0] - self._pause[0]
        self.seconds += self._comm.bcast(passed, root=0)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what is done within this block."""
        start = _now()
        yield
        self._pause += _now() - start


def _now() -> np.ndarray:
    """Clock and time computed, s, (2,)."""
    return np.array([time.perf_counter(), time.process_time()])
