"""The auxiliary problem of a lattice cell: closed forms, balance of energy, tangent, and what it must not depend on."""

import itertools

import numpy as np
import pytest
import torch

from micro.lattice.bars import IsotropicBar, KinematicBar
from micro.lattice.cell_problem import LatticeCell
from micro.lattice.geometry import custom_cell, make_cell

LAWS = [KinematicBar(), IsotropicBar()]
REGULAR = ["square-1", "square-2", "square-4", "square-6", "cube-1", "cube-2"]
PERTURBED = ["square-2", "square-6", "cube-2"]


def walks(d, n=6, steps=8, size=0.15, seed=0):
    """Random strain walks (n, steps + 1, d, d) that begin at zero and go far into yield."""
    dE = np.random.default_rng(seed).uniform(-size, size, size=(n, steps + 1, d, d))
    dE[:, 0] = 0
    return torch.from_numpy(((dE + dE.swapaxes(2, 3)) / 2).cumsum(axis=1))


def perturbed(name, law, seed=1):
    return LatticeCell(make_cell(name, perturbation=0.2, seed=seed), law)


def closed_form(E, law):
    """Stress, energy and dissipation of a regular cell: a sum over the directions of a unit, each with its own state.

    E (s, T, d, d). A unit holds one bar of each direction n, of length |n| and cross-section 1, in the volume 1.
    """
    d = E.shape[-1]
    directions = [v for v in itertools.product((-1, 0, 1), repeat=d) if v > (0,) * d]
    assert len(directions) == {2: 4, 3: 13}[d]
    stress, psi, dissipation = np.zeros(E.shape), np.zeros(E.shape[:2]), np.zeros(E.shape[:2])
    for v in directions:
        length = np.linalg.norm(v)
        n = np.array(v) / length
        state = np.zeros((len(E), law.state_size))
        for t in range(E.shape[1]):
            strain = np.einsum("sij,i,j->s", E[:, t], n, n)
            sigma, new, _ = law.update(strain, state)
            stress[:, t] += length * sigma[:, None, None] * np.outer(n, n)
            psi[:, t] += length * law.energy(strain, new)
            dissipation[:, t] += length * law.dissipation(state, new)
            state = new
    return stress, psi, dissipation


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("name", REGULAR)
def test_regular_cell_is_a_sum_over_directions(name, law):
    """Elastic steps and plastic steps; sizes of a cell agree with each other as they agree with the closed form."""
    lattice = LatticeCell(make_cell(name), law)
    for size, tolerance in ((0.02, 1e-13), (0.3, 1e-12)):
        E = walks(lattice.cell.dimension, size=size)
        history = lattice.solve(E)
        assert history.ok.all()
        assert (history.bar.abs().max() > 0) == (size > 0.1)
        for ours, exact in zip((history.stress, history.psi, history.dissipation), closed_form(E.numpy(), law)):
            np.testing.assert_allclose(ours, exact, rtol=0, atol=tolerance)
        x = torch.from_numpy(lattice.cell.nodes)
        mean = history.displacement - x @ E
        np.testing.assert_allclose(mean, 0, atol=1e-12)


@pytest.mark.parametrize("offset", [1e-3, 0.5])
def test_newton_finds_the_affine_solution_of_a_regular_cell(offset):
    """From a start far away, so that the solver has to work for it."""
    lattice, law = LatticeCell(make_cell("square-4"), KinematicBar()), KinematicBar()
    E = walks(2, n=20, steps=1, size=1.0)
    state = lattice.initial_state(20)
    noise = torch.from_numpy(np.random.default_rng(1).normal(0, offset, size=tuple(state.fluctuation.shape)))
    step = lattice.step(E[:, 1], type(state)(state.bar, noise))
    assert step.ok.all()
    np.testing.assert_allclose(step.stress, closed_form(E.numpy(), law)[0][:, 1], atol=1e-11)


