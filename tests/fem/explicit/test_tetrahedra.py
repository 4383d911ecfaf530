"""Linear tetrahedra with the mean dilatation of the nodes: patch test, energy, momenta, steps, ranks."""

import numpy as np
import pytest
from mpi4py import MPI

from fem.explicit import ExplicitSolver, RigidPlane
from fem.explicit.stability import largest_stable_step
from fem.laws import load_law

ELASTIC, METAL = load_law("magnesium-neo-hookean"), load_law("magnesium-j2")


def wavy(x):
    return 0.05 * np.stack([np.sin(3.0 * x[1] + 2.0 * x[2]), np.cos(4.0 * x[0]), np.sin(2.0 * x[0] * x[1])])


def energy(solver):
    F = solver.points.gather(solver.u)
    return float(np.sum(ELASTIC.stored_energy(F, np.zeros((len(F), 0))) * solver.points.volume))


def test_a_linear_displacement_has_its_gradient_and_its_stress_is_in_balance(cells):
    """Patch test: F and P are exact in each cell of a distorted mesh, and the forces inside vanish."""
    H = np.array([[0.1, 0.05, -0.02], [0.03, -0.08, 0.04], [0.02, -0.06, 0.07]])
    solver = ExplicitSolver(cells("tetrahedron", 4, distort=0.2), ELASTIC, initial_displacement=lambda x: H @ x)
    np.testing.assert_allclose(solver.points.F, np.tile(np.eye(3) + H, (solver.points.n, 1, 1)), atol=1e-13)
    P, _ = ELASTIC.update((np.eye(3) + H)[None], np.zeros((1, 0)), 1.0)
    force = solver.internal_force
    x = solver.points.V.tabulate_dof_coordinates()
    inside = ((x > 1e-9) & (x < 1.0 - 1e-9)).all(axis=1)
    scale = np.abs(P).max() / 16.0
    assert inside.any()
    assert np.abs(force[inside]).max() < 1e-12 * scale
    top = np.isclose(x[:, 2], 1.0) & ((x[:, :2] > 1e-9) & (x[:, :2] < 1.0 - 1e-9)).all(axis=1)
    np.testing.assert_allclose(force[top].mean(axis=0), P[0, :, 2] / 16.0, rtol=0.2)


def test_forces_are_the_derivative_of_the_energy(cells):
    solver = ExplicitSolver(cells("tetrahedron", 3, distort=0.2), ELASTIC, initial_displacement=wavy)
    force = solver.internal_force.copy()
    direction, h, u = np.sin(np.arange(force.size) ** 2.0), 1e-5, solver.u.x.array
    found = []
    for sign in (1.0, -1.0):
        u += sign * h * direction
        found.append(energy(solver))
        u -= sign * h * direction
    assert float(force.reshape(-1) @ direction) == pytest.approx((found[0] - found[1]) / (2.0 * h), rel=1e-6)


def test_without_the_mean_the_energy_of_the_volume_is_larger(cells):
    """J is convex in the average: sum V (J_bar - 1)^2 <= sum V (J - 1)^2, hence the bound of the stable step."""
    solver = ExplicitSolver(cells("tetrahedron", 3, distort=0.2), ELASTIC, initial_displacement=wavy)
    volume = solver.points.volume
    J, J_bar = np.linalg.det(solver.points.F_cell), np.linalg.det(solver.points.F)
    assert volume @ (J_bar - 1.0) ** 2 < 0.5 * (volume @ (J - 1.0) ** 2)
    assert volume @ J_bar == pytest.approx(volume @ J, rel=1e-12)  # the volume of the body is kept


def test_momenta_and_energy_are_conserved_in_plastic_flow(cells):
    spin = np.array([20.0, -50.0, 100.0])

    def velocity(x):
        squeeze = 200.0 * np.stack([x[1] * 0, -x[1] * np.sign(x[2] - 0.5), 0 * x[2]])
        return np.cross(spin, x.T).T + squeeze

    solver = ExplicitSolver(cells("tetrahedron", 3, distort=0.2), METAL, initial_velocity=velocity)
    moment = lambda: np.cross(solver.x, solver.mass[:, None] * solver.velocity.x.array.reshape(-1, 3)).sum(axis=0)
    before = moment()
    solver.run(2e-3).finish()
    assert METAL.observe(solver.state).max() > 0.02
    assert np.abs(moment() - before).max() < 1e-11 * np.abs(before).max()
    balance = solver.energy_balance()
    assert balance.momentum_error < 1e-12
    assert balance.energy_error < 1e-2


@pytest.mark.parametrize("squeeze", [1.0, 0.7])
def test_the_step_is_safe_and_not_far_below_the_largest(cells, squeeze):
    solver = ExplicitSolver(
        cells("tetrahedron", 4, distort=0.2), ELASTIC, viscosity=(0.0, 0.0),
        initial_displacement=lambda x: np.stack([0 * x[0], 0 * x[1], (squeeze - 1.0) * x[2]]),
    )  # fmt: skip
    assert 0.4 < solver.next_step / largest_stable_step(solver) < 1.0


@pytest.mark.mpi
def test_ranks_do_not_matter(cells, nodes):
    def make(comm):
        return ExplicitSolver(
            cells("tetrahedron", 4, distort=0.1, comm=comm), METAL, contact=[RigidPlane()],
            initial_velocity=(0.0, 5.0, -150.0),
        )  # fmt: skip

    together, alone = make(MPI.COMM_WORLD), make(MPI.COMM_SELF)
    for solver in (together, alone):
        solver.run(3e-4).finish()
    assert together.steps == alone.steps
    assert alone.state[:, 6].max() > 0.0
    for a, b in zip(nodes(together), nodes(alone), strict=True):
        assert np.abs(a - b).max() < 1e-10 * np.abs(b).max()


def test_an_inverted_tetrahedron_stops_the_run(cells):
    from fem import SolverError

    with pytest.raises(SolverError, match="is inverted"):
        ExplicitSolver(
            cells("tetrahedron", 2), ELASTIC, initial_displacement=lambda x: np.stack([0 * x[0], 0 * x[1], -1.5 * x[2]])
        )


def test_full_integration_of_tetrahedra_is_refused(cells):
    with pytest.raises(ValueError, match='integration must be "one-point" for tetrahedra'):
        ExplicitSolver(cells("tetrahedron", 1), ELASTIC, integration="full")
