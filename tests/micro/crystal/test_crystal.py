"""The single-crystal law against closed forms, energy, symmetry, and the order of its scheme."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from micro.crystal.integrator import CrystalState
from micro.crystal.law import Crystal
from micro.crystal.materials import load_material
from micro.crystal.systems import slip_systems, twin_systems
from micro.tensors import determinant, deviator, rotation_about

EYE = torch.eye(3, dtype=torch.float64)
GENERATOR = torch.Generator().manual_seed(0)
#: Directions of straining, trace-free, norm one; not aligned with any symmetry.
DIRECTIONS = deviator(torch.randn(6, 3, 3, generator=GENERATOR, dtype=torch.float64))
DIRECTIONS = DIRECTIONS / DIRECTIONS.flatten(1).norm(dim=1)[:, None, None]
#: A crystal whose twins never grow, so that nothing but smooth slip is left.
NO_TWINS = load_material().with_tau_0(twin=1e8)


def drive(
    crystal: Crystal, F_of_t: Callable[[float], torch.Tensor], times: np.ndarray, n: int = 1
) -> list[tuple[torch.Tensor, CrystalState]]:
    """Lead `n` virgin crystals along F(t) through `times`, where F = I at the first; return F and state at each."""
    state, F = crystal.initial_state(n), EYE.expand(n, 3, 3)
    history = [(F, state)]
    for t_n, t in zip(times[:-1], times[1:], strict=True):
        F_n, F = F, F_of_t(t).expand(n, 3, 3)
        dt = torch.full((n,), t - t_n, dtype=torch.float64)
        outcome = crystal.update(F_n.mT @ F_n, F.mT @ F, state, dt)
        assert not bool(outcome.status.any())
        state = outcome.state
        history.append((F, state))
    return history


def straight(D: torch.Tensor, duration: float) -> Callable[[float], torch.Tensor]:
    """Return F(t) whose right Cauchy-Green tensor goes in a straight line from I to exp(2 D): its symmetric root."""
    C1 = torch.linalg.matrix_exp(D + D.mT)

    def F(t: float) -> torch.Tensor:
        values, vectors = torch.linalg.eigh(EYE + (C1 - EYE) * (t / duration))
        return (vectors * values.sqrt()[..., None, :]) @ vectors.mT

    return F


def test_elastic_limit_is_the_neo_hookean_law() -> None:
    crystal = Crystal()
    F = EYE + 1e-6 * torch.randn(5, 3, 3, generator=GENERATOR, dtype=torch.float64)
    # So fast that nothing can flow.
    outcome = crystal.update(EYE.expand(5, 3, 3), F.mT @ F, crystal.initial_state(5), torch.full((5,), 1e-22).double())
    strain = (F + F.mT) / 2 - EYE
    trace = strain.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
    hooke = 2 * 25e9 * deviator(strain) + 48e9 * trace * EYE
    torch.testing.assert_close(crystal.cauchy(F, outcome.state), hooke, rtol=0, atol=1e-5 * float(hooke.abs().max()))
    assert outcome.solves.tolist() == [2] * 5


def test_stress_is_the_derivative_of_the_energy() -> None:
    F = (EYE + 0.1 * torch.randn(4, 3, 3, generator=GENERATOR, dtype=torch.float64)).requires_grad_()
    B = torch.linalg.matrix_exp(0.1 * DIRECTIONS[:4])
    J, A = torch.linalg.det(F), F @ B
    energy = 25e9 / 2 * (A.square().sum((1, 2)) / J ** (2 / 3) - 3) + 24e9 * (J - 1) ** 2  # (A.3)
    (P,) = torch.autograd.grad(energy.sum(), F)
    crystal = Crystal()
    state = crystal.initial_state(4)._replace(B=B)
    sigma = crystal.cauchy(F.detach(), state)
    torch.testing.assert_close(sigma, (P @ F.mT / J[:, None, None]).detach(), rtol=1e-12, atol=1e-2)


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
    energy = 0.5 * torch.einsum("ni,ij,nj->n", e, H, e) + (sigma * (e + sigma / h * torch.expm1(-h * e / sigma))).sum(-1)
    energy = energy + torch.einsum("ni,ij,nj->n", lam, K, lam) + 0.5 * 7e6 * lam.square().sum(-1)
    slip, twin = torch.autograd.grad(energy.sum(), (e, lam))
    got = crystal.resistance(e.detach(), lam.detach())
    torch.testing.assert_close(got[0], slip)
    torch.testing.assert_close(got[1], twin)
    state = crystal.initial_state(3)._replace(e=e.detach(), lam=lam.detach())
    torch.testing.assert_close(crystal.energy(EYE.expand(3, 3, 3), state), energy.detach())


def test_basal_slip_reaches_its_closed_form() -> None:
    """Simple shear along a basal system. The other two, at 60 degrees, see half the stress and help:

    (tau - sigma_inf)^2 + (tau/2 - sigma_inf)^2 = tau_0^2 rate/rate_0 in steady flow with m = 1/2.
    """
    crystal, systems = Crystal(), slip_systems()
    s, m = systems.s[0], systems.m[0]
    rate, shear = 2e5, 0.02
    times = np.linspace(0.0, shear / rate, 41)
    F, state = drive(crystal, lambda t: EYE + rate * t * s[:, None] * m[None], times)[-1]
    expected = max(np.roots([1.25, -3 * 0.7, 2 * 0.7**2 - 10.0**2 * rate / 1e5])) * 1e6
    # The elastic shear tau/G = 0.05 % turns the stress by as much.
    assert float(s @ crystal.cauchy(F, state)[0] @ m) == pytest.approx(expected, rel=2e-3)
    assert float(state.e[0, 3:].abs().max()) < 0.01 * shear  # while the stress builds up
    along = state.e[0, 0] + 0.5 * (state.e[0, 1] + state.e[0, 2])
    assert float(along) == pytest.approx(shear - expected / 25e9, rel=2e-3)


def test_full_twinning_is_a_simple_shear_of_0129() -> None:
    """Without slip, a shear beyond 0.129 along one twin fills that variant: F_in = I + 0.129 s m, and no more."""
    crystal = Crystal(load_material().with_tau_0(basal=1e6, prismatic=1e6, pyramidal=1e6))
    S = twin_systems().schmid[2]
    times = np.linspace(0.0, 1e-4, 9)
    F, state = drive(crystal, lambda t: EYE + 0.14 * t / 1e-4 * S, times)[-1]
    expected = torch.eye(6, dtype=torch.float64)[2]
    torch.testing.assert_close(state.lam[0], expected, rtol=0, atol=1e-3)
    assert float(state.lam.sum()) == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(torch.linalg.inv(state.B[0]), EYE + 0.129 * S, rtol=0, atol=1e-3)
    assert float(crystal.rates(F.mT @ F, state).lam.abs().max()) == 0.0  # no more than the whole crystal can twin


def test_twin_fractions_grow_only_and_stay_below_one() -> None:
    crystal = Crystal()
    D = torch.diag(torch.tensor([-0.5, -0.5, 1.0], dtype=torch.float64)) * 0.2
    D = D + 0.02 * DIRECTIONS[0]  # off the symmetric direction, where all six variants tie
    times = np.linspace(0.0, 1e-5, 25)
    history = drive(crystal, lambda t: torch.linalg.matrix_exp(np.sin(t / 1e-5 * 3 * np.pi) * D), times)
    lam = torch.stack([state.lam[0] for _, state in history])
    assert float(lam.diff(dim=0).min()) >= 0.0
    assert 0.5 < float(lam[-1].sum()) <= 1.0 + 1e-12
    det = torch.stack([determinant(state.B)[0] for _, state in history])
    torch.testing.assert_close(det, torch.ones_like(det), rtol=0, atol=1e-12)


def test_fixed_steps_are_of_second_order() -> None:
    """Twice as many steps leave a quarter of the error, against a solution of another scheme of steps: the adaptive."""
    D = 0.03 * DIRECTIONS[:3]
    F = straight(D, 1e-5)
    times = np.array([0.0, 1e-5])
    reference = Crystal(NO_TWINS, tolerance=1e-6)
    (_, start), (end, exact) = drive(reference, F, times, 3)
    errors = []
    for n in (100, 200, 400):
        crystal = Crystal(NO_TWINS, substeps=n, tolerance=1e-8)
        state = drive(crystal, F, times, 3)[-1][1]
        errors.append(float((crystal.cauchy(end, state) - crystal.cauchy(end, exact)).norm()))
    assert errors[0] / errors[1] > 3.2 and errors[1] / errors[2] > 3.2
    assert errors[2] < 1e-3 * float(reference.cauchy(end, exact).norm())


def test_error_follows_the_tolerance() -> None:
    D = 0.05 * DIRECTIONS
    F, times = straight(D, 1e-5), np.array([0.0, 1e-5])
    crystal = Crystal(tolerance=1e-6)
    end, state = drive(crystal, F, times, 6)[-1]
    assert float(state.lam.max()) > 0.1
    exact = crystal.cauchy(end, state)
    errors = []
    for tolerance in (1e-2, 1e-3, 1e-4):
        state = drive(Crystal(tolerance=tolerance), F, times, 6)[-1][1]
        errors.append(float((crystal.cauchy(end, state) - exact).norm() / exact.norm()))
    assert errors[0] < 0.02
    assert errors[1] < 0.4 * errors[0] and errors[2] < 0.4 * errors[1]


@pytest.mark.parametrize("slip", ["domains", "common", "parent"])
def test_work_is_stored_or_dissipated(slip: str) -> None:
    """Along a straight path of C, by Simpson's rule over instants that become dense where the rates change fast."""
    D, duration, imbalance = 0.04 * DIRECTIONS[:3], 1e-6, []
    crystal = Crystal(slip=slip, tolerance=1e-5)
    F = straight(D, duration)
    for n in (40, 80):
        times = duration * np.linspace(0.0, 1.0, 2 * n + 1) ** 2
        history = drive(crystal, F, times, 3)
        C = [f.mT @ f for f, _ in history]
        rate = (C[-1] - C[0]) / duration
        power = [(crystal.second_piola(c, state) * rate).sum((1, 2)) / 2 for c, (_, state) in zip(C, history)]
        loss = torch.stack([crystal.dissipation(c, state) for c, (_, state) in zip(C, history)])
        assert float(loss.min()) >= 0.0
        weight = torch.from_numpy(np.gradient(times, edge_order=1))
        weight[0] = weight[-1] = 0.0
        weight[0], weight[-1] = (times[1] - times[0]) / 2, (times[-1] - times[-2]) / 2
        work, lost = (weight @ torch.stack(power), weight @ loss)
        stored = crystal.energy(C[-1], history[-1][1]) - crystal.energy(C[0], history[0][1])
        imbalance.append(float(((work - lost - stored).abs() / work).max()))
        assert bool((lost > 0.1 * work).all())
    assert imbalance[1] < 2e-3
    assert imbalance[1] < 0.4 * imbalance[0]


