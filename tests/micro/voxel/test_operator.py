"""Operators on voxels by their properties: patches, transposes, Galerkin products, preconditioners."""

import numpy as np
import pytest
import torch

from micro.voxel.solver.element import (
    NODES,
    affine,
    decompose,
    element_stiffness,
    gauss_operators,
    isotropic,
    strain_operator,
)
from micro.voxel.solver.fourier import FourierPreconditioner
from micro.voxel.solver.multigrid import (
    ExplicitOperator,
    Multigrid,
    coarsen,
    interpolation,
    prolong,
    pseudo_inverse,
    restrict,
)
from micro.voxel.solver.operator import CompactCells, VoxelOperator, classes, fold, pad

H = np.array([0.5, 0.3, 0.8])


def make_operator(shape, cells=1, rank=1, seed=0, zeros=0.0):
    rng = np.random.default_rng(seed)
    D = np.stack([isotropic(1.0, 0.3), isotropic(1.0, -0.2), np.diag(rng.uniform(1, 2, 6))][:rank])
    c = rng.uniform(0.1, 1, (cells, rank, *shape)) * (rng.uniform(size=(cells, 1, *shape)) >= zeros)
    return VoxelOperator(torch.tensor(element_stiffness(D, H)), torch.tensor(c))


def field(operator, loads=2, seed=1):
    size = (operator.cells, loads, 3, *operator.shape)
    return torch.tensor(np.random.default_rng(seed).normal(size=size))


def test_affine_displacements_have_their_strain_everywhere():
    A = affine(H)
    for point in np.random.default_rng(0).uniform(size=(5, 3)):
        np.testing.assert_allclose(strain_operator(point, H) @ A, np.eye(6), atol=1e-14)
    D = np.random.default_rng(1).normal(size=(6, 6))
    D = D @ D.T
    np.testing.assert_allclose(A.T @ element_stiffness(D, H) @ A, np.prod(H) * D, rtol=1e-12)


def test_voxel_has_rigid_motions_and_no_other_kernel():
    values = np.linalg.eigvalsh(element_stiffness(isotropic(), H))
    assert abs(values[:6]).max() < 1e-14 and values[6] > 1e-3
    B, weight = gauss_operators(H)
    np.testing.assert_allclose(8 * weight, np.prod(H))
    assert np.linalg.matrix_rank(B.reshape(48, 24)) == 18


def test_fold_is_the_transpose_of_pad():
    rng = np.random.default_rng(2)
    u, f = torch.tensor(rng.normal(size=(2, 3, 4, 5))), torch.tensor(rng.normal(size=(2, 4, 5, 6)))
    np.testing.assert_allclose((pad(u) * f).sum(), (u * fold(f.clone())).sum(), rtol=1e-12)


@pytest.mark.parametrize(("cells", "rank"), [(1, 1), (3, 2)])
def test_product_is_that_of_the_voxels_matrices(cells, rank, monkeypatch):
    """The same in one piece and in the smallest pieces, and symmetric."""
    operator = make_operator((4, 3, 5), cells, rank)
    explicit = ExplicitOperator(operator.matrices_of((slice(None),) * 3, torch.eye(24)))
    u, v = field(operator), field(operator, seed=2)
    f = operator.apply(u)
    np.testing.assert_allclose(f, explicit.apply(u), atol=1e-12)
    np.testing.assert_allclose((f * v).sum(), (operator.apply(v) * u).sum(), rtol=1e-12)
    np.testing.assert_allclose(operator.diagonal(), explicit.diagonal(), atol=1e-12)
    monkeypatch.setattr("micro.voxel.solver.operator.CHUNK", {"cpu": 1})
    np.testing.assert_allclose(operator.apply(u), f, atol=1e-13)


