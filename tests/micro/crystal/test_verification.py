"""The crystal law against an independent reference, closed forms, thermodynamics and single-crystal experiments.

The reference (`micro.crystal.reference`, tested by itself) is other code and a method of another kind, and all of its
twins slip from the first; that a twin of the law slips from a small fraction on is part of the errors asserted here.
"""

from functools import cache

import numpy as np
import pytest
import torch

from micro.crystal.constants import TOLERANCE
from micro.crystal.materials import load_material
from micro.crystal.paths import random_walk
from micro.crystal.reference import reference_crystal, solve_grain, solve_polycrystal
from micro.crystal.systems import crystal_systems
from micro.crystal.taylor import TaylorPolycrystal
from micro.crystal.texture import even_texture
from micro.tensors import deviator, from_components, matmul, random_rotations, rotation_about, to_components

EYE = torch.eye(3, dtype=torch.float64)
MAGNESIUM = load_material("magnesium")
WITHOUT_TWINS = MAGNESIUM.with_tau_0(twin=1e6)


class One:
    """A texture of one grain; `orientation` turns the crystal's frame into that of the sample."""

    def __init__(self, orientation: torch.Tensor = EYE) -> None:
        self.orientations, self.weights = orientation[None], torch.ones(1, dtype=torch.float64)


def walks(n: int, steps: int, strain: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Stretch (n, T, 6) and times (n, T), s, of random walks of 1 us."""
    paths = random_walk(range(n), 3, strain=strain, steps=steps, knots=3)
    return torch.from_numpy(paths.U), torch.from_numpy(paths.time * paths.duration[:, None])


def deviators(stress: torch.Tensor | np.ndarray) -> torch.Tensor:
    return deviator(from_components(torch.as_tensor(stress)))


def error(stress: torch.Tensor, exact: torch.Tensor | np.ndarray) -> float:
    """Relative L2 error of the deviator over the path."""
    s, ref = deviators(stress), deviators(exact)
    return float((s - ref).norm() / ref.norm())


@cache
def exact_stress(
    twins: bool, slip: str = "domains", grains: int = 3, steps: int = 12, strain: float = 0.5
) -> np.ndarray:
    """The reference's stress (T, 6) along a walk."""
    U, time = walks(1, steps, strain)
    crystal = reference_crystal(crystal_systems(MAGNESIUM if twins else WITHOUT_TWINS))
    orientations = random_rotations(grains, 0).numpy()
    return solve_polycrystal(crystal, orientations, U[0].numpy(), time[0].numpy(), slip=slip, rtol=1e-5).stress


@pytest.mark.parametrize(("twins", "bound"), [(False, 0.003), (True, 0.005)])
def test_default_tolerance_meets_its_target_against_the_reference(twins: bool, bound: float) -> None:
    U, time = walks(1, 12)
    polycrystal = TaylorPolycrystal(3, parameters=MAGNESIUM if twins else WITHOUT_TWINS)
    assert error(polycrystal.solve(U, time).stress[0], exact_stress(twins)) < bound


def test_error_falls_with_the_tolerance() -> None:
    """Without twins; with them the fraction from which a twin slips leaves a floor."""
    U, time = walks(1, 12)
    errors, solves = [], []
    for factor in (1.0, 0.1, 0.01):
        result = TaylorPolycrystal(3, parameters=WITHOUT_TWINS, tolerance=factor * TOLERANCE).solve(U, time)
        errors.append(error(result.stress[0], exact_stress(False)))
        solves.append(float(result.solves[0]))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    # The scheme is of second order: solves grow with the cube root of the tolerance of a step.
    assert solves[2] < 10 * solves[0]


@pytest.mark.parametrize("slip", ["common", "parent"])
def test_the_other_models_of_slip_agree_with_the_reference(slip: str) -> None:
    U, time = walks(1, 5, strain=0.2)
    polycrystal = TaylorPolycrystal(2, parameters=MAGNESIUM, slip=slip)
    exact = exact_stress(True, slip, grains=2, steps=5, strain=0.2)
    assert error(polycrystal.solve(U, time).stress[0], exact) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("twins", "bound"), [(False, 0.003), (True, 0.005)])
