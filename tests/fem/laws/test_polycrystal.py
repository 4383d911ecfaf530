"""The polycrystal behind `load_law`: protocol, solvers, restart, and what a failed grain does."""

import numpy as np
import pytest
from dolfinx import mesh
from mpi4py import MPI

from fem import ExplicitSolver, ImplicitSolver, SolverError
from fem.io.point_histories import PointHistories
from fem.laws import NAMED, Law, load_law
from micro.crystal import compiled

pytestmark = pytest.mark.skipif(not compiled.available(), reason="no C compiler")


@pytest.fixture(scope="module")
def law():
    return load_law("taylor-polycrystal", grains=4)


def box(cells=2):
    corners = [(0.0, 0.0, 0.0), (1e-3, 1e-3, 1e-3)]
    return mesh.create_box(MPI.COMM_SELF, corners, [cells] * 3, mesh.CellType.hexahedron)


def test_the_name_is_an_import_string_and_the_law_has_the_protocol(law):
    assert NAMED["taylor-polycrystal"] == "micro.crystal.polycrystal_law:taylor_polycrystal"
    assert isinstance(law, Law)
    assert "4 grains for 128 of magnesium" in law.name
    same = load_law("micro.crystal.polycrystal_law:taylor_polycrystal", grains=4)
    F = np.eye(3)[None] + 0.01
    P = [each.update(F, each.initial_state(1), 1e-7)[0] for each in (law, same)]
    np.testing.assert_array_equal(P[0], P[1])


def test_options_are_checked():
    with pytest.raises(ValueError, match="does not take these options"):
        load_law("taylor-polycrystal", crystals=3)
    with pytest.raises(ValueError, match="There is no reduced set of 5 grains"):
        load_law("taylor-polycrystal", grains=5)


def impact(law, **options):
    return ExplicitSolver(box(), law, initial_velocity=lambda x: np.stack([0 * x[0], 0 * x[0], -1e5 * x[2]]), **options)


def test_energy_is_balanced_and_stored_or_dissipated(law):
    """The work that the law counts is the internal energy of the run, of which some is dissipated."""
    solver = impact(law, safety=0.1)
    solver.run(until=3e-7).finish()
    balance = solver.energy_balance()
    volume = solver.points.volume
    work = solver.state[:, -1] @ volume
    assert work == pytest.approx(balance.internal_energy, rel=2e-2)
    lost = law.dissipation(solver.state)
    assert (lost > -1e-6 * solver.state[:, -1].max()).all()
    assert lost @ volume > 0.02 * work


def test_a_restart_changes_nothing(law, tmp_path):
    whole = impact(law, safety=0.2)
    whole.run(until=3e-7).finish()
    first = impact(law, safety=0.2)
    first.run(until=1.5e-7).finish()
    first.save(tmp_path / "half.h5")
    second = impact(law, safety=0.2)
    second.restore(tmp_path / "half.h5")
    second.run(until=3e-7).finish()
    reference = impact(law, safety=0.2)
    reference.run(until=1.5e-7).finish()
    reference.run(until=3e-7).finish()
    u = reference.u.x.array
    np.testing.assert_allclose(second.u.x.array, u, rtol=0, atol=1e-12 * np.abs(u).max())
    np.testing.assert_allclose(second.state, reference.state, rtol=1e-9, atol=1e-9)
    assert np.abs(second.u.x.array - whole.u.x.array).max() < 1e-3 * np.abs(whole.u.x.array).max()  # other steps


def test_a_grain_that_fails_is_a_decision_of_the_solver(law):
    solver = impact(law)
    solver.state[3, 6] = np.nan
    u = solver.u.x.array.copy()
    with pytest.raises(SolverError, match="has a stress that is not finite"):
        solver.step()
    np.testing.assert_array_equal(solver.u.x.array, u)


def test_newton_converges_with_the_tangent():
    """Tension of a block: near the solution each iteration squares the residual, as the consistent tangent promises."""
    law = load_law("taylor-polycrystal", grains=4)
    solver = ImplicitSolver(box(1), law, dt=1e-5, rtol=1e-5)
    solver.prescribe(lambda x: np.isclose(x[0], 0.0))
    solver.prescribe(lambda x: np.isclose(x[0], 1e-3), component=0, value=lambda x, t: 4e-6 * t)
    orders = []
    for _ in solver.run(until=1.0, step=0.25):
        residuals = np.array(solver.last.residuals)
        assert residuals[-1] <= 1e-4 * residuals[0]  # the solver measures by the forces, not by the first residual
        late = residuals[residuals < 1e-2 * residuals[0]]
        orders += [np.log(late[-1] / late[-2]) / np.log(late[-2] / residuals[0])] if len(late) > 1 else []
    assert solver.time == pytest.approx(1.0)
    assert law.observe(solver.state).max() > 1e-4  # it flows
    assert np.median(orders) > 0.5  # a step of a first-order method would have a small fraction


def test_histories_begin_at_rest_and_are_those_of_the_points(law, tmp_path):
    solver = impact(law)
    record = PointHistories(solver, 3)
    record.look()
    for _ in solver.run(until=5e-8):
        record.look()
    record.look()  # a time that is there already
    record.write(tmp_path / "paths.npz")
    with np.load(tmp_path / "paths.npz") as file:
        F, time, cell = file["F"], file["time"], file["cell"]
    assert F.shape == (3, solver.steps + 1, 3, 3)
    np.testing.assert_array_equal(F[:, 0], np.tile(np.eye(3), (3, 1, 1)))
    assert time[0] == 0.0
    assert (np.diff(time) > 0).all()
    own = np.asarray(solver.u.function_space.mesh.topology.original_cell_index)
    places = [int(np.flatnonzero(own == k)[0]) for k in cell]
    np.testing.assert_array_equal(F[:, -1], solver.points.F[places])
    with pytest.raises(ValueError, match="points to record must be between 1 and the 8 cells, got 9"):
        PointHistories(solver, 9)
