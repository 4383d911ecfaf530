"""The J2 law against closed forms: uniaxial loading, unloading, cycles, and an isochoric plastic flow."""

import numpy as np
import pytest
from scipy.optimize import brentq

from fem.laws import load_law


def uniaxial(law, stretch, state, dt=1e-6):
    """Stress along the axis at a stretch, with free sides; the lateral stretch is solved for."""

    def side(lateral):
        P, _ = law.update(np.diag([stretch, lateral, lateral])[None], state, dt)
        return P[0, 1, 1]

    lateral = brentq(side, 0.8 * stretch**-0.5, 1.2 * stretch**-0.5, xtol=1e-15, rtol=1e-14)
    F = np.diag([stretch, lateral, lateral])[None]
    P, new = law.update(F, state, dt)
    return (P @ np.swapaxes(F, 1, 2))[0, 0, 0], new, F


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_uniaxial_stress_follows_the_hardening_curve(sign):
    law = load_law("magnesium-j2", yield_stress=200e6, linear_hardening=400e6, saturation=100e6, exponent=20.0)
    elastic = load_law("magnesium-neo-hookean")
    state, kinds = law.initial_state(1), set()
    for strain in np.linspace(0.0, 0.3, 121)[1:]:
        tau, state, _ = uniaxial(law, np.exp(sign * strain), state)
        e = state[0, 6]
        # Closed form: the Kirchhoff stress is the flow stress, the rest of the strain is elastic.
        expected = sign * (200e6 + 400e6 * e + 100e6 * (1.0 - np.exp(-20.0 * e)))
        if e == 0.0:
            expected = uniaxial(elastic, np.exp(sign * strain), elastic.initial_state(1))[0]
        kinds.add(bool(e > 0.0))
        assert tau == pytest.approx(expected, rel=1e-9)
    assert kinds == {False, True}
    young = 9.0 * law.bulk_modulus * law.shear_modulus / (3.0 * law.bulk_modulus + law.shear_modulus)
    # Simo's flow rule has tr b / 3 in place of b: the rate of e is right up to the elastic strain, 0.7 % here.
    assert state[0, 6] == pytest.approx(0.3 - abs(tau) / young, rel=abs(tau) / young)


def test_unloading_is_elastic_and_reloading_yields_where_it_stopped():
    law = load_law("magnesium-j2", yield_stress=200e6, linear_hardening=400e6)
    state = law.initial_state(1)
    for strain in np.linspace(0.0, 0.1, 21)[1:]:
        top, state, _ = uniaxial(law, np.exp(strain), state)
    e = state[0, 6]
    young = 9.0 * law.bulk_modulus * law.shear_modulus / (3.0 * law.bulk_modulus + law.shear_modulus)
    down, after, _ = uniaxial(law, np.exp(0.1 - 0.5 * top / young), state)
    assert after[0, 6] == e
    assert down == pytest.approx(0.5 * top, rel=1e-2)
    back, after, _ = uniaxial(law, np.exp(0.1), after)
    assert back == pytest.approx(top, rel=1e-9)
    assert after[0, 6] == pytest.approx(e, rel=1e-9)


def test_a_cycle_of_shear_dissipates_what_the_loop_encloses():
    """Cycles of simple shear, perfect plasticity: work = stored energy + flow stress times plastic strain."""
    Y = 150e6
    law = load_law("magnesium-j2", yield_stress=Y, linear_hardening=0.0)
    path = 0.03 * np.sin(np.linspace(0.0, 4.0 * np.pi, 4001))
    state, F_n = law.initial_state(1), np.eye(3)[None]
    P_n, work = np.zeros((1, 3, 3)), 0.0
    for shear in path[1:]:
        F = np.eye(3)[None].copy()
        F[0, 0, 1] = shear
        P, state = law.update(F, state, 1e-6)
        work += 0.5 * float(np.sum((P + P_n) * (F - F_n)))
        F_n, P_n = F, P
    assert work - law.stored_energy(F_n, state)[0] == pytest.approx(Y * state[0, 6], rel=5e-3)
    assert state[0, 6] > 0.1


def test_plastic_flow_keeps_the_volume():
    law = load_law("magnesium-j2", yield_stress=100e6, linear_hardening=100e6)
    rng = np.random.default_rng(0)
    F, state = np.tile(np.eye(3), (50, 1, 1)), law.initial_state(50)
    for _ in range(200):
        F = F @ (np.eye(3) + 0.02 * rng.uniform(-1, 1, (50, 3, 3)))
        _, state = law.update(F, state, 1e-6)
    a, b, c, d, e, f = state[:, :6].T
    det = a * (b * c - e * e) - d * (d * c - e * f) + f * (d * e - b * f)
    assert np.abs(det - 1.0).max() < 1e-10
    assert state[:, 6].min() > 0.5


def test_constants_are_checked():
    with pytest.raises(ValueError, match="Hardening must not be negative"):
        load_law("magnesium-j2", yield_stress=100e6, linear_hardening=-1.0)
    with pytest.raises(ValueError, match="density must be positive, got nan"):
        load_law("magnesium-j2", density=float("nan"))


def test_the_yield_stress_may_be_that_of_the_cauchy_stress():
    """Confined compression, where det F is far from one: q = Y or q = Y det F of the Kirchhoff stress."""
    F = np.diag([1.0, 1.0, 0.8])[None]
    for measure, factor in (("kirchhoff", 1.0), ("cauchy", 0.8)):
        law = load_law("magnesium-j2", yield_measure=measure)
        P, state = law.update(F, law.initial_state(1), 1e-6)
        tau = P[0] @ F[0].T
        q = np.sqrt(1.5) * np.linalg.norm(tau - np.trace(tau) / 3.0 * np.eye(3))
        assert q == pytest.approx(factor * (150e6 + 300e6 * state[0, 6]), rel=1e-12)
        assert state[0, 6] > 0.1
    G = F + 0.05 * np.random.default_rng(0).normal(size=(1, 3, 3))
    _, _, dP_dF = law.tangent(G, state, 1e-6)
    for k, m in np.ndindex(3, 3):
        ends = []
        for sign in (1.0, -1.0):
            moved = G.copy()
            moved[0, k, m] += sign * 1e-6
            ends.append(law.update(moved, state, 1e-6)[0][0])
        np.testing.assert_allclose(dP_dF[0, :, :, k, m], (ends[0] - ends[1]) / 2e-6, atol=1e-6 * np.abs(dP_dF).max())
    with pytest.raises(ValueError, match='yield_measure must be "kirchhoff" or "cauchy", got "nominal"'):
        load_law("magnesium-j2", yield_measure="nominal")