def reversed_in_twins(crystal: Crystal) -> Crystal:
    """Return the crystal with the direction of every other slip system reversed inside every twin."""
    systems = crystal.rules.systems
    sign = torch.ones_like(systems.slip[:, :, :1])
    sign[::2, 1:] = -1.0
    turned = replace(systems, slip=systems.slip * sign, slip5=systems.slip5 * sign)
    crystal.rules = replace(crystal.rules, systems=turned)
    return crystal


def test_the_sense_of_a_slip_direction_in_a_twin_matters_in_the_common_rule_alone() -> None:
    F, times = straight(0.08 * DIRECTIONS[:4], 1e-5), np.array([0.0, 1e-5])
    change = {}
    for slip in ("domains", "common"):
        stress = []
        for crystal in (Crystal(slip=slip), reversed_in_twins(Crystal(slip=slip))):
            end, state = drive(crystal, F, times, 4)[-1]
            assert float(state.lam.sum(-1).max()) > 0.2
            stress.append(deviator(crystal.cauchy(end, state)))
        change[slip] = float((stress[1] - stress[0]).norm() / stress[0].norm())
    assert change["domains"] < 1e-8
    assert change["common"] > 0.02


def test_rules_for_slip_agree_as_long_as_nothing_has_twinned() -> None:
    F, times = straight(0.03 * DIRECTIONS[:2], 1e-5), np.array([0.0, 1e-5])
    found = [drive(Crystal(NO_TWINS, slip=slip), F, times, 2)[-1][1] for slip in ("domains", "common", "parent")]
    for state in found[1:]:
        torch.testing.assert_close(state.B, found[0].B, rtol=0, atol=1e-9)


