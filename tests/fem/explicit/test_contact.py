"""The impulses of rigid obstacles, node by node."""

import numpy as np
import pytest
from scipy.optimize import nnls

from fem.explicit.contact import RigidPlane, RigidSphere
from fem.explicit.contact.impulses import Encounter, keep_out, nearest_velocity, spring_impulses, stop_approach

FLOOR = RigidPlane()


def strike(obstacles, x, v, mass, dt, velocity=None):
    """The velocities that `keep_out` makes, and what it found."""
    place = np.zeros((len(obstacles), 3))
    found = keep_out(Encounter(obstacles, place, place if velocity is None else velocity, x, v, mass), dt)
    new = v.copy()
    new[found.nodes] += found.impulse / mass[found.nodes, None]
    return new, found


def stop(obstacles, x, v, mass, landed):
    """The velocities that `stop_approach` makes, and what it found."""
    place = np.zeros((len(obstacles), 3))
    found = stop_approach(Encounter(obstacles, place, place, x, v, mass), landed, 1e-12)
    new = v.copy()
    new[found.nodes] += found.impulse / mass[found.nodes, None]
    return new, found


def test_a_node_that_would_pass_lands_on_the_wall():
    x, v, mass, dt = np.array([[0.0, 0.0, 1e-3]]), np.array([[3.0, 0.0, -200.0]]), np.array([2.0]), 1e-5
    new, found = strike([FLOOR], x, v, mass, dt)
    assert FLOOR.gap(x + dt * new)[0] == pytest.approx(0.0, abs=1e-18)
    np.testing.assert_allclose(new, [[3.0, 0.0, -100.0]])
    np.testing.assert_allclose(found.impulse, [[0.0, 0.0, 200.0]])


def test_what_stays_out_or_leaves_is_left_alone():
    x = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    v = np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 5.0], [7.0, 0.0, 0.0]])
    _, found = strike([FLOOR], x, v, np.ones(3), 0.1)
    assert not len(found.nodes)


def test_only_nodes_in_contact_are_stopped():
    x = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    v = np.array([[1.0, 0.0, -2.0], [1.0, 0.0, 2.0], [1.0, 0.0, -2.0]])
    _, landed = strike([FLOOR], x, v, np.full(3, 3.0), 0.1)
    new, found = stop([FLOOR], x, v, np.full(3, 3.0), landed)
    np.testing.assert_allclose(new, [[1.0, 0.0, 0.0], [1.0, 0.0, 2.0], [1.0, 0.0, -2.0]])
    np.testing.assert_allclose(found.impulse, [[0.0, 0.0, 6.0]])


def test_two_walls_make_a_corner():
    walls = [FLOOR, RigidPlane((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))]
    x, v = np.array([[0.1, 0.0, 0.1]]), np.array([[-3.0, 1.0, -2.0]])
    new, found = strike(walls, x, v, np.ones(1), 1.0)
    np.testing.assert_allclose(x + new, [[0.0, 1.0, 0.0]], atol=1e-15)
    assert np.all(found.impulse[0, [0, 2]] > 0.0)
    assert found.impulse[0, 1] == 0.0


def test_a_wall_anywhere_pushes_along_its_normal_only():
    rng = np.random.default_rng(0)
    wall = RigidPlane(tuple(rng.normal(size=3)), tuple(rng.normal(size=3)))
    assert np.linalg.norm(wall.normal) == pytest.approx(1.0)
    x = np.array(wall.point) + rng.uniform(0, 1e-3, (50, 1)) * np.array(wall.normal) + 1e-3 * rng.normal(size=(50, 3))
    v = rng.normal(size=(50, 3))
    new, found = strike([wall], x, v, np.ones(50), 1e-2)
    assert 0 < len(found.nodes) < 50
    assert np.all(found.impulse @ np.array(wall.normal) >= 0.0)
    np.testing.assert_allclose(np.cross(found.impulse, wall.normal), 0.0, atol=1e-12)
    assert wall.gap(x + 1e-2 * new)[found.nodes] == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("walls", [2, 3, 5])
def test_walls_in_a_corner_are_handled_together(walls):
    """The conditions of a projection on a cone (Moreau), with the factors of the normals found by another algorithm."""
    rng = np.random.default_rng(walls)
    normals = np.array([0.0, 0.0, 1.0]) + 0.8 * rng.uniform(-1.0, 1.0, (walls, 3))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    v, least = rng.normal(size=(400, 3)), rng.uniform(-0.3, 0.1, (400, walls))
    change = nearest_velocity(normals, least, v)
    new = v + change
    assert np.all(new @ normals.T >= least - 1e-9)
    several = 0
    for k in np.flatnonzero(change.any(axis=1)):
        tight = np.abs(normals @ new[k] - least[k]) < 1e-9
        factors, rest = nnls(normals[tight].T, change[k])
        assert rest < 1e-9 * np.linalg.norm(change[k])  # the impulse pushes outwards, from walls that the node is on
        several += np.count_nonzero(factors > 1e-9) > 1
    assert several > 10


