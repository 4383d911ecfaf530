"""The single-crystal law against closed forms, symmetry and an independent integration."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from micro.crystal.law import Crystal, CrystalState
from micro.crystal.materials import load_material
from micro.crystal.systems import slip_systems, twin_systems
from micro.tensors import determinant, deviator, matmul, rotation_about

EYE = torch.eye(3, dtype=torch.float64)
GENERATOR = torch.Generator().manual_seed(0)
#: Directions of straining, trace-free, norm one; not aligned with any symmetry.
DIRECTIONS = deviator(torch.randn(6, 3, 3, generator=GENERATOR, dtype=torch.float64))
DIRECTIONS = DIRECTIONS / DIRECTIONS.flatten(1).norm(dim=1)[:, None, None]


def drive(
    crystal: Crystal, F_of_t: Callable[[float], torch.Tensor], times: np.ndarray, n: int = 1
) -> tuple[CrystalState, list[torch.Tensor]]:
    """Lead `n` virgin crystals along F(t) through `times`, starting at the first; return the state and the stresses."""
    state, stresses = crystal.initial_state(n), []
    for t_n, t in pairwise(times):
        F = F_of_t(t).expand(n, 3, 3)
        state, converged = crystal.update(F, state, torch.full((n,), t - t_n, dtype=torch.float64))
        assert bool(converged.all())
        stresses.append(crystal.cauchy(F, state))
    return state, stresses


def test_elastic_limit_is_the_neo_hookean_law() -> None:
    crystal = Crystal()
    F = EYE + 1e-6 * torch.randn(5, 3, 3, generator=GENERATOR, dtype=torch.float64)
    # So fast that nothing can flow.
    state, _ = crystal.update(F, crystal.initial_state(5), torch.full((5,), 1e-22, dtype=torch.float64))
    strain = (F + F.mT) / 2 - EYE
    trace = strain.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
    hooke = 2 * 25e9 * deviator(strain) + 48e9 * trace * EYE
    torch.testing.assert_close(crystal.cauchy(F, state), hooke, rtol=0, atol=1e-5 * float(hooke.abs().max()))


def test_stress_is_the_derivative_of_the_energy() -> None:
    F = (EYE + 0.1 * torch.randn(4, 3, 3, generator=GENERATOR, dtype=torch.float64)).requires_grad_()
    J = torch.linalg.det(F)
    energy = 25e9 / 2 * (F.square().sum((1, 2)) / J ** (2 / 3) - 3) + 24e9 * (J - 1) ** 2  # (A.3)
    (P,) = torch.autograd.grad(energy.sum(), F)
    crystal = Crystal()
    state = crystal.initial_state(4)
    sigma = crystal.cauchy(F.detach(), state)
    torch.testing.assert_close(sigma, (P @ F.mT / J[:, None, None]).detach(), rtol=1e-12, atol=1e-2)


def test_basal_slip_reaches_its_closed_form() -> None:
    """Simple shear along a basal system. The other two, at 60 degrees, see half the stress and help:

    (tau - sigma_inf)^2 + (tau/2 - sigma_inf)^2 = tau_0^2 rate/rate_0 in steady flow with m = 1/2.
    """
    crystal, systems = Crystal(), slip_systems()
    s, m = systems.s[0], systems.m[0]
    rate, shear = 2e5, 0.02
    times = np.linspace(0.0, shear / rate, 401)
    state, stresses = drive(crystal, lambda t: EYE + rate * t * s[:, None] * m[None], times)
    expected = max(np.roots([1.25, -3 * 0.7, 2 * 0.7**2 - 10.0**2 * rate / 1e5])) * 1e6
    # The elastic shear tau/G = 0.05 % turns the stress by as much.
    assert float(s @ stresses[-1][0] @ m) == pytest.approx(expected, rel=2e-3)
    # The first, elastic steps overshoot the flow stress, which lets the other families slip a little, once.
    assert float(state.e[0, 3:].abs().max()) < 0.01 * shear
    along = state.e[0, 0] + 0.5 * (state.e[0, 1] + state.e[0, 2])
    assert float(along) == pytest.approx(shear - expected / 25e9, rel=1e-2)


def test_full_twinning_is_a_simple_shear_of_0129() -> None:
    """Without slip, a shear beyond 0.129 along one twin fills that variant: F_in = I + 0.129 s m, and no more."""
    crystal = Crystal(load_material().with_tau_0(basal=1e6, prismatic=1e6, pyramidal=1e6))
    S = twin_systems().schmid[2]
    times = np.linspace(0.0, 1.0, 401) ** 2 * 1e-4
    state, _ = drive(crystal, lambda t: EYE + 0.14 * t / 1e-4 * S, times)
    expected = torch.eye(6, dtype=torch.float64)[2]
    torch.testing.assert_close(state.lam[0], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(state.F_in[0], EYE + 0.129 * S, rtol=0, atol=1e-6)
    assert float(crystal.rates(state.F, state)[1].abs().max()) == 0.0  # no more than the whole crystal can twin


def test_twin_fractions_grow_only_and_stay_below_one() -> None:
    crystal = Crystal()
    D = torch.diag(torch.tensor([-0.5, -0.5, 1.0], dtype=torch.float64)) * 0.3
    D = D + 0.02 * DIRECTIONS[0]  # off the symmetric direction, where all six variants tie
    states = []
    state = crystal.initial_state(1)
    for k in range(1, 241):
        t = np.sin(k / 240 * 3 * np.pi)  # stretch and compress the c axis
        F = torch.linalg.matrix_exp(t * D)[None]
        state, _ = crystal.update(F, state, torch.full((1,), 1e-7, dtype=torch.float64))
        states.append(state.lam[0])
    lam = torch.stack(states)
    assert float(lam.diff(dim=0).min()) >= 0.0
    assert 0.5 < float(lam[-1].sum()) <= 1.0 + 1e-12


@pytest.mark.parametrize("duration", [1e-6, 1e-4])
def test_inelastic_deformation_stays_isochoric(duration: float) -> None:
    crystal = Crystal()
    D = 0.5 * DIRECTIONS
    state, ok = crystal.initial_state(6), []
    for k in range(1, 101):
        F = torch.linalg.matrix_exp(k / 100 * D)
        state, converged = crystal.update(F, state, torch.full((6,), duration / 100, dtype=torch.float64))
        ok.append(bool(converged.all()))
    assert all(ok)
    torch.testing.assert_close(determinant(state.F_in), torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-10)


def ode_stress(crystal: Crystal, D: torch.Tensor, duration: float) -> np.ndarray:
    """Integrate the rate equations along F = exp(t/duration D) with SciPy's Radau; return the final stress."""

    def state_of(y: np.ndarray) -> CrystalState:
        F_in, e, lam = torch.from_numpy(y[:9]).reshape(1, 3, 3), torch.from_numpy(y[9:21]), torch.from_numpy(y[21:])
        return CrystalState(EYE[None], F_in, e[None], lam[None], *crystal.initial_state(1)[4:])

    def rhs(t: float, y: np.ndarray) -> np.ndarray:
        state = state_of(y)
        gamma, lam, L = crystal.rates(torch.linalg.matrix_exp(t / duration * D)[None], state)
        return torch.cat([matmul(L, state.F_in).flatten(), gamma.abs()[0], lam[0]]).numpy()

    start = np.concatenate([np.eye(3).ravel(), np.zeros(18)])
    solution = solve_ivp(rhs, (0.0, duration), start, method="Radau", rtol=1e-6, atol=1e-9)
    assert solution.success
    return crystal.cauchy(torch.linalg.matrix_exp(D)[None], state_of(solution.y[:, -1]))[0].numpy()