def test_diagonal_is_that_of_the_matrix():
    operator = make_operator((3, 4, 2), rank=2)
    matrix = ExplicitOperator(operator.matrices_of((slice(None),) * 3, torch.eye(24))).dense()[0]
    blocks = operator.diagonal()[0].reshape(-1, 3, 3)
    count = len(blocks)
    full = matrix.view(3, count, 3, count)
    for node in (0, 7, count - 1):
        np.testing.assert_allclose(blocks[node], full[:, node, :, node], atol=1e-13)


def test_force_and_energy_of_an_affine_field():
    operator = make_operator((3, 4, 5), cells=2, rank=2)
    A = torch.tensor(affine(H))
    u = field(operator, loads=6)
    load = operator.force(A)
    assert float(abs(load.sum(dim=(-3, -2, -1))).max()) < 1e-12
    energy = torch.einsum("cqklxyz,cqxyz->ckl", operator.energies(u, A), operator.coefficients)
    zero = torch.einsum("cqklxyz,cqxyz->ckl", operator.energies(0 * u, A), operator.coefficients)
    work = load.flatten(2) @ u.flatten(2).mT
    inner = operator.apply(u).flatten(2) @ u.flatten(2).mT
    np.testing.assert_allclose(energy, zero + work + work.mT + inner, atol=1e-10)


@pytest.mark.parametrize("shape", [(6, 6, 6), (5, 6, 7), (3, 2, 1)])
def test_restriction_is_the_transpose_of_prolongation(shape):
    rng = np.random.default_rng(3)
    coarse = tuple((n + 1) // 2 for n in shape)
    u, r = torch.tensor(rng.normal(size=(2, 3, *coarse))), torch.tensor(rng.normal(size=(2, 3, *shape)))
    np.testing.assert_allclose((prolong(u, shape) * r).sum(), (u * restrict(r)).sum(), rtol=1e-11)


@pytest.mark.parametrize("shape", [(6, 4, 8), (5, 6, 7), (3, 3, 2)])
@pytest.mark.parametrize("rank", [1, 3])
def test_coarse_stiffness_is_the_galerkin_product(shape, rank):
    operator = make_operator(shape, cells=2, rank=rank)
    for _ in range(2):  # of the fine operator, and of a coarse one
        coarse = coarsen(operator)
        rng = np.random.default_rng(4)
        u = torch.tensor(rng.normal(size=(2, 2, 3, *coarse.shape)))
        product = restrict(operator.apply(prolong(u, operator.shape)))
        np.testing.assert_allclose(coarse.apply(u), product, atol=1e-11)
        operator = coarse


def test_interpolation_keeps_rigid_motions():
    P = interpolation((0, 1, 0))
    assert P.shape == (24, 24) and float(abs(P.sum(1) - 1).max()) == 0.0
    x = torch.tensor(NODES, dtype=torch.float64)
    turn = torch.stack([-x[:, 1], x[:, 0], 0 * x[:, 0]], 1).flatten()
    child = x / 2 + torch.tensor([0.0, 0.5, 0.0])
    np.testing.assert_allclose(P @ turn, torch.stack([-child[:, 1], child[:, 0], 0 * child[:, 0]], 1).flatten())


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 3, 2)])
def test_fourier_inverts_a_homogeneous_cell(shape):
    c = torch.full((2, 1, *shape), 0.7, dtype=torch.float64)
    c[1] *= 3
    operator = VoxelOperator(torch.tensor(element_stiffness(isotropic(), H))[None], c)
    u = field(operator)
    u -= u.mean(dim=(-3, -2, -1), keepdim=True)
    precondition = FourierPreconditioner(operator, torch.float64)
    np.testing.assert_allclose(precondition.apply(operator.apply(u)), u, atol=1e-11)


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 3, 2), (5, 4, 7)])
def test_inverse_by_frequency_is_that_of_the_transformed_impulse(shape):
    """Anisotropic moduli, oblong voxels: the symbol is real and symmetric, and its inverse is what is applied."""
    rng = np.random.default_rng(7)
    M = rng.normal(size=(6, 6))
    K = torch.tensor(element_stiffness(M @ M.T + np.eye(6), H))[None]
    reference = VoxelOperator(K, torch.ones(1, 1, *shape, dtype=torch.float64))
    impulse = torch.zeros(1, 3, 3, *shape, dtype=torch.float64)
    for c in range(3):
        impulse[:, c, c, 0, 0, 0] = 1.0
    symbol = torch.fft.rfftn(reference.apply(impulse), dim=(-3, -2, -1))[0].flatten(2).permute(2, 0, 1)
    precondition = FourierPreconditioner(reference, torch.float64)
    inverse = precondition.inverse[0].flatten(2).permute(2, 0, 1)
    assert float(abs(inverse[0]).max()) == 0.0  # translations
    eye = torch.eye(3).to(symbol).expand(len(symbol) - 1, -1, -1)
    np.testing.assert_allclose(inverse[1:] @ symbol[1:], eye, atol=1e-11)
    r = field(reference)
    f = torch.fft.rfftn(r, dim=(-3, -2, -1))
    u = torch.fft.irfftn(torch.einsum("ijxyz,cljxyz->clixyz", precondition.inverse[0], f), s=shape, dim=(-3, -2, -1))
    np.testing.assert_allclose(precondition.apply(r), u, atol=1e-12)


