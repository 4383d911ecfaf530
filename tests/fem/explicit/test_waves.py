"""Waves, flight and rebound of elastic columns against closed forms."""

import numpy as np
import pytest
import ufl

from fem.explicit import ExplicitSolver, RigidPlane
from fem.laws import load_law

LAW = load_law("magnesium-neo-hookean")
SPEED = np.sqrt((LAW.bulk_modulus + 4.0 / 3.0 * LAW.shear_modulus) / LAW.density)  # laterally confined
LENGTH = 5e-3


def confined(*arguments, **options):
    """A solver whose nodes move along z only, without bulk viscosity, which the closed forms do not have."""
    solver = ExplicitSolver(*arguments, **{"viscosity": (0.0, 0.0), **options})
    for component in (0, 1):
        solver.prescribe(None, component)
    return solver


def measured_speed(box, cells, integration):
    """From the quarter period of the first mode of a column with free ends."""
    domain = box((LENGTH / 5, LENGTH / 5, LENGTH), (1, 1, cells))
    mode = lambda z: np.cos(np.pi * z / LENGTH)
    solver = confined(
        domain, LAW, integration=integration, safety=0.45,
        initial_velocity=lambda x: 1e-3 * np.stack([0 * x[2], 0 * x[2], mode(x[2])]),
    )
    weight = solver.mass * mode(solver.points.V.tabulate_dof_coordinates()[:, 2])
    history = []
    while not history or history[-1][1] > 0.0:
        solver.step()
        history.append((solver.time, float(weight @ solver.velocity.x.array.reshape(-1, 3)[:, 2])))
    (t0, a0), (t1, a1) = history[-2:]
    quarter = t0 + (t1 - t0) * a0 / (a0 - a1)
    return LENGTH / (2.0 * quarter)


@pytest.mark.parametrize("integration", ["one-point", "full"])
def test_wave_speed_converges_to_that_of_the_moduli(box, integration):
    errors = [abs(measured_speed(box, cells, integration) / SPEED - 1.0) for cells in (4, 8, 16)]
    assert errors[-1] < 2e-3
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((orders > 1.8) & (orders < 2.2))


def test_plane_impact_has_the_stress_of_the_shock_relation(box):
    """Before the first reflection the wall carries rho c V over the foot: impulse = rho c V A t."""
    V, side = 1.0, 1e-3
    errors = []
    for cells in (20, 40, 80):
        solver = confined(
            box((side, side, LENGTH), (1, 1, cells)), LAW, contact=[RigidPlane()], initial_velocity=(0, 0, -V)
        )
        solver.run(0.9 * LENGTH / SPEED).finish()
        expected = LAW.density * SPEED * V * side**2 * solver.time
        errors.append(abs(solver.energy_balance().contact_impulse[2] / expected - 1.0))
    assert max(errors) < 1e-3


def test_an_elastic_column_bounces_back_with_its_speed(box):
    V = 1.0
    solver = confined(
        box((1e-3, 1e-3, LENGTH), (1, 1, 80)), LAW, contact=[RigidPlane()], initial_velocity=(0, 0, -V)
    )
    solver.run("rebound", limit=2e-5).finish()
    assert solver.rebounded()
    balance, mass = solver.energy_balance(), solver.mass.sum()
    assert balance.contact_impulse[2] == pytest.approx(2.0 * mass * V, rel=2e-2)
    assert balance.momentum[2] == pytest.approx(mass * V, rel=2e-2)
    # Contact lasts while the wave runs to the free end and back.
    assert solver.last_contact == pytest.approx(2.0 * LENGTH / SPEED, rel=5e-2)
    assert solver.x[:, 2].min() > 0.0
    assert not solver.in_contact
    assert balance.energy_error < 1e-2
    assert balance.momentum_error < 1e-9


def test_no_node_enters_the_wall(box):
    wall = RigidPlane(point=(0.0, 0.0, -1e-5), normal=(0.0, 0.1, 2.0))
    solver = ExplicitSolver(
        box((1e-3, 1e-3, 1e-3), (4, 4, 4)), LAW, contact=[wall],
        initial_velocity=(30.0, 0.0, -200.0),
    )
    depths = [wall.gap(solver.x).min() for _ in solver.run(4e-7)]
    assert min(depths) > -1e-12
    impulse = np.array(solver.energy_balance().contact_impulse)
    assert impulse @ np.array(wall.normal) > 0.0
    assert np.linalg.norm(np.cross(impulse, wall.normal)) < 1e-14 * np.linalg.norm(impulse)  # no friction