def test_targets_on_a_walk_of_the_paper(twins: bool, bound: float) -> None:
    paths = random_walk([0], 0)
    U, time = torch.from_numpy(paths.U), torch.from_numpy(paths.time * 1e-6)
    parameters, grains = MAGNESIUM if twins else WITHOUT_TWINS, 32
    q = random_rotations(grains, 0).numpy()
    crystal = reference_crystal(crystal_systems(parameters))
    exact = solve_polycrystal(crystal, q, U[0].numpy(), time[0].numpy(), rtol=1e-5).stress
    assert error(TaylorPolycrystal(grains, parameters=parameters).solve(U, time).stress[0], exact) < bound


def drive(polycrystal: TaylorPolycrystal, F: torch.Tensor, time: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Lead one point along F (T, 3, 3); return P (T, 3, 3) and the unpacked state at every instant, one grain."""
    state = polycrystal.initial_state(1)
    P, states = [torch.zeros(3, 3, dtype=torch.float64)], [state]
    for k in range(1, len(F)):
        stress, state, ok = polycrystal.update(F[k : k + 1], state, (time[k] - time[k - 1])[None])
        assert bool(ok.all()), f"step {k}"
        P.append(stress[0])
        states.append(state)
    F_in, e, lam = polycrystal.unpack(torch.cat(states))
    return torch.stack(P), F_in[:, 0], e[:, 0], lam[:, 0]


def test_basal_slip_reaches_its_closed_form() -> None:
    """Simple shear along a basal system. The other two, at 60 degrees, see half the stress and help:

    (tau - sigma_inf)^2 + (tau/2 - sigma_inf)^2 = tau_0^2 rate/rate_0 in steady flow with m = 1/2.
    """
    crystal = reference_crystal(crystal_systems(MAGNESIUM))
    s, m = (torch.from_numpy(np.ascontiguousarray(a[0])) for a in (crystal.s, crystal.m))
    rate, shear = 2e5, 0.02
    time = torch.linspace(0, shear / rate, 41, dtype=torch.float64)
    F = EYE + rate * time[:, None, None] * s[:, None] * m
    P, _, _, _ = drive(TaylorPolycrystal(One(), parameters=MAGNESIUM), F, time)
    expected = max(np.roots([1.25, -3 * 0.7, 2 * 0.7**2 - 10.0**2 * rate / 1e5])) * 1e6
    assert float(s @ (P[-1] @ F[-1].T) @ m) == pytest.approx(expected, rel=3e-3)


def test_overstress_relaxes_in_a_hold_to_the_rate_independent_part() -> None:
    """Prismatic slip: sigma_inf + latent + tau_0 (rate/rate_0)^m while it flows; the last term dies in a hold."""
    parameters = MAGNESIUM.with_tau_0(basal=1e6, pyramidal=1e6, twin=1e6)
    crystal = reference_crystal(crystal_systems(parameters))
    s, m = (torch.from_numpy(np.ascontiguousarray(a[3])) for a in (crystal.s, crystal.m))
    rate, shear = 4e5, 0.15
    end = shear / rate
    moving = torch.linspace(0, end, 31, dtype=torch.float64)
    time = torch.cat([moving, end + torch.logspace(-9, 0, 19, dtype=torch.float64)])
    F = EYE + rate * time.clamp(max=end)[:, None, None] * s[:, None] * m
    P, _, e, _ = drive(TaylorPolycrystal(One(), parameters=parameters), F, time)
    tau = torch.einsum("i,tij,tkj,k->t", s, P, F, m)
    hardening = 170e6 + 20e6 * e[:, 4:6].sum(1)
    # The elastic shear tau/G, 1 %, turns the stress by as much, and its second-order terms remain.
    assert float(tau[30]) == pytest.approx(float(hardening[30]) + 55e6 * (rate / 1e5) ** 0.5, rel=4e-3)
    assert float(tau[30:].diff().max()) <= 1e-4 * float(tau[-1])
    assert float(tau[-1]) == pytest.approx(float(hardening[-1]), rel=4e-3)


def test_full_twinning_is_a_simple_shear_of_0129() -> None:
    """Without slip, a shear beyond 0.129 along one twin fills that variant: F_in = I + 0.129 s m, and no more."""
    parameters = MAGNESIUM.with_tau_0(basal=1e6, prismatic=1e6, pyramidal=1e6)
    crystal = reference_crystal(crystal_systems(parameters))
    S = torch.from_numpy(np.outer(crystal.twin_s[2], crystal.twin_m[2]))
    time = torch.linspace(0, 1e-4, 41, dtype=torch.float64)
    F = EYE + 0.14 * (time / 1e-4)[:, None, None] * S
    _, F_in, _, lam = drive(TaylorPolycrystal(One(), parameters=parameters), F, time)
    torch.testing.assert_close(lam[-1], torch.eye(6, dtype=torch.float64)[2], rtol=0, atol=1e-3)
    torch.testing.assert_close(F_in[-1], EYE + 0.129 * S, rtol=0, atol=1e-3)
    assert float(lam.diff(dim=0).min()) >= 0.0
    assert float(lam.sum(1).max()) <= 1.0 + 1e-12


def test_the_losers_of_the_race_keep_what_they_had() -> None:
    """The variant that wins leaves the others at some 1e-5 to 1e-4, which hinders it; a coarse step leaves zero."""
    crystal = reference_crystal(crystal_systems(MAGNESIUM))
    time = torch.linspace(0, 1e-6, 11, dtype=torch.float64)
    D = deviator(torch.tensor([[-0.4, 0.05, 0.1], [0.05, -0.6, -0.05], [0.1, -0.05, 1.0]], dtype=torch.float64))
    F = torch.matrix_exp(0.1 * (time / 1e-6)[:, None, None] * D)
    C = (F.mT @ F).numpy()
    exact = solve_grain(crystal, C, time.numpy()).lam[-1]
    _, _, _, lam = drive(TaylorPolycrystal(One(), parameters=MAGNESIUM), F, time)
    second = np.argsort(exact)[-2]
    assert exact.max() > 0.05 > 1e-3 > exact[second] > 1e-6
    assert int(lam[-1].argmax()) == int(exact.argmax())
    assert float(lam[-1].max()) == pytest.approx(exact.max(), rel=0.01)
    assert float(lam[-1, second]) == pytest.approx(exact[second], rel=0.1)


def stored(F: torch.Tensor, F_in: torch.Tensor, e: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
    """Stored energy (T,), J/m^3, Eqs. (A.2) to (A.5) with k off the diagonal, numbers of table A.1."""
    A = F @ torch.linalg.inv(F_in)
    J = torch.linalg.det(A)
    elastic = 25e9 / 2 * (A.square().sum((1, 2)) / J ** (2 / 3) - 3) + 24e9 * (J - 1) ** 2
    sigma = torch.tensor([0.7e6] * 3 + [170e6] * 3 + [200e6] * 6, dtype=torch.float64)
    h = torch.tensor([7.1e9] * 3 + [40e9] * 3 + [30e9] * 6, dtype=torch.float64)
    v = torch.tensor([0.0] * 3 + [20e6] * 3 + [25e6] * 6, dtype=torch.float64).sqrt()
    H = torch.outer(v, v) * (1 - torch.eye(12, dtype=torch.float64))
    slip = (sigma * (e + sigma / h * torch.expm1(-h * e / sigma))).sum(1) + torch.einsum("ti,ij,tj->t", e, H, e) / 2
    K = 40e9 * (1 - torch.eye(6, dtype=torch.float64))
    return elastic + slip + torch.einsum("ti,ij,tj->t", lam, K, lam) + 7e6 / 2 * lam.square().sum(1)


def test_dissipation_is_never_negative() -> None:
    """Work less stored energy never falls, while straining turns, unloads and holds, with twins."""
    time = torch.linspace(0, 1e-6, 401, dtype=torch.float64)
    D = deviator(torch.tensor([[-0.4, 0.05, 0.1], [0.05, -0.6, -0.05], [0.1, -0.05, 1.0]], dtype=torch.float64))
    amplitude = 0.05 * torch.sin(7e6 * time).clamp(max=0.8)
    F = torch.matrix_exp(amplitude[:, None, None] * D)
    P, *state = drive(TaylorPolycrystal(One(), parameters=MAGNESIUM), F, time)
    work = ((P[1:] + P[:-1]) / 2 * F.diff(dim=0)).sum((1, 2))
    dissipated = work - stored(F, *state).diff()
    assert float(state[2][-1].sum()) > 0.05
    assert float(dissipated.sum()) > 0.1 * float(work.abs().sum())
    # The trapezoidal sum has an error of third order in the step.
    assert float(dissipated.min()) > -1e-3 * float(dissipated.max())


@pytest.mark.slow
def test_anisotropy_falls_with_the_root_of_the_number_of_grains() -> None:
    U, time = walks(3, 6, strain=0.1)
    turns = random_rotations(3, 9)[:, None]
    turned = to_components(matmul(matmul(turns, from_components(U)), turns.mT))
    counts, means = (8, 32, 128, 512), []
    for grains in counts:
        found = []
        for seed in range(4):
            polycrystal = TaylorPolycrystal(grains, seed=seed, parameters=MAGNESIUM)
            plain, other = (deviators(polycrystal.solve(path, time).stress) for path in (U, turned))
            back = matmul(matmul(turns.mT, other), turns)
            found.append(float((back - plain).norm() / plain.norm()))
        means.append(np.mean(found))
    slope = np.polyfit(np.log(counts), np.log(means), 1)[0]
    assert -0.65 < slope < -0.35
    even = TaylorPolycrystal(even_texture(512), parameters=MAGNESIUM)
    plain, other = (deviators(even.solve(path, time).stress) for path in (U, turned))
    assert float((matmul(matmul(turns.mT, other), turns) - plain).norm() / plain.norm()) < 0.6 * means[-1]


# The plane-strain tests of Kelley and Hosford on magnesium crystals (1968, Trans. Metall. Soc. AIME 242, 5):
# compression along one direction between walls that prevent strain along a second; the third is free. That pyramidal
# slip carries compression along c, and {10-12} twinning the crystals whose c axis is extended, is also found by Molodov
# et al. (2023), doi:10.3390/met13040640. Strengths are not compared: ours depend on the rate, with assumed tau_0.
A_AXIS, B_AXIS, C_AXIS = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)  # <2-1-10>, <01-10>, [0001]
CHANNEL_DIE = {
    "A": (C_AXIS, B_AXIS),
    "B": (C_AXIS, A_AXIS),
    "C": (B_AXIS, C_AXIS),
    "D": (A_AXIS, C_AXIS),
    "E": (B_AXIS, A_AXIS),
    "F": (A_AXIS, B_AXIS),
    "G": ((0.5**0.5, 0.0, 0.5**0.5), B_AXIS),
}
TILT = np.deg2rad(1.0)


def crystal_frame(test: str) -> torch.Tensor:
    """Rotation (3, 3) from the frame of the crystal to that of the walls: wall, load, free face."""
    load, wall = (torch.tensor(d, dtype=torch.float64) for d in CHANNEL_DIE[test])
    tilt = rotation_about(torch.tensor([1.0, 2.0, -1.5]), TILT)
    return torch.stack([wall, load, torch.linalg.cross(wall, load)]) @ tilt


def channel_die(
    test: str, strain: float = 0.1, rate: float = 1e5, **factors: float
) -> tuple[dict[str, float], torch.Tensor, torch.Tensor]:
    """Compress a crystal; return the shear of each family, the history of the twin fraction, and the stress, Pa.

    The crystal is one degree off the direction, as a real one is: in the perfect one of E and F, two variants tie and
    hold each other back. F is isochoric: the elastic change of volume that the free face allows is below 0.3 %. The
    stress is the compressive one relative to the free face.
    """
    q = crystal_frame(test)
    eps = torch.linspace(0, strain, 101, dtype=torch.float64)
    F = torch.diag_embed(torch.stack([torch.ones_like(eps), torch.exp(-eps), torch.exp(eps)], -1))
    parameters = MAGNESIUM.with_tau_0(**factors)
    P, _, e, lam = drive(TaylorPolycrystal(One(q), parameters=parameters), F, eps / rate)
    sigma = P @ F.mT
    shear = {"basal": e[-1, :3], "prismatic": e[-1, 3:6], "pyramidal": e[-1, 6:], "twin": 0.129 * lam[-1]}
    return {k: float(v.sum()) for k, v in shear.items()}, lam.sum(1), sigma[:, 2, 2] - sigma[:, 1, 1]


@pytest.mark.parametrize(("test", "mode"), [("A", "pyramidal"), ("B", "pyramidal"), ("C", "prismatic"), ("G", "basal")])
def test_slip_mode_of_a_channel_die_test(test: str, mode: str) -> None:
    shear, lam, _ = channel_die(test)
    assert max(shear, key=lambda family: shear[family]) == mode
    assert shear[mode] > 0.7 * sum(shear.values())
    # c is compressed (A, B, at first G) or held (C): none of these tests is carried by twins.
    assert float(lam[-1]) < 0.15


def test_soft_twins_take_the_shear_of_a_crystal_whose_c_axis_is_held() -> None:
    """D: prismatic slip carries the crystal if its few twins may not slip; if they may, basal slip in them does."""
    assert max(shear := channel_die("D")[0], key=lambda family: shear[family]) == "basal"
    crystal = reference_crystal(crystal_systems(MAGNESIUM))
    q, eps = crystal_frame("D").numpy(), np.linspace(0, 0.1, 51)
    F = np.stack([np.diag([1.0, np.exp(-x), np.exp(x)]) for x in eps])
    C = q.T @ F @ F @ q
    for threshold, family in ((0.0, slice(0, 3)), (2.0, slice(3, 6))):
        grain = solve_grain(crystal, C, eps / 1e5, threshold=threshold, rtol=1e-5)
        assert grain.e[-1, family].sum() > (0.4 if threshold == 0 else 0.8) * grain.e[-1].sum()
        assert 0.02 < grain.lam[-1].sum() < 0.15


@pytest.mark.parametrize("test", ["E", "F"])
def test_crystals_extended_along_c_twin(test: str) -> None:
    _, lam, _ = channel_die(test, strain=0.06)
    assert float(lam[-1]) > 0.4
    others = [float(channel_die(other, strain=0.06)[1][-1]) for other in ("A", "B", "C", "D", "G")]
    assert float(lam[-1]) > 4 * max(others)


def test_the_stress_rises_when_the_crystal_is_full_of_twins() -> None:
    """E at a low rate: a plateau while it twins, then the hard orientation of the twin."""
    _, lam, sigma = channel_die("E", strain=0.1, rate=1e3)
    assert float(lam[80]) < 1.0 - 1e-3 < float(lam[100])
    assert float(sigma[100]) > 2.5 * float(sigma[80])
    assert float(sigma[80]) < 2.5 * float(sigma[20])


def test_twinning_alone_is_exhausted_at_the_strain_of_the_geometry() -> None:
    """E without slip: the crystal is full at gamma_t times the Schmid factor, 6.4 %, and is then elastic."""
    locked = {"basal": 1e6, "prismatic": 1e6, "pyramidal": 1e6}
    crystal = reference_crystal(crystal_systems(MAGNESIUM))
    load = np.array(CHANNEL_DIE["E"][0])
    symmetric = crystal.twin_s[:, 2] * crystal.twin_m[:, 2] - (crystal.twin_s @ load) * (crystal.twin_m @ load)
    full = 0.129 * symmetric.max() / 2
    assert full == pytest.approx(0.064, abs=1e-3)
    _, lam, sigma = channel_die("E", strain=0.08, rate=1e3, **locked)
    eps = np.linspace(0, 0.08, 101)
    at = float(eps[int((lam > 0.98).nonzero()[0])])
    assert at == pytest.approx(full, rel=0.05)
    before, after = (float(sigma[k + 5] - sigma[k]) / (eps[5] - eps[0]) for k in (40, 90))
    assert after == pytest.approx(4 * 25e9, rel=0.05)  # elastic plane strain: 4 G
    assert before < 0.1 * after
