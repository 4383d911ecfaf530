"""An elastic bar on a rigid wall against its closed form, the energy lost at the wall, shocks, and a spinning body."""

import numpy as np
import pytest
import ufl

from fem.explicit import ExplicitSolver, RigidPlane
from fem.laws import load_law
from fem.laws.neo_hookean import NeoHookean

LENGTH, SIDE = 5e-3, 1e-3
# Poisson's ratio 0: the waves of a bar are plane, c = sqrt(E/rho).
E, RHO = 50e9, 1e4
BAR = NeoHookean(E / 2.0, E / 3.0, density=RHO)
SPEED = np.sqrt(E / RHO)
METAL = load_law("magnesium-j2")


def bar(box, cells, penalty, law=BAR, V=1.0, **options):
    domain = box((SIDE, SIDE, LENGTH), (1, 1, cells))
    options = {"viscosity": (0.0, 0.0), **options}
    return ExplicitSolver(domain, law, contact=[RigidPlane(penalty=penalty)], initial_velocity=(0, 0, -V), **options)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_an_elastic_bar_on_a_wall(box, penalty):
    """Force rho c V A while in contact, contact for 2 L/c, rebound with the speed of impact."""
    V, passage = 1.0, LENGTH / SPEED
    solver = bar(box, 80, penalty)
    mass = solver.mass.sum()
    impulse = []
    for time in (0.2, 1.7):
        solver.run(time * passage).finish()
        impulse.append(solver.energy_balance().contact_impulse[2])
    force = (impulse[1] - impulse[0]) / (1.5 * passage)
    assert force == pytest.approx(RHO * SPEED * V * SIDE**2, rel=5e-3)
    solver.run("rebound", limit=5.0 * passage).finish()
    assert solver.rebounded()
    assert solver.last_contact == pytest.approx(2.0 * passage, rel=5e-2)
    balance = solver.energy_balance()
    assert balance.momentum[2] == pytest.approx(mass * V, rel=2e-2)
    assert balance.contact_impulse[2] == pytest.approx(2.0 * mass * V, rel=1e-2)
    assert balance.contact_energy == 0.0
    assert balance.energy_error < 1e-2
    assert balance.momentum_error < 1e-12


def test_an_elastic_bar_that_may_not_leave_its_wall(box):
    """It vibrates with the period 4 L/c: the wall pushes with rho c V A for 2 L/c, and then pulls as long."""
    V, passage = 1.0, LENGTH / SPEED
    domain, wall = box((SIDE, SIDE, LENGTH), (1, 1, 80)), RigidPlane(penalty=1.0, separation=False)
    solver = ExplicitSolver(domain, BAR, contact=[wall], initial_velocity=(0, 0, -V), viscosity=(0.0, 0.0))
    mass = solver.mass.sum()
    impulse = []
    for time in (0.2, 1.8, 2.2, 3.5):
        solver.run(time * passage).finish()
        impulse.append(solver.energy_balance().contact_impulse[2])
    force = np.diff(impulse)[[0, 2]] / (np.array([1.6, 1.3]) * passage)
    assert force == pytest.approx(RHO * SPEED * V * SIDE**2 * np.array([1.0, -1.0]), rel=1e-2)
    balance = solver.energy_balance()
    # The springs and the mesh delay the front by up to 5 % of the contact time, as in the rebound above.
    assert balance.momentum[2] == pytest.approx(-0.5 * mass * V, abs=0.1 * mass * V)
    assert abs(balance.contact_loss) < 1e-2 * 0.5 * mass * V**2 and balance.momentum_error < 1e-12


def test_the_loss_of_impulses_is_of_first_order_and_penalty_loses_nothing(box):
    """A flat foot of lumped mass lands inelastically: half a layer of cells, 1/(2 n) of the kinetic energy."""
    found = {}
    for penalty in (0.0, 1.0):
        found[penalty] = []
        for cells in (10, 20, 40):
            solver = bar(box, cells, penalty, safety=0.3)
            whole = 0.5 * solver.mass.sum()
            solver.run("rebound", limit=2e-5).finish()
            balance = solver.energy_balance()
            found[penalty].append(balance.contact_loss / whole)
            kept = balance.kinetic_energy + balance.internal_energy + balance.hourglass_energy
            assert kept == pytest.approx(whole - balance.contact_loss, rel=5e-3)
    impulses, springs = np.array(found[0.0]), np.array(found[1.0])
    assert np.all(impulses >= 0.999 * np.array([1 / 20, 1 / 40, 1 / 80]))
    assert np.all(np.diff(np.log2(impulses)) < -0.8)
    assert np.all(np.abs(springs) < 0.1 * impulses)


