"""The homogeniser's iteration: bounds, voids and loose parts, batches, counts, the estimate of its error."""

import logging

import numpy as np
import pytest
import torch

from micro.voxel.cells.frames import make_frame
from micro.voxel.cells.tpms import make_tpms
from micro.voxel.solver.homogeniser import PRECONDITIONERS, Homogeniser, homogenise
from micro.voxel.solver.pcg import SubBatch


def tpms(name, n):
    """Densities of a surface filled at level 0."""
    return make_tpms(name, n).astype(float)


def test_any_field_gives_an_upper_bound_whose_error_is_quadratic():
    rng = np.random.default_rng(5)
    cell = Homogeniser(tpms("primitive", 6))
    exact = cell.solve(tolerance=1e-13)
    noise = torch.tensor(rng.normal(size=exact.displacement.shape))
    errors = []
    for size in (1e-1, 1e-2, 1e-3):
        gap = (cell.tensor(exact.displacement + size * noise) - exact.tensor)[0].numpy()
        assert np.linalg.eigvalsh(gap)[0] > -1e-11
        errors.append(gap[0, 0])
    assert errors[0] / errors[1] == pytest.approx(100, rel=1e-3)
    assert errors[1] / errors[2] == pytest.approx(100, rel=1e-3)


def test_first_guess_saves_steps():
    cell = Homogeniser(tpms("gyroid", 8))
    cold = cell.solve(tolerance=1e-6)
    warm = cell.solve(cold.displacement, tolerance=1e-6)
    assert int(warm.iterations) < int(cold.iterations)
    np.testing.assert_allclose(warm.tensor, cold.tensor, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("preconditioner", ["fourier", "multigrid"])
def test_batch_invariance(preconditioner):
    """Cells of one batch do not see each other, though one converges late."""
    rng = np.random.default_rng(6)
    cells = np.stack(
        [tpms("gyroid", 8), rng.uniform(0.4, 1, (8, 8, 8)), make_frame("grid", 8, 0.13), np.ones((8, 8, 8))]
    )
    many = Homogeniser(cells, preconditioner=preconditioner, precision=torch.float64).solve(tolerance=1e-6)
    assert len(set(many.iterations.tolist())) > 1
    for k, rho in enumerate(cells):
        one = Homogeniser(rho, preconditioner=preconditioner, precision=torch.float64).solve(tolerance=1e-6)
        assert int(one.iterations) == int(many.iterations[k])
        np.testing.assert_allclose(one.tensor[0], many.tensor[k], rtol=0, atol=1e-12)


@pytest.mark.parametrize("preconditioner", PRECONDITIONERS)
def test_islands_and_hinges(preconditioner):
    """Loose parts change nothing, nor do parts that hang by one corner of a voxel, nor does a chain of them."""
    solid = np.zeros((9, 9, 9))
    solid[:, 3:6, 3:6] = solid[3:6, :, 3:6] = 1.0  # two crossing bars through the cell
    solid[0, 2, 6] = solid[8, 2, 2] = 1.0  # voxels along edges of a bar, which stretch with it
    clean = Homogeniser(solid, preconditioner=preconditioner).solve(tolerance=1e-9)
    loose = solid.copy()
    loose[0, 0, 0] = loose[1:3, 7, 8] = 1.0
    loose[7, 1, 1] = loose[6, 0, 0] = 1.0  # by corners
    result = Homogeniser(loose, preconditioner=preconditioner).solve(tolerance=1e-9)
    assert bool(result.converged.all()) and int(result.iterations) <= 2 * int(clean.iterations)
    np.testing.assert_allclose(result.tensor, clean.tensor, rtol=0, atol=1e-8)
    C = result.tensor[0].numpy()
    assert C[0, 0] > 0.1 and abs(C[2, 2]) < 1e-8  # nothing holds the cell together along the third axis


def test_automatic_choice_goes_on_with_multigrid(monkeypatch):
    """Hard cells of a batch change over, easy ones do not; both end where they should."""
    rng = np.random.default_rng(10)
    cells = np.stack([tpms("gyroid", 8), rng.uniform(size=(8, 8, 8)) > 0.7]).astype(float)
    monkeypatch.setattr("micro.voxel.solver.pcg.PATIENCE", 12)
    result, fourier, multigrid = (
        Homogeniser(cells, preconditioner=name).solve(tolerance=1e-6) for name in ("auto", "fourier", "multigrid")
    )
    assert bool(result.converged.all())
    assert int(result.iterations[0]) <= 15 and int(fourier.iterations[1]) > 60
    assert int(result.iterations[1]) <= 12 + int(multigrid.iterations[1]) + 5
    scale = cells.mean()
    np.testing.assert_allclose(result.tensor, multigrid.tensor, rtol=0, atol=1e-6 * scale)


def test_no_connection_no_stiffness():
    """An island alone: stiffness zero, and an end of the iteration."""
    rho = np.zeros((6, 6, 6))
    rho[1:4, 1:5, 2:4] = 1.0
    result = homogenise(rho, tolerance=1e-6)
    assert bool(result.converged.all()) and float(abs(result.tensor).max()) < 1e-9


@pytest.mark.parametrize("preconditioner", ["fourier", "multigrid"])
def test_counts_hardly_grow(preconditioner):
    """Twice the resolution, or voids in place of a contrast of 1e3: a few steps more at most."""
    count = {
        (n, void): int(
            Homogeniser(np.maximum(tpms("primitive", n), void), preconditioner=preconditioner)
            .solve(tolerance=1e-4)
            .iterations
        )
        for n in (8, 16)
        for void in (1e-3, 1e-9, 0.0)
    }
    assert max(count.values()) <= 14
    assert max(count.values()) - min(count.values()) <= 4


def test_estimate_of_the_error():
    """The estimated error is the true one, rather too large than too small."""
    rng = np.random.default_rng(7)
    cells = np.stack(
        [
            tpms("gyroid", 8),
            make_frame("grid", 8, 0.13),
            rng.uniform(size=(8, 8, 8)) ** 4,
            rng.uniform(size=(8, 8, 8)) > 0.5,
        ]
    )
    cell = Homogeniser(cells.astype(float))
    exact = cell.solve(tolerance=1e-12).tensor.diagonal(dim1=1, dim2=2)
    for tolerance in (1e-2, 1e-4):
        result = cell.solve(tolerance=tolerance)
        true = result.tensor.diagonal(dim1=1, dim2=2) - exact
        assert bool((true <= tolerance * exact).all())
        assert bool((true <= result.left + 1e-12).all()) and bool((result.left <= 200 * true + 1e-12).all())


@pytest.mark.parametrize("name", ["star", "face_center", "tesseract"])
def test_estimate_of_the_error_of_thin_frames(name):
    """Their convergence comes in stairs, so that the latest steps may say too little."""
    cell = Homogeniser(make_frame(name, 16, 0.07).astype(float))
    exact = cell.solve(tolerance=1e-11).tensor.diagonal(dim1=1, dim2=2)
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-5):
        result = cell.solve(tolerance=tolerance)
        true = result.tensor.diagonal(dim1=1, dim2=2) - exact
        assert bool((true <= tolerance * exact).all())
        assert bool((true <= 1.01 * result.left).all())


