"""Differences, asymmetry and eigenvalues of tangents that are known in closed form."""

import math

import numpy as np
import pytest
import torch

from surrogates.artifact import tangent

EYE = torch.eye(3, dtype=torch.float64)


def isotropic(d: int, bulk: float, shear: float) -> torch.Tensor:
    """K I x I + 2 G (1 - I x I / d), acting on any dF: (d, d, d, d)."""
    eye = torch.eye(d, dtype=torch.float64)
    II = torch.einsum("ij,kl->ijkl", eye, eye)
    unit = 0.5 * (torch.einsum("ik,jl->ijkl", eye, eye) + torch.einsum("il,jk->ijkl", eye, eye))
    return bulk * II + 2 * shear * (unit - II / d)


class Function:
    """P = f(F), without memory."""

    def __init__(self, f):
        self.f = f

    def forward(self, F, state, dt):
        return self.f(F), state


def test_differences_follow_a_function_that_bends_within_a_thousandth_of_the_range():
    law = Function(lambda F: torch.sin(F / 1e-3))
    F = torch.randn(5, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, kink = tangent.differences(law, F, torch.zeros(5, 0, dtype=torch.float64), 1.0, 1.0)
    exact = torch.einsum("nij,ik,jl->nijkl", 1e3 * torch.cos(F / 1e-3), *[torch.eye(2, dtype=torch.float64)] * 2)
    assert not kink.any()
    assert float((found - exact).abs().max()) < 1e-6 * 1e3


def test_kinks_are_found_where_they_are_and_nowhere_else():
    """|F_11| has one at zero, F_22 |F_22| only a kink of its slope; the others are smooth."""

    def stress(F):
        P = torch.stack([F[:, 0, 0].abs(), F[:, 0, 1] ** 3, F[:, 1, 0], F[:, 1, 1] * F[:, 1, 1].abs()], dim=1)
        return (P + F[:, 0, 1:2]).reshape(-1, 2, 2)

    F = torch.zeros(2, 2, 2, dtype=torch.float64)
    F[1, 0, 0] = 0.3
    found, kink = tangent.differences(Function(stress), F, torch.zeros(2, 0, dtype=torch.float64), 1.0, 0.5)
    assert kink.nonzero().tolist() == [[0, 0, 0]]
    exact = torch.zeros(2, 2, 2, 2, 2, dtype=torch.float64)
    exact[..., 0, 1] = 1.0
    exact[:, 1, 0, 1, 0] = exact[:, 0, 0, 0, 0] = 1.0
    # The true slope of |F_11| at the kink is unknown, whatever a tangent says there does not count.
    assert tangent.difference(exact, found, kink) < 1e-6
    exact[1, 0, 0, 0, 0] = 1.01
    assert tangent.difference(exact, found, kink) == pytest.approx(0.01, rel=1e-3)


def test_kink_beside_the_point_does_not_disturb_it():
    """Within the larger steps and without the smaller ones; between the last two it cannot be told from one at it."""
    for distance, seen in ((1e-8, True), (3e-7, True), (3e-6, False), (3e-5, False)):
        law = Function(lambda F: 2 * F + 3 * (F - distance).clamp(min=0.0))
        F = torch.zeros(1, 1, 1, dtype=torch.float64)
        found, kink = tangent.differences(law, F, torch.zeros(1, 0, dtype=torch.float64), 1.0, 1.0)
        assert bool(kink.any()) == seen
        assert tangent.difference(torch.full((1, 1, 1, 1, 1), 2.0), found, kink) < 1e-8


def test_kink_anywhere_within_the_steps_is_found_or_does_not_count():
    """Pairs of steps on both sides of a kink agree with each other, on the mean of its slopes: no derivative."""
    rng = np.random.Generator(np.random.Philox(key=0))
    for _ in range(300):
        distance, jump = 10 ** rng.uniform(-8.5, -2.0), 10 ** rng.uniform(-6.0, 0.5)
        law = Function(lambda F: 2 * torch.sin(F) + jump * (F - distance).clamp(min=0.0))
        F = torch.zeros(1, 1, 1, dtype=torch.float64)
        found, kink = tangent.differences(law, F, torch.zeros(1, 0, dtype=torch.float64), 1.0, 1.0)
        assert tangent.difference(torch.full((1, 1, 1, 1, 1), 2.0), found, kink) < 1e-5
        assert bool(kink.any()) <= (distance < 1e-6)


def test_asymmetry_is_the_share_of_the_skew_part():
    A = isotropic(3, 5.0, 1.0)[None]
    assert tangent.asymmetry(A) == 0.0
    skew = torch.zeros_like(A)
    skew[0, 0, 0, 0, 1], skew[0, 0, 1, 0, 0] = 1.0, -1.0
    assert tangent.asymmetry(A + 0.1 * skew) == pytest.approx(0.1 * math.sqrt(2) / float((A + 0.1 * skew).norm()))
    assert tangent.asymmetry(skew) == pytest.approx(1.0)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("finite", [False, True])
def test_smallest_eigenvalue_of_isotropic_elasticity(d, finite):
    F = torch.eye(d, dtype=torch.float64)[None]
    stiff, soft = isotropic(d, 5.0, 1.0)[None], isotropic(d, 0.5, 3.0)[None]
    assert float(tangent.smallest_eigenvalue(stiff, F, finite=finite)) == pytest.approx(2.0)  # 2 G
    assert float(tangent.smallest_eigenvalue(soft, F, finite=finite)) == pytest.approx(0.5 * d)  # d K
    assert float(tangent.smallest_eigenvalue(-stiff, F, finite=finite)) == pytest.approx(-5.0 * d)


def test_finite_eigenvalue_does_not_see_rotations():
    """dP_dF of a stress-free deformed point, dP = F B : F^T dF: zero for dF = W F, hence not positive on all dF."""
    F = torch.matrix_exp(torch.tensor([[[0.1, 0.7, 0.2], [-0.5, -0.1, 0.3], [0.0, 0.1, 0.2]]], dtype=torch.float64))
    A = torch.einsum("nia,ajbl,nkb->nijkl", F, isotropic(3, 5.0, 1.0), F)
    spin = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.5], [0.0, -0.5, 0.0]], dtype=torch.float64) @ F[0]
    assert float(torch.einsum("nijkl,kl->nij", A, spin).abs().max()) < 1e-13
    assert float(torch.linalg.eigvalsh(A.reshape(9, 9))[0]) < 1e-13
    assert float(tangent.smallest_eigenvalue(A, F, finite=True)) > 0.5


def test_unsymmetric_part_does_not_count():
    A = isotropic(3, 5.0, 1.0)[None]
    skew = torch.zeros_like(A)
    skew[0, 0, 0, 0, 1], skew[0, 0, 1, 0, 0] = 1.0, -1.0
    F = EYE[None]
    assert float(tangent.smallest_eigenvalue(A + skew, F, finite=False)) == pytest.approx(2.0)
