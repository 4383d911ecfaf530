"""Energy of fields in cells: bounds, derivatives, and the least energy of a subspace."""

import pytest
import torch

from micro.voxel.solver.homogeniser import Homogeniser
from surrogates.cells import energy
from surrogates.cells.energy import CellEnergy, combine, ritz

DTYPE = torch.float64


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


@pytest.fixture(scope="module")
def density():
    return 0.05 + 0.95 * random(2, 4, 4, 4)


@pytest.fixture(scope="module")
def solved(density):
    return Homogeniser(density, spacing=[1.0, 1.0, 1.0]).solve(tolerance=1e-13)


def test_no_field_has_a_tensor_below_that_of_the_elements(density, solved):
    cells = CellEnergy(density, DTYPE)
    u = solved.displacement
    assert torch.allclose(cells.tensor(u), solved.tensor, atol=1e-10)
    for size in (1e-2, 1.0, 30.0):
        above = cells.tensor(u + size * (random(*u.shape, seed=1) - 0.5)) - solved.tensor
        assert float(torch.linalg.eigvalsh(above).min()) > 0
    # Eq. (25): the error is quadratic in the field's
    d = random(*u.shape, seed=2)
    one, half = (float((cells.tensor(u + s * d) - solved.tensor).norm()) for s in (1.0, 0.5))
    assert one / half == pytest.approx(4, rel=1e-4)


def test_losses_have_the_derivatives_that_the_paper_gives(density, solved):
    cells = CellEnergy(density, DTYPE)
    u = (solved.displacement + 0.1 * random(2, 6, 3, 4, 4, 4, seed=3)).requires_grad_()
    (g,) = torch.autograd.grad(energy.energy_loss(cells, u), u)
    r = cells.residual(u.detach())
    assert torch.allclose(g, r / cells.volume / 2, atol=1e-14)  # Eq. (28), the mean over two cells
    (g,) = torch.autograd.grad(energy.weak_loss(cells, u), u)
    assert torch.allclose(g, cells.operator.apply(r) / cells.volume, atol=1e-13)  # Eq. (27)
    (g,) = torch.autograd.grad(energy.preconditioned_loss(cells, u), u)
    assert torch.allclose(g, cells.exact.precondition(r) / cells.volume / 2, atol=1e-13)


def test_the_preconditioned_gradient_descends_the_energy_much_faster(density):
    cells = CellEnergy(density, DTYPE)
    energies = {}
    for name, direction in (("plain", lambda r: r), ("preconditioned", cells.exact.precondition)):
        u = torch.zeros_like(cells.load)
        for _ in range(6):  # steepest descent, exact line search for each strain
            r = cells.residual(u)
            z = direction(r)
            step = (r * z).sum((2, 3, 4, 5), keepdim=True) / (z * cells.product(z)).sum((2, 3, 4, 5), keepdim=True)
            u = u - step * z
        energies[name] = float(energy.energy_loss(cells, u))
    solved = Homogeniser(density, spacing=[1.0] * 3).solve(tolerance=1e-12)
    exact = float(energy.energy_loss(cells, solved.displacement))
    assert 0 <= energies["preconditioned"] - exact < 0.1 * (energies["plain"] - exact)


def test_displacement_loss_forgets_translations_and_voids():
    rho = torch.ones(1, 4, 4, 4, dtype=DTYPE)
    rho[:, 1:, 1:, 1:] = 0.0
    cells = CellEnergy(rho, DTYPE)
    label = random(1, 6, 3, 4, 4, 4)
    moved = label + 3.0
    moved[..., 2:, 2:, 2:] += 7.0  # nodes that no solid touches
    assert float(energy.displacement_loss(cells, moved, label)) < 1e-20
    assert float(energy.displacement_loss(cells, label * 1.1, label)) > 1e-4
    nothing = CellEnergy(torch.zeros(1, 4, 4, 4, dtype=DTYPE), DTYPE)  # a void cell says nothing, and is no trouble
    assert float(energy.displacement_loss(nothing, moved, label)) == 0


def test_ritz_finds_the_least_energy_of_a_subspace_and_bears_dependent_fields(density, solved):
    cells = CellEnergy(density, DTYPE)
    v = random(2, 5, 3, 4, 4, 4) - 0.5
    v = torch.cat([v, solved.displacement, v[:, :1] - v[:, 1:2]], 1)  # the last depends on the first two
    u = combine(ritz(v, cells.operator.apply(v), cells.load), v)
    assert torch.allclose(cells.tensor(u), solved.tensor, atol=1e-8)
    part = v[:, :5]
    c = ritz(part, cells.operator.apply(part), cells.load)
    best = cells.tensor(combine(c, part))
    worse = cells.tensor(combine(c + 1e-3 * (random(*c.shape, seed=4) - 0.5), part))
    assert float((worse - best).diagonal(dim1=1, dim2=2).min()) > 0


def test_cells_without_load_are_no_trouble():
    cells = CellEnergy(torch.stack([torch.ones(4, 4, 4), torch.zeros(4, 4, 4)]).double(), DTYPE)
    v = random(2, 6, 3, 4, 4, 4)
    u = combine(ritz(v, cells.operator.apply(v), cells.load), v)
    assert torch.allclose(cells.tensor(u), cells.voigt, atol=1e-12)
    assert bool(torch.isfinite(energy.relative_loss(cells, u)))
