"""The study of a law along the paths of its use: its measures, and the paths of its ramps and cycles."""

from types import ModuleType

import numpy as np
import pytest

DEMO = "crystal/law_study.py"


def turned_and_stretched(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """F (1, T, 3, 3) that stretches and turns about the axis 3, and times (1, T)."""
    s = np.linspace(0, 1, steps + 1)
    Q = np.zeros((steps + 1, 3, 3))
    Q[:, 0, 0] = Q[:, 1, 1] = np.cos(s)
    Q[:, 1, 0], Q[:, 0, 1], Q[:, 2, 2] = np.sin(s), -np.sin(s), 1
    F = Q @ np.stack([np.diag([1 + 0.1 * x, 1.0, 1 / (1 + 0.1 * x)]) for x in s])
    return F[None], 1e-6 * s[None]


def test_the_error_is_that_of_the_deviator_weighted_with_time(demo: ModuleType) -> None:
    true = np.zeros((1, 3, 3, 3))
    true[0, :, 0, 1] = true[0, :, 1, 0] = (1.0, 1.0, 2.0)
    pressed = true + 7.0 * np.eye(3)
    assert demo.errors(pressed, true) == pytest.approx(0)
    wrong = true.copy()
    wrong[0, 2] *= 1.5
    assert demo.errors(wrong, true)[0] == pytest.approx((1 / (1 + 1 + 4)) ** 0.5)
    time = np.array([[0.0, 1.0, 1.5]])
    w = np.gradient(time[0])
    assert demo.errors(wrong, true, time)[0] == pytest.approx((w[2] / (w @ np.array([1, 1, 4]))) ** 0.5)


def test_a_path_that_is_cut_finer_has_the_same_stretch(demo: ModuleType) -> None:
    F, time = turned_and_stretched(5)
    fine, times = demo.cut(F, time, 4)
    assert fine.shape[1] == 21 and times[0, ::4] == pytest.approx(time[0])
    C = np.swapaxes(fine, -1, -2) @ fine
    np.testing.assert_allclose(C[:, ::4], np.swapaxes(F, -1, -2) @ F, atol=1e-13)
    np.testing.assert_allclose(C[:, 2], 0.5 * (C[:, 0] + C[:, 4]), atol=1e-13)


def test_ramps_hold_and_cycles_return(demo: ModuleType) -> None:
    F, time, places = demo.ramp(0.3, 1e-6)
    strain = -np.log(F[0, :, 2, 2])
    assert strain[places["ramp"]] == pytest.approx(0.3) == strain[places["16 us"]]
    assert time[0, places["16 us"]] - time[0, places["ramp"]] == pytest.approx(16e-6)
    assert strain[places["unloaded"]] == pytest.approx(0.28) and (np.diff(time) > 0).all()
    F, time, places = demo.cycles()
    strain = -np.log(F[0, :, 2, 2])
    assert strain[-1] == pytest.approx(0.2) and np.ptp(strain[places["held"] :]) == pytest.approx(2e-3, rel=1e-3)
    assert time[0, -1] - time[0, places["held"]] == pytest.approx(200 * 0.2e-6)
    np.testing.assert_allclose(np.linalg.det(F), 1, rtol=1e-12)


def test_trust_tells_a_good_forecast_from_a_bad_one(demo: ModuleType) -> None:
    errors = np.linspace(0.01, 0.3, 30)
    rows = [("walks" if k % 2 else "holds", 1 - e, 1.5 * e, e) for k, e in enumerate(errors)]
    found = demo.trust(rows)
    assert found["correlation of novelty"] == pytest.approx(-1)
    assert found["correlation of expected error"] == pytest.approx(1)
    assert found["within a factor of two"] == 1 and found["paths"] == 30
    assert found["kinds"]["walks"]["expected"] == pytest.approx(1.5 * errors[1::2].mean())
    assert demo.trust([(kind, a, 3 * b, e) for kind, a, b, e in rows])["within a factor of two"] == 0


def test_bad_options_are_refused(demo: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--history", "nowhere.npz"]) == 2
    assert capsys.readouterr().err == "--history must be a file, got nowhere.npz.\n"
    assert demo.main(["--grains", "0"]) == 2
    assert "--grains must be" in capsys.readouterr().err
