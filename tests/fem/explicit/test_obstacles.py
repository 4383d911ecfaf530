"""Shapes of rigid obstacles against closed forms, an obstacle of one's own, and what is refused."""

import numpy as np
import pytest

from fem.explicit import ExplicitSolver, FreeBody, Obstacle, RigidCylinder, RigidFunction, RigidPlane, RigidSphere
from fem.explicit.contact.impulses import Encounter, keep_out
from fem.explicit.contact.obstacle import distance
from fem.laws import load_law

METAL = load_law("magnesium-j2")
FACE, AXIS = (1e-3, -2e-3, 5e-4), (0.3, -0.2, -0.9)
R, L, EDGE = 1e-3, 3e-3, 2e-4


def turned(axis):
    """An orthonormal basis whose last vector is the axis."""
    c = np.array(axis) / np.linalg.norm(axis)
    a = np.cross(c, [1.0, 0.0, 0.0])
    a /= np.linalg.norm(a)
    return a, np.cross(c, a), c


def on_cylinder(length, n=200, seed=0):
    """Points on the surface of the rounded cylinder and the normals there: of the ends, the side and both edges."""
    rng = np.random.default_rng(seed)
    a, b, c = turned(AXIS)
    turn, theta = rng.uniform(0.0, 2.0 * np.pi, n), rng.uniform(0.0, 0.5 * np.pi, n)
    out = np.cos(turn)[:, None] * a + np.sin(turn)[:, None] * b
    parts = []
    for end, direction in ((0.0, c), (-length, -c)) if np.isfinite(length) else ((0.0, c),):
        disc = (R - EDGE) * np.sqrt(rng.uniform(0.0, 1.0, n))
        parts.append((disc[:, None] * out + end * c, np.tile(direction, (n, 1))))
        normal = np.cos(theta)[:, None] * out + np.sin(theta)[:, None] * direction
        parts.append(((R - EDGE) * out + end * c - EDGE * direction + EDGE * normal, normal))
    height = -EDGE - rng.uniform(0.0, 1.0, n) * (min(length, 1.0) - 2.0 * EDGE)
    parts.append((R * out + height[:, None] * c, out))
    return np.array(FACE) + np.concatenate([p for p, _ in parts]), np.concatenate([n for _, n in parts])


@pytest.mark.parametrize("length", [L, np.inf])
def test_a_cylinder_is_as_far_as_its_surface_says(length):
    """Along the normal of a point of the surface, the gap is the distance from it and the gradient the normal."""
    cylinder = RigidCylinder(FACE, AXIS, R, length, EDGE)
    points, normals = on_cylinder(length)
    for offset in (0.0, 1e-5, 3e-4, 5e-3, -1e-5, -1.5e-4):
        x = points + offset * normals
        np.testing.assert_allclose(cylinder.gap(x), offset, atol=1e-15)
        if offset != 0.0:
            np.testing.assert_allclose(cylinder.gradient(x), normals, atol=1e-9)


def test_a_sharp_cylinder_has_the_edge_as_nearest_point():
    cylinder = RigidCylinder(FACE, AXIS, R, L, 0.0)
    a, _, c = turned(AXIS)
    edge = np.array(FACE) + R * a
    for way in (a + c, 2.0 * a + c, a + 3.0 * c):
        x = (edge + 1e-4 * way)[None]
        assert cylinder.gap(x)[0] == pytest.approx(1e-4 * np.linalg.norm(way), rel=1e-9)
        np.testing.assert_allclose(cylinder.gradient(x)[0], way / np.linalg.norm(way), atol=1e-9)


def test_a_sphere_and_a_plane_are_as_far_as_they_should():
    rng = np.random.default_rng(2)
    way = rng.normal(size=(50, 3))
    way /= np.linalg.norm(way, axis=1)[:, None]
    offset = rng.uniform(-5e-4, 5e-3, 50)
    sphere = RigidSphere(FACE, R)
    x = np.array(FACE) + (R + offset)[:, None] * way
    np.testing.assert_allclose(sphere.gap(x), offset, atol=1e-15)
    np.testing.assert_allclose(sphere.gradient(x), way, atol=1e-12)
    plane = RigidPlane(FACE, AXIS)
    a, b, c = turned(AXIS)
    x = np.array(FACE) + way @ np.array([a, b, c]) * 1e-3
    np.testing.assert_allclose(plane.gap(x), 1e-3 * way[:, 2], atol=1e-15)
    np.testing.assert_allclose(plane.gradient(x), np.tile(c, (50, 1)), atol=1e-15)


class Ellipsoid(Obstacle):
    """One's own obstacle: a function that is zero on the surface is enough."""

    friction = 0.2

    def motion(self, t):
        return (0.0, 0.0, -50.0 * t)

    def gap(self, x):
        return 1e-3 * (np.sqrt(((x - [0.0, 0.0, 1e-3]) ** 2 / np.square([2e-3, 1e-3, 1e-3])).sum(axis=1)) - 1.0)


