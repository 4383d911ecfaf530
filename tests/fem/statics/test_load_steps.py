"""Load stepping on a problem that fails where it is told to."""

import numpy as np
import pytest
from mpi4py import MPI

from fem.errors import ConvergenceError, SolverError
from fem.statics import load_steps
from fem.statics.newton import Convergence


def run(problem, *arguments, **options):
    return list(load_steps.run(problem, *arguments, **options))


class Toy:
    """The sum of its steps is its time; solves fail by a rule of (time, step)."""

    comm = MPI.COMM_SELF

    def __init__(self, fails=lambda t, dt: False, iterations=lambda dt: 3):
        self.time, self._time_n, self.state, self.solves = 0.0, 0.0, 0.0, 0
        self.fails, self.iterations, self.last_words = fails, iterations, None

    def set_time(self, t):
        self.time = t

    def solve(self):
        self.solves += 1
        self.trial = self.state + (self.time - self._time_n)
        if self.fails(self.time, self.time - self._time_n):
            self.trial = np.nan
            raise ConvergenceError("made to fail")
        return Convergence(self.iterations(self.time - self._time_n), (1.0, 0.0), 1)

    def commit(self):
        self.state, self._time_n = self.trial, self.time

    def roll_back(self):
        self.time, self.trial = self._time_n, self.state

    def on_failure(self, sentence):
        self.last_words = sentence


def test_steps_are_as_asked_and_end_exactly():
    problem = Toy()
    seen, history = [], []
    for step in load_steps.run(problem, 1.0, step=0.3):
        seen.append(problem.time)
        history.append(step)
    assert problem.time == 1.0 == seen[-1] and len(history) == 4 == len(seen)
    np.testing.assert_allclose([s.dt for s in history], 0.25)  # equal steps, no sliver of 0.1
    assert [s.time for s in history] == seen and all(s.attempts == 1 for s in history)
    assert [s.number for s in history] == [1, 2, 3, 4] and history[0].iterations == 3


def test_listed_times_are_hit_exactly():
    times = [0.1, 0.35, 0.7, 1.3]
    problem = Toy(fails=lambda t, dt: dt > 0.2)
    reached = [s.time for s in run(problem, times=times)]
    assert set(times) <= set(reached) and reached == sorted(reached) and problem.time == 1.3
    assert problem.state == pytest.approx(1.3, rel=1e-14)


def test_a_failed_step_is_cut_and_grows_again():
    problem = Toy(fails=lambda t, dt: 0.4 < t < 0.6 and dt > 0.02)
    history = run(problem, 1.0, step=0.1, cut=0.25, growth=2.0)
    sizes = np.array([s.dt for s in history])
    assert problem.time == 1.0 and problem.state == pytest.approx(1.0, rel=1e-13)
    assert sizes.min() <= 0.025 and max(s.attempts for s in history) > 1
    assert sizes[0] == pytest.approx(0.1) and sizes.max() <= 0.1 + 1e-12  # steps grow back to the one asked for
    assert sizes[-1] > 0.05
    assert problem.solves == sum(s.attempts for s in history)


def test_steps_grow_past_the_first_only_if_allowed_and_easy():
    history = run(Toy(), 1.0, step=0.01, largest=0.2, growth=2.0)
    sizes = [s.dt for s in history]
    assert 0.1 < max(sizes) <= 0.2 and len(history) < 12
    assert len(run(Toy(iterations=lambda dt: 15), 1.0, step=0.01, largest=0.2, growth=2.0)) == 100


def test_no_step_left_ends_at_the_last_state():
    problem = Toy(fails=lambda t, dt: t > 0.5)
    with pytest.raises(SolverError, match="made to fail"):
        run(problem, 1.0, step=0.25, smallest=0.01)
    assert problem.time <= 0.5 and problem.state == pytest.approx(problem.time)
    assert "cannot be cut any further" in problem.last_words


def test_a_restart_leaves_out_the_times_behind():
    problem = Toy()
    run(problem, times=[0.2, 0.4])
    history = run(problem, times=[0.2, 0.4, 0.6, 0.8])
    assert [s.time for s in history] == [0.6, 0.8]
    assert run(problem, 0.8) == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"times": [0.2, 0.2]}, "times must be finite and increase."),
        ({"until": -1.0}, "The run cannot end at -1.0, it is at 0.0."),
        ({"step": 0.0}, "step must be positive, got 0.0."),
        ({"cut": 1.0}, r"growth must be at least 1 and cut in \(0, 1\), got 1.5 and 1.0."),
        ({"growth": 0.5}, r"growth must be at least 1 and cut in \(0, 1\), got 0.5 and 0.5."),
        ({"smallest": np.nan}, "smallest must be positive, got nan."),
    ],
)
def test_wrong_arguments_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        load_steps.run(Toy(), **wrong)  # at once, before the first step
