"""The impulses of rigid walls, node by node."""

import numpy as np
import pytest

from fem.explicit.contact import RigidPlane, keep_out, stop_approach

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
