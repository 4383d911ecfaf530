"""Solid voxels by index, and loads on threads."""

import numpy as np
import pytest
import torch

from micro.voxel.cells.tpms import make_tpms
from micro.voxel.solver.compact import CompactCells, classes
from micro.voxel.solver.element import element_stiffness, isotropic
from micro.voxel.solver.homogeniser import Homogeniser, homogenise
from micro.voxel.solver.operator import VoxelOperator
from micro.voxel.solver.threads import openblas, single, spread


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
    monkeypatch.setattr("micro.voxel.solver.compact.SOME", {"cpu": some})
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


@pytest.mark.parametrize("preconditioner", ["fourier", "multigrid", "auto", "none"])
def test_empty_cell_has_no_stiffness(preconditioner):
    """Alone, and in a batch that it does not disturb."""
    gyroid = make_tpms("gyroid", 6).astype(float)
    cells = np.stack([np.zeros_like(gyroid), gyroid])
    result = homogenise(cells, preconditioner=preconditioner, tolerance=1e-8)
    assert bool(result.converged.all()) and result.iterations.tolist()[0] == 0
    assert float(abs(result.tensor[0]).max()) == 0.0
    alone = homogenise(gyroid, preconditioner=preconditioner, tolerance=1e-8)
    torch.testing.assert_close(result.tensor[1:], alone.tensor, rtol=0, atol=1e-8 * float(alone.tensor.max()))
    alone = homogenise(cells[0], preconditioner=preconditioner)
    assert float(abs(alone.tensor).max()) == 0.0 and float(abs(alone.displacement).max()) == 0.0


def test_threads_change_nothing(monkeypatch):
    """One cell's loads, and cells of a batch, on two threads: the same steps, the same tensor."""
    monkeypatch.setattr("micro.voxel.solver.refinement.THREADS", 1)
    monkeypatch.setattr("micro.voxel.solver.refinement.TOGETHER", {"cpu": 1000})
    cells = np.stack([make_tpms(name, 8) for name in ("gyroid", "primitive", "diamond")]).astype(float)

    def solve(some, tolerance, iterations):
        return Homogeniser(some).solve(tolerance=tolerance, iterations=iterations)

    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append([solve(some, *end) for some in (cells[:1], cells) for end in ((1e-14, 5), (1e-6, 200))])
            assert torch.get_num_threads() == threads
        monkeypatch.setattr("micro.voxel.solver.refinement.ALONE", 1)
        found.append([solve(some, *end) for some in (cells[:1], cells) for end in ((1e-14, 5), (1e-6, 200))])
    finally:
        torch.set_num_threads(before)
    for others in found:
        for k, (one, other) in enumerate(zip(found[0], others, strict=True)):
            if k % 2:  # to the tolerance
                assert bool(other.converged.all())
                torch.testing.assert_close(one.tensor, other.tensor, rtol=0, atol=1e-6 * float(one.tensor.max()))
            else:  # the same five steps
                assert other.iterations.tolist() == [5] * len(other.tensor)
                size = float(one.displacement.abs().max())
                torch.testing.assert_close(one.displacement, other.displacement, rtol=0, atol=1e-5 * size)


def test_threads_are_given_back():
    """After an error, too; the work is done without recording gradients, in its order."""
    before = torch.get_num_threads()
    blas = openblas()
    has = None if blas is None else blas.openblas_get_num_threads()
    try:
        torch.set_num_threads(2)
        assert spread(lambda k: (k, torch.is_grad_enabled(), torch.get_num_threads()), [3, 1, 2], 2) == [
            (3, False, 1),
            (1, False, 1),
            (2, False, 1),
        ]
        with pytest.raises(ZeroDivisionError):
            spread(lambda k: 1 // k, [1, 0], 2)
        with single():
            assert blas is None or blas.openblas_get_num_threads() == 1
        assert torch.get_num_threads() == 2 and torch.is_grad_enabled()
        assert blas is None or blas.openblas_get_num_threads() == has
    finally:
        torch.set_num_threads(before)