def test_nodes_land_on_an_obstacle_of_ones_own():
    obstacle, rng = Ellipsoid(), np.random.default_rng(7)
    obstacle.friction = 0.0
    way = rng.normal(size=(400, 3))
    x = 1.003 * way / np.sqrt((way**2 / np.square([2e-3, 1e-3, 1e-3])).sum(axis=1))[:, None] + [0.0, 0.0, 1e-3]
    v, dt, still = -300.0 * way / np.linalg.norm(way, axis=1)[:, None], 1.2e-8, np.zeros((1, 3))
    found = keep_out(Encounter([obstacle], still, still, x, v, np.ones(len(x))), dt)
    assert 10 < len(found.nodes) < 400
    depth = -obstacle.gap(x + dt * v)[found.nodes]
    v[found.nodes] += found.impulse
    end = obstacle.gap((x + dt * v)[found.nodes])
    assert end.min() > -1e-15
    assert np.all(end < depth**2 / 0.5e-3 + 1e-15)  # the gap is no distance: the projection is Newton's
    step = distance(obstacle, x + dt * v)[1]
    derivative = 2.0 * (x + dt * v - [0.0, 0.0, 1e-3]) / np.square([2e-3, 1e-3, 1e-3])
    np.testing.assert_allclose(step, derivative / np.linalg.norm(derivative, axis=1)[:, None], atol=1e-5)


def test_an_obstacle_of_ones_own_in_a_run(box):
    """The same ellipsoid by a class and by a function, with the gradient or without."""

    def derivative(x):
        r = (x - [0.0, 0.0, 1e-3]) / np.square([2e-3, 1e-3, 1e-3])
        return 1e-3 * r / np.sqrt(((x - [0.0, 0.0, 1e-3]) * r).sum(axis=1))[:, None]

    own = Ellipsoid()
    ends = []
    for obstacle in (
        own,
        RigidFunction(own.gap, friction=0.2, motion=(0.0, 0.0, -50.0)),
        RigidFunction(own.gap, derivative, friction=0.2, motion=own.motion),
    ):
        domain, below = box((1e-3, 1e-3, 1e-3), (4, 4, 4)), (1e-4, 2e-4, -1e-3 - 1e-9)
        solver = ExplicitSolver(domain, METAL, contact=obstacle, initial_displacement=below, safety=0.5)
        solver.run(5e-7).finish()
        balance = solver.energy_balance()
        assert solver.in_contact
        assert balance.obstacle_work == pytest.approx(-50.0 * balance.contact_impulse[2], rel=1e-9)
        assert balance.obstacle_work > 0.0
        assert balance.friction_loss > 0.0
        assert balance.momentum_error < 1e-12
        assert balance.energy_error < 1e-2
        assert own.gap(solver.x - own.motion(solver.time)).min() > -1e-12
        ends.append(solver.u.x.array.copy())
    assert np.abs(ends[0] - ends[1]).max() < 1e-12 * np.abs(ends[0]).max()
    assert np.abs(ends[0] - ends[2]).max() < 1e-6 * np.abs(ends[0] - ends[0].mean()).max()


def test_bad_obstacles_get_one_sentence(box):
    for make, sentence in (
        (lambda: RigidPlane(penalty=3.0), r"penalty of a rigid plane must be in \[0, 2\], got 3.0"),
        (
            lambda: RigidSphere(friction=-0.1),
            "friction of a rigid sphere must be a finite number of at least 0, got -0.1",
        ),
        (lambda: RigidSphere(radius=0.0), "radius of a rigid sphere must be positive, got 0.0"),
        (lambda: RigidSphere(centre=(0.0, 1.0)), "centre of a rigid sphere must be three finite numbers"),
        (lambda: RigidCylinder(edge=2e-3), r"edge of a rigid cylinder must be in \[0, 0.001\] m, got 0.002"),
        (lambda: RigidCylinder(axis=(0.0, 0.0, 0.0)), "axis of a rigid cylinder must not be zero"),
        (lambda: RigidCylinder(length=-1.0), "length of a rigid cylinder must be positive, got -1.0"),
        (lambda: RigidPlane(motion=(1.0, 2.0)), "velocity of a rigid plane must be three finite numbers"),
        (lambda: RigidPlane(penalty=1.0, motion=FreeBody(1.0)), "free body needs contact by impulses"),
        (lambda: FreeBody(0.0), "mass of a free body must be a positive finite number, got 0.0"),
        (lambda: FreeBody(1.0, axes="u"), 'axes of a free body must be some of "xyz"'),
        (lambda: FreeBody(1.0, (0.0, 1.0, 0.0), axes="z"), "velocity of a free body must lie along its axes 'z'"),
        (lambda: RigidFunction(3.0), "function of an obstacle must be callable, got float"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make()
    for obstacle, sentence in (
        (RigidFunction(lambda x: x), r"gap of obstacle 0 \(RigidFunction\) must be finite and of shape \(8,\)"),
        (RigidFunction(lambda x: x[:, 0] + 1.0, lambda x: x[:, 0]), "gradient of obstacle 0"),
        (RigidPlane((0.0, 0.0, 1e-4)), r"A node lies 0.0001 m inside obstacle 0 \(RigidPlane\) at the start"),
        (RigidPlane(motion=lambda t: (t, 0.0)), "displacement of an obstacle at 0 s must be three finite numbers"),
    ):
        with pytest.raises(ValueError, match=sentence):
            ExplicitSolver(box((1e-3, 1e-3, 1e-3), (1, 1, 1)), METAL, contact=[obstacle])
    solver = ExplicitSolver(box((1e-3, 1e-3, 1e-3), (1, 1, 1)), METAL, contact=[RigidPlane(motion=(0.0, 0.0, 1.0))])
    with pytest.raises(ValueError, match="rebound needs a rigid plane that does not move"):
        solver.run("rebound")
