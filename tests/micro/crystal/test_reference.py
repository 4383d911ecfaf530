"""The reference of the crystal against closed forms, the first law of thermodynamics and a method of another kind."""

import numpy as np
import pytest

from micro.crystal.materials import load_material
from micro.crystal.reference import (
    ReferenceCrystal,
    cauchy,
    cooperating_signs,
    domain_schmid,
    full_tensor,
    rate_equations,
    reference_crystal,
    solve_grain,
    solve_polycrystal,
)
from micro.crystal.systems import crystal_systems

MAGNESIUM = load_material("magnesium")
#: A trace-free direction of straining that is aligned with no symmetry, norm one.
D = np.array([[0.3, 0.5, -0.2], [0.5, 0.1, 0.4], [-0.2, 0.4, -0.4]])
D /= np.linalg.norm(D)


def crystal_of(**factors: float) -> ReferenceCrystal:
    """Return magnesium with factors on its tau_0; a million locks a family."""
    return reference_crystal(crystal_systems(MAGNESIUM.with_tau_0(**factors)))


def right_cauchy_green(F: np.ndarray) -> np.ndarray:
    return np.swapaxes(F, 1, 2) @ F


def proportional(strain: float, points: int, power: int = 1) -> np.ndarray:
    """Deformation gradients (points, 3, 3) exp(t^power strain D), t from 0 to 1."""
    values, vectors = np.linalg.eigh(D)
    t = np.linspace(0, 1, points)[:, None] ** power
    return np.einsum("ia,ta,ja->tij", vectors, np.exp(strain * t * values), vectors)