@pytest.mark.parametrize(("case", "duration"), [(0, 1e-6), (2, 1e-4), pytest.param(3, 1e-4, marks=pytest.mark.slow)])
def test_agrees_with_an_independent_stiff_integration(case: int, duration: float) -> None:
    """Equal time steps would miss how twin variants compete in the first nanoseconds; these grow quadratically."""
    crystal, D = Crystal(), 0.05 * DIRECTIONS[case]
    times = np.linspace(0.0, 1.0, 801) ** 2 * duration
    _, stresses = drive(crystal, lambda t: torch.linalg.matrix_exp(t / duration * D), times)
    expected = ode_stress(crystal, D, duration)
    error = np.linalg.norm(stresses[-1][0].numpy() - expected) / np.linalg.norm(expected)
    assert error < 0.005


def test_first_order_in_time() -> None:
    # Without twins, whose competition in the first nanoseconds would need far smaller steps.
    crystal, D = Crystal(load_material().with_tau_0(twin=1e6)), 0.1 * DIRECTIONS[0]

    def final(n: int) -> torch.Tensor:
        return drive(crystal, lambda t: torch.linalg.matrix_exp(t / 1e-5 * D), np.linspace(0, 1e-5, n + 1))[1][-1]

    reference = final(1600)
    errors = [float((final(n) - reference).norm()) for n in (50, 100, 200)]
    assert errors[0] / errors[1] > 1.6 and errors[1] / errors[2] > 1.6


def test_crystal_symmetry_and_frame_indifference() -> None:
    """A six-fold turn of the crystal about c, or a superposed rotation, changes nothing."""
    crystal, D = Crystal(tolerance=1e-12), 0.08 * DIRECTIONS[1]
    six = rotation_about(torch.tensor([0.0, 0.0, 1.0]), torch.pi / 3)
    spin = rotation_about(torch.tensor([1.0, -2.0, 0.5]), 1.1)
    times = np.linspace(0.0, 1e-5, 101)
    _, plain = drive(crystal, lambda t: torch.linalg.matrix_exp(t / 1e-5 * D), times)
    _, turned = drive(crystal, lambda t: six.T @ torch.linalg.matrix_exp(t / 1e-5 * D) @ six, times)
    _, spun = drive(crystal, lambda t: spin @ torch.linalg.matrix_exp(t / 1e-5 * D), times)
    scale = float(plain[-1].abs().max())
    torch.testing.assert_close(six @ turned[-1] @ six.T, plain[-1], rtol=0, atol=1e-10 * scale)
    torch.testing.assert_close(spin.T @ spun[-1] @ spin, plain[-1], rtol=0, atol=1e-10 * scale)


