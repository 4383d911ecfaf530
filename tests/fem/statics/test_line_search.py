"""The line search on functions of one variable, and what it saves Newton from."""

import numpy as np
import pytest

from fem.statics.line_search import TRIALS, step_length


def search(work):
    """Length, and the lengths tried."""
    tried = []

    def record(length):
        tried.append(length)
        return work(length)

    return step_length(record, work(0.0)), tried


@pytest.mark.parametrize(
    "work", [lambda a: 1.0 - a, lambda a: (1.0 - a) ** 3, lambda a: 1.0 - 1.7 * a, lambda a: 1.0 + a]
)
def test_a_full_step_is_taken_where_it_does_not_overshoot(work):
    assert search(work) == (1.0, [1.0])


@pytest.mark.parametrize(
    "work",
    [
        lambda a: 1.0 - 9.0 * a,
        lambda a: np.exp(-3.0 * a) - 20.0 * a**4,
        lambda a: min(1.0 - 0.1 * a, 1.0 - 300.0 * (a - 0.3)),
    ],
)
def test_an_overshooting_step_is_taken_back(work):
    length, tried = search(work)
    assert 0.0 < length < 1.0 and tried[-1] == length and len(tried) <= TRIALS
    assert -0.8 * work(0.0) <= work(length) < work(0.0)


def test_a_step_that_cannot_be_evaluated_is_halved():
    length, tried = search(lambda a: 1.0 - a if a < 0.3 else np.nan)
    assert tried == [1.0, 0.5, 0.25] and length == 0.25
    assert len(search(lambda a: 1.0 if a == 0.0 else np.nan)[1]) == TRIALS