@pytest.mark.parametrize("make", [FourierPreconditioner, Multigrid])
def test_preconditioner_is_symmetric_and_positive(make):
    """On forces that a cell with voids and loose parts can have."""
    operator = make_operator((8, 7, 6), cells=2, rank=2, zeros=0.6)
    precondition = make(operator, torch.float64)
    a, b = operator.apply(field(operator)), operator.apply(field(operator, seed=2))
    ab, ba = (a * precondition.apply(b)).sum(), (b * precondition.apply(a)).sum()
    np.testing.assert_allclose(ab, ba, rtol=1e-9)
    assert bool(((a * precondition.apply(a)).flatten(2).sum(-1) > 0).all())


def test_multigrid_is_the_same_in_single_precision():
    operator = make_operator((8, 8, 8), zeros=0.7)
    r = operator.apply(field(operator))
    exact, single = (Multigrid(operator, dtype).apply(r) for dtype in (torch.float64, torch.float32))
    gap = single - exact
    assert float((gap * operator.apply(gap)).sum()) < 1e-6 * float((exact * r).sum())


def test_pseudo_inverse():
    rng = np.random.default_rng(5)
    half = torch.tensor(rng.normal(size=(2, 6, 4)) * np.array([1, 1, 1, 1e-3]))
    K = torch.zeros(2, 7, 7, dtype=torch.float64)
    K[:, :6, :6] = half @ half.mT
    inverse = pseudo_inverse(K)
    np.testing.assert_allclose(K @ inverse @ K, K, atol=1e-9)
    assert float(abs(inverse[:, 6]).max()) == 0.0


