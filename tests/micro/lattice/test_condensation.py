"""The condensed cell against the auxiliary problem and against sums over bars."""

import numpy as np
import pytest
import torch

from micro.lattice.bars import IsotropicBar, KinematicBar
from micro.lattice.cell_problem import LatticeCell
from micro.lattice.condensation import condense
from micro.lattice.geometry import make_cell

ROOT2 = 2.0**0.5
PAIRS = {2: ((0, 0), (1, 1), (0, 1)), 3: ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2))}


def mandel(E):
    """Mandel vectors (n, c) of symmetric tensors (n, d, d)."""
    return np.stack([E[:, i, j] * (1 if i == j else ROOT2) for i, j in PAIRS[E.shape[-1]]], axis=1)


def strains(d, n, amplitude, seed=0):
    """Random symmetric tensors (n, d, d)."""
    E = np.random.default_rng(seed).uniform(-amplitude, amplitude, (n, d, d))
    return 0.5 * (E + E.transpose(0, 2, 1))


@pytest.mark.parametrize(("name", "variables"), [("square-1", 4), ("square-4", 4), ("cube-1", 13), ("cube-2", 13)])
def test_a_regular_cell_has_one_variable_a_direction_that_moves_by_itself(name, variables):
    form = condense(make_cell(name), KinematicBar())
    assert form.G.shape[1] == variables
    assert np.abs(form.K - np.diag(np.diagonal(form.K))).max() < 1e-14
    assert form.variable.max() == variables - 1


def test_stiffness_of_the_cube_is_that_of_the_bar_directions():
    C = condense(make_cell("cube-1"), KinematicBar()).C
    assert C[0, 0] == pytest.approx(3.18401392, abs=5e-9)
    assert C[0, 1] == pytest.approx(1.47690714, abs=5e-9)
    assert C[3, 3] / 2 == pytest.approx(1.47690714, abs=5e-9)


@pytest.mark.parametrize("name", ["square-2", "square-4", "cube-2"])
@pytest.mark.parametrize("bar", [KinematicBar(), IsotropicBar(), KinematicBar(70.0, 7.0, 3.0)])
def test_energy_stress_forces_and_yield_of_a_perturbed_cell_are_those_of_its_auxiliary_problem(name, bar):
    cell = make_cell(name, perturbation=0.2, seed=3)
    form, auxiliary = condense(cell, bar), LatticeCell(cell, bar)
    n, d = 6, cell.dimension
    state = auxiliary.initial_state(n)
    scale = bar.strength / bar.modulus
    first = np.unique(form.variable, return_index=True)[1]
    for seed in range(3):  # along a walk that yields
        E = strains(d, n, 4 * scale, seed)
        step = auxiliary.step(torch.from_numpy(E), state)
        old, state = state, step.state
    alpha, before = state.bar[:, first, 0].numpy(), old.bar[:, first, 0].numpy()
    assert np.abs(alpha - before).max() > 0.1 * scale
    e = mandel(E)
    stress = e @ form.C + alpha @ form.G.T
    np.testing.assert_allclose(stress, mandel(step.stress.numpy()), atol=1e-10 * bar.strength)
    path = state.bar[:, first, 1].numpy() if isinstance(bar, IsotropicBar) else 0 * alpha
    psi = 0.5 * (e * (e @ form.C)).sum(1) + (e * (alpha @ form.G.T)).sum(1) + 0.5 * (alpha * (alpha @ form.K)).sum(1)
    np.testing.assert_allclose(psi + 0.5 * (form.h * path**2).sum(1), step.psi.numpy(), rtol=1e-9)
    np.testing.assert_allclose(np.abs(alpha - before) @ form.k, step.dissipation.numpy(), rtol=1e-9, atol=1e-12)
    force = e @ form.force_E.T + alpha @ form.force_alpha.T
    np.testing.assert_allclose(force, step.force.numpy(), atol=1e-9 * bar.strength)
    u = e @ form.displacement_E.T + alpha @ form.displacement_alpha.T
    u = u.reshape(n, -1, d)
    np.testing.assert_allclose(u, step.displacement.numpy(), atol=1e-9 * scale)
    # A bar that moves is on its yield surface, one that rests is not beyond it.
    T = e @ form.G + alpha @ form.K
    moved = np.abs(alpha - before) > 1e-9 * scale
    limit = form.k + form.h * path
    np.testing.assert_allclose((-T * np.sign(alpha - before))[moved], limit[moved], rtol=1e-7)
    assert (np.abs(T) <= limit * (1 + 1e-9)).all()


def test_without_load_nothing_is_displaced_or_stressed():
    form = condense(make_cell("square-2", perturbation=0.2), KinematicBar())
    assert np.linalg.eigvalsh(np.block([[form.C, form.G], [form.G.T, form.K]])).min() > 0
