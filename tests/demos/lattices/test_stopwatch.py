"""The stopwatch: the clock runs while a rank sleeps, its computing does not, and pauses count in neither."""

import itertools
import time

import numpy as np
import pytest
import stopwatch
from mpi4py import MPI
from stopwatch import Stopwatch


@pytest.mark.mpi
def test_all_ranks_have_the_same_seconds_and_wait_for_the_last(monkeypatch):
    """Clocks of the ranks that run differently fast: rank 0 tells the seconds, the busiest rank the computing."""
    comm = MPI.COMM_WORLD
    clock = itertools.count()
    monkeypatch.setattr(stopwatch, "_now", lambda: next(clock) * (1.0 + comm.rank) * np.array([1.0, 0.5]))
    watch = Stopwatch(comm, seconds=1.0, cpu=2.0)
    with watch:
        time.sleep(0.02 if comm.rank == comm.size - 1 else 0.0)
        done = time.monotonic()
    assert min(comm.allgather(time.monotonic())) >= max(comm.allgather(done))
    assert (watch.seconds, watch.cpu) == (1.0 + 2.0, 2.0 + 0.5 * comm.size)


def test_blocks_add_up_and_pauses_are_left_out(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 10.0, 10.0, 20.0, 25.0, 25.0])
    monkeypatch.setattr(stopwatch, "_now", lambda: next(clock) * np.array([1.0, 0.5]))
    watch = Stopwatch(MPI.COMM_SELF)
    with watch, watch.paused():
        pass
    assert (watch.seconds, watch.cpu) == (7.0, 3.5)
    with watch:
        pass
    assert (watch.seconds, watch.cpu) == (12.0, 6.0)
