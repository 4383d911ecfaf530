"""A run is an iterator over steps; one that is never iterated warns."""

import gc

import pytest

from fem.steps import Run


def test_the_steps_come_one_by_one():
    taken = []

    def steps():
        for k in range(3):
            taken.append(k)
            yield k

    run = Run(steps())
    assert taken == []
    assert next(run) == 0
    assert taken == [0]
    assert list(run) == [1, 2]
    assert run.finish() is None


def test_finish_takes_all_steps_and_gives_the_last():
    assert Run(iter([1, 2, 3])).finish() == 3
    assert Run(iter([])).finish() is None


def test_a_run_never_iterated_warns():
    with pytest.warns(RuntimeWarning, match="A run to 1 s was never iterated"):
        forget(Run(iter([1]), "run to 1 s"))


def forget(run):
    del run
    gc.collect()
