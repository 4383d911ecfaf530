"""The largest stable step at the present state, found in another way: densely, and by runs below and above it."""

import numpy as np
import pytest

from fem.explicit import ExplicitSolver
from fem.explicit.stability import elastic_tangent, largest_stable_step
from fem.laws import load_law

ELASTIC, METAL = load_law("magnesium-neo-hookean"), load_law("magnesium-j2")


def stretched(box, **options):
    """A box in a rigid sleeve, stretched unevenly: no small motion is unstable by itself."""
    bend = lambda x: np.stack([0 * x[0], 0 * x[1], 0.1 * x[2] - 0.1 * x[0] * x[2] ** 2])
    options = {"viscosity": (0.0, 0.0), **options}
    domain = box((1.0, 1.0, 1.0), (3, 3, 3), distort=0.2)
    solver = ExplicitSolver(domain, ELASTIC, initial_displacement=bend, **options)
    for component, place in enumerate(("side_x", "side_y", "foot")):
        solver.prescribe(place, component)
    return solver


@pytest.mark.parametrize("integration", ["one-point", "full"])
def test_the_largest_step_is_that_of_the_assembled_stiffness(box, integration):
    solver = stretched(box, integration=integration)
    found = largest_stable_step(solver, tolerance=1e-6)
    u, h = solver.u.x.array, 1e-7
    K = np.empty((len(u), len(u)))
    before = u.copy()
    for k in range(len(u)):
        for sign in (1.0, -1.0):
            u[:] = before
            u[k] += sign * h
            solver.points.P[:] = ELASTIC.update(solver.points.gather(solver.u), solver.state, 1.0)[0]
            force = solver.forces.internal_force().reshape(-1).copy()
            K[:, k] = force if sign > 0 else (K[:, k] - force) / (2.0 * h)
    root = np.sqrt(np.repeat(solver.mass, 3))
    free = np.setdiff1d(np.arange(len(u)), solver.prescribed.rows)
    K, root = K[np.ix_(free, free)], root[free]
    exact = 2.0 / np.sqrt(np.linalg.eigvalsh(0.5 * (K + K.T) / root / root[:, None]).max())
    assert found == pytest.approx(exact, rel=1e-4)


def test_runs_are_stable_below_it_and_not_above(box):
    """Small motions about a deformed state: bounded at 0.99 of the largest step, growing without bound at 1.01."""
    growth = []
    for factor in (0.99, 1.01):
        solver = stretched(box)
        rest = solver.internal_force.copy()
        largest = largest_stable_step(solver, tolerance=1e-6)
        v = np.sin(np.arange(3.0 * solver.n_nodes) ** 2.0)
        v[solver.prescribed.rows] = 0.0
        v = v.reshape(-1, 3)
        u = np.zeros_like(v)
        at = solver.u.x.array.copy()

        def acceleration(u, solver=solver, at=at, rest=rest):
            solver.u.x.array[:] = at + 1e-8 * u.reshape(-1)
            solver.points.P[:] = ELASTIC.update(solver.points.gather(solver.u), solver.state, 1.0)[0]
            force = (solver.forces.internal_force() - rest) / 1e-8
            force.reshape(-1)[solver.prescribed.rows] = 0.0
            return -force / solver.mass[:, None]

        dt, energy = factor * largest, []
        for _ in range(60):
            v += dt * acceleration(u)
            u += dt * v
            energy.append(float(solver.mass @ (v**2).sum(axis=1)))
        growth.append(max(energy[-10:]) / max(energy[:10]))
    assert growth[0] < 10.0
    assert growth[1] > 1e4


def test_the_solver_is_left_as_it_was_and_goes_on(box):
    solvers = [stretched(box, initial_velocity=(0.0, 0.0, 10.0)) for _ in range(2)]
    for solver in solvers:
        solver.step()
    largest_stable_step(solvers[0])
    for solver in solvers:
        solver.step()
    np.testing.assert_array_equal(solvers[0].u.x.array, solvers[1].u.x.array)
    np.testing.assert_array_equal(solvers[0].points.P, solvers[1].points.P)


def test_the_elastic_tangent_is_that_of_an_elastic_law():
    """Also of a law that has flowed, for a motion that unloads it."""
    rng = np.random.default_rng(3)
    F = np.eye(3) + 0.1 * rng.normal(size=(5, 3, 3))
    moduli = lambda law: (np.full(5, law.bulk_modulus), np.full(5, law.shear_modulus))
    found = np.empty((5, 3, 3, 3, 3))
    P, _, exact = ELASTIC.tangent(F, np.zeros((5, 0)), 1.0)
    elastic_tangent(F, P, *moduli(ELASTIC), found)
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9 * np.abs(exact).max())
    P, state = METAL.update(F, METAL.initial_state(5), 1.0)
    assert METAL.observe(state).min() > 0.0
    back = F + 1e-4 * (np.eye(3) - F)  # towards no strain: elastic
    P_n, state_n, exact = METAL.tangent(back, state, 1.0)
    np.testing.assert_array_equal(state_n, state)
    elastic_tangent(back, P_n, *moduli(METAL), found)
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9 * np.abs(exact).max())