def test_moduli_of_the_cube():
    lattice = LatticeCell(make_cell("cube-2"), KinematicBar())
    C = lattice.tangent(lattice.step(torch.zeros(1, 3, 3), lattice.initial_state(1)))[0]
    assert C[0, 0, 0, 0].item() == pytest.approx(3.18401392, abs=5e-9)
    assert C[0, 0, 1, 1].item() == pytest.approx(1.47690714, abs=5e-9)
    assert C[0, 1, 0, 1].item() == pytest.approx(1.47690714, abs=5e-9)


def test_two_bars_in_a_row():
    """A cell worked by hand: bars of cross-sections 1 and 3 in a row share their force; weak braces hold it."""
    nodes, bars = [[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 2]]
    braced = custom_cell(
        [*nodes, [0, 1], [1, 1], [2, 1]],
        [*bars, [3, 4], [4, 5], [0, 3], [1, 4], [2, 5], [0, 4], [1, 5], [1, 3], [2, 4]],
        [2.0, 1.0],
        [1, 3, 1, 3, *[1e-6] * 7],
    )
    lattice = LatticeCell(braced, KinematicBar())
    step = lattice.step(torch.tensor([[[0.1, 0], [0, 0]]]), lattice.initial_state(1))
    force = 0.2 / (1 / 1 + 1 / 3)  # total elongation over the sum of the compliances
    np.testing.assert_allclose(step.force[0, :2], force, rtol=1e-5)
    assert step.stress[0, 0, 0].item() == pytest.approx(force, rel=1e-5)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("name", PERTURBED)
def test_equilibrium_and_hill_mandel(name, law):
    """Bar forces balance at every node and its images; their power is that of the average stress, for any dE."""
    lattice = perturbed(name, law)
    cell = lattice.cell
    E = walks(cell.dimension)
    history = lattice.solve(E)
    assert history.ok.all() and history.bar.abs().max() > 0.1
    pull = (history.force.numpy() * cell.weight)[..., None] * cell.direction
    out = np.zeros((*pull.shape[:2], len(cell.nodes), cell.dimension))
    for end, sign in ((0, 1.0), (1, -1.0)):
        np.add.at(out, (slice(None), slice(None), cell.master[cell.bars[:, end]]), sign * pull)
    np.testing.assert_allclose(out, 0, atol=1e-11)
    # Elongations from the displacements alone: compatible and periodic by what is tested below.
    u = history.displacement.numpy()
    gap = ((u[:, :, cell.bars[:, 1]] - u[:, :, cell.bars[:, 0]]) * cell.direction).sum(-1)
    bars = (cell.weight * history.force.numpy()[:, 1:] * np.diff(gap, axis=1)).sum(-1) / cell.volume
    average = (history.stress.numpy()[:, 1:] * np.diff(E.numpy(), axis=1)).sum((-1, -2))
    np.testing.assert_allclose(bars, average, rtol=0, atol=1e-12)
    jump = u - u[:, :, cell.master] - (cell.offset * cell.box) @ E.numpy()
    np.testing.assert_allclose(jump, 0, atol=1e-13)
    independent = cell.master == np.arange(len(cell.nodes))
    np.testing.assert_allclose((u - cell.nodes @ E.numpy())[:, :, independent].mean(2), 0, atol=1e-13)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("name", PERTURBED)
def test_work_is_energy_and_dissipation(name, law):
    """Sigma_n : dE <= dpsi + D <= Sigma : dE, as psi + D of a step is convex in E; both ends meet as steps shrink."""
    lattice = perturbed(name, law)
    E = walks(lattice.cell.dimension)
    history = lattice.solve(E)
    gain = history.psi.diff(dim=1) + history.dissipation[:, 1:]
    dE = E.diff(dim=1)
    # D = -T . d(state), T of the bars' energies at the strains of their ends
    cell = lattice.cell
    x = torch.from_numpy(cell.nodes) + history.displacement
    ends = (x - torch.from_numpy(cell.nodes))[:, :, torch.from_numpy(cell.bars)]
    strain = ((ends[:, :, :, 1] - ends[:, :, :, 0]) * torch.from_numpy(cell.direction)).sum(-1)
    strain = strain / torch.from_numpy(cell.length)
    end = history.bar.clone().requires_grad_(True)
    (T,) = torch.autograd.grad(law.energy(strain, end).sum(), end)
    volume = torch.from_numpy(cell.weight * cell.area * cell.length) / cell.volume
    done = -((T[:, 1:] * history.bar.diff(dim=1)).sum(-1) * volume).sum(-1)
    torch.testing.assert_close(history.dissipation[:, 1:], done, rtol=1e-9, atol=1e-12)
    assert float(done.min()) > -1e-12 and float(done.max()) > 1e-3
    assert (gain <= (history.stress[:, 1:] * dE).sum((-1, -2)) + 1e-12).all()
    assert (gain >= (history.stress[:, :-1] * dE).sum((-1, -2)) - 1e-12).all()


