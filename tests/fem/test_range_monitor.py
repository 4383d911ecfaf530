"""The monitor of the trained range, against the same measures in closed form and by matrix functions."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
from mpi4py import MPI

from fem.failure import SolverError
from fem.range_monitor import MEASURES, RangeMonitor


def watched(limits, n=2, stop=False):
    law = SimpleNamespace(manifest=SimpleNamespace(range=SimpleNamespace(**limits)))
    points = SimpleNamespace(n=n)
    solver = SimpleNamespace(law=law, points=points, comm=MPI.COMM_SELF, monitors=[], time=0.0)
    return RangeMonitor(solver, stop=stop), solver


def strain(F):
    """tanh of the isochoric logarithmic strain, by eigenvalues."""
    C = np.linalg.det(F) ** (-2 / 3) * F.T @ F
    return scipy.linalg.tanhm(0.5 * scipy.linalg.logm(C))


def path(T=7):
    rng = np.random.default_rng(3)
    steps = np.cumsum(0.05 * rng.standard_normal((T, 2, 3, 3)), axis=0)
    return np.eye(3) + np.concatenate([np.zeros((1, 2, 3, 3)), steps])


def test_measures_are_those_of_the_training_over_each_step():
    monitor, solver = watched({"strain_max": 0.1, "rate_max": 1e7, "jacobian_min": 0.9, "length_max": 0.4})
    assert solver.monitors == [monitor]
    F, dt = path(), 1e-8
    for a, b in zip(F, F[1:]):
        assert monitor.check(a, b, np.zeros((2, 0)), dt) is None
        monitor.accept()
    E = np.array([[strain(point) for point in now] for now in F])
    change = np.linalg.norm(np.diff(E, axis=0), axis=(2, 3))
    J = np.linalg.det(F)
    size = np.linalg.norm(E, axis=(2, 3)).max(axis=0)
    expected = [size, change.max(axis=0) / dt, J.min(axis=0), J.max(axis=0), change.sum(axis=0)]
    np.testing.assert_allclose(monitor.seen.T, expected, rtol=1e-9)
    report = monitor.report()
    assert report["met"]["length"] == pytest.approx(change.sum(axis=0).max())
    assert report["fraction_outside_range"]["length_max"] == np.mean(change.sum(axis=0) > 0.4)
    assert report["fraction_outside_range"]["jacobian_min"] == np.mean(J.min(axis=0) < 0.9)


def test_rotations_and_steps_that_are_undone_do_not_count():
    monitor, _ = watched({"strain_max": 0.1})
    turn = scipy.linalg.expm(np.array([[0, 0.3, 0], [-0.3, 0, 0.1], [0, -0.1, 0]]))
    eye = np.tile(np.eye(3), (2, 1, 1))
    monitor.check(eye, 1.5 * path()[-1], np.zeros((2, 0)), 1.0)  # never accepted
    monitor.check(eye, turn @ eye, np.zeros((2, 0)), 1.0)
    monitor.accept()
    np.testing.assert_allclose(monitor.seen, [[0, 0, 1, 1, 0]] * 2, atol=1e-14)


def test_it_goes_on_from_what_it_has_seen():
    F = path()
    through, first, second = (watched({"strain_max": 0.1})[0] for _ in range(3))
    for k, (a, b) in enumerate(zip(F, F[1:])):
        if k == 3:
            second.adopt({name: values.copy() for name, values in first.rows().items()})
        for monitor in (through, second if k >= 3 else first):
            monitor.check(a, b, np.zeros((2, 0)), 1e-8)
            monitor.accept()
    np.testing.assert_array_equal(second.seen, through.seen)


def test_it_stops_where_a_limit_is_passed():
    monitor, _ = watched({"jacobian_max": 1.2, "strain_max": None}, stop=True)
    assert monitor.limits == {"jacobian_max": 1.2}
    eye = np.tile(np.eye(3), (2, 1, 1))
    F = eye * np.array([1.0, 1.1])[:, None, None]
    problem = monitor.check(eye, F, np.zeros((2, 0)), 1.0)
    assert problem.point == 1
    assert problem.text == "leaves the trained range: the ratio of volumes det F is 1.331, at most 1.2 is known"
    assert issubclass(SolverError, RuntimeError) and len(MEASURES) == monitor.seen.shape[1]


def test_a_law_without_a_range_is_left_alone():
    monitor, solver = watched({})
    assert solver.monitors == [] and monitor.limits == {}
