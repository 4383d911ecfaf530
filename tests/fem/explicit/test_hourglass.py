"""Hourglass stiffness that follows plastic flow, and full integration with mean dilatation: forces from energies."""

import numpy as np
import pytest

from fem.explicit import ExplicitSolver, RigidPlane
from fem.explicit.hourglass import returned
from fem.laws import load_law

ELASTIC, METAL = load_law("magnesium-neo-hookean"), load_law("magnesium-j2")
SIZE = (1e-3, 1e-3, 2e-3)


def wavy(x, scale=1.0):
    """A displacement with large hourglass parts on coarse meshes, m."""
    waves = [np.sin(3e3 * x[1] + 2e3 * x[2]), np.cos(4e3 * x[0]), np.sin(2e3 * x[0] * 1e3 * x[1])]
    return scale * 1e-4 * np.stack(waves)


def energy(solver):
    """Energy of an elastic body, hourglass energy included, J, at the displacement that it has."""
    F = solver.points.gather(solver.u)
    stored = float(np.sum(ELASTIC.stored_energy(F, np.zeros((len(F), 0))) * solver.points.volume))
    return stored + solver.forces.hourglass_energy()


@pytest.mark.parametrize("integration", ["one-point", "full"])
def test_forces_are_the_derivative_of_an_energy(box, integration):
    """With a permanent hourglass shape as well; so there is no moment, and energy is conserved."""
    solver = ExplicitSolver(
        box(SIZE, (2, 2, 3), distort=0.2), ELASTIC, initial_displacement=wavy, integration=integration, hourglass=0.3
    )
    if integration == "one-point":
        zeta = solver.forces.hourglass.zeta
        zeta[:] = 1e-5 * np.random.default_rng(0).normal(size=zeta.shape)
    u = solver.u.x.array
    solver.points.P[:] = ELASTIC.update(solver.points.gather(solver.u), solver.state, 1.0)[0]
    force = solver.forces.internal_force().copy()
    assert np.abs(np.cross(solver.x, force).sum(axis=0)).max() < 1e-12 * np.abs(force).max() * 1e-3
    rng, h = np.random.default_rng(1), 1e-10
    for _ in range(3):
        direction = rng.normal(size=u.shape)
        change = []
        for sign in (1.0, -1.0):
            u += sign * h * direction
            change.append(energy(solver))
            u -= sign * h * direction
        slope = (change[0] - change[1]) / (2.0 * h)
        assert slope == pytest.approx(float(force.reshape(-1) @ direction), rel=1e-6)


def test_a_linear_motion_has_no_hourglass_force_and_leaves_no_shape(box):
    """Also when it is plastic: the permanent shape of a cell stays straight."""
    H = np.array([[0.2, 0.1, 0.0], [0.0, -0.3, 0.2], [0.1, 0.0, 0.15]])
    solver = ExplicitSolver(box(SIZE, (2, 2, 3), distort=0.2), METAL, initial_velocity=lambda x: 1e6 * (H @ x))
    solver.prescribe(None, 0, lambda x, t: 1e6 * t * (H @ x)[0])
    solver.prescribe(None, 1, lambda x, t: 1e6 * t * (H @ x)[1])
    solver.prescribe(None, 2, lambda x, t: 1e6 * t * (H @ x)[2])
    solver.run(3e-7).finish()
    assert METAL.observe(solver.state).min() > 0.05
    assert np.abs(solver.forces.hourglass.zeta).max() < 1e-12 * SIZE[0]
    assert solver.energy_balance().hourglass_energy < 1e-12 * solver.energy_balance().internal_energy


def test_the_return_of_a_law_is_seen_in_its_stress():
    """Exactly one for elastic steps, and |s|/|s_trial| for the radial return of von Mises plasticity."""
    rng = np.random.default_rng(2)
    work = [np.empty((3, 3)) for _ in range(4)]
    F_n = np.eye(3) + 0.0003 * rng.normal(size=(3, 3))
    for step, elastic in ((1e-5, True), (0.05, False)):
        F = (np.eye(3) + step * rng.normal(size=(3, 3))) @ F_n
        for law in (ELASTIC, METAL):
            P_n, state = law.update(F_n[None], law.initial_state(1), 1e-6)
            P, _ = law.update(F[None], state, 1e-6)
            f = returned(F_n, P_n[0], F, P[0], law.shear_modulus, *work)
            if law is ELASTIC or (elastic and METAL.observe(state)[0, 0] == 0.0):
                assert f == pytest.approx(1.0, abs=1e-12)
            else:
                trial, _ = ELASTIC.update(F[None], np.zeros((1, 0)), 1e-6)
                norm = lambda P, F: np.linalg.norm(P @ F.T - np.trace(P @ F.T) / 3.0 * np.eye(3))
                if METAL.observe(state)[0, 0] == 0.0:
                    assert f == pytest.approx(norm(P[0], F) / norm(trial[0], F), rel=1e-9)
                assert f < 1.0


def test_the_hourglass_stiffness_hardly_matters_in_plastic_flow(box):
    """Six times the stiffness moves the foot of a plastic block by less than 2 %, and the energy stays small."""
    width = []
    for hourglass in (0.05, 0.3):
        solver = ExplicitSolver(
            box(SIZE, (4, 4, 8)), METAL, contact=[RigidPlane()], initial_velocity=(0, 0, -200.0), hourglass=hourglass
        )
        solver.run(4e-6).finish()
        width.append(float(solver.x[:, 0].max() - solver.x[:, 0].min()))
        balance = solver.energy_balance()
        assert 0.0 < balance.hourglass_energy < 0.03 * balance.internal_energy
    assert width[0] > 1.3 * SIZE[0]
    assert width[1] == pytest.approx(width[0], rel=2e-2)


def test_mean_dilatation_has_the_volume_of_the_cell_at_every_point(box):
    solver = ExplicitSolver(box(SIZE, (2, 2, 3), distort=0.2), ELASTIC, initial_displacement=wavy, integration="full")
    F, volume = solver.points.F.reshape(-1, 8, 3, 3), solver.points.volume.reshape(-1, 8)
    J = np.linalg.det(F)
    assert np.ptp(J, axis=1).max() < 1e-12
    own = np.linalg.det(solver.points._F.reshape(-1, 8, 3, 3))
    assert np.ptp(own, axis=1).max() > 1e-2
    np.testing.assert_allclose((J * volume).sum(axis=1), (own * volume).sum(axis=1), rtol=1e-12)
