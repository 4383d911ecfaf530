"""A stiffness for every point: the isotropic one is linear elasticity, an anisotropic body passes the patch test."""

import numpy as np
import pytest

from fem.implicit import Dirichlet, ImplicitSolver
from fem.laws.anisotropic import ROW, PointStiffness, strain
from fem.laws.linear_elastic import LinearElastic

K, G = 5.0, 2.0


def isotropic(n):
    C = np.diag([2.0 * G] * 3 + [G] * 3)
    C[:3, :3] += K - 2.0 / 3.0 * G
    return np.tile(C, (n, 1, 1))


def anisotropic(n=1, seed=4):
    A = np.random.default_rng(seed).normal(size=(n, 6, 6))
    return A @ np.swapaxes(A, 1, 2) + np.eye(6)


def gradients(n, seed=1):
    return np.eye(3) + 1e-3 * np.random.default_rng(seed).normal(size=(n, 3, 3))


def test_isotropic_stiffness_is_linear_elasticity():
    law, known = PointStiffness(isotropic(7), density=1.0), LinearElastic(G, K, density=1.0)
    F, state = gradients(7), np.zeros((7, 0))
    for found, wanted in zip(law.tangent(F, state, 1.0), known.tangent(F, state, 1.0), strict=True):
        assert np.allclose(found, wanted, rtol=1e-13, atol=1e-14)
    assert np.allclose(law.stored_energy(F, state), known.stored_energy(F, state), rtol=1e-12)
    assert law.bulk_modulus == pytest.approx(K) and law.shear_modulus == pytest.approx(G)


def test_stress_is_the_derivative_of_the_energy_and_blind_to_rotation():
    law, F, state = PointStiffness(anisotropic(5), density=1.0), gradients(5), np.zeros((5, 0))
    P, _, dP_dF = law.tangent(F, state, 1.0)
    step = np.zeros((3, 3))
    step[0, 1] = 1e-3
    ends = [law.stored_energy(F + s * step, state) for s in (1.0, -1.0)]
    assert np.allclose((ends[0] - ends[1]) / 2e-3, P[:, 0, 1], rtol=1e-9, atol=1e-12)  # a quadratic: no remainder
    assert np.allclose(law.update(F + step, state, 1.0)[0] - P, dP_dF[..., 0, 1] * 1e-3, rtol=1e-9, atol=1e-13)
    spin = step - step.T
    assert np.allclose(law.update(F + spin, state, 1.0)[0], P, rtol=0.0, atol=1e-13)


def test_anisotropic_body_passes_the_patch_test(cells):
    domain = cells("hexahedron", 3, distort=0.1)
    gradient = 1e-3 * np.array([[1.0, 0.4, -0.2], [0.3, -0.7, 0.5], [0.1, 0.6, 0.2]])

    def outside(x):
        return np.isclose(x, 0.0).any(axis=0) | np.isclose(x, 1.0).any(axis=0)

    supports = [Dirichlet(outside, i, lambda x, t, i=i: gradient[i] @ x) for i in range(3)]
    sample = ImplicitSolver(domain, LinearElastic(G, K, density=1.0), prescribed=supports)
    C = anisotropic()
    law = PointStiffness(np.tile(C, (sample.points.n, 1, 1)), density=1.0)
    solver = ImplicitSolver(domain, law, prescribed=supports)
    solver.run(1.0, step=1.0).finish()
    assert np.allclose(solver.points.F, np.eye(3) + gradient, rtol=0.0, atol=1e-14)
    assert np.allclose(solver.points.P, (C[0] @ strain(np.eye(3)[None] + gradient)[0])[ROW], rtol=1e-11, atol=1e-14)


def test_number_of_points_is_held_to():
    none = PointStiffness(np.zeros((0, 6, 6)), density=1.0)
    assert none.update(np.zeros((0, 3, 3)), np.zeros((0, 0)), 1.0)[0].shape == (0, 3, 3)
    with pytest.raises(ValueError, match="stiffness must be given at all 3 points of this rank, got 2."):
        PointStiffness(isotropic(2), density=1.0).initial_state(3)


@pytest.mark.parametrize(
    ("stiffness", "sentence"),
    [
        (np.eye(6), "stiffness must have shape (n, 6, 6), got (6, 6)."),
        (np.full((1, 6, 6), np.nan), "stiffness must be finite."),
        (np.eye(6)[None] + np.eye(6, k=1)[None], "stiffness must be symmetric at all points."),
        (np.diag([1.0] * 5 + [-2.0])[None], "stiffness must be positive definite, its least eigenvalue is -2."),
    ],
)
def test_bad_stiffness_is_one_sentence(stiffness, sentence):
    with pytest.raises(ValueError) as caught:
        PointStiffness(stiffness, density=1.0)
    assert str(caught.value) == sentence