def stored(crystal: ReferenceCrystal, F: np.ndarray, F_in: np.ndarray, e: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """Stored energy (T,), J/m^3, Eqs. (A.2) to (A.5) with k off the diagonal, zero for the virgin crystal."""
    A = F @ np.linalg.inv(F_in)
    J = np.linalg.det(A)
    elastic = crystal.G / 2 * ((A**2).sum((1, 2)) / J ** (2 / 3) - 3) + crystal.lambda_e * (J - 1) ** 2
    H = np.outer(crystal.v, crystal.v) * (1 - np.eye(len(crystal.v)))
    s, h = crystal.sigma_inf, crystal.h
    slip = (crystal.r_0 * e + s * (e + s / h * (np.exp(-h * e / s) - 1))).sum(1) + np.einsum("ti,ij,tj->t", e, H, e) / 2
    K = crystal.twin_k * (1 - np.eye(lam.shape[1]))
    return elastic + slip + np.einsum("ti,ij,tj->t", lam, K, lam) + crystal.twin_h / 2 * (lam**2).sum(1)


def dissipation(
    crystal: ReferenceCrystal, C: np.ndarray, F_in: np.ndarray, e: np.ndarray, lam: np.ndarray
) -> np.ndarray:
    """Dissipated power (T,), W/m^3: the viscous resistances times their rates, summed over domains and twins."""
    B = np.linalg.inv(F_in)
    C_e = np.swapaxes(B, 1, 2) @ C @ B
    M = crystal.G * C_e / np.linalg.det(C_e)[:, None, None] ** (1 / 3)
    M = M - np.trace(M, axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3)
    force = np.abs(np.einsum("tij,daij->tda", M, domain_schmid(crystal)))
    grown = 1 - np.exp(-crystal.h * e / crystal.sigma_inf)
    r = crystal.r_0 + crystal.sigma_inf * grown + crystal.v * ((crystal.v * e).sum(1)[:, None] - crystal.v * e)
    over = np.maximum(force - r[:, None], 0)  # tau_0 (rate/rate_0)^m
    rate = crystal.rate_0 * (over / crystal.tau_0) ** crystal.exponent
    w = np.concatenate([1 - lam.sum(1, keepdims=True), lam], axis=1)
    tau = crystal.twin_shear * np.einsum("tij,bi,bj->tb", M, crystal.twin_s, crystal.twin_m)
    r_t = crystal.twin_h * lam + 2 * crystal.twin_k * (lam.sum(1, keepdims=True) - lam)
    over_t = np.maximum(tau - r_t, 0)
    rate_t = crystal.twin_rate_0 * (over_t / crystal.twin_tau_0) ** crystal.twin_exponent
    rate_t = rate_t * (lam.sum(1, keepdims=True) < 1 - 1e-9)
    return np.einsum("td,tda,tda->t", w, over, rate) + (over_t * rate_t).sum(1)


def test_nothing_flows_when_there_is_no_time() -> None:
    crystal, F = crystal_of(), proportional(0.02, 3)
    grain = solve_grain(crystal, right_cauchy_green(F), np.linspace(0, 1e-16, 3))
    np.testing.assert_allclose(grain.F_in[-1], np.eye(3), atol=1e-6)
    sigma = cauchy(crystal, F, grain.F_in)[-1]
    b = F[-1] @ F[-1].T
    np.testing.assert_allclose(sigma, 25e9 * (b - np.trace(b) / 3 * np.eye(3)), atol=1e-4 * np.abs(sigma).max())


def test_prismatic_slip_reaches_its_closed_form_and_relaxes_to_the_hardening() -> None:
    """Simple shear along a prismatic system. The others of the family see half of the stress and harden up to it.

    In steady flow tau = sigma_inf + latent hardening + tau_0 (rate/rate_0)^m; in a hold the last term vanishes.
    """
    crystal = crystal_of(basal=1e6, pyramidal=1e6, twin=1e6)
    s, m, rate, shear = crystal.s[3], crystal.m[3], 4e5, 0.15
    time = np.concatenate([np.linspace(0, shear / rate, 31), [1.0]])
    F = np.eye(3) + rate * np.minimum(time, shear / rate)[:, None, None] * np.outer(s, m)
    grain = solve_grain(crystal, right_cauchy_green(F), time)
    tau = s @ cauchy(crystal, F, grain.F_in) @ m
    latent = 20e6 * grain.e[:, 4:6].sum(1)
    # The elastic shear tau/G, 1 %, turns the stress by as much, and its second-order terms remain.
    assert tau[-2] == pytest.approx(170e6 + latent[-2] + 55e6 * 2.0, rel=4e-3)
    assert tau[-1] == pytest.approx(170e6 + latent[-1], rel=4e-3)
    along = grain.e[-1, 3] + 0.5 * grain.e[-1, 4:6].sum()
    assert along == pytest.approx(shear - tau[-1] / 25e9, rel=2e-3)
    hardened = 170e6 * (1 - np.exp(-40e9 / 170e6 * grain.e[-1, 4:6]))
    assert hardened.max() < 0.52 * tau[-2]


def test_full_twinning_is_a_simple_shear_of_0129_and_extends_c_by_six_per_cent() -> None:
    crystal = crystal_of(basal=1e6, prismatic=1e6, pyramidal=1e6)
    s, m = crystal.twin_s[2], crystal.twin_m[2]
    S = np.outer(s, m)
    time = np.linspace(0, 1e-4, 41)
    F = np.eye(3) + 0.14 * (time / 1e-4)[:, None, None] * S
    grain = solve_grain(crystal, right_cauchy_green(F), time)
    np.testing.assert_allclose(grain.lam[-1], np.eye(6)[2], atol=1e-4)
    np.testing.assert_allclose(grain.F_in[-1], np.eye(3) + 0.129 * S, atol=1e-4)
    assert 0.129 * s[2] * m[2] == pytest.approx(0.064, abs=1e-3)
    assert np.diff(grain.lam, axis=0).min() > -1e-9


def test_work_is_stored_or_dissipated() -> None:
    crystal, duration = crystal_of(), 1e-6
    errors = []
    for points in (41, 81):
        # Short steps at the start, where the twins compete; the strain extends the c axis.
        F, time = proportional(-0.15, points, 2), np.linspace(0, 1, points) ** 2 * duration
        C = right_cauchy_green(F)
        grain = solve_grain(crystal, C, time)
        state = grain.F_in, grain.e, grain.lam
        P = np.linalg.det(F)[:, None, None] * cauchy(crystal, F, grain.F_in) @ np.swapaxes(np.linalg.inv(F), 1, 2)
        work = ((P[1:] + P[:-1]) / 2 * np.diff(F, axis=0)).sum((1, 2))
        power = dissipation(crystal, C, *state)
        assert power.min() >= 0.0
        lost = (power[1:] + power[:-1]) / 2 * np.diff(time)
        gained = np.diff(stored(crystal, F, *state))
        errors.append(abs((work - gained - lost).sum()) / work.sum())
    assert grain.lam[-1].sum() > 0.05
    # The sums are trapezoids, of second order.
    assert errors[1] < 2e-3
    assert errors[1] < 0.5 * errors[0]


def test_another_method_and_a_tighter_tolerance_agree() -> None:
    crystal, F, time = crystal_of(), proportional(0.1, 11), np.linspace(0, 1e-6, 11)
    C = right_cauchy_green(F)
    exact = cauchy(crystal, F, solve_grain(crystal, C, time, rtol=1e-8).F_in)
    for options in ({}, {"method": "BDF"}):
        grain = solve_grain(crystal, C, time, **options)
        error = np.linalg.norm(cauchy(crystal, F, grain.F_in) - exact) / np.linalg.norm(exact)
        assert error < 1e-4
        assert 0 < grain.evaluations


def test_the_direction_of_slip_in_a_twin_matters_to_the_common_rate_alone() -> None:
    crystal, C = crystal_of(), right_cauchy_green(proportional(0.05, 2))[1]
    y = np.concatenate([np.eye(3).ravel(), np.full(12, 1e-3), [0.3, 0, 0, 0, 0, 0.1]])[:, None]
    signs = cooperating_signs(domain_schmid(crystal))
    turned = signs.copy()
    turned[1] *= -1
    common = [rate_equations(crystal, "common", choice)(C, y, False) for choice in (signs, turned)]
    assert np.linalg.norm(common[0] - common[1]) > 0.01 * np.linalg.norm(common[0])
    # The other two have nothing to choose.
    for slip in ("domains", "parent"):
        one, two = (rate_equations(crystal, slip, choice)(C, y, False) for choice in (signs, turned))
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="slip must be 'domains', 'common' or 'parent', got 'both'"):
        rate_equations(crystal, "both")


