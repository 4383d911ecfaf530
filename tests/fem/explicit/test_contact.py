"""The impulses of rigid walls, node by node."""

import numpy as np
import pytest
from scipy.optimize import nnls

from fem.explicit.contact import RigidPlane, keep_out, nearest_velocity, spring_force, stop_approach

FLOOR = RigidPlane()


def test_a_node_that_would_pass_lands_on_the_wall():
    x, v, mass, dt = np.array([[0.0, 0.0, 1e-3]]), np.array([[3.0, 0.0, -200.0]]), np.array([2.0]), 1e-5
    impulse, touching = keep_out([FLOOR], x, v, mass, dt)
    assert touching.all()
    assert FLOOR.gap(x + dt * v)[0] == pytest.approx(0.0, abs=1e-18)
    np.testing.assert_allclose(v, [[3.0, 0.0, -100.0]])
    np.testing.assert_allclose(impulse, [[0.0, 0.0, 200.0]])


def test_what_stays_out_or_leaves_is_left_alone():
    x = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    v = np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 5.0], [7.0, 0.0, 0.0]])
    before = v.copy()
    impulse, touching = keep_out([FLOOR], x, v, np.ones(3), 0.1)
    assert not touching.any()
    assert not impulse.any()
    np.testing.assert_array_equal(v, before)


def test_only_nodes_in_contact_are_stopped():
    x = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    v = np.array([[1.0, 0.0, -2.0], [1.0, 0.0, -2.0], [1.0, 0.0, -2.0]])
    impulse = stop_approach([FLOOR], x, v, np.full(3, 3.0), np.array([True, False, True]), 1e-12)
    np.testing.assert_allclose(v, [[1.0, 0.0, 0.0], [1.0, 0.0, -2.0], [1.0, 0.0, -2.0]])
    np.testing.assert_allclose(impulse, [[0.0, 0.0, 6.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def test_two_walls_make_a_corner():
    walls = [FLOOR, RigidPlane((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))]
    x, v = np.array([[0.1, 0.0, 0.1]]), np.array([[-3.0, 1.0, -2.0]])
    impulse, _ = keep_out(walls, x, v, np.ones(1), 1.0)
    np.testing.assert_allclose(x + v, [[0.0, 1.0, 0.0]], atol=1e-15)
    assert np.all(impulse[0, [0, 2]] > 0.0)
    assert impulse[0, 1] == 0.0


def test_a_wall_anywhere_pushes_along_its_normal_only():
    rng = np.random.default_rng(0)
    wall = RigidPlane(tuple(rng.normal(size=3)), tuple(rng.normal(size=3)))
    assert np.linalg.norm(wall.normal) == pytest.approx(1.0)
    x = np.array(wall.point) + rng.uniform(0, 1e-3, (50, 1)) * np.array(wall.normal) + 1e-3 * rng.normal(size=(50, 3))
    v = rng.normal(size=(50, 3))
    start = v.copy()
    impulse, touching = keep_out([wall], x, v, np.ones(50), 1e-2)
    assert 0 < touching.sum() < 50
    assert np.all(impulse @ np.array(wall.normal) >= 0.0)
    np.testing.assert_allclose(impulse, v - start, atol=1e-15)
    np.testing.assert_allclose(np.cross(impulse, wall.normal), 0.0, atol=1e-12)
    assert wall.gap(x + 1e-2 * v)[touching] == pytest.approx(0.0, abs=1e-15)


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
    tilted = RigidPlane((0.0, 0.0, 0.0), (np.sin(2.5), 0.0, np.cos(2.5)))
    x, v = np.array([[1e-3, 0.0, 2e-4]]), np.array([[200.0, 0.0, -120.0]])
    walls = [FLOOR, RigidPlane((2e-3, 0.0, 0.0), (-0.8, 0.0, -0.6)), tilted]
    _, touching = keep_out(walls[:2], x, v, np.ones(1), 1e-4)
    assert touching.all()
    assert all(wall.gap(x + 1e-4 * v)[0] >= -1e-15 for wall in walls[:2])
    before = v.copy()
    stop_approach(walls[:2], x + 1e-4 * v, v, np.ones(1), touching, 1e-12)
    assert all(v[0] @ wall.normal >= -1e-9 for wall in walls[:2] if wall.gap(x + 1e-4 * before)[0] < 1e-12)


def test_penalty_springs_push_with_the_derivative_of_their_energy():
    planes = [RigidPlane(penalty=1.0), RigidPlane((0.0, 0.0, 0.0), (0.6, 0.0, 0.8), penalty=0.5)]
    x, mass, dt = 1e-3 * np.random.default_rng(1).normal(size=(20, 3)), np.linspace(1.0, 2.0, 20), 1e-4
    force, touching, _ = spring_force(planes, x, mass, dt)
    assert 0 < touching.sum() < 20
    assert not force[~touching].any()
    difference = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        for sign in (1.0, -1.0):
            moved = x.copy()
            moved[index] += 1e-9 * sign
            difference[index] -= sign * spring_force(planes, moved, mass, dt)[2] / 2e-9
    np.testing.assert_allclose(difference, force, atol=1e-5 * np.abs(force).max())
    impulse, landed = keep_out(planes, x, np.full((20, 3), -1.0), mass, dt)
    assert not impulse.any()
    assert not landed.any()


def test_a_penalty_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"penalty of a rigid plane must be in \[0, 2\], got 3.0"):
        RigidPlane(penalty=3.0)
