"""What every classical law must obey: exact tangents, objectivity, no stress at rest, batches, one pressure."""

import numpy as np
import pytest

from fem import laws
from fem.laws import load_law

NEO_HOOKEAN = load_law("magnesium-neo-hookean")

DT = 1e-8
LAWS = {
    "neo-hookean": NEO_HOOKEAN,
    "j2-linear": load_law("magnesium-j2", yield_stress=150e6, linear_hardening=500e6),
    "j2-voce": load_law("magnesium-j2", yield_stress=100e6, linear_hardening=50e6, saturation=200e6, exponent=12.0),
    "johnson-cook": load_law("magnesium-johnson-cook", C=0.05),
}
every_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
plastic_law = pytest.mark.parametrize("law", list(LAWS.values())[1:], ids=list(LAWS)[1:])


def gradients(n, size, seed=0):
    """Asymmetric deformation gradients with positive determinant."""
    F = np.eye(3) + size * np.random.default_rng(seed).uniform(-1.0, 1.0, (n, 3, 3))
    assert np.all(np.linalg.det(F) > 0.0)
    return F


def prestrained(law, F, dt=DT):
    """State after going to F in five proportional steps."""
    state = law.initial_state(len(F))
    for fraction in np.linspace(0.2, 1.0, 5):
        _, state = law.update(np.eye(3) + fraction * (F - np.eye(3)), state, dt)
    return state


def difference(law, F, state, dt, h=1e-6):
    """Fourth-order central differences of P."""
    out = np.empty((len(F), 3, 3, 3, 3))
    for k in range(3):
        for m in range(3):
            step = np.zeros((3, 3))
            step[k, m] = h
            P = [law.update(F + c * step, state, dt)[0] for c in (1, -1, 2, -2)]
            out[..., k, m] = (8.0 * (P[0] - P[1]) - (P[2] - P[3])) / (12.0 * h)
    return out


def back(F, strain):
    """Step back from F towards I by an equivalent strain."""
    H = F - np.eye(3)
    symmetric = 0.5 * (H + np.swapaxes(H, 1, 2))
    deviator = symmetric - np.trace(symmetric, axis1=1, axis2=2)[:, None, None] / 3.0 * np.eye(3)
    return np.eye(3) + (1.0 - strain / np.sqrt(np.einsum("nij,nij->n", deviator, deviator) / 1.5))[:, None, None] * H


# Steps from a prestrained state, and the size of the strain there.
CASES = {
    "elastic": (lambda F, rng: F, 1e-4),  # far below the yield strain
    "plastic": (lambda F, rng: F + 0.02 * rng.uniform(-1, 1, F.shape), 0.15),
    "large strain": (lambda F, rng: F + 0.1 * rng.uniform(-1, 1, F.shape), 0.35),
    "unloading": (lambda F, rng: back(F, 0.004), 0.15),
    "reversal": (lambda F, rng: back(F, 0.03), 0.15),
}


@every_law
@pytest.mark.parametrize("case", CASES)
def test_tangent_is_the_derivative_of_the_stress(law, case):
    move, size = CASES[case]
    F_n = gradients(12, size, seed=1)
    state = prestrained(law, F_n)
    F = move(F_n, np.random.default_rng(2))
    P, new, dP_dF = law.tangent(F, state, DT)
    P_only, new_only = law.update(F, state, DT)
    np.testing.assert_array_equal(P, P_only)
    np.testing.assert_array_equal(new, new_only)
    expected = difference(law, F, state, DT)
    assert np.abs(dP_dF - expected).max() < 2e-7 * np.abs(expected).max()


@plastic_law
def test_the_cases_are_what_they_say(law):
    """The tangent test must see elastic, plastic and unloading points."""
    F = gradients(12, 1e-4, seed=1)
    assert np.all(prestrained(law, F)[:, 6] == 0.0)
    F = gradients(12, 0.15, seed=1)
    state = prestrained(law, F)
    assert np.all(state[:, 6] > 0.01)
    assert np.all(law.update(back(F, 0.004), state, DT)[1][:, 6] == state[:, 6])
    assert np.all(law.update(back(F, 0.03), state, DT)[1][:, 6] > state[:, 6])


@every_law
def test_rotating_the_deformation_rotates_the_stress(law, rotations):
    F_n, F = gradients(20, 0.2, seed=4), gradients(20, 0.3, seed=5)
    Q = rotations(20)
    state = prestrained(law, F_n)
    P, new = law.update(F, state, DT)
    P_turned, new_turned = law.update(Q @ F, state, DT)
    assert np.abs(P_turned - Q @ P).max() < 1e-10 * np.abs(P).max()
    np.testing.assert_allclose(new_turned, new, rtol=1e-10, atol=1e-12)


