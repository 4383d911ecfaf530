"""Restart: a run goes on as if it had not stopped; files that do not fit are refused."""

import numpy as np
import pytest
from mpi4py import MPI

from fem import laws
from fem.explicit import ExplicitSolver, RigidPlane

SIZE = (1e-3, 1e-3, 2e-3)


def make(box, law="magnesium-johnson-cook", comm=MPI.COMM_WORLD, cells=(3, 3, 4), **options):
    options = {"contact": [RigidPlane()], "initial_velocity": (10.0, 0.0, -150.0), **options}
    return ExplicitSolver(box(SIZE, cells, distort=0.1, comm=comm), laws.load_law(law), **options)


@pytest.mark.parametrize("integration", ["one-point", "full"])
@pytest.mark.parametrize("law", laws.FINITE)
def test_a_restored_run_goes_on_as_the_first(box, nodes, tmp_path, law, integration):
    through, first, second = (make(box, law, integration=integration) for _ in range(3))
    for solver in (through, first):
        for _ in range(6):
            solver.step()
    first.save(tmp_path / "run.h5")
    second.restore(tmp_path / "run.h5")
    for name in ("time", "steps", "dt", "last_contact"):
        assert getattr(second, name) == getattr(first, name)
    np.testing.assert_array_equal(second.state, first.state)
    np.testing.assert_array_equal(second.points.P, first.points.P)
    for solver in (through, second):
        for _ in range(6):
            solver.step()
    for a, b in zip(nodes(through), nodes(second)):
        np.testing.assert_array_equal(a, b)
    balance, expected = second.energy_balance().as_dict(), through.energy_balance().as_dict()
    assert balance == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert not list(tmp_path.glob("*.part*"))


def test_files_that_do_not_fit_are_refused(box, tmp_path):
    path = tmp_path / "run.h5"
    solver = make(box, "magnesium-j2")
    solver.save(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.h5 does not exist"):
        solver.restore(tmp_path / "absent.h5")
    with pytest.raises(ValueError, match='written with the law "j2", the solver has "johnson-cook"'):
        make(box).restore(path)
    with pytest.raises(ValueError, match="does not fit this mesh: u has shape"):
        make(box, "magnesium-j2", cells=(2, 2, 2)).restore(path)
    with pytest.raises(ValueError, match='written with the integration "one-point", the solver has "full"'):
        make(box, "magnesium-j2", integration="full").restore(path)


class Trained:
    """Neo-Hooke in the place of a trained law, with a weight that another training changes."""

    def __init__(self, weight):
        self._law, self.weight, self.name = laws.load_law("magnesium-neo-hookean"), weight, "trained"

    def __getattr__(self, name):
        return getattr(self._law, name)


OTHERS = {
    "law digest": {"law": Trained(2.0)},
    'density "10000.0"': {"density": 9999.0},
    'hourglass stiffness "0.3"': {"hourglass": 0.2},
    'bulk viscosity "0.06 and 1.2"': {"viscosity": (0.0, 1.2)},
    "contact": {"contact": [RigidPlane((0.0, 0.0, -1e-3))]},
    "initial velocity of the energy": {"initial_velocity": (10.0, 0.0, -151.0)},
    "initial velocity of the momentum": {"initial_velocity": (-10.0, 0.0, -150.0)},
    "position of node": {"distort": 0.11},
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_problem_of_the_same_size_is_refused_and_named(box, tmp_path, name):
    def problem(law=None, distort=0.1, **options):
        given = {"contact": [RigidPlane()], "initial_velocity": (10.0, 0.0, -150.0), **options}
        return ExplicitSolver(box(SIZE, (2, 2, 3), distort=distort), law or Trained(1.0), **given)

    path = tmp_path / "run.h5"
    first, same, other = problem(), problem(), problem(**OTHERS[name])
    first.step()
    first.save(path)
    same.restore(path)
    u = other.u.x.array.copy()
    with pytest.raises(ValueError, match=name) as caught:
        other.restore(path)
    assert str(caught.value).count(". ") == 0 and str(path) in str(caught.value)
    assert other.time == 0.0 and np.array_equal(other.u.x.array, u)
    if name == "law digest":
        other.restore(path, same_law=False)
        assert other.time == first.time


@pytest.mark.mpi
def test_a_checkpoint_serves_any_number_of_ranks(box, nodes, tmp_path_factory):
    comm = MPI.COMM_WORLD
    folder = comm.bcast(tmp_path_factory.mktemp("run") if comm.rank == 0 else None)
    together = make(box)
    together.run(4e-7).finish()
    together.save(folder / "run.h5")
    comm.barrier()
    alone = make(box, comm=MPI.COMM_SELF)
    alone.restore(folder / "run.h5")
    for solver in (together, alone):
        solver.run(8e-7).finish()
    assert alone.steps == together.steps
    for a, b in zip(nodes(together), nodes(alone)):
        assert np.abs(a - b).max() < 1e-10 * np.abs(a).max()
    expected = together.energy_balance()
    assert alone.energy_balance().internal_energy == pytest.approx(expected.internal_energy, rel=1e-10)
    assert alone.energy_balance().energy_error == pytest.approx(expected.energy_error, abs=1e-10)