def test_a_halved_step_is_frame_indifferent() -> None:
    """Too few iterations force halvings, and a frame that turns from step to step must not be seen."""
    few, bare = (Crystal(iterations=5, halvings=halvings, tolerance=1e-9) for halvings in (10, 0))
    dt = torch.full((6,), 1e-6, dtype=torch.float64)
    plain, spun, halved = few.initial_state(6), few.initial_state(6), 0
    for k in range(1, 11):
        F = torch.linalg.matrix_exp(k / 10 * 0.1 * DIRECTIONS)
        spin = rotation_about(torch.tensor([1.0, -2.0, 0.5]), 0.3 * k)
        halved += int((~bare.update(F, plain, dt)[1]).sum())
        plain, converged = few.update(F, plain, dt)
        spun, _ = few.update(spin @ F, spun, dt)
        assert bool(converged.all())
    assert halved >= 10
    torch.testing.assert_close(spun.F_in, plain.F_in, rtol=0, atol=1e-11)
    torch.testing.assert_close(spun.m, plain.m, rtol=0, atol=1e-9 * float(plain.m.abs().max()))


def test_deviator_depends_on_the_isochoric_history_alone() -> None:
    """The Kirchhoff deviator is blind to J, and the pressure is 2 lambda_e (J - 1): surrogates rely on it."""
    crystal, D = Crystal(), 0.1 * DIRECTIONS[4]
    times = np.linspace(0.0, 1e-5, 101)

    def F_of(t: float) -> torch.Tensor:
        return torch.linalg.matrix_exp(t / 1e-5 * D)

    _, plain = drive(crystal, F_of, times)
    _, swollen = drive(crystal, lambda t: (1 + 0.3 * np.sin(t * 3e5)) * F_of(t), times)
    J = (1 + 0.3 * np.sin(1e-5 * 3e5)) ** 3
    difference = deviator(J * swollen[-1] - plain[-1])
    assert float(difference.abs().max()) < 1e-6 * float(plain[-1].abs().max())
    pressure = swollen[-1][0].diagonal().mean()
    assert float(pressure) == pytest.approx(2 * 24e9 * (J - 1), rel=1e-12)


def test_result_does_not_depend_on_the_batch() -> None:
    crystal = Crystal()
    times = np.linspace(0.0, 1e-4, 21)
    batch = crystal.initial_state(6)
    for t_n, t in pairwise(times):
        F = torch.linalg.matrix_exp(t / 1e-4 * 0.2 * DIRECTIONS)
        batch, _ = crystal.update(F, batch, torch.full((6,), t - t_n, dtype=torch.float64))
    for i in range(6):
        alone, _ = drive(crystal, lambda t, i=i: torch.linalg.matrix_exp(t / 1e-4 * 0.2 * DIRECTIONS[i]), times)
        torch.testing.assert_close(alone.F_in[0], batch.F_in[i], rtol=0, atol=1e-9)


def test_different_slip_exponents_are_refused() -> None:
    p = load_material()
    with pytest.raises(ValueError, match="m must be the same for all slip families"):
        Crystal(replace(p, slip=(replace(p.slip[0], m=0.2), *p.slip[1:])))


def test_hardening_is_the_derivative_of_the_stored_energy() -> None:
    """(A.4), (A.5) with k_ij off the diagonal, differentiated by autograd."""
    crystal = Crystal()
    e = (0.01 * torch.rand(3, 12, generator=GENERATOR, dtype=torch.float64)).requires_grad_()
    lam = (0.1 * torch.rand(3, 6, generator=GENERATOR, dtype=torch.float64)).requires_grad_()
    h = torch.tensor([7.1e9] * 3 + [40e9] * 3 + [30e9] * 6, dtype=torch.float64)
    sigma = torch.tensor([0.7e6] * 3 + [170e6] * 3 + [200e6] * 6, dtype=torch.float64)
    h_ij = torch.tensor([0.0] * 3 + [20e6] * 3 + [25e6] * 6, dtype=torch.float64)
    H = (h_ij[:, None] * h_ij[None]).sqrt() * (1 - torch.eye(12, dtype=torch.float64))
    K = 40e9 * (1 - torch.eye(6, dtype=torch.float64))
    energy = 0.5 * torch.einsum("ni,ij,nj->n", e, H, e) + (sigma * (e + sigma / h * torch.exp(-h * e / sigma))).sum(-1)
    energy = energy + torch.einsum("ni,ij,nj->n", lam, K, lam) + 0.5 * 7e6 * lam.square().sum(-1)
    slip, twin = torch.autograd.grad(energy.sum(), (e, lam))
    got = crystal.resistance(e.detach(), lam.detach())
    torch.testing.assert_close(got[0], slip)
    torch.testing.assert_close(got[1], twin)
