"""A law against itself: laws known in closed form, under fewer steps and under their own stress."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from surrogates import tensors
from surrogates.artifact.certify import LATER, certify, disagreements
from surrogates.artifact.self_consistency import (
    CUTS,
    LOST,
    SIZES,
    cut_path,
    drive_by_stress,
    self_consistency,
    uniaxial_path,
)

G, K, TIME = 1.0, 2.0, 0.7  # moduli; s, in which stress relaxes
DT = 0.1  # s; the path takes 2 s


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices this small are slower on many threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Known:
    """A small-strain law with the state (strain, stress, calls), its tangent by automatic differentiation."""

    def __init__(self, d: int, kind: str = "elastic", *, slope: float = 1.0) -> None:
        self.d, self.kind, self.slope = d, kind, slope

    def initial_state(self, n: int) -> Tensor:
        return torch.zeros(n, 2 * self.d**2 + 1, dtype=torch.float64)

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        n, d = len(F), self.d
        eye = torch.eye(d, dtype=torch.float64)
        E, last, S = 0.5 * (F + F.mT) - eye, state[:, : d * d].reshape(n, d, d), state[:, d * d : -1].reshape(n, d, d)
        dE, calls = E - last, state[:, -1:] + 1.0
        pressure = K * dE.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None] * eye
        if self.kind == "exact":  # Maxwell, integrated exactly for a straight piece of strain
            S = math.exp(-dt / TIME) * S + 2 * G * TIME / dt * (1 - math.exp(-dt / TIME)) * dE
        elif self.kind == "explicit":  # Maxwell by explicit Euler
            S = (1 - dt / TIME) * S + 2 * G * dE
        elif self.kind in ("plastic", "viscoplastic"):  # at the end of a step, |s| <= k = 0.02 G or |s| = k + eta rate
            trial = S + 2 * G * dE + pressure
            mean = trial.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] * eye
            size = torch.sqrt(((trial - mean) ** 2).sum(dim=(1, 2)) + 1e-30)[:, None, None]
            eta = 0.2 * G if self.kind == "viscoplastic" else 0.0
            S = trial - 2 * G / (2 * G + eta / dt) * (size - 0.02 * G).clamp(min=0.0) * (trial - mean) / size - pressure
        else:
            S = S + 2 * G * dE
        S = S + pressure
        P = S * torch.exp(-calls / CUTS[-1])[:, :, None] if self.kind == "calls" else S
        return P, torch.cat([E.reshape(n, -1), S.reshape(n, -1), calls], dim=1).detach()

    def tangent(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor, Tensor]:
        F = F.detach().requires_grad_(True)
        P, new_state = self.forward(F, state, dt)
        d = self.d
        rows = [torch.autograd.grad(P[:, i, j].sum(), F, retain_graph=True)[0] for i in range(d) for j in range(d)]
        return P.detach(), new_state, self.slope * torch.stack(rows, dim=1).reshape(-1, d, d, d, d)


class NeoHookean(Known):
    """P of finite strain, without memory."""

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        F_3 = torch.nn.functional.pad(F, (0, 3 - self.d, 0, 3 - self.d)) + torch.diag(torch.arange(3) >= self.d)
        J = tensors.determinant(F_3)[:, None, None]
        F_it = tensors.cofactor(F_3)[:, : self.d, : self.d] / J
        return G * (F - F_it) + K * torch.log(J) * F_it, state


def of(law: Known, strain: str = "small", strain_max: float = 0.2) -> dict:
    return self_consistency(law, strain=strain, dimension=law.d, strain_max=strain_max, dt=DT)


def legs(steps: int) -> list[tuple[int, np.ndarray]]:
    """Steps of each leg and the increment of strain in one of them, in two dimensions, of unit size."""
    N, M = np.diag([-1.0, 1.0]) / math.sqrt(2), np.array([[0.0, 1.0], [1.0, 0.0]]) / math.sqrt(2)
    turned = (M - N) / math.sqrt(2)
    knots, counts = [0 * N, -N, turned, turned / 2], [steps * share // 50 for share in (20, 20, 10)]
    return [(count, (b - a) / count) for count, (a, b) in zip(counts, pairwise(knots), strict=True)]


def difference(values: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(values - reference) / np.linalg.norm(reference))


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("strain", ["small", "finite"])
def test_path_has_its_size_turns_and_keeps_its_instants(strain, d):
    coarse = cut_path(strain, d, 0.3, 50)
    for steps in CUTS:
        torch.testing.assert_close(cut_path(strain, d, 0.3, steps)[steps // 50 - 1 :: steps // 50], coarse)
    torch.testing.assert_close(coarse, coarse.mT, rtol=0, atol=1e-14)  # no rotation
    value = torch.linalg.eigvalsh(coarse)
    H = value.log() if strain == "finite" else value - 1
    size = H.norm(dim=-1)
    for k, share in enumerate(SIZES):
        assert float(size[:, k].max()) == pytest.approx(share * 0.3)
        np.testing.assert_allclose(size[[19, 39, 49], k], share * np.array([0.3, 0.3, 0.15]), rtol=1e-9)
    assert float(H.sum(dim=-1).abs().max()) < 1e-12
    corners = [coarse[k, -1] - torch.eye(d, dtype=torch.float64) for k in (19, 39)]
    assert abs(float((corners[0] * corners[1]).sum() / corners[0].norm() / corners[1].norm())) < 0.9


@pytest.mark.parametrize("d", [2, 3])
def test_laws_exact_in_any_step_agree_with_themselves(d):
    for found in (of(Known(d)), of(Known(d, "exact")), of(NeoHookean(d), "finite", 0.6)):
        assert set(found) == set(LATER)
        assert found["self_consistency"] < 1e-11
        assert max(found[name] for name in LATER[:3]) < 1e-7
        # The lateral strain of the law that relaxes is not straight between two steps.
        assert found["self_consistency_uniaxial"] < 0.01
    for law, kind in ((Known(d), "small"), (NeoHookean(d), "finite")):
        assert of(law, kind)["self_consistency_uniaxial"] < 1e-7


def test_explicit_relaxation_differs_by_its_closed_form():
    """A geometric series on each leg for the stress; for the strain, the inverse recurrence."""

    def stress(steps):
        q, S, found = 1 - 2.0 / steps / TIME, np.zeros((2, 2)), []
        for count, dE in legs(steps):
            n = np.arange(1, count + 1)[:, None, None]
            found.append(S * q**n + 2 * G * dE * (1 - q**n) / (1 - q))
            S = found[-1][-1]
        return np.concatenate(found)

    def strain(S, q):
        return np.cumsum(S - q * np.concatenate([0 * S[:1], S[:-1]]), axis=0) / (2 * G)

    finest, coarse = stress(3200), stress(50)
    path = np.concatenate([np.repeat(dE[None], count, axis=0) for count, dE in legs(50)]).cumsum(axis=0)
    found = of(Known(2, "explicit"))
    assert found["self_consistency"] == pytest.approx(difference(coarse, finest[63::64]), rel=1e-6)
    driven = difference(strain(finest[63::64], 1 - 2.0 / 50 / TIME), path)
    assert found["self_consistency_stress"] == pytest.approx(driven, rel=1e-6)
    assert 0.001 < driven < 0.1 and found["closed_loop"] < 1e-7


def test_evolution_by_calls_is_caught():
    path = np.concatenate([np.repeat(dE[None], count, axis=0) for count, dE in legs(50)]).cumsum(axis=0)
    calls = np.arange(1, 51)[:, None, None]
    fading = {steps: np.exp(-calls * steps / 50 / 3200) for steps in (50, 3200)}
    found = of(Known(2, "calls"))
    assert found["self_consistency"] == pytest.approx(difference(fading[50] * path, fading[3200] * path), rel=1e-6)
    assert found["self_consistency_stress"] == pytest.approx(
        difference(fading[3200] / fading[50] * path, path), rel=1e-6
    )
    assert found["closed_loop"] < 1e-7


@pytest.mark.parametrize("d", [2, 3])
def test_viscoplastic_law_closes_the_loop(d):
    found = of(Known(d, "viscoplastic"))
    assert found["closed_loop"] < 1e-5
    assert 1e-4 < found["self_consistency"] < 0.05  # backward Euler is of first order
    assert found["self_consistency_stress"] < 0.1


def test_perfectly_plastic_stress_does_not_give_the_strain():
    found = of(Known(2, "plastic"))
    assert found["self_consistency"] < 0.05
    # At the yield stress Newton's method finds nothing to do: the strain stays that of the elastic part.
    for name in ("closed_loop", "self_consistency_stress"):
        assert 0.9 < found[name] <= LOST


def test_slightly_wrong_tangent_closes_the_loop_and_one_of_wrong_sign_does_not():
    assert of(Known(2, "viscoplastic", slope=1.02))["closed_loop"] < 1e-5
    wrong = of(Known(2, slope=-1.0))
    assert wrong["self_consistency"] < 1e-12 and wrong["closed_loop"] == LOST


def test_failed_law_is_lost_and_can_be_stored():
    class Failing(Known):
        def forward(self, F, state, dt):
            P, state = super().forward(F, state, dt)
            return P / (state[:, -1:, None] < 1000.0).to(P.dtype), state  # not a number after a thousand calls

    found = of(Failing(2))
    assert found["self_consistency"] == found["self_consistency_stress"] == LOST and found["closed_loop"] < 1e-9
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_points_that_fail_leave_the_others_alone():
    target = torch.zeros(3, 2, 2, 2, dtype=torch.float64)
    target[:, :, 0, 0] = torch.tensor([[0.005, 0.005], [0.01, 1.0], [0.015, 0.0]])
    F = drive_by_stress(Known(2, "plastic"), target, 1.0, finite=False)
    assert bool(torch.isfinite(F[:, 0]).all()) and bool(torch.isfinite(F[0, 1]).all())
    assert bool(F[1:, 1].isnan().all())  # such a deviator is beyond the yield stress


def test_certificate_holds_the_entries_and_older_ones_may_lack_them():
    law = Known(2)
    options = {"strain_max": 0.1, "dt": DT, "stress_scale": G, "points": 2, "against_itself": True}
    found = certify(law, strain="small", dimension=2, **options)
    assert set(LATER) <= set(found)
    older = {name: value for name, value in found.items() if name not in LATER}
    assert disagreements(older, found) == []
    for name in LATER:
        assert disagreements({**found, name: 0.5}, found) == [name]


@pytest.mark.parametrize("d", [2, 3])
def test_uniaxial_test_has_its_closed_form(d):
    """Lateral strain of an elastic law: -nu of the axial one, from K and G; the stress is E times the axial strain."""
    lmbda = K  # S = 2 G E + K tr(E) I
    axial = uniaxial_path(d, 0.1, 50, finite=False)
    nothing = torch.zeros(50, 2, d, d, dtype=torch.float64)
    F = drive_by_stress(Known(d), nothing, 1.0, finite=False, axial=axial, scale=torch.ones(2))
    strain = axial - 1
    assert float(strain.min()) == pytest.approx(-0.1 * math.sqrt((d - 1) / d))
    assert float(strain[-1, 1]) == pytest.approx(0.5 * float(strain[:, 1].min()))
    lateral = -lmbda / (2 * G + (d - 1) * lmbda) * strain
    for i in range(d - 1):
        torch.testing.assert_close(F[:, :, i, i] - 1, lateral, rtol=0, atol=1e-9)
    torch.testing.assert_close(F[..., -1, -1], axial, rtol=0, atol=0)


def test_uniaxial_test_has_an_answer_for_a_perfectly_plastic_law_and_finds_an_error_of_steps():
    """Backward Euler is exact for a perfectly plastic law on a straight path, where the loop in stress is lost."""
    found = of(Known(3, "plastic"))
    assert found["closed_loop"] > 0.9 and found["self_consistency_uniaxial"] < 1e-9
    for kind in ("explicit", "calls"):
        assert 1e-3 < of(Known(3, kind))["self_consistency_uniaxial"] < LOST
    assert of(Known(3, slope=-1.0))["self_consistency_uniaxial"] == LOST