def test_decomposition_of_moduli():
    rng = np.random.default_rng(6)
    D = np.stack([isotropic(E, nu) for E, nu in ((1.0, 0.3), (1e-9, 0.3), (50.0, 0.1), (0.0 + 1e-3, 0.45))])
    basis, c = decompose(D)
    assert len(basis) == 2
    np.testing.assert_allclose(np.einsum("pq,qij->pij", c, basis), D, rtol=1e-11, atol=1e-24)
    basis, c = decompose(D[:2])
    assert len(basis) == 1 and c[1, 0] == pytest.approx(1e-9 * c[0, 0], rel=1e-12)
    M = rng.normal(size=(30, 6, 6))
    D = M @ M.transpose(0, 2, 1)
    basis, c = decompose(D)
    assert len(basis) == 21
    np.testing.assert_allclose(np.einsum("pq,qij->pij", c, basis), D, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("shape", [(4, 3, 5), (1, 2, 6)])
def test_product_by_index(shape, rank, monkeypatch):
    """Of the solid voxels alone, also in pieces: the same as of all voxels."""
    operator = make_operator(shape, cells=2, rank=rank, zeros=0.7)
    u = field(operator)
    monkeypatch.setattr("micro.voxel.solver.operator.SPARSE", 0.0)
    whole = VoxelOperator(operator.basis, operator.coefficients).apply(u)
    monkeypatch.setattr("micro.voxel.solver.operator.SPARSE", 2.0)
    monkeypatch.setattr("micro.voxel.solver.operator.SOME", {"cpu": 3})
    np.testing.assert_allclose(VoxelOperator(operator.basis, operator.coefficients).apply(u), whole, atol=1e-13)


def make_cells(rank=1, seed=0):
    """Three cells: mostly void, full, all void."""
    rng = np.random.default_rng(seed)
    c = rng.uniform(0.1, 1, (3, rank, 4, 3, 5))
    c[0] *= rng.uniform(size=(4, 3, 5)) > 0.8
    c[2] = 0
    D = np.stack([isotropic(1.0, 0.3), isotropic(1.0, -0.2)][:rank])
    return VoxelOperator(torch.tensor(element_stiffness(D, np.array([0.5, 0.3, 0.8]))), torch.tensor(c))


def test_kinds_of_voxels():
    c = torch.tensor([[3.0, 1.0, 3.0, 2.0, 1.0], [0.0, 5.0, 0.0, 0.0, 5.0]])
    order, counts = classes(c)
    assert order.tolist() == [0, 2, 1, 4, 3] and counts == [2, 2, 1]
    assert classes(torch.arange(9.0)[None]) is None
    order, counts = classes(c[:, :0])
    assert order.tolist() == [] and counts == []


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("some", [3, 1 << 15])
def test_product_and_maps(rank, some, monkeypatch):
    """The product on the nodes of the solid is that on the grid; what is nowhere is zero, whatever stands there."""
    monkeypatch.setattr("micro.voxel.solver.operator.SOME", {"cpu": some})
    operator = make_cells(rank)
    cells = CompactCells(operator.basis, operator.coefficients)
    grid = torch.tensor(np.random.default_rng(1).normal(size=(2, 3, 3, 4, 3, 5)))
    u = cells.gather(grid)
    assert float(abs(u[:, :, 2]).max()) == 0.0 and float(abs(u[..., -1]).max()) == 0.0
    torch.testing.assert_close(cells.gather(cells.spread(u)), u, rtol=0, atol=0)
    f = cells.multiplier()(u)
    assert float(abs(f[:, :, 2]).max()) == 0.0 and float(abs(f[..., -1]).max()) == 0.0
    monkeypatch.setattr("micro.voxel.solver.operator.SPARSE", 0.0)
    whole = operator.apply(grid.permute(2, 0, 1, 3, 4, 5).contiguous()).permute(1, 2, 0, 3, 4, 5)
    torch.testing.assert_close(cells.spread(f), whole, rtol=0, atol=1e-13)
    torch.testing.assert_close(cells.scaled(2.0).multiplier()(u), 2 * f)


def test_few_kinds_of_voxels_have_matrices():
    """Phases: a matrix each, no weights; the same product."""
    rng = np.random.default_rng(2)
    operator = make_cells(rank=2)
    phases = torch.tensor([[0.0, 0.0], [0.3, 0.0], [0.2, 0.7]], dtype=torch.float64)
    c = phases[rng.integers(0, 3, (3, 4, 3, 5))].permute(0, 4, 1, 2, 3).contiguous()
    cells = CompactCells(operator.basis, c)
    assert cells.weights is None and len(cells.matrices) == 2
    u = torch.tensor(rng.normal(size=(1, 3, 3, 4, 3, 5)))
    whole = VoxelOperator(operator.basis, c).apply(u.permute(2, 0, 1, 3, 4, 5).contiguous())
    f = cells.spread(cells.multiplier()(cells.gather(u)))
    torch.testing.assert_close(f.permute(2, 0, 1, 3, 4, 5), whole, rtol=0, atol=1e-13)
