"""Measures of causality, isotropy and sampling, on maps whose answers are known."""

import numpy as np
import pytest
import torch

from surrogates import tensors
from surrogates.path.data import mandel, matrices
from surrogates.path.properties import (
    SMALLEST,
    acausality,
    anisotropy,
    diverging,
    held_ramps,
    resampled,
    tensile,
    tension_axes,
    turned_tension,
)


def viscous(U: np.ndarray, decay: float = 0.9) -> torch.Tensor:
    """A causal, isotropic map: stress that follows the deviator of U and relaxes."""
    V = tensors.deviator(mandel(U))
    stress = torch.zeros_like(V)
    for k in range(1, V.shape[1]):
        stress[:, k] = decay * stress[:, k - 1] + V[:, k] - V[:, k - 1]
    return stress


def test_diverging_histories_share_their_past_alone(samples):
    U = diverging(samples.U[:6], 20)
    assert len(U) > 2
    assert np.array_equal(U[:, :21], np.broadcast_to(U[0, :21], U[:, :21].shape))
    for i in range(len(U)):
        assert all(np.abs(U[i, -1] - U[j, -1]).max() > 1e-3 for j in range(i))
    assert np.linalg.eigvalsh(matrices(U).numpy()).min() > SMALLEST
    steps = np.diff(U[0], axis=0)
    assert np.allclose(steps, np.diff(samples.U[0], axis=0))  # the first one is left as it is
    with pytest.raises(ValueError, match="instant must lie between 1 and 39, got 40"):
        diverging(samples.U[:2], 40)


def test_a_history_that_would_fall_too_far_is_left_out(samples):
    U = samples.U[:2].copy()
    U[1, 21:, 0] -= 1.0
    assert len(diverging(U, 20)) == 1


def test_a_causal_map_is_causal_and_one_that_looks_ahead_is_not(samples):
    U = diverging(samples.U[:6], 20)
    assert acausality(viscous(U), [20] * len(U)) == 0.0
    ahead = viscous(U) + 0.1 * viscous(U)[:, -1:]
    size = 0.1 * max((viscous(U)[i, -1] - viscous(U)[j, -1]).norm() for i in range(len(U)) for j in range(i))
    found = acausality(ahead, [20] * len(U))
    assert 0 < float(size) < found * float(ahead[:, :21].norm(dim=-1).max())
    assert acausality(1e9 * ahead, [20] * len(U)) == pytest.approx(found)  # relative


def test_each_pair_is_compared_up_to_its_own_instant():
    instants = [10, 20, 30, 40]
    U = held_ramps(0.3, instants, 41)
    assert np.allclose(U[:, -1, 0], 1 + 0.3 * np.array(instants) / 40)
    assert np.allclose(U[..., 0] * U[..., 1], 1.0)
    assert acausality(viscous(U), instants) == 0.0
    late = torch.zeros(4, 41, 6)
    late[:, :, 0] = 1.0
    late[0, 11] = 5.0  # after the first one has stopped
    assert acausality(late, instants) == 0.0
    pair = torch.zeros(2, 41, 6)
    pair[:, :, 0] = 1.0
    pair[1, 20, 0] = 3.0  # the last instant that the two have in common
    assert acausality(pair, [30, 20]) == pytest.approx(2.0 / ((21 + 20 + 9) / 42) ** 0.5)
    assert acausality(pair, [30, 19]) == 0.0


def test_tension_is_isochoric_and_along_its_axis():
    angles = np.deg2rad([0.0, 30.0, 90.0, 200.0])
    U = matrices(turned_tension(angles, 0.5, 11))
    assert torch.allclose(torch.linalg.det(U), torch.ones(4, 11, dtype=torch.float64))
    n = torch.from_numpy(tension_axes(angles))
    assert torch.allclose(torch.einsum("stij,sj->sti", U, n)[:, -1], 1.5 * n)
    assert torch.allclose(n[2], torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64))


def test_an_isotropic_map_has_no_range_and_an_anisotropic_one_has_that_of_its_stiffness():
    angles = np.deg2rad(np.arange(0, 360, 30))
    U = turned_tension(angles, 0.1, 21)
    assert anisotropy(tensile(viscous(U), angles)) < 1e-12
    strain = mandel(U) - torch.tensor([1.0, 1, 1, 0, 0, 0])
    stiff = strain * torch.tensor([1.2, 1, 1, 1, 1, 1])  # the first axis is stiffer by a fifth
    stress = tensile(stiff, angles)
    c2, f = np.cos(angles) ** 2, 1.1
    exact = (f - 1) + 0.2 * c2 * ((f - 1) * c2 + (f**-0.5 - 1) * (1 - c2))
    assert anisotropy(stress) == pytest.approx(np.ptp(exact) / exact.mean())
    assert float(stress[0, -1]) == pytest.approx(0.12) and float(stress[3, -1]) == pytest.approx(0.1)


def test_resampled_histories_are_linear_between_what_is_known(samples):
    assert np.array_equal(resampled(samples.U, 1), samples.U)
    coarse = resampled(samples.U, 8)
    assert np.allclose(coarse[:, ::8], samples.U[:, ::8])
    assert np.abs(np.diff(coarse, 2, axis=1)[:, :7]).max() < 1e-12  # straight inside the first step
    line = np.linspace(0, 1, 41)[None, :, None] * np.arange(1.0, 7.0)
    assert np.allclose(resampled(line, 20), line)
    with pytest.raises(ValueError, match="stride must divide the 40 steps of a history, got 7"):
        resampled(samples.U, 7)
