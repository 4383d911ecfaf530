"""The network's stiffness with its derivative by the density."""

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from micro.voxel.cells.graded import GradedCells
from surrogates.cells.gradient import differentiable_tensor
from surrogates.cells.network import Shape, make_network, predict

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