def test_crystal_symmetry() -> None:
    """A six-fold turn of the crystal about c changes nothing."""
    crystal = Crystal(tolerance=1e-4)
    six = rotation_about(torch.tensor([0.0, 0.0, 1.0]), torch.pi / 3)
    F, times = straight(0.05 * DIRECTIONS[1:2], 1e-5), np.array([0.0, 1e-5])
    end, plain = drive(crystal, F, times)[-1]
    end_turned, turned = drive(crystal, lambda t: six.T @ F(t) @ six, times)[-1]
    sigma = crystal.cauchy(end, plain)
    back = six @ crystal.cauchy(end_turned, turned) @ six.T
    torch.testing.assert_close(back, sigma, rtol=0, atol=1e-7 * float(sigma.abs().max()))


def test_deviator_depends_on_the_isochoric_history_alone() -> None:
    """The Kirchhoff deviator is blind to J, and the pressure is 2 lambda_e (J - 1): surrogates rely on it.

    Between two instants C is linear in time, so that the isochoric histories differ a little there: the smaller the
    steps, the less.
    """
    crystal, F = Crystal(tolerance=1e-4), straight(0.04 * DIRECTIONS[4:5], 1e-5)
    J = lambda t: (1 + 0.1 * np.sin(t * 3e5)) ** 3
    differences = []
    for n in (6, 12):
        times = np.linspace(0.0, 1e-5, n + 1)
        end, plain = drive(crystal, F, times)[-1]
        swollen_end, swollen = drive(crystal, lambda t: J(t) ** (1 / 3) * F(t), times)[-1]
        sigma, swollen_sigma = crystal.cauchy(end, plain), crystal.cauchy(swollen_end, swollen)
        volume = determinant(swollen_end)[:, None, None]
        differences.append(float(deviator(volume * swollen_sigma - determinant(end)[:, None, None] * sigma).norm()))
        pressure = swollen_sigma[0].diagonal().mean()
        assert float(pressure) == pytest.approx(2 * 24e9 * (float(volume) - 1), rel=1e-11)
    assert differences[0] < 0.02 * float(deviator(sigma).norm())
    assert differences[1] < 0.5 * differences[0]


