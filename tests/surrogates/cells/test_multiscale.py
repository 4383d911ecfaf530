"""Multiscale network: equivariance by construction, linearity in the load, bounds, resolution, and learning."""

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from micro.voxel.cells.graded import GradedCells
from surrogates.cells.data import Cells, solve
from surrogates.cells.energy import CellEnergy, relative_loss
from surrogates.cells.evaluate import energy_error, predict, relative_error
from surrogates.cells.networks.equivariant import signed_permutations
from surrogates.cells.networks.file import Shape, make_network
from surrogates.cells.networks.multiscale import Bottom, MultiscaleNetwork, differentiable_tensor, halvings


def blobs(n, seed=0, count=2):
    """Cells of voids and solid, asymmetric."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, n // 2, n // 2, n // 2, generator=random)
    rho = torch.nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest")[:, 0]
    return (rho > 0.4).float()


@pytest.fixture(scope="module")
def network():
    """First weights, and noise on them: what holds by construction holds for any."""
    module = MultiscaleNetwork(width=2, features=4, steps=2, seed=1)
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=random))
    return module.eval()


@pytest.mark.parametrize("number", [7, 18, 29, 46])
def test_the_cubic_group_acts_on_cell_fields_and_tensor(network, number):
    g = signed_permutations()[number]
    rho = blobs(8)
    C, u = predict(network, rho)
    D, v = predict(network, g.density(rho).contiguous())
    assert torch.allclose(D, g.tensor(C), atol=1e-5)
    assert float((v - g.displacement(u)).abs().max()) < 1e-3 * float(u.abs().max())


def test_shifts_by_a_coarse_voxel_shift_the_fields(network):
    rho = blobs(8)
    C, _ = predict(network, rho)
    D, _ = predict(network, torch.roll(rho, (2, 4), (1, 3)))
    assert halvings((8, 8, 8)) == 1
    assert torch.allclose(C, D, atol=1e-6)


def test_a_step_is_linear_in_the_forces(network):
    cells = CellEnergy(blobs(8).double(), torch.float64)
    module = MultiscaleNetwork(width=2, features=4).double()
    gates, bottom = module.gates(cells.density, 6), Bottom(cells, (4, 4, 4))
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(cells.load.shape, generator=random, dtype=torch.float64) for _ in range(2))
    z = [module.directions(r, gates, bottom) for r in (a, b, 2 * a - 3 * b)]
    assert torch.allclose(z[2], 2 * z[0] - 3 * z[1], atol=1e-10)


def test_never_below_the_elements_and_no_worse_with_more_steps(network):
    grey = torch.rand(2, 8, 8, 8, generator=torch.Generator().manual_seed(4))
    rho = torch.cat([blobs(8), blobs(8, 3) * 0.9 + 0.1 * grey, torch.ones(1, 8, 8, 8)])
    exact = solve(Cells(rho)).tensor
    least, most = [], []
    for steps in (1, 2, 4):
        found = energy_error(predict(network, rho, steps=steps)[0], exact)
        least.append(float(found[0].min()))
        most.append(float(found[1].mean()))
    assert min(least) > -1e-6
    assert most[0] > most[1] > most[2]
    assert float(relative_error(predict(network, rho)[0][-1:], exact[-1:])) < 1e-6  # homogeneous


def test_any_resolution_with_the_same_weights(network):
    for shape in ((6, 6, 6), (5, 7, 3), (8, 16, 4)):
        C, u = predict(network, torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)))
        assert u.shape == (1, 6, 3, *shape)
        assert float(torch.linalg.eigvalsh(C).min()) > 0


def test_fine_voxels_answer_like_coarse_ones_at_long_wavelengths():
    """Forces are halved from grid to grid: on a grid twice as fine displacements in voxels are twice as large."""

    def answer(n, size):
        wave = torch.cos(2 * torch.pi * torch.arange(n) / n).view(1, 1, n, 1, 1).expand(1, 3, n, n, n)
        return Bottom(CellEnergy(torch.ones(1, n, n, n)), (n, n, n))((wave / size).contiguous())

    coarse, fine = answer(8, 1.0), answer(16, 2.0)
    assert float(coarse.abs().max()) > 1
    assert torch.allclose(fine[..., ::2, ::2, ::2] / 2, coarse, rtol=0.1, atol=1e-4)


def test_the_loss_falls_along_its_slope_by_the_square_of_the_slope():
    """In double precision, by differences: what a training relies on, whatever the processor."""
    module = MultiscaleNetwork(width=2, features=4, steps=1).double()
    cells = CellEnergy(blobs(8, seed=9).double(), torch.float64)
    parameters = [p for p in module.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(relative_loss(cells, module(cells)), parameters)
    square = sum(float(slope.square().sum()) for slope in slopes)
    assert min(float(slope.abs().max()) for slope in slopes) > 0  # every weight counts
    h, ends = 1e-5 / square**0.5, []
    for size in (h, -2 * h):
        with torch.no_grad():
            for p, slope in zip(parameters, slopes, strict=True):
                p.add_(size * slope)
            ends.append(float(relative_loss(cells, module(cells))))
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(square, rel=1e-4)


SHAPES = [Shape(width=2, features=4, steps=2), Shape("paper")]


def densities(n=8):
    cells = GradedCells("octet", n)
    return cells.density(torch.from_numpy(cells.parameter(np.array([0.4, 0.6]))))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_network(shape):
    module, rho = make_network(shape).eval(), densities()
    wanted = predict(module, rho)[0].detach()
    assert torch.allclose(differentiable_tensor(module.double(), rho), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives_against_differences(shape):
    module, rho = make_network(shape).eval().double().requires_grad_(False), densities().clamp(0.1, 0.9)
    change = torch.randn(rho.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = 1e-5
    ends = [differentiable_tensor(module, rho + s * change) for s in (h, -h)]
    wanted = (ends[0] - ends[1]) / (2 * h)
    with forward_ad.dual_level():
        forward = forward_ad.unpack_dual(differentiable_tensor(module, forward_ad.make_dual(rho, change))).tangent
    assert torch.allclose(forward, wanted, rtol=1e-6, atol=1e-7 * float(wanted.abs().max()))
    leaf = rho.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(differentiable_tensor(module, leaf)[0, 0, 0], leaf)
    assert float((gradient * change).sum()) == pytest.approx(float(wanted[0, 0, 0]), rel=1e-6)


def test_a_network_without_fields_is_refused():
    with pytest.raises(ValueError, match="must give displacements"):
        differentiable_tensor(make_network(Shape("tensor", side=8)), densities())
