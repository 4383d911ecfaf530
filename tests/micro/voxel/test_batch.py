"""Passes of conjugate gradients: the soft phase that is split off."""

import numpy as np
import pytest
import torch

from micro.voxel.cells.tpms import make_tpms
from micro.voxel.solver.batch import split
from micro.voxel.solver.element import element_stiffness, isotropic
from micro.voxel.solver.fourier import FourierPreconditioner
from micro.voxel.solver.homogeniser import Homogeniser
from micro.voxel.solver.operator import VoxelOperator


def make_batch():
    """Gyroids of two contrasts, with true voids, with a soft phase that is rare; a homogeneous cell."""
    solid = make_tpms("gyroid", 8)
    rare = np.where(np.arange(512).reshape(8, 8, 8) % 7 == 0, 1e-3, 1.0)
    return np.stack([np.where(solid, 1.0, 1e-9), np.where(solid, 0.5, 1e-3), solid, rare, np.full((8, 8, 8), 0.3)])


def test_what_is_split_off():
    c = torch.tensor(make_batch())[:, None]
    rest, share = split(c)
    assert share[2:].tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(share[:2] * c.mean((1, 2, 3, 4))[:2], torch.tensor([1e-9, 1e-3], dtype=torch.float64))
    back = rest + (share * c.mean((1, 2, 3, 4)))[:, None, None, None, None]
    torch.testing.assert_close(back, c.double(), rtol=0, atol=1e-15)
    assert float((rest[0] == 0).double().mean()) == 0.5
    assert split(c[2:]) is None and split(torch.cat([c, c], 1)) is None


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-10])
def test_iterates_are_the_same(precision, tolerance, monkeypatch):
    """With the soft phase multiplied, and with what is known of it: the steps, the tensor, the displacements."""
    found, few = [], []
    for share in (0.03, 0.0):
        monkeypatch.setattr("micro.voxel.solver.batch.SHARE", share)
        cell = Homogeniser(make_batch(), preconditioner="fourier", precision=precision)
        found.append(cell.solve(tolerance=tolerance))
        few.append(cell.solve(tolerance=1e-14, iterations=5))  # as many steps for both, not ended by a tolerance
        assert (cell._descent.part("fourier", torch.arange(5)).share is None) == (share == 0.0)
    for result in found:
        assert bool(result.converged.all())
    scale = found[1].tensor.amax((1, 2))[:, None, None]
    assert bool((abs(found[0].tensor - found[1].tensor) <= max(tolerance, 1e-12) * scale).all())
    assert few[0].iterations.tolist() == few[1].iterations.tolist()
    rounding = 100 * torch.finfo(precision).eps
    assert bool((abs(few[0].tensor - few[1].tensor) <= rounding * scale).all())
    size = float(few[1].displacement.abs().max())
    assert float(abs(few[0].displacement - few[1].displacement).max()) <= rounding * size


def test_product_with_the_soft_phase_is_known():
    """The stiffness of a homogeneous cell, of what the preconditioner makes of forces, is a multiple of these."""
    shape = (4, 6, 5)
    c = torch.tensor(np.random.default_rng(0).uniform(1, 2, (1, 1, *shape)))
    K = torch.tensor(element_stiffness(isotropic(), np.array([0.5, 0.3, 0.8])))[None]
    operator = VoxelOperator(K, c)
    r = operator.apply(torch.tensor(np.random.default_rng(1).normal(size=(1, 2, 3, *shape))))
    z = FourierPreconditioner(operator, torch.float64).apply(r)
    product = VoxelOperator(K, torch.full_like(c, 0.01)).apply(z)
    torch.testing.assert_close(product, 0.01 / c.mean() * r, rtol=0, atol=1e-13)
