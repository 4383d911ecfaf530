"""Checkpoints during a run: at intervals, on signals, and with a rank that is killed at the worst moment."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from mpi4py import MPI

from fem import failure, laws
from fem.errors import Interrupted
from fem.explicit import ExplicitSolver, RigidPlane
from fem.explicit.checkpoints import Checkpoints

COMM = MPI.COMM_WORLD
ROOT = Path(__file__).resolve().parents[3]


def make(box, **options):
    options = {"contact": [RigidPlane()], "initial_velocity": (0.0, 0.0, -150.0), **options}
    return ExplicitSolver(box((1e-3, 1e-3, 2e-3), (2, 2, 4)), laws.load_law("magnesium-j2"), **options)


def shared(tmp_path_factory):
    return COMM.bcast(tmp_path_factory.mktemp("checkpoints") if COMM.rank == 0 else None)


def names(folder):
    COMM.barrier()
    found = sorted(path.name for path in folder.iterdir())
    COMM.barrier()
    return found


@pytest.mark.mpi
def test_checkpoints_at_an_interval_keep_the_last_two(box, tmp_path_factory):
    path = shared(tmp_path_factory) / "run.h5"
    solver, times, kept = make(box), [], []
    with Checkpoints(solver, path, every=2e-7, before=lambda: kept.append(solver.time)) as checkpoints:
        for _ in solver.run(9e-7):
            if checkpoints.look():
                times.append(solver.time)
    assert times == kept and len(times) == checkpoints.written == 4
    assert all(0.0 <= time - k * 2e-7 < solver.dt * 2 for k, time in enumerate(times, 1)), times
    assert names(path.parent) == ["run-former.h5", "run.h5"]
    for file, time in (("run.h5", times[-1]), ("run-former.h5", times[-2])):
        other = make(box)
        other.restore(path.with_name(file))
        assert other.time == time


@pytest.mark.mpi
def test_a_signal_to_one_rank_is_obeyed_by_all(box, tmp_path_factory):
    path = shared(tmp_path_factory) / "run.h5"
    solver, before = make(box), signal.getsignal(signal.SIGTERM)
    looks = []

    def run():
        for step in solver.run(1e-5):
            if step.number == 3 and COMM.rank == COMM.size - 1:
                os.kill(os.getpid(), signal.SIGUSR1)
            if step.number == 6 and COMM.rank == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            looks.append(checkpoints.look())

    with pytest.raises(Interrupted, match=r"told to terminate at time \S+ s; go on from .*run\.h5"):
        with Checkpoints(solver, path) as checkpoints:
            run()
    # The signal that came after step 3 travels with the reduction of step 4.
    assert looks == [False, False, False, True, False, False]
    assert solver.steps == 7 and checkpoints.written == 2
    other = make(box)
    other.restore(path)
    assert other.time == solver.time
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.mpi
def test_the_clock_on_the_wall_of_one_rank_is_enough(box, tmp_path_factory, monkeypatch):
    path, now = shared(tmp_path_factory) / "run.h5", [0.0]
    monkeypatch.setattr("fem.explicit.checkpoints.monotonic", lambda: now[0])
    solver = make(box)
    looks = []
    with Checkpoints(solver, path, seconds=10.0) as checkpoints:
        for step in solver.run(1e-5):
            now[0] += 4.0 * (COMM.rank == 0)  # the clocks of the others stand
            looks.append(checkpoints.look())
            if step.number == 8:
                break
    assert looks == [False, False, False, True, False, False, False, True]


class Counting:
    """A communicator that counts its reductions."""

    def __init__(self, comm):
        self._comm, self.count = comm, 0

    def __getattr__(self, name):
        if name.lower() in ("allreduce", "allgather", "bcast", "gather", "barrier", "alltoall"):
            self.count += 1
        return getattr(self._comm, name)


@pytest.mark.mpi
def test_a_step_has_one_reduction_with_checkpoints_and_monitors(box, tmp_path_factory):
    class Monitor:
        name = "watch"
        check = staticmethod(lambda F_n, F, state, dt: None)
        accept = staticmethod(lambda: None)

    path = shared(tmp_path_factory) / "run.h5"
    solver = make(box)
    solver.monitors.append(Monitor())
    solver.step()
    with Checkpoints(solver, path, every=1.0, seconds=1e6) as checkpoints:
        solver.comm = counting = Counting(solver.comm)
        for _ in range(5):
            solver.step()
            checkpoints.look()
    assert counting.count == 5


@pytest.mark.mpi
def test_a_monitor_undoes_the_step_and_its_record_is_kept(box, tmp_path_factory):
    class Shy:
        """Stops the run at the fourth step, in one cell of one rank."""

        name = "shy"

        def __init__(self, solver):
            self.seen, self.solver, self.n = np.zeros(solver.points.n), solver, 0

        def check(self, F_n, F, state, dt):
            self.n += 1
            self.next = self.seen + dt
            wrong = self.n == 4 and COMM.rank == COMM.size - 1 and len(F)
            return failure.Problem(0, "has seen enough") if wrong else None

        def accept(self):
            self.seen = self.next

        def rows(self):
            return {"seen": self.seen}

        def adopt(self, rows):
            self.seen = rows["seen"].copy()

    folder = shared(tmp_path_factory)
    solver = make(box, output=folder)
    shy = Shy(solver)
    solver.monitors.append(shy)
    with pytest.raises(failure.SolverError, match=r"point 0 has seen enough \(det F = \S+, \|F - I\| = \S+, dt = "):
        solver.run(1e-5).finish()
    assert solver.steps == 3
    assert names(folder) == ["failure-checkpoint.h5", "failure-replay.npz"]
    other = make(box)
    again = Shy(other)
    other.monitors.append(again)
    other.restore(folder / "failure-checkpoint.h5")
    np.testing.assert_array_equal(again.seen, shy.seen)
    assert again.seen == pytest.approx(other.time)
    plain = make(box)  # one without it may read the file as well
    plain.restore(folder / "failure-checkpoint.h5")
    assert plain.time == other.time


def test_intervals_must_be_positive(box, tmp_path):
    for name in ("every", "seconds"):
        with pytest.raises(ValueError, match=f"{name} must be a positive time, got 0.0"):
            Checkpoints(make(box), tmp_path / "run.h5", **{name: 0.0})


def start(folder, mode, ranks):
    """Exit code of a run of `killed_run.py`, and what it said."""
    folder.mkdir(exist_ok=True)
    start = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    command = [*start, sys.executable, str(Path(__file__).with_name("killed_run.py")), str(folder), mode]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PRTE_ALLOW_RUN_AS_ROOT": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stderr


def end(folder):
    with h5py.File(folder / "end.h5", "r") as file:
        return {name: file[name][()] for name in ("nodes/u", "nodes/velocity", "cells/P", "cells/state")}


def killed_and_continued(whole, folder, mode, ranks):
    code, _ = start(folder, mode, ranks)
    assert code != 0 and not (folder / "end.h5").exists()
    with h5py.File(folder / "run.h5", "r") as file:
        assert 1e-7 < file["time"][()] < 5e-7
    code, said = start(folder, "none", ranks)
    assert code == 0, said
    # The whole file: fields, state, sums of the ranks, counters.
    assert (folder / "end.h5").read_bytes() == (whole / "end.h5").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["end.h5", "run-former.h5", "run.h5"]


def test_killed_while_it_writes_alone(tmp_path):
    code, said = start(tmp_path / "whole", "none", 1)
    assert code == 0, said
    killed_and_continued(tmp_path / "whole", tmp_path / "piece", "piece", 1)


@pytest.mark.slow
def test_a_rank_killed_at_any_moment_changes_nothing(tmp_path):
    code, said = start(tmp_path / "whole", "none", 2)
    assert code == 0, said
    for mode in ("step", "piece", "name"):
        killed_and_continued(tmp_path / "whole", tmp_path / mode, mode, 2)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_other_ranks(tmp_path):
    code, said = start(tmp_path / "whole", "none", 2)
    assert code == 0, said
    expected = end(tmp_path / "whole")
    for ranks in (1, 3):
        folder = tmp_path / str(ranks)
        assert start(folder, "step", 2)[0] != 0
        code, said = start(folder, "none", ranks)
        assert code == 0, said
        for name, values in end(folder).items():
            assert np.abs(values - expected[name]).max() < 1e-10 * np.abs(expected[name]).max(), name