def test_penalty_springs_lose_only_the_error_of_the_step(box):
    """What is lost falls with the step."""
    losses = []
    for safety in (0.8, 0.4, 0.2):
        solver = bar(box, 10, 1.0, safety=safety)
        solver.run(1.0 * LENGTH / SPEED).finish()
        losses.append(abs(solver.energy_balance().contact_loss) / (0.5 * solver.mass.sum()))
    assert losses[0] < 1e-2
    assert losses[2] < 0.5 * losses[0]


def shock(V):
    """Stretch and stress behind a plane shock that stops material of speed V at a wall: Rankine and Hugoniot.

    rho D V = -P(stretch) with D = V / (1 - stretch), confined neo-Hookean.
    """
    stress = lambda stretch: NEO.update(np.diag([1.0, 1.0, stretch])[None], np.zeros((1, 0)), 1.0)[0][0, 2, 2]
    low, high = 0.3, 1.0 - 1e-9
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if -stress(middle) * (1.0 - middle) > RHO * V**2 else (low, middle)
    return middle, -stress(middle)


NEO = load_law("magnesium-neo-hookean")


def test_bulk_viscosity_makes_the_shock_of_rankine_and_hugoniot(box):
    """Stress at the wall, overshoot, and the energy that a shock dissipates: rho V^2/2 less the elastic energy."""
    V = 400.0
    stretch, stress = shock(V)
    front = V / (1.0 - stretch)
    elastic = NEO.stored_energy(np.diag([1.0, 1.0, stretch])[None], np.zeros((1, 0)))[0]
    overshoot = []
    for viscosity in ((0.0, 0.0), (0.06, 1.2)):
        solver = bar(box, 160, 1.0, law=NEO, V=V, viscosity=viscosity)
        for component in (0, 1):
            solver.prescribe(None, component)
        solver.run(0.2 * LENGTH / front).finish()
        begin, start, highest = solver.energy_balance(), solver.time, 0.0
        for _ in solver.run(0.8 * LENGTH / front):
            highest = max(highest, -solver.points.P[:, 2, 2].min())
        end = solver.energy_balance()
        overshoot.append(highest / stress - 1.0)
        impulse = end.contact_impulse[2] - begin.contact_impulse[2]
        assert impulse / (solver.time - start) / SIDE**2 == pytest.approx(stress, rel=1e-2)
        assert end.energy_error < 1e-2
        dissipated = end.viscous_energy - begin.viscous_energy
        closed = (0.5 * NEO.density * V**2 - elastic) * SIDE**2 * front * (solver.time - start)
        assert dissipated == (pytest.approx(closed, rel=5e-2) if viscosity[0] else 0.0)
    assert overshoot[0] > 0.2
    assert overshoot[1] < 0.25 * overshoot[0]


@pytest.mark.parametrize("integration", ["one-point", "full"])
def test_a_spinning_body_in_free_fall_keeps_its_angular_momentum(box, integration):
    """To round-off about the centre of mass, while it deforms plastically: no force of the cells has a moment."""
    spin, g = np.array([2e4, -5e4, 1e5]), np.array([0.0, 0.0, -1e7])

    def velocity(x):
        squeeze = 2e5 * np.stack([x[1] * 0, -x[1] * np.sign(x[2] - 1e-3), 0 * x[2]])
        return np.cross(spin, x.T).T + squeeze

    solver = ExplicitSolver(
        box((1e-3, 1e-3, 2e-3), (3, 3, 6), distort=0.2), METAL, initial_velocity=velocity, integration=integration
    )
    solver.external += METAL.density * ufl.inner(ufl.as_vector(g.tolist()), solver.test_function) * ufl.dx
    x, m = lambda: solver.x[: solver.n_nodes], solver.mass[:, None]

    def angular_momentum():
        v = solver.velocity.x.array.reshape(-1, 3)[: solver.n_nodes]
        centre, mean = (m * x()).sum(axis=0) / m.sum(), (m * v).sum(axis=0) / m.sum()
        return np.cross(x() - centre, m * (v - mean)).sum(axis=0)

    before = angular_momentum()
    solver.run(2e-6).finish()
    assert solver.law.observe(solver.state).max() > 0.1
    np.testing.assert_allclose(angular_momentum(), before, rtol=0.0, atol=1e-11 * np.linalg.norm(before))
    assert solver.energy_balance().energy_error < 1e-2