def test_no_convergence_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        result = Homogeniser(tpms("gyroid", 8)).solve(tolerance=1e-8, iterations=2)
    assert caplog.messages == ["1 of 1 cells did not converge in 2 iterations."]
    assert result.converged.tolist() == [False]


@pytest.mark.parametrize("n", [8, 12])
def test_hinges_in_soft_voids(n):
    """Bars that touch by corners, voids of 1e-9: rounding breaks multigrid in single precision, which is noticed."""
    rho = np.where(make_frame("x", n, 0.06), 1.0, 1e-9)
    exact = Homogeniser(rho, preconditioner="multigrid", precision=torch.float64).solve(tolerance=1e-10).tensor
    for name in ("fourier", "multigrid"):
        result = Homogeniser(rho, preconditioner=name, precision=torch.float32).solve(tolerance=1e-4, iterations=50)
        assert bool(result.converged.all())  # in how many steps is up to rounding
        above = (result.tensor - exact)[0].numpy()
        assert np.linalg.eigvalsh(above)[0] > -1e-9 * float(exact.max())  # of a field, so never below
        assert above.max() < 2e-4 * float(exact.max())


def test_hinges_in_soft_voids_with_other_rounding(monkeypatch):
    """What has converged is right wherever the cell begins and however the preconditioner is rounded."""
    rho = np.where(make_frame("x", 8, 0.06), 1.0, 1e-10)
    exact = Homogeniser(rho, preconditioner="multigrid", precision=torch.float64).solve(tolerance=1e-10).tensor
    generator, precondition = torch.Generator().manual_seed(0), SubBatch.precondition_nodes

    def rounded(part, r):
        z = precondition(part, r)
        return z * (1 + noise * torch.randn(z.shape, generator=generator)) if z.dtype == torch.float32 else z

    monkeypatch.setattr(SubBatch, "precondition_nodes", rounded)
    shifts = np.random.default_rng(0).integers(0, 8, (32, 3))  # the grids of multigrid begin elsewhere
    shifted = np.stack([np.roll(rho, shift, (0, 1, 2)) for shift in shifts])
    for noise in (0.0, 1e-5):
        result = Homogeniser(shifted, preconditioner="multigrid").solve(tolerance=1e-4, iterations=100)
        assert bool(result.converged.all())
        assert float((result.tensor - exact).max()) < 2e-4 * float(exact.max())
