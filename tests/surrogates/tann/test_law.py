"""The law of a TANN: thermodynamics by construction, its tangent, and the lattice cell as exact truth."""

import pytest
import torch

from micro.lattice.bars import IsotropicBar, KinematicBar
from micro.lattice.cell_problem import LatticeCell
from micro.lattice.geometry import make_cell
from surrogates.artifact import switch_fusion_off
from surrogates.artifact.schema import Observable
from surrogates.tann.exact import lattice_law
from surrogates.tann.law import TannLaw

KINEMATIC = KinematicBar()
CELLS = [("square-4", 0.0), ("square-2", 0.2), ("cube-1", 0.0), ("cube-2", 0.2)]


def make_law(name, perturbation, bar=KINEMATIC, script=True):
    switch_fusion_off()
    law = lattice_law(make_cell(name, perturbation=perturbation), bar)
    return torch.jit.script(law) if script else law


def walk(d, n, steps, size, seed=0):
    """Deformation gradients (steps, n, d, d) of a random walk, rotations included."""
    generator = torch.Generator().manual_seed(seed)
    H = size * (2 * torch.rand(steps, n, d, d, dtype=torch.float64, generator=generator) - 1)
    return torch.eye(d, dtype=torch.float64) + H.cumsum(dim=0)


def drive(law, F):
    """Stresses and states along a walk (steps, n, d, d)."""
    state, stresses, states = law.initial_state(F.shape[1]), [], []
    for F_k in F:
        P, state = law.forward(F_k, state, 1.0)
        stresses.append(P)
        states.append(state)
    return torch.stack(stresses), torch.stack(states)


@pytest.mark.parametrize(("name", "perturbation"), CELLS)
@pytest.mark.parametrize("bar", [KinematicBar(), IsotropicBar()])
def test_the_law_of_a_cell_is_the_cell(name, perturbation, bar):
    law, cell = make_law(name, perturbation, bar), make_cell(name, perturbation=perturbation)
    d = cell.dimension
    F = walk(d, 6, 12, 0.3)
    P, states = drive(law, F)
    E = (0.5 * (F + F.mT) - torch.eye(d)).transpose(0, 1)
    truth = LatticeCell(cell, bar).solve(E)
    assert truth.ok.all()
    assert truth.dissipation.sum() > 1.0
    torch.testing.assert_close(P.transpose(0, 1), truth.stress, rtol=1e-9, atol=1e-9)
    observed = torch.stack([law.observe(state) for state in states], dim=1)
    torch.testing.assert_close(observed[..., 0], truth.psi, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(observed[..., 1], truth.dissipation.cumsum(1), rtol=1e-9, atol=1e-12)
    shown = observed[..., 2 + law.variables :]
    b = len(cell.bars)
    torch.testing.assert_close(shown[..., :b], truth.force, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shown[..., b:], truth.displacement.flatten(2), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "perturbation"), CELLS)
