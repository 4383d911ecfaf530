"""Friction, moving walls and free rigid bodies against closed forms."""

import numpy as np
import pytest
import ufl
from mpi4py import MPI

from fem.errors import SolverError
from fem.explicit import ExplicitSolver, FreeBody, RigidCylinder, RigidPlane, RigidSphere
from fem.laws import load_law
from fem.laws.neo_hookean import NeoHookean

METAL = load_law("magnesium-j2")
E, RHO = 1e6, 1e3
RUBBER = NeoHookean(E / 2.0, E / 3.0, density=RHO)  # Poisson's ratio 0
SIDE, HEIGHT, MU, G = 2e-2, 5e-3, 0.3, 10.0
STEEL = NeoHookean(25e9, 50e9 / 3.0, density=1e4)
LENGTH, WIDTH = 5e-3, 1e-3
SPEED = np.sqrt(50e9 / 1e4)


def block(box, *, tilt=0.0, ramp=None, penalty=0.0, v=0.0):
    """A flat block on a floor with friction, under gravity that is tilted towards x; it may begin slowly."""
    floor = RigidPlane(friction=MU, penalty=penalty)
    solver = ExplicitSolver(box((SIDE, SIDE, HEIGHT), (2, 2, 1)), RUBBER, contact=floor, initial_velocity=(v, 0.0, 0.0))
    g = ufl.as_vector((RHO * G * np.sin(tilt), 0.0, -RHO * G * np.cos(tilt)))
    if ramp is not None:
        g = ufl.min_value(solver.time_constant / ramp, 1.0) * g
    solver.external += ufl.inner(g, solver.test_function) * ufl.dx
    return solver


def mean(solver, function):
    """Mean of a vector field by mass, (3,)."""
    return solver.mass @ function.x.array.reshape(-1, 3)[: solver.n_nodes] / solver.mass.sum()


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_sliding_block_stops_where_coulomb_says(box, penalty):
    """Deceleration mu g, stopping distance v^2 / (2 mu g), and all its energy is dissipated by friction."""
    v = 0.1
    solver = block(box, penalty=penalty, v=v)
    stop = v / (MU * G)
    solver.run(0.8 * stop).finish()
    balance = solver.energy_balance()
    mass = solver.mass.sum()
    assert -balance.contact_impulse[0] <= MU * balance.contact_impulse[2] * (1.0 + 1e-12)
    assert -balance.contact_impulse[0] == pytest.approx(MU * balance.contact_impulse[2], rel=1e-3)
    assert balance.contact_impulse[2] == pytest.approx(mass * G * 0.8 * stop, rel=1e-2)
    assert mean(solver, solver.velocity)[0] == pytest.approx(0.2 * v, rel=3e-2)
    solver.run(2.0 * stop).finish()
    assert mean(solver, solver.u)[0] == pytest.approx(v**2 / (2.0 * MU * G), rel=2e-2)
    assert abs(mean(solver, solver.velocity)[0]) < 1e-2 * v
    balance = solver.energy_balance()
    assert balance.friction_loss == pytest.approx(0.5 * mass * v**2, rel=2e-2)
    assert balance.energy_error < 1e-3
    assert balance.momentum_error < 1e-12


def test_a_block_on_a_slope_sticks_inside_the_cone_and_slides_outside(box):
    solver = block(box, tilt=np.arctan(0.5 * MU), ramp=0.01)
    solver.run(0.04).finish()
    foot = np.isclose(solver.x[: solver.n_nodes, 2], 0.0, atol=1e-9)
    assert foot.any()
    assert np.abs(solver.u.x.array.reshape(-1, 3)[: solver.n_nodes][foot, :2]).max() < 1e-12 * SIDE
    balance = solver.energy_balance()
    assert balance.friction_loss == pytest.approx(0.0, abs=1e-4 * balance.internal_energy)
    tilt, time = np.arctan(2.0 * MU), 0.04
    solver = block(box, tilt=tilt)
    solver.run(time).finish()
    expected = G * (np.sin(tilt) - MU * np.cos(tilt)) * time
    assert mean(solver, solver.velocity)[0] == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("mass", [0.5, 0.005])