@every_law
def test_isotropy(law, rotations):
    """P(F Q^T) = P(F) Q^T from the virgin state."""
    F, Q = gradients(20, 0.2, seed=6), rotations(20)
    Qt = np.swapaxes(Q, 1, 2)
    state = law.initial_state(20)
    P = law.update(F, state, DT)[0]
    assert np.abs(law.update(F @ Qt, state, DT)[0] - P @ Qt).max() < 1e-10 * np.abs(P).max()


@every_law
def test_virgin_and_rotated_rest_are_free_of_stress(law, rotations):
    F = np.concatenate([np.eye(3)[None], rotations(5)])
    P, state = law.update(F, law.initial_state(6), DT)
    assert np.abs(P).max() < 1e-13 * law.shear_modulus * 10.0
    np.testing.assert_allclose(state, law.initial_state(6), atol=1e-14)


@every_law
def test_kirchhoff_stress_is_symmetric_and_its_pressure_is_that_of_the_energy(law):
    F = gradients(20, 0.3, seed=7)
    P = law.update(F, law.initial_state(20), DT)[0]
    tau = P @ np.swapaxes(F, 1, 2)
    J = np.linalg.det(F)
    assert np.abs(tau - np.swapaxes(tau, 1, 2)).max() < 1e-12 * np.abs(tau).max()
    np.testing.assert_allclose(np.trace(tau, axis1=1, axis2=2) / (3.0 * J), law.bulk_modulus * (J - 1.0), rtol=1e-10)


@every_law
def test_elastic_stress_is_the_derivative_of_the_stored_energy(law):
    F = gradients(8, 0.1, seed=8)
    state = prestrained(law, F)
    # Back to where the point is elastic: its stress must come from the energy at fixed state.
    F = back(F, 0.004)
    P, new = law.update(F, state, DT)
    np.testing.assert_array_equal(new, state)
    h = 1e-6
    for k in range(3):
        for m in range(3):
            step = np.zeros((3, 3))
            step[k, m] = h
            slope = (law.stored_energy(F + step, state) - law.stored_energy(F - step, state)) / (2.0 * h)
            assert np.abs(slope - P[:, k, m]).max() < 1e-6 * np.abs(P).max()


@every_law
def test_batches_do_not_matter_and_none_is_a_batch(law):
    F = gradients(7, 0.2, seed=9)
    state = prestrained(law, gradients(7, 0.1, seed=10))
    P, new, tangent = law.tangent(F, state, DT)
    for n in range(7):
        one = law.tangent(F[n : n + 1], state[n : n + 1], DT)
        np.testing.assert_array_equal(one[0][0], P[n])
        np.testing.assert_array_equal(one[1][0], new[n])
        np.testing.assert_array_equal(one[2][0], tangent[n])
    empty, k = np.zeros((0, 3, 3)), law.state_size
    P, new, tangent = law.tangent(empty, law.initial_state(0), DT)
    assert (P.shape, new.shape, tangent.shape) == ((0, 3, 3), (0, k), (0, 3, 3, 3, 3))
    assert law.observe(new).shape == (0, len(law.observed))


@every_law
def test_arguments_are_left_alone(law):
    F, state = gradients(3, 0.2), law.initial_state(3)
    F_before, state_before = F.copy(), state.copy()
    _, new = law.update(F, state, DT)
    new += 1.0
    np.testing.assert_array_equal(F, F_before)
    np.testing.assert_array_equal(state, state_before)


@every_law
def test_bad_values_give_no_finite_stress_and_no_exception(law):
    F = np.stack([np.diag([1.0, 1.0, -1.0]), np.full((3, 3), np.nan), np.zeros((3, 3)), np.eye(3)])
    P, _ = law.update(F, law.initial_state(4), DT)
    assert not np.isfinite(P[:3]).all(axis=(1, 2)).any()
    assert np.isfinite(P[3]).all()


@every_law
def test_wrong_shapes_are_refused(law):
    with pytest.raises(ValueError, match=r"F must have shape \(n, 3, 3\), got \(8, 2, 2\)"):
        law.update(np.ones((8, 2, 2)), law.initial_state(8), DT)
    with pytest.raises(ValueError, match="state must have shape"):
        law.update(np.ones((8, 3, 3)), law.initial_state(7), DT)


def test_names_lead_to_laws_and_others_are_refused():
    for name in (*laws.FINITE, *laws.SMALL):
        law = laws.load_law(name)
        assert name.endswith(law.name) and law.strain == ("finite" if name in laws.FINITE else "small")
    with pytest.raises(ValueError, match="laws are magnesium-recurrent.*laws are magnesium-neo-hookean, "):
        laws.load_law("jhonson-cook")
    with pytest.raises(ValueError, match="yield_stress must be positive, got -1"):
        laws.load_law("magnesium-j2", yield_stress=-1.0)