def test_result_does_not_depend_on_the_batch() -> None:
    crystal, F, times = Crystal(), straight(0.1 * DIRECTIONS, 1e-5), np.linspace(0.0, 1e-5, 4)
    batch = drive(crystal, F, times, 6)[-1][1]
    for i in (0, 3):
        alone = drive(crystal, lambda t, i=i: F(t)[i], times)[-1][1]
        for field, whole in zip(alone, batch, strict=True):
            torch.testing.assert_close(field[0], whole[i], rtol=1e-7, atol=1e-11)


def test_no_time_means_an_elastic_change() -> None:
    crystal = Crystal()
    F, state = drive(crystal, straight(0.03 * DIRECTIONS[:2], 1e-5), np.array([0.0, 1e-5]), 2)[-1]
    outcome = crystal.update(F.mT @ F, 1.02 * F.mT @ F, state, torch.zeros(2, dtype=torch.float64))
    assert outcome.status.tolist() == [0, 0]
    torch.testing.assert_close(outcome.state.B, state.B, rtol=0, atol=0)
    torch.testing.assert_close(outcome.state.m, state.m, rtol=1e-3, atol=0.1)  # the isochoric part has not changed


def test_different_slip_exponents_are_refused() -> None:
    p = load_material()
    with pytest.raises(ValueError, match="m must be the same for all slip families"):
        Crystal(replace(p, slip=(replace(p.slip[0], m=0.2), *p.slip[1:])))


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="tolerance must lie between 0 and 1, got 0"):
        Crystal(tolerance=0.0)
    with pytest.raises(ValueError, match="substeps must not be negative, got -2"):
        Crystal(substeps=-2)
    with pytest.raises(ValueError, match="slip must be one of domains, common, parent, got 'plain'"):
        Crystal(slip="plain")
