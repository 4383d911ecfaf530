"""Signed permutations: a group, and the homogeniser's answers turn with the cell."""

import pytest
import torch

from micro.voxel.solver.homogeniser import Homogeniser
from surrogates.cells.networks.signed_permutations import signed_permutations


def test_there_are_48_different_ones_that_are_orthogonal():
    group = signed_permutations()
    assert len({tuple(g.matrix.flatten().tolist()) for g in group}) == 48
    one = torch.eye(3, dtype=torch.float64)
    assert all(torch.equal(g.matrix @ g.matrix.T, one) for g in group)
    assert all(torch.equal(g.voigt @ g.voigt.T, torch.eye(6, dtype=torch.float64)) for g in group)
    assert torch.equal(group[0].voigt, torch.eye(6, dtype=torch.float64))


@pytest.mark.parametrize("number", [5, 14, 23, 38, 47])
def test_exact_fields_and_tensor_turn_with_the_cell(number):
    rho = 0.2 + 0.8 * torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g = signed_permutations()[number]
    a = Homogeniser(rho).solve(tolerance=1e-13)
    b = Homogeniser(g.density(rho).contiguous()).solve(tolerance=1e-13)
    assert torch.allclose(b.tensor, g.tensor(a.tensor), atol=1e-10)
    difference = b.displacement - g.displacement(a.displacement)
    difference -= difference.mean((-3, -2, -1), keepdim=True)  # translations are free
    assert float(difference.abs().max()) < 1e-5 * float(a.displacement.abs().max())