def test_without_twins_the_three_models_are_one() -> None:
    crystal, C = crystal_of(twin=1e9), right_cauchy_green(proportional(0.05, 3))
    F_in = [solve_grain(crystal, C, np.linspace(0, 1e-6, 3), slip=slip).F_in[-1] for slip in ("domains", "common")]
    np.testing.assert_allclose(*F_in, atol=1e-7)


def test_the_mean_is_weighted_and_turns_with_the_grains() -> None:
    crystal, time = crystal_of(), np.linspace(0, 1e-6, 3)
    U = np.array([[1, 1, 1, 0, 0, 0], [1.01, 1, 0.99, 0.01, 0, 0], [1.02, 1, 0.98, 0.02, 0, 0]])
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    grains = np.stack([np.eye(3), turn])
    both = solve_polycrystal(crystal, grains, U, time, weights=np.array([0.25, 0.75]))
    single = [solve_polycrystal(crystal, q[None], U, time).stress for q in grains]
    np.testing.assert_allclose(both.stress, 0.25 * single[0] + 0.75 * single[1], rtol=1e-12)
    # A quarter turn of path and grain turns the stress.
    F = full_tensor(U)
    turned = turn @ F @ turn.T
    back = np.stack([turned[:, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2))], -1)
    again = turn @ full_tensor(single[0]) @ turn.T
    found = full_tensor(solve_polycrystal(crystal, turn[None], back, time).stress)
    np.testing.assert_allclose(found, again, atol=1e-5 * np.abs(again).max())


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"C must have shape \(T, 3, 3\) and time \(T,\), got \(2, 3, 3\), \(3,\)"):
        solve_grain(crystal_of(), np.zeros((2, 3, 3)), np.zeros(3))