def test_gravity_gives_free_fall_exactly(box):
    g = np.array([3.0, -2.0, -9.81]) * 1e6

    solver = ExplicitSolver(
        box((1e-3, 2e-3, 1e-3), (2, 2, 2), distort=0.2), LAW, initial_velocity=(5.0, 0.0, 1.0), safety=0.7
    )
    solver.external += LAW.density * ufl.inner(ufl.as_vector(g.tolist()), solver.test_function) * ufl.dx
    solver.run(3e-6).finish()
    t, v0 = solver.time, np.array([5.0, 0.0, 1.0])
    u, v = (f.x.array.reshape(-1, 3) for f in (solver.u, solver.velocity))
    # The bodies fall as one where the consistent load and the lumped mass agree on each node: they do for any mesh.
    np.testing.assert_allclose(u, np.tile(v0 * t + 0.5 * g * t**2, (len(u), 1)), rtol=1e-10)
    np.testing.assert_allclose(v, np.tile(v0 + g * t, (len(v), 1)), rtol=1e-10)
    assert np.abs(solver.points.F - np.eye(3)).max() < 1e-12
    balance, mass = solver.energy_balance(), solver.mass.sum()
    np.testing.assert_allclose(balance.external_impulse, mass * g * t, rtol=1e-10)
    assert balance.external_work == pytest.approx(mass * float(g @ u[0]), rel=1e-9)
    assert balance.energy_error < 1e-10
    assert balance.momentum_error < 1e-12


def test_damping_decays_a_rigid_flight(box):
    """A force -c v on every volume element: v = v0 exp(-c t / rho)."""
    c = 5e9
    solver = ExplicitSolver(
        box((1e-3, 1e-3, 1e-3), (2, 2, 2)), LAW, initial_velocity=(1.0, 2.0, 3.0), safety=0.2
    )
    solver.external += -c * ufl.inner(solver.velocity, solver.test_function) * ufl.dx
    solver.run(2e-6).finish()
    v = solver.velocity.x.array.reshape(-1, 3)
    expected = np.array([1.0, 2.0, 3.0]) * np.exp(-c * solver.time / LAW.density)
    np.testing.assert_allclose(v, np.tile(expected, (len(v), 1)), rtol=2e-2)
    balance = solver.energy_balance()
    assert balance.external_work < 0.0
    assert balance.energy_error < 2e-2


def test_springs_and_time_dependent_loads_enter_the_residual(box):
    """A block on a uniform elastic foundation, driven in time: m x'' + k x = A sin(w t), in closed form."""
    domain = box((1e-3, 1e-3, 1e-3), (2, 2, 2))
    m, k, A, w0 = LAW.density, 2e16, 1e11, 1e6

    solver = ExplicitSolver(domain, LAW, safety=0.3)
    load = ufl.as_vector([0.0, 0.0, A * ufl.sin(w0 * solver.time_constant)])
    solver.external += ufl.inner(load - k * solver.u, solver.test_function) * ufl.dx(metadata={"quadrature_degree": 3})
    solver.run(2e-6).finish()
    Omega, t = np.sqrt(k / m), solver.time
    expected = A / m / (Omega**2 - w0**2) * (np.sin(w0 * t) - w0 / Omega * np.sin(Omega * t))
    np.testing.assert_allclose(solver.u.x.array.reshape(-1, 3)[:, 2], expected, rtol=2e-3)
    assert solver.energy_balance().energy_error < 1e-2


def test_a_follower_pressure_on_the_whole_surface_gives_no_net_force(box, rotations):
    """Pressure times cofactor normal, on a rotated and stretched body: forces and moments balance."""
    Q = rotations(1)[0] @ np.diag([1.1, 0.95, 1.0])
    p = 1e9

    domain = box((1e-3, 2e-3, 1e-3), (2, 2, 2), distort=0.2)
    solver = ExplicitSolver(domain, LAW, initial_displacement=lambda x: Q @ x - x)
    n, F = ufl.FacetNormal(domain.mesh), ufl.Identity(3) + ufl.grad(solver.u)
    ds = ufl.ds(metadata={"quadrature_degree": 6})
    solver.external -= p * ufl.inner(ufl.cofac(F) * n, solver.test_function) * ds
    force = solver.forces.external_force()
    assert np.abs(force.sum(axis=0)).max() < 1e-12 * np.abs(force).max()
    assert np.abs(np.cross(solver.x, force).sum(axis=0)).max() < 1e-12 * np.abs(force).max() * 1e-3


def test_a_driven_face_does_work_through_its_reaction(box):
    V = 10.0
    solver = confined(box((1e-3, 1e-3, LENGTH), (1, 1, 40)), LAW)
    solver.prescribe("foot", 2, lambda x, t: V * t)
    solver.run(0.8 * LENGTH / SPEED).finish()
    balance = solver.energy_balance()
    # Piston relation: stress rho c V, so the work is rho c V^2 A t, half of it kinetic.
    expected = LAW.density * SPEED * V**2 * 1e-6 * solver.time
    assert balance.reaction_work == pytest.approx(expected, rel=3e-2)
    assert balance.kinetic_energy == pytest.approx(0.5 * expected, rel=3e-2)
    assert balance.momentum_error < 1e-9
    assert balance.energy_error < 1e-2
