"""What the response of a lattice cell must not depend on: batch, start, place, size, cut of the cell, device."""

import numpy as np
import pytest
import torch

from micro.lattice.bars import KinematicBar
from micro.lattice.cell_problem import LatticeCell
from micro.lattice.geometry import custom_cell, make_cell


def walks(d, n=6, steps=8, size=0.15, seed=0):
    """Random strain walks (n, steps + 1, d, d) that begin at zero and go far into yield."""
    dE = np.random.default_rng(seed).uniform(-size, size, size=(n, steps + 1, d, d))
    dE[:, 0] = 0
    return torch.from_numpy(((dE + dE.swapaxes(2, 3)) / 2).cumsum(axis=1))


def perturbed(name, law, seed=1):
    return LatticeCell(make_cell(name, perturbation=0.2, seed=seed), law)


def test_no_dependence_on_the_batch():
    lattice = perturbed("square-6", KinematicBar())
    E = walks(2, n=5)
    together = lattice.solve(E)
    for i in range(5):
        alone = lattice.solve(E[i : i + 1])
        for name in ("stress", "psi", "dissipation", "displacement", "force", "bar"):
            np.testing.assert_allclose(getattr(alone, name)[0], getattr(together, name)[i], rtol=0, atol=1e-11)


def test_no_dependence_on_where_the_iteration_begins():
    """The minimum is unique: another start changes nothing but round-off."""
    lattice = perturbed("square-4", KinematicBar())
    E = walks(2, n=4, steps=2, size=0.3)
    state = lattice.step(E[:, 1], lattice.initial_state(4)).state
    noise = torch.from_numpy(np.random.default_rng(3).normal(0, 0.3, size=tuple(state.fluctuation.shape)))
    step, other = lattice.step(E[:, 2], state), lattice.step(E[:, 2], type(state)(state.bar, noise))
    for name in ("stress", "psi", "dissipation", "displacement", "force"):
        np.testing.assert_allclose(getattr(step, name), getattr(other, name), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["square-4", "cube-2"])
def test_translation_of_the_cell_changes_nothing(name):
    """Nor does the choice of the box: nodes of one face moved to the other."""
    cell = make_cell(name, perturbation=0.2, seed=2)
    shift = np.array([0.3, -1.7, 0.9])[: cell.dimension]
    E = walks(cell.dimension, n=3)
    here = LatticeCell(cell, KinematicBar()).solve(E)
    there = LatticeCell(custom_cell(cell.nodes + shift, cell.bars, cell.box), KinematicBar()).solve(E)
    np.testing.assert_allclose(there.stress, here.stress, atol=1e-12)
    np.testing.assert_allclose(there.force, here.force, atol=1e-12)
    moved = here.displacement + (torch.from_numpy(shift) @ E)[:, :, None]
    np.testing.assert_allclose(there.displacement, moved, atol=1e-11)


def test_scale_of_the_cell():
    """Stress and energy density do not know the size of the cell if cross-sections scale with it."""
    cell = make_cell("cube-2", perturbation=0.2, seed=2)
    E = walks(3, n=3)
    small = custom_cell(0.1 * cell.nodes, cell.bars, 0.1 * cell.box, 0.01)
    here, there = LatticeCell(cell, KinematicBar()).solve(E), LatticeCell(small, KinematicBar()).solve(E)
    np.testing.assert_allclose(there.stress, here.stress, atol=1e-12)
    np.testing.assert_allclose(there.psi, here.psi, atol=1e-12)
    np.testing.assert_allclose(there.displacement, 0.1 * here.displacement, atol=1e-12)
    np.testing.assert_allclose(there.force, 0.01 * here.force, atol=1e-12)


def test_two_copies_of_a_cell_are_the_same_material():
    """A perturbed cell doubled along one axis, listed as one cell of twice the size."""
    cell = make_cell("square-2", perturbation=0.2, seed=5)
    both = np.concatenate([cell.nodes, cell.nodes + [2.0, 0.0]])
    nodes, number = np.unique(both.round(12), axis=0, return_inverse=True)
    number = number.reshape(-1)
    bars = np.unique(np.sort(number[np.concatenate([cell.bars, cell.bars + len(cell.nodes)])], axis=1), axis=0)
    assert len(nodes) == 15 and len(bars) == 2 * len(cell.bars) - 2
    E = walks(2, n=4)
    one = LatticeCell(cell, KinematicBar()).solve(E)
    two = LatticeCell(custom_cell(nodes, bars, [4.0, 2.0]), KinematicBar()).solve(E)
    assert two.ok.all()
    np.testing.assert_allclose(two.stress, one.stress, atol=1e-12)
    np.testing.assert_allclose(two.dissipation, one.dissipation, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a cuda device")
def test_devices_agree():
    E = walks(2, n=20)
    cell = make_cell("square-6", perturbation=0.2, seed=1)
    here, there = LatticeCell(cell, KinematicBar()).solve(E), LatticeCell(cell, KinematicBar(), "cuda").solve(E.cuda())
    np.testing.assert_allclose(there.stress.cpu(), here.stress, atol=1e-11)
    np.testing.assert_allclose(there.bar.cpu(), here.bar, atol=1e-11)
