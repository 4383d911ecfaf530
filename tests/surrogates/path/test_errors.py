"""Errors: known ones are found."""

import dataclasses

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from torch import Tensor

from surrogates import tensors
from surrogates.path import errors, trust
from surrogates.path.data import Samples, join, mandel, matrices, moduli, trained_range
from surrogates.path.properties import turned_tension
from surrogates.training.split import split


class Elastic(torch.nn.Module):
    """tau_hat = 2 G dev E, without memory: the derivative of G sum (log cosh log lambda), hence hyperelastic."""

    def initial_state(self, n: int) -> Tensor:
        return torch.zeros(n, 1, dtype=torch.float64)

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        J = tensors.determinant(F)
        F_bar = tensors.isochoric(F, J)
        tau = 50e9 * tensors.deviator(tensors.to_vector(tensors.rational_strain(F_bar)))
        return tensors.first_piola(F, J, tensors.rotation(F_bar), tensors.to_matrix(tau), 48e9), state


def test_error_is_relative_to_each_path_and_blind_to_its_size(samples):
    truth = mandel(samples.stress)
    assert torch.allclose(errors.relative_errors(1.1 * truth, truth), torch.full((60,), 0.1, dtype=torch.float64))
    found = errors.report(truth + 0.2 * tensors.deviator(truth), samples)
    assert found["deviatoric"] == pytest.approx(0.2)
    assert found["full"] < 0.1  # the pressure hides it


def test_error_counts_shear_twice_as_a_tensor_has_it(samples):
    stress = np.zeros_like(samples.stress[:1])
    stress[:, 1:, 3] = 1.0
    one = dataclasses.replace(samples[:1], stress=stress)
    off = mandel(stress)
    off[:, :, 0] += 1.0
    assert errors.relative_errors(off, mandel(stress)).item() == pytest.approx((41 / 80) ** 0.5)
    assert len(one) == 1


def test_following_a_law_without_memory_gives_its_stress(uneven_samples):
    law = Elastic()
    U = matrices(uneven_samples.U).reshape(-1, 3, 3)
    P, _ = law.forward(U, law.initial_state(len(U)), 1.0)
    sigma = tensors.to_vector(P @ U / tensors.determinant(U)[:, None, None]).reshape(40, -1, 6)
    assert torch.allclose(errors.follow(law, uneven_samples), sigma, atol=1e-3)


def test_a_law_without_memory_errs_alike_at_every_resolution(samples):
    found = errors.resolution_report(Elastic(), samples)
    for suffix in ("_half", "_quarter"):
        assert found["deviatoric" + suffix] == pytest.approx(found["deviatoric"], rel=0.1)
        assert found["full" + suffix] < found["deviatoric" + suffix]


def test_coarser_paths_keep_their_ends(samples):
    coarse = errors.coarsen(samples, 4)
    assert coarse.U.shape == (60, 11, 6)
    assert np.array_equal(coarse.U[:, -1], samples.U[:, -1])
    with pytest.raises(ValueError, match="stride must divide the 40 steps"):
        errors.coarsen(samples, 3)


def test_split_is_by_id_and_leaves_no_path_on_both_sides(samples):
    order = np.random.default_rng(0).permutation(60)
    train, held_out = split(samples[order], 7)
    assert sorted(held_out.ids) == list(range(53, 60))
    assert not set(train.ids) & set(held_out.ids)
    assert np.array_equal(held_out.U, samples.U[held_out.ids])
    with pytest.raises(ValueError, match="held_out must lie between 1 and 59"):
        split(samples, 60)


def test_sets_of_different_lengths_are_refused(samples):
    with pytest.raises(ValueError, match="same number of times"):
        join([samples, errors.coarsen(samples, 2)])
    assert len(join([samples, samples])) == 120


def test_data_of_another_pressure_is_refused(samples):
    assert moduli(samples) == (48e9, 25e9)
    stress = samples.stress.copy()
    stress[..., :3] *= 1.01
    with pytest.raises(ValueError, match="mean stress of the data must be K"):
        moduli(dataclasses.replace(samples, stress=stress))


def test_isochoric_paths_have_no_pressure_but_rounding():
    U = turned_tension(np.linspace(0, 1, 4), 0.3, 9)
    stress = np.zeros_like(U)
    stress[..., 0], stress[..., 1] = 3e8, -3e8
    fields = {"duration": np.full(4, 1e-6), "time": np.tile(np.linspace(0, 1, 9), (4, 1)), "ids": np.arange(4)}
    for size in (1.0, 0.0):  # also where there is no stress at all
        assert moduli(Samples(U, size * stress, **fields)) == (48e9, 25e9)
    stress[..., :3] += 1e6
    with pytest.raises(ValueError, match="mean stress of the data must be K"):
        moduli(Samples(U, stress, **fields))


def test_range_is_what_the_paths_cover(samples):
    found = trained_range(samples, 1e-6)
    J = np.linalg.det(matrices(samples.U).numpy())
    assert found["jacobian_min"] == pytest.approx(J.min()) and found["jacobian_max"] == pytest.approx(J.max())
    assert found["time_window"] == 1e-6
    slow = trained_range(dataclasses.replace(samples, duration=10 * samples.duration))
    assert slow["rate_max"] == pytest.approx(found["rate_max"] / 10)
    assert slow["strain_max"] == found["strain_max"]


@pytest.mark.parametrize("lead", [errors.follow, trust.states_along], ids=lambda lead: lead.__name__)
def test_a_law_is_led_along_paths_without_threads_of_blas(lead, samples, monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    seen = set()

    class Seen(Elastic):
        def forward(self, F, state, dt):
            seen.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
            return super().forward(F, state, dt)

    with threadpool_limits(2, user_api="blas"):
        if not any(pool["num_threads"] == 2 for pool in threadpool_info() if pool["user_api"] == "blas"):
            pytest.skip("there is no BLAS with two threads")
        law = Seen()
        law.scale = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))  # what says on which device a law is
        lead(law, samples[:2])
    assert seen == {1}
