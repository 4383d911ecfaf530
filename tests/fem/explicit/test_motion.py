"""Half steps of the nodes: what supports and obstacles do together, and their work and impulses."""

import numpy as np
import pytest
from mpi4py import MPI

from fem.explicit import ExplicitSolver, RigidPlane
from fem.laws import load_law

METAL = load_law("magnesium-j2")
SIZE = (1e-3, 1e-3, 1e-3)
FAR = RigidPlane((0.0, 0.0, -1.0), (0.0, 0.3, 1.0), friction=0.3)
SLOPE = RigidPlane((0.0, 0.0, 0.0), (0.6, 0.0, 0.8))  # touches the edge x = 0, z = 0 of the box
CLOSE = RigidPlane((0.0, 0.0, -1e-4), (0.6, 0.0, 0.8))


def state(solver):
    return np.concatenate([solver.u.x.array, solver._v.ravel(), solver.points.P.ravel(), [solver.time]])


@pytest.mark.mpi
def test_obstacles_out_of_reach_change_no_bit(box):
    runs = []
    for contact in ((), FAR, (FAR, CLOSE)):
        solver = ExplicitSolver(box(SIZE, (3, 3, 3)), METAL, contact=contact, initial_velocity=lambda x: 4e4 * x)
        solver.symmetry(lambda x: np.isclose(x[0], 0.0))
        solver.run(until=4e-7).finish()
        runs.append(state(solver))
    assert np.array_equal(runs[0], runs[1])
    assert np.array_equal(runs[0], runs[2])


@pytest.mark.mpi
@pytest.mark.parametrize("slope", [SLOPE, RigidPlane(SLOPE.point, SLOPE.normal, penalty=0.5, friction=0.2)])
def test_an_obstacle_does_not_push_nodes_out_of_their_support(box, slope):
    """A slope pushes the nodes of a plane of symmetry across it; the support takes that part of the impulse."""
    solver = ExplicitSolver(box(SIZE, (3, 3, 3)), METAL, contact=slope, initial_velocity=(0.0, 0.0, -150.0))
    left = lambda x: np.isclose(x[0], 0.0)
    solver.symmetry(left)
    held = left(solver._x[: solver.n_nodes].T)
    touched, momentum = False, -solver.energy_balance().momentum[2]
    for _ in solver.run(until=3e-7):
        touched = touched or solver.in_contact
        assert not solver._v[held, 0].any()
        assert not solver._u[held, 0].any()
    balance = solver.energy_balance()
    assert touched
    assert balance.momentum_error < 1e-12
    assert abs(balance.momentum[0] - balance.contact_impulse[0] - balance.reaction_impulse[0]) < 1e-12 * momentum
    assert balance.contact_impulse[0] > 0.005 * momentum


@pytest.mark.mpi
def test_sums_of_a_driven_body_are_those_of_all_nodes(box):
    """Work and impulses of the supports, summed here over all nodes from momentum, forces and displacements."""
    speed = 30.0
    solver = ExplicitSolver(box(SIZE, (3, 2, 4)), METAL)
    solver.prescribe("foot")
    solver.prescribe("top", 2, velocity=lambda x, t: -speed * min(t / 2e-7, 1.0))
    top = np.isclose(solver._x[: solver.n_nodes, 2], SIZE[2])
    impulse, work, internal = np.zeros(3), 0.0, 0.0
    force, v, u = solver.internal_force[: solver.n_nodes].copy(), solver._v.copy(), solver._u.copy()
    for step in solver.run(until=6e-7):
        now = solver.internal_force[: solver.n_nodes]
        mean = 0.5 * (force + now)
        # What the nodes have gained beyond the internal force came from the supports.
        gained = solver.mass[:, None] * (solver._v - v) + step.dt * mean
        impulse += gained.sum(axis=0)
        rate = (solver._u - u)[:, 2] / step.dt
        for before, after, load in ((v[:, 2], rate, force), (rate, solver._v[:, 2], now)):
            given = solver.mass * (after - before) + 0.5 * step.dt * load[:, 2]
            work += float(np.sum((given * 0.5 * (before + after))[top]))
        internal += float(np.sum(mean * (solver._u - u)))
        force, v, u = now.copy(), solver._v.copy(), solver._u.copy()
    found = solver.comm.allreduce(np.array([*impulse, work, internal]), op=MPI.SUM)
    balance = solver.energy_balance()
    scale = np.abs(found[:3]).max()
    np.testing.assert_allclose(balance.reaction_impulse, found[:3], rtol=0.0, atol=1e-12 * scale)
    assert balance.reaction_work == pytest.approx(found[3], rel=1e-12)
    stored = balance.internal_energy + balance.hourglass_energy + balance.viscous_energy
    assert stored == pytest.approx(found[4], rel=1e-9)
    assert found[3] > 0.0
