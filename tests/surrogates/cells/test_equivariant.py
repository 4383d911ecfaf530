"""Convolutions that commute with the cubic group, their number of weights, and shifts."""

import pytest
import torch

from micro.voxel.solver.homogeniser import Homogeniser
from surrogates.cells.networks.equivariant import (
    ScalarConv,
    VectorConv,
    scalar_basis,
    signed_permutations,
    to_nodes,
    vector_basis,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def turn(g, x):
    """Vector fields (n, 3 c, X, Y, Z) turned."""
    return torch.einsum("ab,ncbxyz->ncaxyz", g.matrix.to(x), g.nodes(x).unflatten(1, (-1, 3))).flatten(1, 2)


def test_the_basis_is_all_there_is():
    """The average of any kernel over the group lies in the span: the eight are the whole commutant."""
    kernel = torch.randn(3, 3, 3, 3, 3, generator=generator(), dtype=torch.float64)
    mean = torch.zeros_like(kernel)
    for g in signed_permutations():
        mean += torch.einsum("ai,bj,ijxyz->abxyz", g.matrix, g.matrix, g.density(kernel)) / 48
    basis = vector_basis().double().flatten(1)
    left = mean.flatten() - basis.T @ torch.linalg.lstsq(basis.T, mean.flatten()[:, None]).solution[:, 0]
    assert float(left.abs().max()) < 1e-7
    assert torch.linalg.matrix_rank(basis) == 8
    assert torch.linalg.matrix_rank(scalar_basis().flatten(1)) == 4


@pytest.mark.parametrize("number", [9, 22, 35, 47])
def test_layers_commute_with_turns_and_shifts(number):
    g = signed_permutations()[number]
    x = torch.randn(2, 6, 4, 4, 4, generator=generator())
    vector, scalar = VectorConv(2, 3, 0.5, generator()), ScalarConv(6, 2, generator())
    assert torch.allclose(vector(turn(g, x)), turn(g, vector(x)), atol=1e-5)
    assert torch.allclose(scalar(g.density(x)), g.density(scalar(x)), atol=1e-5)
    assert torch.allclose(vector(torch.roll(x, (1, 2), (2, 4))), torch.roll(vector(x), (1, 2), (2, 4)), atol=1e-5)
    assert torch.allclose(to_nodes(g.density(x)), g.nodes(to_nodes(x)), atol=1e-6)


def test_a_node_has_the_mean_of_the_voxels_around_it():
    x = torch.zeros(1, 1, 4, 4, 4)
    x[0, 0, 3, 0, 0] = 8.0
    nodes = to_nodes(x)
    assert sorted(torch.nonzero(nodes[0, 0]).tolist()) == [[i, j, k] for i in (0, 3) for j in (0, 1) for k in (0, 1)]
    assert float(nodes.max()) == 1.0


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
