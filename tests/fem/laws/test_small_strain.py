"""Linear elasticity and plane strain: stress, tangent, energy, and what they are made from."""

import numpy as np
import pytest

from fem import laws
from fem.laws import load_law
from fem.laws.linear_elastic import LinearElastic
from fem.laws.plane_strain import PlaneStrain

NEO_HOOKEAN = load_law("magnesium-neo-hookean")
METAL = load_law("magnesium-j2")
ELASTIC = load_law("magnesium-linear-elastic")


def gradients(n, d, size=0.1, seed=0):
    return np.eye(d) + size * np.random.default_rng(seed).uniform(-1.0, 1.0, (n, d, d))


@pytest.mark.parametrize("d", [2, 3])
def test_linear_elasticity_is_the_derivative_of_its_energy(d):
    law, F = LinearElastic(2.0, 5.0, dimension=d, density=1.0), gradients(20, d)
    state = law.initial_state(20)
    P, new, dP_dF = law.tangent(F, state, 1.0)
    assert new.shape == (20, 0) and law.dissipation(state).shape == (20,)
    np.testing.assert_allclose(P, np.swapaxes(P, 1, 2), atol=1e-15)
    np.testing.assert_allclose(P, np.einsum("nijkl,nkl->nij", dP_dF, F - np.eye(d)), atol=1e-14)
    for i in range(d):
        for j in range(d):
            step = np.zeros((d, d))
            step[i, j] = 1e-6
            up, down = law.stored_energy(F + step, state), law.stored_energy(F - step, state)
            np.testing.assert_allclose((up - down) / 2e-6, P[:, i, j], atol=1e-9)


def test_linear_elasticity_is_the_limit_of_the_finite_law():
    F = gradients(20, 3, 1e-6)
    small, finite = ELASTIC, NEO_HOOKEAN
    assert (small.bulk_modulus, small.shear_modulus) == (finite.bulk_modulus, finite.shear_modulus)
    P, expected = (law.update(F, np.zeros((20, 0)), 1.0)[0] for law in (small, finite))
    np.testing.assert_allclose(P, expected, atol=1e-5 * np.abs(expected).max())


def test_uniaxial_stress_has_youngs_modulus():
    K, G = 5.0, 2.0
    E, nu = 9 * K * G / (3 * K + G), (3 * K - 2 * G) / (2 * (3 * K + G))
    F = np.eye(3) + 0.01 * np.diag([1.0, -nu, -nu])
    P, _ = LinearElastic(G, K, density=1.0).update(F[None], np.zeros((1, 0)), 1.0)
    np.testing.assert_allclose(P[0], np.diag([0.01 * E, 0.0, 0.0]), atol=1e-15)


@pytest.mark.parametrize("law", [ELASTIC, NEO_HOOKEAN, METAL], ids=["linear-elastic", "neo-hookean", "j2"])
def test_plane_strain_is_the_law_between_rigid_planes(law):
    flat = PlaneStrain(law)
    F = gradients(10, 2, 0.02)
    whole = np.tile(np.eye(3), (10, 1, 1))
    whole[:, :2, :2] = F
    state = law.initial_state(10)
    P, new, dP_dF = flat.tangent(F, state, 1.0)
    expected = law.tangent(whole, state, 1.0)
    np.testing.assert_array_equal(P, expected[0][:, :2, :2])
    np.testing.assert_array_equal(new, expected[1])
    np.testing.assert_array_equal(dP_dF, expected[2][:, :2, :2, :2, :2])
    np.testing.assert_array_equal(flat.update(F, state, 1.0)[0], P)
    np.testing.assert_array_equal(flat.stored_energy(F, new), law.stored_energy(whole, new))
    if flat.strain == "small":
        plane = load_law("magnesium-linear-elastic", dimension=2)
        np.testing.assert_allclose(P, plane.update(F, state, 1.0)[0], rtol=1e-12)


def test_plastic_work_is_the_work_that_is_not_stored():
    """Stretch in many steps: work = stored + dissipated, to the order of the elastic strain."""
    law = load_law("magnesium-j2", yield_stress=150e6, linear_hardening=300e6, saturation=100e6, exponent=20.0)
    state, work, P_n, F_n = law.initial_state(1), 0.0, np.zeros((1, 3, 3)), np.eye(3)[None]
    for a in np.linspace(0.0, 0.05, 401)[1:]:
        F = np.eye(3)[None] + a * np.diag([1.0, -0.45, -0.45])
        P, state = law.update(F, state, 1.0)
        work += 0.5 * np.sum((P + P_n) * (F - F_n))
        P_n, F_n = P, F
    assert law.dissipation(state)[0] > 0.5 * work
    assert work == pytest.approx((law.stored_energy(F, state) + law.dissipation(state))[0], rel=5e-3)


def test_names_dimensions_and_refusals():
    law = laws.load_law("magnesium-linear-elastic", dimension=2)
    assert (law.name, law.strain, law.dimension) == ("linear-elastic", "small", 2)
    with pytest.raises(ValueError, match="dimension must be 2 or 3"):
        load_law("magnesium-linear-elastic", dimension=1)
    with pytest.raises(ValueError, match=r"F must have shape \(n, 2, 2\), got \(1, 3, 3\)."):
        law.update(np.eye(3)[None], np.zeros((1, 0)), 1.0)
    with pytest.raises(ValueError, match="needs a law of 3 dimensions"):
        PlaneStrain(law)