def test_a_rigid_mass_on_an_elastic_bar(box, mass):
    """Its speed and the force rho c v A decay with exp(-rho c A t / m) until the wave returns; momentum is kept.

    The lighter mass is below that of the layer of nodes which it hits.
    """
    whole = 1e4 * WIDTH**2 * LENGTH
    body, speed = FreeBody(mass * whole, (0.0, 0.0, -1.0)), 1.0
    plane = RigidPlane((0.0, 0.0, LENGTH), (0.0, 0.0, -1.0), motion=body)
    domain, safety = box((WIDTH, WIDTH, LENGTH), (1, 1, 80)), 0.9 if mass > 0.1 else 0.2
    solver = ExplicitSolver(domain, STEEL, contact=[plane], viscosity=(0.0, 0.0), safety=safety)
    passage, found = LENGTH / SPEED, []
    times = np.array([0.25, 0.5, 1.0, 1.5]) * passage
    for time in times:
        solver.run(time).finish()
        balance = solver.energy_balance()
        total = balance.momentum[2] + balance.obstacle_momentum[2]
        assert total == pytest.approx(-body.mass * speed, rel=1e-13)
        assert balance.energy_error < 1e-2
        assert balance.contact_loss >= 0.0
        found.append((-solver.contact.velocity[0, 2], balance.contact_impulse[2]))
    if mass > 0.1:
        expected = speed * np.exp(-times / (mass * passage))
        np.testing.assert_allclose([v for v, _ in found], expected, atol=2e-2)
        np.testing.assert_allclose([p for _, p in found], -body.mass * (speed - expected), rtol=3e-2)
    else:
        assert np.abs(solver.contact.velocity).max() < speed


def test_a_moving_wall_is_a_moving_bar(box):
    """Galilei: a wall that moves into a resting bar, by a velocity or a function, and a bar that flies into a wall."""
    V, size, cells, until = 150.0, (1e-3, 1e-3, 2e-3), (3, 3, 6), 1e-6
    runs = []
    for motion, velocity in ((None, -V), ((0.0, 0.0, V), 0.0), (lambda t: (0.0, 0.0, V * t), 0.0)):
        wall = RigidPlane(friction=0.2, motion=motion)
        domain = box(size, cells, distort=0.1)
        solver = ExplicitSolver(domain, METAL, contact=wall, initial_velocity=(5.0, 0.0, velocity))
        solver.run(until).finish()
        shift = 0.0 if motion is None else V * until
        runs.append((solver.u.x.array.reshape(-1, 3) - [0.0, 0.0, shift], solver.energy_balance(), solver.steps))
    still = runs[0][1]
    for u, balance, steps in runs[1:]:
        assert steps == runs[0][2]
        assert np.abs(u - runs[0][0]).max() < 1e-9 * V * until
        assert balance.contact_impulse == pytest.approx(still.contact_impulse, rel=1e-8, abs=1e-12)
        for name in ("contact_loss", "friction_loss", "internal_energy"):
            assert getattr(balance, name) == pytest.approx(getattr(still, name), rel=1e-8), name
        assert balance.obstacle_work == pytest.approx(V * balance.contact_impulse[2], rel=1e-12)
        put_in = 0.5e4 * np.prod(size) * 25.0 + balance.obstacle_work, 0.5e4 * np.prod(size) * (25.0 + V**2)
        assert balance.energy_error * put_in[0] == pytest.approx(still.energy_error * put_in[1], rel=1e-6)
        assert still.energy_error < 5e-3
    assert still.obstacle_work == 0.0


