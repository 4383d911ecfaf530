"""Checkpoints: a run goes on as if it had not stopped; files that do not fit are refused."""

import numpy as np
import pytest
from mpi4py import MPI

from fem import laws
from fem.explicit import ExplicitSolver, PlaneWall
from fem.io import checkpoint

SIZE = (1e-3, 1e-3, 2e-3)


def make(box, law="magnesium-johnson-cook", comm=MPI.COMM_WORLD, cells=(3, 3, 4), **options):
    options = {"walls": [PlaneWall()], "velocity": (10.0, 0.0, -150.0), **options}
    return ExplicitSolver(box(SIZE, cells, distort=0.1, comm=comm), laws.load_law(law), **options)


@pytest.mark.parametrize("integration", ["one-point", "full"])
@pytest.mark.parametrize("law", laws.FINITE)
def test_a_restored_run_goes_on_as_the_first(box, nodes, tmp_path, law, integration):
    through, first, second = (make(box, law, integration=integration) for _ in range(3))
    for solver in (through, first):
        for _ in range(6):
            solver.step()
    checkpoint.save(first, tmp_path / "run.npz")
    checkpoint.restore(second, tmp_path / "run.npz")
    for name in ("time", "steps", "dt", "last_contact"):
        assert getattr(second, name) == getattr(first, name)
    np.testing.assert_array_equal(second.state, first.state)
    np.testing.assert_array_equal(second.P, first.P)
    for solver in (through, second):
        for _ in range(6):
            solver.step()
    for a, b in zip(nodes(through), nodes(second)):
        np.testing.assert_array_equal(a, b)
    books, expected = second.ledger().as_dict(), through.ledger().as_dict()
    assert books == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert not list(tmp_path.glob("*.partial"))


def test_files_that_do_not_fit_are_refused(box, tmp_path):
    path = tmp_path / "run.npz"
    solver = make(box, "magnesium-j2")
    checkpoint.save(solver, path)
    with pytest.raises(FileNotFoundError, match=r"absent\.npz does not exist"):
        checkpoint.restore(solver, tmp_path / "absent.npz")
    with pytest.raises(ValueError, match='written with the law "j2", the solver has "johnson-cook"'):
        checkpoint.restore(make(box), path)
    with pytest.raises(ValueError, match="does not fit this mesh: u has shape"):
        checkpoint.restore(make(box, "magnesium-j2", cells=(2, 2, 2)), path)
    with pytest.raises(ValueError, match="does not fit this mesh: P has shape"):
        checkpoint.restore(make(box, "magnesium-j2", integration="full"), path)
    cut = tmp_path / "cut.npz"
    cut.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="not a checkpoint, or it is truncated"):
        checkpoint.restore(solver, cut)
    other = tmp_path / "other.npz"
    np.savez(other, a=1.0)
    with pytest.raises(ValueError, match="not a checkpoint of schema 1"):
        checkpoint.restore(solver, other)


@pytest.mark.mpi
def test_a_checkpoint_serves_any_number_of_ranks(box, nodes, tmp_path_factory):
    comm = MPI.COMM_WORLD
    folder = comm.bcast(tmp_path_factory.mktemp("run") if comm.rank == 0 else None)
    together = make(box)
    together.run(4e-7)
    checkpoint.save(together, folder / "run.npz")
    comm.barrier()
    alone = make(box, comm=MPI.COMM_SELF)
    checkpoint.restore(alone, folder / "run.npz")
    for solver in (together, alone):
        solver.run(8e-7)
    assert alone.steps == together.steps
    for a, b in zip(nodes(together), nodes(alone)):
        assert np.abs(a - b).max() < 1e-10 * np.abs(a).max()
    expected = together.ledger()
    assert alone.ledger().internal_energy == pytest.approx(expected.internal_energy, rel=1e-10)
    assert alone.ledger().energy_error == pytest.approx(expected.energy_error, abs=1e-10)
