"""The effective stiffness as a differentiable function."""

import numpy as np
import pytest
import torch

from micro.voxel.solver.element import isotropic
from micro.voxel.solver.gradient import effective_tensor


def test_derivative_against_differences():
    """Of a batch, in all directions at once: densities that move, and a design that is filtered before."""
    rng = np.random.default_rng(0)
    rho = torch.tensor(rng.uniform(0.3, 1, (2, 3, 4, 3)), requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: effective_tensor(x**2, isotropic(2.0, 0.2), tolerance=1e-13), (rho,), eps=1e-4, atol=1e-5, rtol=1e-4
    )


def test_stiffest_direction_gains_most():
    """A gap in a bar: the voxel that closes it carries the derivative of the stiffness along the bar."""
    rho = torch.full((1, 6, 6, 6), 1e-3, dtype=torch.float64)
    rho[0, :, 2:4, 2:4] = 1.0
    rho[0, 3, 2:4, 2:4] = 0.1
    rho.requires_grad_()
    effective_tensor(rho)[0, 0, 0].backward()
    best = rho.grad[0].flatten().argsort(descending=True)[:4]
    assert sorted(best.tolist()) == sorted((3 * 36 + j * 6 + k) for j in (2, 3) for k in (2, 3))


def test_precision_of_the_caller_is_kept():
    rho = torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(0)).add(0.1).requires_grad_()
    C = effective_tensor(rho)
    C.sum().backward()
    assert C.dtype == rho.grad.dtype == torch.float32


def test_bad_input():
    with pytest.raises(ValueError, match=r"density must have shape \(cells, X, Y, Z\), got \(3, 3, 3\)."):
        effective_tensor(torch.ones(3, 3, 3))
