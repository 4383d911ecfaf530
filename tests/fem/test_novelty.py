"""The monitor of the novelty of a law, on a law whose novelty is known: its largest stretch so far."""

import logging

import numpy as np
import pytest
from mpi4py import MPI

from fem import SolverError, load_law
from fem.explicit import ExplicitSolver
from fem.novelty import NoveltyMonitor


class Stretched:
    """Neo-Hooke that observes, as its novelty, ten thousand times the largest |F_33 - 1| so far; as its error, half."""

    def __init__(self) -> None:
        self._law = load_law("magnesium-neo-hookean")
        self.state_size, self.observed = 1, ("novelty", "expected_error")

    def __getattr__(self, name: str) -> object:
        return getattr(self._law, name)

    def initial_state(self, n: int) -> np.ndarray:
        return np.zeros((n, 1))

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        P, _ = self._law.update(F, np.zeros((len(F), 0)), dt)
        return P, np.maximum(state, np.abs(F[:, 2, 2] - 1)[:, None])

    def observe(self, state: np.ndarray) -> np.ndarray:
        return np.hstack((1e4 * state, 5e3 * state))


def pulled(box, speed: float) -> ExplicitSolver:  # type: ignore[no-untyped-def]
    """A column whose top moves up; the strain begins there."""
    solver = ExplicitSolver(box((1e-3, 1e-3, 4e-3), (1, 1, 8)), Stretched())
    solver.prescribe("top", 2, lambda x, t: speed * t)
    return solver


@pytest.mark.mpi
def test_it_reports_share_and_place_and_warns_once(box, caplog: pytest.LogCaptureFixture) -> None:
    solver = pulled(box, 20.0)
    monitor = NoveltyMonitor(solver)
    with caplog.at_level(logging.WARNING):
        while solver.time < 2e-7:
            solver.step()
            monitor.look()
    found = monitor.report()
    own = 1e4 * solver.state[:, 0]
    count = solver.comm.allreduce(int((own > 1).sum()))
    assert found["fraction"] == pytest.approx(count / 8) and 0 < count < 8
    assert found["largest"] == pytest.approx(solver.comm.allreduce(float(own.max(initial=0)), MPI.MAX))
    assert found["where"] == pytest.approx([5e-4, 5e-4, 3.75e-3]), "the topmost cell"
    mean = 0.5 * solver.comm.allreduce(float(own.sum())) / 8
    assert found["expected_error"] == pytest.approx(mean)
    said = sum("leaves its training data" in record.getMessage() for record in caplog.records)
    assert said == (1 if solver.comm.rank == 0 else 0)


@pytest.mark.mpi
def test_it_stops_the_run_on_all_ranks(box) -> None:  # type: ignore[no-untyped-def]
    solver = pulled(box, 0.5)
    monitor = NoveltyMonitor(solver, stop=2.0)

    def run() -> None:
        while solver.time < 1e-6:
            solver.step()
            monitor.look()

    with pytest.raises(SolverError, match=r"cell \d+, point 0 has a novelty of \S+, which must stay below 2 \("):
        run()
    assert 0 < solver.time < 1e-6
    assert solver.comm.allreduce(float(1e4 * solver.state.max(initial=0)), MPI.MAX) <= 2.0, "the step is undone"


def test_laws_that_observe_no_novelty_are_left_alone(box) -> None:  # type: ignore[no-untyped-def]
    solver = ExplicitSolver(box((1e-3, 1e-3, 1e-3), (1, 1, 1)), load_law("magnesium-neo-hookean"))
    monitor = NoveltyMonitor(solver)
    monitor.look()
    assert monitor.report() == {}
    with pytest.raises(ValueError, match="needs a law that observes its novelty"):
        NoveltyMonitor(solver, stop=1.0)
    with pytest.raises(ValueError, match="stop must be a positive novelty"):
        NoveltyMonitor(pulled(box, 1.0), stop=0.0)