def test_the_tangent_is_the_derivative_and_symmetric(name, perturbation):
    law = make_law(name, perturbation, IsotropicBar())
    d = 2 if name.startswith("square") else 3
    F = walk(d, 6, 6, 0.3)
    _, states = drive(law, F[:-1])
    P, new, dP_dF = law.tangent(F[-1], states[-1], 1.0)
    same = law.forward(F[-1], states[-1], 1.0)
    assert torch.equal(P, same[0])
    assert torch.equal(new, same[1])
    h = 1e-7
    for i in range(d):
        for j in range(d):
            D = torch.zeros(d, d, dtype=torch.float64)
            D[i, j] = h
            plus, minus = (law.forward(F[-1] + s * D, states[-1], 1.0)[0] for s in (1, -1))
            torch.testing.assert_close(dP_dF[..., i, j], (plus - minus) / (2 * h), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(dP_dF, dP_dF.permute(0, 3, 4, 1, 2), rtol=1e-12, atol=1e-12)
    elastic = law.tangent(F[:1, 0] * 0 + torch.eye(d), law.initial_state(1), 1.0)[2]
    assert float((dP_dF - elastic).abs().max()) > 0.1  # the states flow


def random_law(N=9, c=6, hardens=True, seed=0):
    """A law of numbers that no lattice has."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(c + N, c + N, dtype=torch.float64, generator=g)
    Q = A @ A.T + torch.eye(c + N)
    k = 0.5 + torch.rand(N, dtype=torch.float64, generator=g)
    h = torch.rand(N, dtype=torch.float64, generator=g) if hardens else None
    names = tuple(Observable(f"x_{i}") for i in range(4))
    decode = {"decode_E": torch.randn(4, c, dtype=torch.float64), "decode_Z": torch.randn(4, N, dtype=torch.float64)}
    return TannLaw(Q[:c, :c], Q[:c, c:], Q[c:, c:], k, h=h, coordinates=names, **decode)


@pytest.mark.parametrize("c", [3, 6])
@pytest.mark.parametrize("hardens", [True, False])
def test_whatever_the_numbers_are_dissipation_is_never_negative_and_balances_the_work(c, hardens):
    law, d = random_law(c=c, hardens=hardens), 2 if c == 3 else 3
    g = torch.Generator().manual_seed(1)
    n = 20000
    state = torch.zeros(n, law.initial_state(1).shape[1], dtype=torch.float64)
    state[:, : law.variables] = torch.randn(n, law.variables, dtype=torch.float64, generator=g)  # states of no history
    if hardens:
        state[:, law.variables : 2 * law.variables] = 3 * torch.rand(n, law.variables, dtype=torch.float64, generator=g)
    F = torch.eye(d) + torch.randn(n, d, d, dtype=torch.float64, generator=g)
    _, new = law.forward(F, state, 1.0)
    D = new[:, -1]
    assert torch.isfinite(new).all()
    assert float(D.min()) >= 0
    assert float((D > 0).double().mean()) > 0.5
    # D = -T . dZ, Eq. (9c), with T = dPsi/dZ at the end of the step, hardening included
    E, N = law.strain(F), law.variables
    dZ = new[:, :N] - state[:, :N]
    T = E @ law.G + new[:, :N] @ law.K
    stored = (law.h * new[:, N : 2 * N] * dZ.abs()).sum(1) if hardens else 0.0
    torch.testing.assert_close(-(T * dZ).sum(1) - stored, D, rtol=1e-8, atol=1e-8)


def test_stress_is_the_derivative_of_the_energy():
    law = random_law()
    F = walk(3, 4, 4, 0.5)
    _, states = drive(law, F)
    state = states[-1]
    E = law.strain(F[-1]).requires_grad_(True)
    psi = law.close(E, state, torch.zeros(4, law.variables, dtype=torch.float64))[1][:, -2]
    (sigma,) = torch.autograd.grad(psi.sum(), E)
    P = law.close(E.detach(), state, torch.zeros(4, law.variables, dtype=torch.float64))[0]
    torch.testing.assert_close(sigma, P.flatten(1) @ law.M.T)


@pytest.mark.parametrize(("name", "perturbation"), CELLS)
def test_a_step_of_no_strain_changes_nothing_to_the_bit(name, perturbation):
    law = make_law(name, perturbation)
    F = walk(2 if name.startswith("square") else 3, 50, 8, 0.3)
    P, states = drive(law, F)
    again, state = law.forward(F[-1], states[-1], 1.0)
    assert torch.equal(state, states[-1])
    assert torch.equal(again, P[-1])


@pytest.mark.parametrize(("name", "perturbation"), CELLS)
def test_virgin_state_and_closed_elastic_cycles(name, perturbation):
    law = make_law(name, perturbation)
    d = 2 if name.startswith("square") else 3
    eye = torch.eye(d, dtype=torch.float64).repeat(5, 1, 1)
    P, state = law.forward(eye, law.initial_state(5), 1.0)
    assert (P == 0).all()
    assert (state == 0).all()
    small = walk(d, 5, 20, 0.005) - torch.eye(d)
    for E in (*small, torch.zeros_like(small[0])):
        P, state = law.forward(eye + E, state, 1.0)
    assert float(P.abs().max()) == 0
    assert float(state.abs().max()) == 0
    # ... and about a state that has flowed
    F = walk(d, 5, 10, 0.3)
    _, states = drive(law, F)
    mean = F[-1] - 0.02 * (F[-1] - F[-2])  # back inside the elastic range
    P_0, state_0 = law.forward(mean, states[-1], 1.0)
    state = state_0
    for E in (1e-4 * small, torch.zeros_like(small[:1])):
        for E_k in E:
            P, state = law.forward(mean + E_k, state, 1.0)
    if float(law.change(law.strain(mean), states[-1])[0].abs().max()) == 0:
        torch.testing.assert_close(P, P_0, rtol=0, atol=1e-10)
        torch.testing.assert_close(state, state_0, rtol=0, atol=1e-10)


def test_no_points():
    for law in (make_law("square-2", 0.2), make_law("cube-1", 0.0)):
        d = law.dimension
        F, state = torch.zeros(0, d, d, dtype=torch.float64), law.initial_state(0)
        P, new, dP_dF = law.tangent(F, state, 1.0)
        assert dP_dF.shape == (0, d, d, d, d)
        assert P.shape == (0, d, d)
        assert new.shape == state.shape
        assert law.observe(state).shape == (0, len(law_names(law)))


def law_names(law):
    """Observed names of a scripted law, from an eager one of the same cell."""
    eager = make_law("square-2", 0.2, script=False) if law.dimension == 2 else make_law("cube-1", 0.0, script=False)
    return eager.describe()["observe"]


def test_bad_numbers_are_refused():
    good = random_law()
    with pytest.raises(ValueError, match="must have shapes"):
        TannLaw(good.C.data, good.G.T.clone(), good.K, good.k)
    with pytest.raises(ValueError, match="k must be positive"):
        TannLaw(good.C.data, good.G, good.K, -good.k)
    with pytest.raises(ValueError, match="positive definite"):
        TannLaw(good.C.data, good.G, -good.K, good.k)
    names = (Observable("a"), Observable("b"))
    with pytest.raises(ValueError, match="for 2 coordinates"):
        TannLaw(good.C.data, good.G, good.K, good.k, decode_E=good.decode_E, coordinates=names)