def test_a_free_sphere_keeps_the_momentum_of_the_system(box):
    """Oblique, with friction, on a plastic block; a second body is guided along z."""
    size = (1e-3, 1e-3, 1e-3)
    sphere = RigidSphere((4e-4, 5e-4, 1.5e-3 + 1e-9), 5e-4, friction=0.4, motion=FreeBody(5e-6, (80.0, -30.0, -200.0)))
    punch = RigidCylinder((5e-4, 5e-4, 0.0), (0.0, 0.0, 1.0), 3e-4, edge=1e-4, friction=0.4)
    punch = RigidCylinder(punch.face, punch.axis, 3e-4, edge=1e-4, friction=0.4, motion=FreeBody(2e-6, axes="z"))
    solver = ExplicitSolver(box(size, (5, 5, 5)), METAL, contact=[sphere, punch])
    start = np.array(sphere.motion.velocity) * sphere.motion.mass
    solver.run(1e-6).finish()
    balance = solver.energy_balance()
    total = np.array(balance.momentum) + balance.obstacle_momentum - start
    guide = np.abs(total[:2]).max()  # the guide of the punch takes some; nothing takes any along z
    assert abs(total[2]) < 1e-14 * np.linalg.norm(start)
    assert 0.0 < guide < 0.1 * np.linalg.norm(start)
    assert balance.friction_loss > 0.0
    assert balance.contact_loss > 0.0
    assert balance.obstacle_work == 0.0
    assert balance.obstacle_energy < 0.5 * 5e-6 * (80.0**2 + 30.0**2 + 200.0**2)
    assert balance.energy_error < 5e-3
    for p, obstacle in enumerate((sphere, punch)):
        assert obstacle.gap(solver.x - solver.contact.displacement[p]).min() > -1e-12


def free_punch(box, comm=MPI.COMM_WORLD):
    punch = RigidCylinder(
        (3e-4, 4e-4, 1e-3), (0.0, 0.0, -1.0), 4e-4, edge=1e-4, friction=0.3, motion=FreeBody(4e-6, (20.0, 0.0, -200.0))
    )  # fmt: skip
    ball = RigidSphere((5e-4, 5e-4, -3e-4), 3e-4, friction=0.1, motion=lambda t: (0.0, 0.0, 3e13 * t**2))
    walls = [punch, ball, RigidPlane((0.0, 0.0, -1e-5), penalty=1.0, friction=0.2)]
    return ExplicitSolver(box((1e-3, 1e-3, 1e-3), (4, 4, 4), distort=0.1, comm=comm), METAL, contact=walls)


def test_a_restart_goes_on_with_the_obstacles(box, tmp_path):
    whole, first, second = (free_punch(box) for _ in range(3))
    first.run(3e-7).finish()
    first.save(tmp_path / "run.h5")
    second.restore(tmp_path / "run.h5")
    np.testing.assert_array_equal(second.contact.state, first.contact.state)
    for solver in (first, second):
        solver.run(6e-7).finish()
    np.testing.assert_array_equal(second.contact.state, first.contact.state)
    np.testing.assert_array_equal(second.u.x.array, first.u.x.array)
    assert second.energy_balance() == first.energy_balance()
    whole.run(6e-7).finish()
    assert np.abs(whole.u.x.array - first.u.x.array).max() < 1e-2 * np.abs(first.u.x.array).max()


def test_a_failed_step_puts_obstacles_back(box, monkeypatch):
    solver = free_punch(box)
    solver.run(1e-7).finish()
    before = solver.contact.state
    monkeypatch.setattr(type(solver.law), "update", lambda *_: 1 / 0)
    with pytest.raises(SolverError):
        solver.step()
    np.testing.assert_array_equal(solver.contact.state, before)


@pytest.mark.mpi
def test_ranks_do_not_matter(box, nodes):
    together, alone = free_punch(box), free_punch(box, MPI.COMM_SELF)
    for solver in (together, alone):
        solver.run(5e-7).finish()
    assert together.steps == alone.steps
    for a, b in zip(nodes(together), nodes(alone)):
        assert np.abs(a - b).max() < 1e-10 * np.abs(b).max()
    scale = np.abs(alone.contact.state).max()
    np.testing.assert_allclose(together.contact.state, alone.contact.state, atol=1e-10 * scale)
    here, there = together.energy_balance().as_dict(), alone.energy_balance().as_dict()
    for name in ("contact_loss", "friction_loss", "obstacle_work", "obstacle_energy", "contact_energy"):
        assert here[name] == pytest.approx(there[name], rel=1e-8, abs=1e-10 * there["internal_energy"]), name
    assert here["contact_nodes"] == there["contact_nodes"]
    states = MPI.COMM_WORLD.allgather(together.contact.state)
    assert all(np.array_equal(states[0], state) for state in states)
