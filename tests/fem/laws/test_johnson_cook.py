"""The Johnson-Cook law against its own formula, at constant rates, and the reading of its constants."""

import json

import numpy as np
import pytest

from fem.laws import load_law
from fem.laws.von_mises import plastic_increment


@pytest.mark.parametrize("rate", [1e-2, 1.0, 1e3, 1e6])
def test_flow_stress_at_constant_rate(rate):
    law = load_law("magnesium-johnson-cook", A=200e6, B=300e6, n=0.4, C=0.03, rate_0=1.0)
    state, steps = law.initial_state(1), 400
    stretch, dt = 0.4 / steps, 0.4 / steps / rate
    F = np.eye(3)[None]
    for k in range(1, steps + 1):
        # Isochoric, coaxial: the equivalent strain is the logarithmic axial one.
        F = np.diag(np.exp(np.array([1.0, -0.5, -0.5]) * stretch * k))[None]
        e_n = state[0, 6]
        P, state = law.update(F, state, dt)
    tau = P[0] @ F[0].T
    dev = tau - np.trace(tau) / 3.0 * np.eye(3)
    e, plastic_rate = state[0, 6], (state[0, 6] - e_n) / dt
    assert plastic_rate == pytest.approx(rate, rel=0.05)
    expected = (200e6 + 300e6 * e**0.4) * (1.0 + 0.03 * np.log(max(plastic_rate, 1.0)))
    assert np.sqrt(1.5) * np.linalg.norm(dev) == pytest.approx(expected, rel=1e-12)
    assert law.flow_stress(e, plastic_rate) == pytest.approx(expected, rel=1e-12)


def test_the_increment_solves_its_equation_over_many_decades():
    rng = np.random.default_rng(0)
    for _ in range(300):
        law = load_law(
            "magnesium-johnson-cook",
            A=10 ** rng.uniform(6, 9), B=10 ** rng.uniform(5, 9.5), n=rng.uniform(0.1, 1.0), C=10 ** rng.uniform(-4, 0),
            rate_0=10 ** rng.uniform(-4, 4),
        )
        e, dt, G3 = rng.choice([0.0, 10 ** rng.uniform(-8, 0.5)]), 10 ** rng.uniform(-10, 0), 75e9
        q = law.flow_stress(e, 0.0) * (1.0 + 10 ** rng.uniform(-8, 1.5))
        De = plastic_increment(q, G3, e, dt, law.parameters)
        assert 0.0 <= De <= q / G3
        assert q - G3 * De == pytest.approx(law.flow_stress(e + De, De / dt), rel=1e-11)


STEEL = {  # 42CrMo4
    "A": 806e6, "B": 614e6, "C": 0.0089, "n": 0.168, "m": 1.1, "rate_0": 1.0, "specific_heat": 460.0,
    "taylor_quinney": 0.9, "reference_temperature": 293.15, "melting_temperature": 1813.15, "density": 7830.0,
    "shear_modulus": 206.9e9 / 2.6, "bulk_modulus": 206.9e9 / 1.2,
}  # fmt: skip


def stretched(law, strain, steps, rate):
    """State and Kirchhoff von Mises stress after coaxial isochoric tension."""
    state, F = law.initial_state(1), np.eye(3)[None]
    for k in range(1, steps + 1):
        F = np.diag(np.exp(np.array([1.0, -0.5, -0.5]) * strain * k / steps))[None]
        P, state = law.update(F, state, strain / steps / rate)
    tau = P[0] @ F[0].T
    return state[0], np.sqrt(1.5) * np.linalg.norm(tau - np.trace(tau) / 3.0 * np.eye(3))


def test_adiabatic_heating_in_closed_form():
    """Perfect plasticity, m = 1: dtheta/de = k Y (1 - theta), so that theta = 1 - exp(-k Y e), of first order in dt."""
    values = {**STEEL, "B": 0.0, "C": 0.0, "m": 1.0}
    law = load_law("johnson-cook", **values)
    span = values["melting_temperature"] - values["reference_temperature"]
    k = values["taylor_quinney"] / (values["density"] * values["specific_heat"] * span)
    errors = []
    for steps in (50, 100, 200):
        state, stress = stretched(law, 3.0, steps, 1e3)
        theta = (state[7] - values["reference_temperature"]) / span
        errors.append(theta / (1.0 - np.exp(-k * values["A"] * state[6])) - 1.0)
        assert stress == pytest.approx(values["A"] * (1.0 - theta), rel=1e-9)
        assert 0.3 < theta < 0.6
    errors = np.abs(errors)
    assert errors[-1] < 3e-3
    np.testing.assert_allclose(errors[:-1] / errors[1:], 2.0, rtol=0.1)