def test_a_node_flies_into_an_acute_corner_and_stays_there():
    """One wall after the other would push it back through the first."""
    walls = [FLOOR, RigidPlane((2e-3, 0.0, 0.0), (-0.8, 0.0, -0.6))]
    x, v = np.array([[1e-3, 0.0, 2e-4]]), np.array([[200.0, 0.0, -120.0]])
    v, landed = strike(walls, x, v, np.ones(1), 1e-4)
    assert len(landed.nodes) == 1
    x = x + 1e-4 * v
    assert all(wall.gap(x)[0] >= -1e-15 for wall in walls)
    new, _ = stop(walls, x, v, np.ones(1), landed)
    assert all(new[0] @ wall.normal >= -1e-9 for wall in walls if wall.gap(x)[0] < 1e-12)


@pytest.mark.parametrize("friction", [0.0, 0.3])
def test_a_wall_and_a_ball_make_a_corner(friction):
    """Nodes between both end outside both; impulses push outwards, and friction stays in its cone."""
    rng = np.random.default_rng(4)
    obstacles = [RigidPlane(friction=friction), RigidSphere((0.0, 0.0, 5e-4), 1e-3, friction=friction)]
    x = rng.uniform(-1.0, 1.0, (300, 3)) * [1.2e-3, 1.2e-3, 0.0] + [0.0, 0.0, 1e-4]
    x = x[obstacles[1].gap(x) > 0.0]
    v = rng.normal(size=x.shape) * 20.0 - [0.0, 0.0, 100.0] - 2e5 * x * [1.0, 1.0, 0.0]
    new, found = strike(obstacles, x, v, np.ones(len(x)), 2e-6)
    assert (np.linalg.norm(found.normal, axis=2) > 0.0).all(axis=1).sum() > 5
    for p, obstacle in enumerate(obstacles):
        end = (x + 2e-6 * new)[found.nodes]
        assert obstacle.gap(end).min() > -1e-15
        assert np.einsum("ni,ni->n", found.normal[:, p], obstacle.gradient(end)).min() > -1e-3
        most = friction * np.linalg.norm(found.normal[:, p], axis=1)
        rubbed = np.zeros_like(found.normal) if found.friction is None else found.friction
        assert np.all(np.linalg.norm(rubbed[:, p], axis=1) <= most * (1.0 + 1e-9))


@pytest.mark.parametrize("separation", [True, False])
def test_penalty_springs_push_with_the_derivative_of_their_energy(separation):
    """Also those that hold their nodes, which pull where a node is outside."""
    planes = [RigidPlane(penalty=1.0), RigidPlane((0.0, 0.0, 0.0), (0.6, 0.0, 0.8), penalty=0.5)]
    planes.append(RigidSphere((0.0, 0.0, 0.0), 1e-3, penalty=2.0))
    x, mass, dt = 1e-3 * np.random.default_rng(1).normal(size=(20, 3)), np.linspace(1.0, 2.0, 20), 1e-4
    still, held = np.zeros((3, 3)), np.zeros((20, 3), dtype=bool)
    held[:5, 0] = not separation

    def springs(y):
        here = Encounter(planes, still, still, y, np.zeros_like(y), mass)
        return spring_impulses(here, 1.0 / dt**2, 1.0, held)

    found, _ = springs(x)
    force = np.zeros_like(x)
    force[found.nodes] = found.impulse
    assert 0 < len(found.nodes) < 20
    assert (found.impulse[:, 2] < -1e-3 * np.abs(force).max()).any() or separation
    difference = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        for sign in (1.0, -1.0):
            moved = x.copy()
            moved[index] += 1e-9 * sign
            difference[index] -= sign * springs(moved)[1] / 2e-9
    np.testing.assert_allclose(difference, force, atol=1e-5 * np.abs(force).max())
    assert not len(strike(planes, x, np.full((20, 3), -1.0), mass, dt)[1].nodes)


def test_a_penalty_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"penalty of a rigid plane must be in \[0, 2\], got 3.0"):
        RigidPlane(penalty=3.0)


def test_a_plane_holds_its_nodes_by_springs_only():
    with pytest.raises(ValueError, match="without separation holds its nodes by springs and needs a positive penalty"):
        RigidPlane(separation=False)
