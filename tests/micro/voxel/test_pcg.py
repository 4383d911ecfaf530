"""Passes of conjugate gradients: the soft phase that is split off."""

import numpy as np
import pytest
import torch

from micro.threads import openblas, single
from micro.voxel.cells.tpms import make_tpms
from micro.voxel.solver.element import element_stiffness, isotropic
from micro.voxel.solver.fourier import FourierPreconditioner
from micro.voxel.solver.homogeniser import Homogeniser, homogenise
from micro.voxel.solver.operator import VoxelOperator
from micro.voxel.solver.pcg import conjugate_gradients, measure, on_threads, split_soft_phase


def make_batch():
    """Gyroids of two contrasts, with true voids, with a soft phase that is rare; a homogeneous cell."""
    solid = make_tpms("gyroid", 8)
    rare = np.where(np.arange(512).reshape(8, 8, 8) % 7 == 0, 1e-3, 1.0)
    return np.stack([np.where(solid, 1.0, 1e-9), np.where(solid, 0.5, 1e-3), solid, rare, np.full((8, 8, 8), 0.3)])


def test_what_is_split_off():
    c = torch.tensor(make_batch())[:, None]
    rest, fraction = split_soft_phase(c)
    assert fraction[2:].tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(fraction[:2] * c.mean((1, 2, 3, 4))[:2], torch.tensor([1e-9, 1e-3], dtype=torch.float64))
    back = rest + (fraction * c.mean((1, 2, 3, 4)))[:, None, None, None, None]
    torch.testing.assert_close(back, c.double(), rtol=0, atol=1e-15)
    assert float((rest[0] == 0).double().mean()) == 0.5
    assert split_soft_phase(c[2:]) is None and split_soft_phase(torch.cat([c, c], 1)) is None


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-10])
def test_iterates_are_the_same(precision, tolerance, monkeypatch):
    """With the soft phase multiplied, and with what is known of it: the steps, the tensor, the displacements."""
    found, few = [], []
    for soft in (0.03, 0.0):
        monkeypatch.setattr("micro.voxel.solver.pcg.SOFT", soft)
        cell = Homogeniser(make_batch(), preconditioner="fourier", precision=precision)
        found.append(cell.solve(tolerance=tolerance))
        few.append(cell.solve(tolerance=1e-14, iterations=5))  # as many steps for both, not ended by a tolerance
        assert (cell._pcg.part("fourier", torch.arange(5)).soft is None) == (soft == 0.0)
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
    monkeypatch.setattr("micro.voxel.solver.pcg.THREADS", 1)
    monkeypatch.setattr("micro.voxel.solver.pcg.TOGETHER", {"cpu": 1000})
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
        monkeypatch.setattr("micro.voxel.solver.pcg.ALONE", 1)
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
        assert on_threads(lambda k: (k, torch.is_grad_enabled(), torch.get_num_threads()), [3, 1, 2], 2) == [
            (3, False, 1),
            (1, False, 1),
            (2, False, 1),
        ]
        with pytest.raises(ZeroDivisionError):
            on_threads(lambda k: 1 // k, [1, 0], 2)
        with single():
            assert blas is None or blas.openblas_get_num_threads() == 1
        assert torch.get_num_threads() == 2 and torch.is_grad_enabled()
        assert blas is None or blas.openblas_get_num_threads() == has
    finally:
        torch.set_num_threads(before)


def quadratic():
    """A stiffness (12, 12), forces out of balance (1, 3, 1, 4), and the energy that they can gain."""
    rng = np.random.default_rng(2)
    A = torch.tensor(rng.normal(size=(12, 12)))
    K, r = A @ A.T + torch.eye(12), torch.tensor(rng.normal(size=(1, 3, 1, 4)))
    return K, r, float(r.flatten() @ torch.linalg.solve(K, r.flatten()))


def multiply(matrix):
    return lambda r: (matrix @ r.flatten()).view(r.shape)


def limit(count):
    return torch.full((1, 1), count)


def test_indefinite_pass_does_not_converge():
    """A preconditioner or a stiffness that rounding made indefinite: no gain is not the end."""
    K, r, energy = quadratic()
    goal = lambda gained: torch.full_like(gained, 1e-6 * energy)
    found = conjugate_gradients(multiply(K), torch.clone, r.clone(), goal, limit(40))
    assert bool(found.converged) and float(found.gained) == pytest.approx(energy, rel=1e-6)
    found = conjugate_gradients(multiply(K), torch.neg, r.clone(), goal, limit(40))
    assert not bool(found.converged) and int(found.iterations) == 0 and float(found.left) == np.inf
    found = conjugate_gradients(multiply(-K), torch.clone, r.clone(), goal, limit(40))
    assert not bool(found.converged) and float(found.gained) == 0.0 and float(found.left) == np.inf
    wrong = torch.ones(12, dtype=torch.float64)
    wrong[5:] = -0.5  # the first product is positive still, later ones are not
    assert float(r.flatten() @ (wrong * r.flatten())) > 0
    found = conjugate_gradients(multiply(K), multiply(torch.diag(wrong)), r.clone(), goal, limit(40))
    assert not bool(found.converged) and float(found.left) == np.inf


def test_nothing_to_do_converges():
    K, r, energy = quadratic()
    goal = lambda gained: torch.full_like(gained, energy)
    found = conjugate_gradients(multiply(K), torch.clone, torch.zeros_like(r), goal, limit(40))
    assert bool(found.converged) and int(found.iterations) == 0 and float(found.left) == 0.0


def test_measured_gain():
    """Of a step that is too long by a factor: the energy by its definition, and the line search by its minimum."""
    K, r, energy = quadratic()
    u = torch.linalg.solve(K, r.flatten())
    for factor in (0.5, 1.0, 1.7, 2.5):
        step = factor * u
        gained, missed = measure(step.view(r.shape), r, r - multiply(K)(step.view(r.shape)))
        assert float(gained) == pytest.approx(float(2 * step @ r.flatten() - step @ K @ step), rel=1e-10)
        assert float(missed) == pytest.approx((1 - factor) ** 2 * energy, rel=1e-9, abs=1e-20)
