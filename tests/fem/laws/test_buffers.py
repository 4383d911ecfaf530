"""Arrays for results: used again once nobody holds them, never before."""

import numpy as np
import torch

from fem.laws import load_law
from fem.laws.law import Buffers


def test_an_array_is_used_again_once_nobody_holds_it() -> None:
    buffers = Buffers()
    first = buffers.empty((4, 3))
    place = first.ctypes.data
    assert buffers.empty((4, 3)).ctypes.data != place
    del first
    assert place in {array.ctypes.data for array in [buffers.empty((4, 3))]}


def test_views_keep_an_array() -> None:
    buffers = Buffers()
    for view in (lambda a: a[1:], lambda a: a.reshape(2, 6), torch.from_numpy, lambda a: a.T[0]):
        array = buffers.empty((4, 3))
        array[:] = 1.0
        kept = view(array)
        del array
        for _ in range(Buffers.most + 2):
            buffers.empty((4, 3))[:] = 2.0
        assert float(kept.min()) == 1.0, view


def test_other_shapes_have_other_arrays() -> None:
    buffers = Buffers()
    a, b = buffers.empty((4, 3)), buffers.empty((5, 3))
    assert a.shape == (4, 3) and b.shape == (5, 3)


def test_states_of_former_steps_stay_as_they_were() -> None:
    law = load_law("magnesium-recurrent")
    rng = np.random.default_rng(0)
    F, states, stresses, copies = np.tile(np.eye(3), (20, 1, 1)), [law.initial_state(20)], [], []
    for _ in range(6):
        F = F + 1e-3 * rng.normal(size=F.shape)
        P, state = law.update(F, states[-1], 1e-8)
        states.append(state)
        stresses.append(P)
        copies.append((P.copy(), state.copy()))
    for P, state, (P_then, state_then) in zip(stresses, states[1:], copies, strict=True):
        np.testing.assert_array_equal(P, P_then)
        np.testing.assert_array_equal(state, state_then)
    again = law.update(F, states[-2], 1e-8)[1]
    np.testing.assert_array_equal(again, states[-1])