def test_work_of_fine_steps_is_energy_and_dissipation():
    """The trapezoidal rule errs where bars begin to yield or to unload only, so with the square of the step."""
    lattice = perturbed("square-2", KinematicBar())
    coarse = walks(2, n=4, steps=4, size=0.3)
    errors = []
    for parts in (8, 16, 32):
        fraction = torch.arange(1, parts + 1, dtype=torch.float64)[:, None, None] / parts
        E = torch.cat([coarse[:, t, None] + fraction * (coarse[:, t + 1] - coarse[:, t])[:, None] for t in range(4)], 1)
        E = torch.cat([coarse[:, :1], E], 1)
        history = lattice.solve(E)
        work = ((history.stress[:, 1:] + history.stress[:, :-1]) / 2 * E.diff(dim=1)).sum((-1, -2, -3))
        gain = history.psi[:, -1] + history.dissipation.sum(1)
        errors.append((work - gain).abs().max().item())
    assert errors[-1] < 1e-3 * gain.min()
    assert errors[0] / errors[2] > 8  # 16 for the second order


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("name", PERTURBED)
def test_tangent_is_the_derivative_of_the_stress(name, law):
    lattice = perturbed(name, law)
    d = lattice.cell.dimension
    E = walks(d, n=3, steps=4)
    state = lattice.initial_state(3)
    for t in range(1, 4):
        state = lattice.step(E[:, t], state).state
    step = lattice.step(E[:, 4], state)
    C = lattice.tangent(step)
    assert (step.modulus < 0.5).any() and (step.modulus > 0.5).any()
    h = 1e-7
    for i in range(d):
        for j in range(d):
            dE = torch.zeros(d, d, dtype=torch.float64)
            dE[i, j] = h
            difference = (lattice.step(E[:, 4] + dE, state).stress - lattice.step(E[:, 4] - dE, state).stress) / (2 * h)
            np.testing.assert_allclose(C[:, :, :, i, j], difference, rtol=0, atol=1e-7)
    np.testing.assert_allclose(C, C.permute(0, 3, 4, 1, 2), atol=1e-12)
    np.testing.assert_allclose(C, C.transpose(1, 2), atol=1e-12)
    full = C.reshape(3, d * d, d * d)
    symmetric = torch.linalg.eigvalsh((full + full.mT) / 2)
    assert (symmetric[:, d * (d - 1) // 2 :] > 0).all()  # positive but for the rotations, which do not strain


@pytest.mark.parametrize("size", [0.15, 1.0, 10.0])
@pytest.mark.parametrize("name", ["square-2", "cube-2"])
def test_newton_ends_with_steps_of_many_yield_strains(name, size):
    """Whole Newton steps cycle here: at an increment of 1, three yield strains, almost no path gets through."""
    history = perturbed(name, KinematicBar()).solve(walks(3 if name == "cube-2" else 2, n=30, steps=6, size=size))
    assert history.ok.all()


def test_zero_increment_changes_nothing():
    lattice = perturbed("square-6", IsotropicBar())
    E = walks(2, n=4)
    state = lattice.step(E[:, 4], lattice.initial_state(4)).state
    step = lattice.step(E[:, 4], state)
    np.testing.assert_allclose(step.state.bar, state.bar, rtol=0, atol=1e-15)
    np.testing.assert_allclose(step.state.fluctuation, state.fluctuation, rtol=0, atol=1e-15)
    assert step.dissipation.abs().max() < 1e-14 and state.bar.abs().max() > 0.01


def test_closed_elastic_cycle_returns_to_zero():
    lattice = perturbed("cube-2", KinematicBar())
    E = walks(3, n=5, steps=3, size=0.01)
    E = torch.cat([E, 0 * E[:, :1]], 1)
    history = lattice.solve(E)
    assert history.psi[:, 2].min() > 1e-6
    for name in ("stress", "psi", "dissipation", "displacement", "force", "bar"):
        np.testing.assert_allclose(getattr(history, name)[:, -1], 0, atol=1e-16)


def test_strain_of_a_rotation_is_ignored():
    lattice = perturbed("square-2", KinematicBar())
    E = walks(2, n=3)[:, 1]
    turned = E + torch.tensor([[0.0, 0.2], [-0.2, 0.0]])
    state = lattice.initial_state(3)
    np.testing.assert_allclose(lattice.step(turned, state).stress, lattice.step(E, state).stress, atol=1e-15)


def test_failure_is_marked_and_stays_with_its_path():
    lattice = LatticeCell(make_cell("square-2", perturbation=0.2, seed=1), KinematicBar(), iterations=1)
    E = walks(2, n=3, steps=3, size=0.02)
    E[1, 2] *= 60.0
    history = lattice.solve(E)
    assert history.ok.tolist() == [True, False, True]
    assert history.reason == ["", "Newton of the lattice cell did not converge in 1 iterations at point 2", ""]
    assert torch.isnan(history.stress[1, 2:]).all() and torch.isnan(history.bar[1, 2:]).all()
    assert torch.isfinite(history.stress[1, :2]).all() and torch.isfinite(history.stress[[0, 2]]).all()
    step = lattice.step(torch.full((1, 2, 2), torch.nan), lattice.initial_state(1))
    assert not step.ok[0] and torch.isnan(step.psi[0])
    assert torch.equal(step.state.bar, lattice.initial_state(1).bar)


@pytest.mark.parametrize("name", ["cube-1", "square-2"])
def test_a_strain_that_is_not_finite_fails(name):
    lattice = LatticeCell(make_cell(name), KinematicBar())
    d = lattice.cell.dimension
    E = torch.zeros(2, d, d)
    E[1, 0, 0] = torch.inf
    assert lattice.step(E, lattice.initial_state(2)).ok.tolist() == [True, False]


def test_bad_input():
    cell = make_cell("square-2")
    lattice = LatticeCell(cell, KinematicBar())
    with pytest.raises(ValueError, match=r"E must have shape \(3, 2, 2\), got \(3, 3, 3\)."):
        lattice.step(torch.zeros(3, 3, 3), lattice.initial_state(3))
    with pytest.raises(ValueError, match=r"E must have shape \(s, T, 2, 2\), got \(3, 2, 2\)."):
        lattice.solve(torch.zeros(3, 2, 2))
    edges = cell.bars[cell.length < 1.1]
    with pytest.raises(ValueError, match="cell frame must be stable, it has 2 periodic mechanisms."):
        LatticeCell(custom_cell(cell.nodes, edges, cell.box, name="frame"), KinematicBar())


def test_energy_of_the_box_under_uniaxial_compression():
    """Load lcU1: 10 x 10 x 10, shortened by 3 with free sides, in one step or ten: psi is 101.1617146683 in all."""
    lattice = LatticeCell(make_cell("cube-1"), KinematicBar())
    for steps in (1, 10):
        state, e = lattice.initial_state(1), 0.0
        for t in range(1, steps + 1):
            for _ in range(20):
                E = torch.diag(torch.tensor([e, e, -0.3 * t / steps], dtype=torch.float64))[None]
                step = lattice.step(E, state)
                C = lattice.tangent(step)[0]
                e -= (step.stress[0, 0, 0] / (C[0, 0, 0, 0] + C[0, 0, 1, 1])).item()
            assert abs(step.stress[0, 0, 0]) < 1e-14
            state = step.state
        assert 1000 * step.psi.item() == pytest.approx(101.1617146683, abs=1e-9)
