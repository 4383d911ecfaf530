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