def test_heat_is_the_plastic_work_of_the_step_and_the_stress_that_of_the_formula():
    law = load_law("johnson-cook", **STEEL)
    assert law.observed == ("equivalent_plastic_strain", "temperature")
    before, _ = stretched(law, 0.5, 200, 1e4)
    assert before[7] > 350.0
    F = np.diag(np.exp(np.array([1.0, -0.5, -0.5]) * 0.5))[None]
    F = (np.eye(3) + 0.02 * np.array([[0.0, 1.0, 0.0], [0.3, 0.0, 0.5], [0.0, 0.0, 0.0]])) @ F
    dt = 1e-6
    P, after = law.update(F, before[None], dt)
    tau = P[0] @ F[0].T
    stress = np.sqrt(1.5) * np.linalg.norm(tau - np.trace(tau) / 3.0 * np.eye(3))
    De, warmer = after[0, 6] - before[6], after[0, 7] - before[7]
    assert De > 1e-3
    assert warmer == pytest.approx(0.9 * stress * De / (7830.0 * 460.0), rel=1e-9)
    theta = (after[0, 7] - 293.15) / 1520.0
    formula = (806e6 + 614e6 * after[0, 6] ** 0.168) * (1.0 + 0.0089 * np.log(De / dt)) * (1.0 - theta**1.1)
    assert stress == pytest.approx(formula, rel=1e-9)
    assert law.flow_stress(after[0, 6], De / dt, after[0, 7]) == pytest.approx(formula, rel=1e-12)


def test_the_tangent_of_a_heated_step_is_its_derivative():
    law = load_law("johnson-cook", **STEEL)
    state, _ = stretched(law, 0.4, 50, 1e4)
    F = np.diag(np.exp(np.array([1.0, -0.5, -0.5]) * 0.41))[None]
    F = F + 0.01 * np.random.default_rng(0).normal(size=(1, 3, 3))
    _, _, dP_dF = law.tangent(F, state[None], 1e-6)
    for k, m in np.ndindex(3, 3):
        ends = []
        for sign in (1.0, -1.0):
            moved = F.copy()
            moved[0, k, m] += sign * 1e-6
            ends.append(law.update(moved, state[None], 1e-6)[0][0])
        np.testing.assert_allclose(dP_dF[0, :, :, k, m], (ends[0] - ends[1]) / 2e-6, atol=1e-6 * np.abs(dP_dF).max())


def test_a_melted_point_has_no_strength_left():
    law = load_law("johnson-cook", **STEEL)
    state = law.initial_state(1)
    state[0, 7] = 1813.15
    F = np.diag([1.1, 1.1**-0.5, 1.1**-0.5])[None]
    P, new = law.update(F, state, 1e-6)
    assert np.abs(P).max() < 1e-6 * 806e6
    assert np.isfinite(new).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"specific_heat": None}, "with m needs specific_heat and melting_temperature"),
        ({"m": None}, "with specific_heat or melting_temperature needs m"),
        ({"taylor_quinney": 1.5}, r"taylor_quinney must be in \[0, 1\], got 1.5"),
        ({"melting_temperature": 200.0}, "melting_temperature - reference_temperature must be positive"),
    ],
)
def test_constants_of_heating_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        load_law("johnson-cook", **{**STEEL, **change})


def test_zero_step_switches_the_rate_off():
    law, slow = load_law("magnesium-johnson-cook", C=0.1), load_law("magnesium-johnson-cook", C=0.0)
    F = np.diag([1.1, 0.95, 0.95])[None]
    state = law.initial_state(1)
    np.testing.assert_array_equal(law.update(F, state, 0.0)[0], slow.update(F, state, 0.0)[0])


def test_constants_come_from_a_file(tmp_path):
    values = {"A": 2e8, "B": 3e8, "n": 0.5, "C": 0.02, "rate_0": 10.0}
    flat, nested = tmp_path / "flat.json", tmp_path / "nested.json"
    flat.write_text(json.dumps(values))
    nested.write_text(json.dumps({"parameters": values, "command": "..."}))
    for path in (flat, nested):
        law = load_law("magnesium-johnson-cook", parameters=path)
        assert law.flow_stress(0.25, 10.0 * np.e) == pytest.approx((2e8 + 1.5e8) * 1.02)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "is not JSON"),
        ("[1, 2]", 'lacks the Johnson-Cook constant "A"'),
        ('{"A": 1e8, "B": 1e8, "n": 0.3, "rate_0": 1}', 'lacks the Johnson-Cook constant "C"'),
        ('{"A": "x", "B": 1e8, "n": 0.3, "C": 0, "rate_0": 1}', 'constant "A" must be a number'),
        ('{"A": 1e8, "B": 1e8, "n": 1.3, "C": 0, "rate_0": 1}', "needs B >= 0"),
        ('{"A": 1e8, "B": 1e8, "n": 0.3, "C": 0, "rate_0": -1}', "rate_0 must be positive"),
    ],
)
def test_bad_constants_are_refused(tmp_path, content, message):
    path = tmp_path / "law.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_law("magnesium-johnson-cook", parameters=path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.json does not exist"):
        load_law("magnesium-johnson-cook", parameters=tmp_path / "absent.json")
