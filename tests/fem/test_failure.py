"""Runs that cannot go on: one sentence on all ranks, the solver back at the start of the step, files to look into."""

import numpy as np
import pytest
from mpi4py import MPI

from fem.explicit import ExplicitSolver, RigidPlane, SolverError
from fem.laws import load_law
from fem.parallel import raise_together

METAL = load_law("magnesium-j2")


class Faulty:
    """A J2 law that goes wrong at points beyond a strain, in one of several ways."""

    def __init__(self, how):
        self._law, self._how = METAL, how
        for name in ("density", "bulk_modulus", "shear_modulus", "state_size", "observed"):
            setattr(self, name, getattr(self._law, name))
        self.name = "faulty"

    def __getattr__(self, name):
        return getattr(self._law, name)

    def update(self, F, state, dt):
        P, new = self._law.update(F, state, dt)
        wrong = new[:, 6] > 0.05
        if wrong.any():
            if self._how == "exception":
                raise RuntimeError("no root found")
            (P if self._how == "stress" else new)[wrong] = np.nan if self._how == "stress" else np.inf
        return P, new


def shared(tmp_path_factory):
    comm = MPI.COMM_WORLD
    return comm.bcast(tmp_path_factory.mktemp("failed") if comm.rank == 0 else None)


NUMBERS = r"\(det F = \S+, \|F - I\| = \S+, dt = \S+ s\)\."
SENTENCES = {
    "stress": r"At time \S+ s on rank \d+, cell \d+, point 0 has a stress that is not finite " + NUMBERS,
    "state": r"At time \S+ s on rank \d+, cell \d+, point 0 has a state that is not finite " + NUMBERS,
    "exception": r"At time \S+ s on rank \d+, cell \d+, point 0 cannot be evaluated by the law faulty: no root found "
    + NUMBERS,
}


@pytest.mark.mpi
@pytest.mark.parametrize("how", SENTENCES)
def test_a_failing_law_stops_all_ranks(box, nodes, tmp_path_factory, how):
    comm, folder = MPI.COMM_WORLD, shared(tmp_path_factory)
    solver = ExplicitSolver(
        box((1e-3, 1e-3, 2e-3), (3, 3, 6)), Faulty(how), contact=[RigidPlane()],
        initial_velocity=(0.0, 0.0, -200.0), output=folder,
    )
    before = []

    def remember(s):
        before[:] = [s.time, s.steps, *nodes(s), s.state.copy(), s.points.P.copy(), s.points.F.copy()]

    def run():
        for _ in solver.run(1e-5):
            remember(solver)

    with pytest.raises(SolverError, match=SENTENCES[how]) as caught:
        run()
    sentences = comm.allgather(str(caught.value))
    assert len(set(sentences)) == 1
    # Back at the start of the step, on all ranks.
    after = [solver.time, solver.steps, *nodes(solver), solver.state, solver.points.P, solver.points.F]
    for a, b in zip(before, after):
        np.testing.assert_array_equal(a, b)
    comm.barrier()
    with np.load(folder / "failure-replay.npz") as replay:
        assert {"F_n", "F", "state", "dt", "time", "law", "source", "method", "reason"} == set(replay.files)
        assert str(replay["reason"]) == sentences[0]
        assert float(replay["time"]) == solver.time
        # The point can be replayed, and fails again.
        if how == "stress":
            P, _ = Faulty(how).update(replay["F"], replay["state"], float(replay["dt"]))
            assert P.shape == (1, 3, 3)
            assert np.isnan(P).all()
    again = ExplicitSolver(solver.domain, Faulty(how), contact=[RigidPlane()], initial_velocity=(0.0, 0.0, -200.0))
    again.restore(folder / "failure-checkpoint.h5")
    assert again.time == solver.time
    with pytest.raises(SolverError) as repeated:
        again.step()
    assert str(repeated.value) == sentences[0]


@pytest.mark.mpi
def test_an_inverted_cell_stops_all_ranks(box):
    comm = MPI.COMM_WORLD
    domain = box((1e-3, 1e-3, 1e-3), (2, 2, 2))
    # Two ends that run through each other.
    solver = ExplicitSolver(
        domain, METAL, safety=1.0,
        initial_velocity=lambda x: np.stack([0 * x[0], 0 * x[0], -1e6 * (x[2] - 5e-4) / 5e-4]),
    )
    with pytest.raises(SolverError, match=r"At time \S+ s on rank \d+, cell \d+, point 0 is inverted \(det F = -"):
        solver.run(1e-5).finish()
    assert len(set(comm.allgather(solver.steps))) == 1


@pytest.mark.mpi
def test_an_initial_inversion_is_refused_together(box):
    with pytest.raises(SolverError, match="is inverted"):
        ExplicitSolver(box((1.0, 1.0, 1.0), (2, 2, 2)), METAL, initial_displacement=lambda x: -2.0 * x)


@pytest.mark.mpi
def test_the_lowest_rank_speaks_for_all():
    comm = MPI.COMM_WORLD
    raise_together(comm, None)
    last = comm.size - 1
    with pytest.raises(FileNotFoundError, match=f"^rank {last} lost a file$"):
        raise_together(comm, FileNotFoundError(f"rank {last} lost a file") if comm.rank == last else None)
    with pytest.raises(ValueError, match="^rank 0$"):
        raise_together(comm, ValueError(f"rank {comm.rank}"))


@pytest.mark.mpi
def test_an_error_with_many_arguments_still_reaches_all():
    class Odd(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} and {b}")

    comm = MPI.COMM_WORLD
    with pytest.raises((Odd, RuntimeError), match="this and that"):
        raise_together(comm, Odd("this", "that") if comm.rank == comm.size - 1 else None)
