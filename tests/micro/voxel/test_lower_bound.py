"""Lower bounds from stresses in equilibrium: they bound, they close with the error, they need no care about voids."""

import numpy as np
import pytest
import torch

from micro.voxel.bounds.coarse_problem import CoarseProblem
from micro.voxel.bounds.lower_bound import bounds, cost_of_rest, subdomain_energies
from micro.voxel.bounds.subdomains import cut, make_subdomains
from micro.voxel.cells.frames import FRAMES, make_frame
from micro.voxel.cells.tpms import make_tpms
from micro.voxel.solver.element import isotropic
from micro.voxel.solver.homogeniser import Homogeniser


def cells():
    """Cells that are hard in different ways."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(size=(9, 9, 9))
    bars = np.zeros((9, 9, 9))
    bars[:, 3:6, 3:6] = bars[3:6, :, 3:6] = 1.0
    bars[8, 2, 2] = bars[7, 1, 1] = bars[0, 0, 0] = 1.0  # a voxel along an edge, one at a corner, an island
    return {
        "gyroid": make_tpms("gyroid", 9),
        "soft voids": np.maximum(make_tpms("primitive", 9), 1e-9),
        "thin": make_frame("x", 9, 0.1),
        "densities": noise**3,
        "random": noise > 0.5,
        "loose": bars,
    }


@pytest.mark.parametrize(("name", "size"), [*zip(cells(), (3, 4, 3, 4, 3, 4))])
def test_exact_tensor_lies_between_the_bounds(name, size):
    cell = Homogeniser(cells()[name].astype(float), preconditioner="multigrid")
    exact = cell.solve(tolerance=1e-12).tensor[0].numpy()
    scale = np.linalg.eigvalsh(exact)[-1]
    widths = []
    for tolerance in (1e-1, 1e-3, 1e-5):
        u = cell.solve(tolerance=tolerance).displacement
        result = bounds(cell, u, size=size)
        lower, upper = result.lower[0].numpy(), result.upper[0].numpy()
        assert np.linalg.eigvalsh(exact - lower)[0] > -1e-11 * scale
        assert np.linalg.eigvalsh(upper - exact)[0] > -1e-11 * scale
        assert np.linalg.eigvalsh(cell.tensor(u)[0].numpy() - upper)[0] > -1e-11 * scale  # balancing lowers the energy
        error, width = np.trace(upper - exact), np.trace(upper - lower)
        assert width <= 6 * error + 1e-10 * scale
        widths.append(width)
    assert widths[2] < 1e-4 * scale and widths[2] < 0.01 * widths[0] + 1e-9 * scale


def test_bounds_from_nothing():
    """From u = 0, a batch of cells of three phases: still bounds, if wide ones."""
    rng = np.random.default_rng(1)
    M = rng.normal(size=(6, 6))
    D = np.stack([isotropic(1.0, 0.3), isotropic(30.0, 0.1), M @ M.T + np.eye(6)])
    cell = Homogeniser(None, D, rng.integers(0, 3, (2, 5, 6, 7)))
    exact = cell.solve(tolerance=1e-12).tensor
    result = bounds(cell, torch.zeros_like(cell.load))
    for k in range(2):
        assert np.linalg.eigvalsh((exact - result.lower)[k])[0] > 0
        assert np.linalg.eigvalsh((result.upper - exact)[k])[0] > 0
        assert np.linalg.eigvalsh((cell.voigt - result.upper)[k])[0] > 0
    assert bool((result.accuracy > 0.01).all())


def test_accuracy_encloses_the_tensor():
    cell = Homogeniser(make_tpms("diamond", 8, 0.2).astype(float))
    exact = cell.solve(tolerance=1e-12).tensor[0].numpy()
    result = bounds(cell, cell.solve(tolerance=1e-2).displacement)
    accuracy = float(result.accuracy[0])
    assert 1e-5 < accuracy < 0.1
    middle = ((result.upper + result.lower) / 2)[0].numpy()
    inverse = np.linalg.inv(np.linalg.cholesky(middle))
    values = np.linalg.eigvalsh(inverse @ exact @ inverse.T)
    assert 1 - accuracy <= values[0] and values[-1] <= 1 + accuracy


def test_void_and_homogeneous_cells():
    empty = Homogeniser(np.zeros((4, 4, 4)))
    assert float(bounds(empty, torch.zeros_like(empty.load)).upper.abs().max()) == 0.0
    full = Homogeniser(np.ones((4, 5, 6)))
    result = bounds(full, torch.zeros_like(full.load))
    np.testing.assert_allclose(result.lower[0], isotropic(), atol=1e-12)
    np.testing.assert_allclose(result.upper[0], isotropic(), atol=1e-12)
    mixed = Homogeniser(np.stack([np.zeros((6, 6, 6)), make_frame("grid", 6, 0.2), np.ones((6, 6, 6))]))
    u = mixed.solve(tolerance=1e-3).displacement
    result, alone = bounds(mixed, u), bounds(Homogeniser(make_frame("grid", 6, 0.2)), u[1:2])
    assert float(result.lower[0].abs().max()) == 0.0 == float(result.upper[0].abs().max())
    np.testing.assert_allclose(result.lower[1], alone.lower[0], atol=1e-9)  # cells of a batch do not see each other
    np.testing.assert_allclose(result.lower[2], isotropic(), atol=1e-12)


@pytest.mark.parametrize("name", ["gyroid", "soft voids", "random", "loose"])
def test_bodies_are_a_partition(name):
    """Every solid voxel belongs to one subdomain, the parts of a node add up, and the sharing has its transpose."""
    cell = Homogeniser(np.stack([cells()[name], cells()["densities"]]).astype(float))
    operator = cell.operator
    subdomains = make_subdomains(operator, cell.spacing, 4)
    np.testing.assert_allclose(subdomains.coefficients.sum(), operator.coefficients.sum())
    sums = torch.zeros(2 * 9**3, dtype=torch.float64).index_add_(
        0, subdomains.nodes.flatten(), subdomains.weights.flatten()
    )
    solid = operator.diagonal()[..., 0, 0].flatten() > 0
    np.testing.assert_allclose(sums, solid.double(), atol=1e-12)
    rng = np.random.default_rng(2)
    r, q = torch.tensor(rng.normal(size=cell.load.shape)), torch.tensor(rng.normal(size=(len(subdomains), 6, 6)))
    left = (subdomains.resultants(r) * q).sum()
    np.testing.assert_allclose(left, (r * subdomains.extend(q, r.shape)).sum(), rtol=1e-10)
    rigid = subdomains.extend(torch.eye(6).to(q).expand(len(subdomains), 6, 6)[:, :, :3].contiguous(), r[:, :3].shape)
    np.testing.assert_allclose(rigid.sum(1).permute(0, 2, 3, 4, 1).reshape(-1, 3)[solid], 1.0, atol=1e-12)


def test_matrix_of_the_rigid_bodies(monkeypatch):
    """It is the Galerkin product: oblong cells, one, two and four blocks a side; assembled in pieces."""
    rng = np.random.default_rng(3)
    cell = Homogeniser((rng.uniform(size=(2, 3, 7, 14)) > 0.4).astype(float))
    monkeypatch.setattr("micro.voxel.bounds.coarse_problem.SOME", 50)
    coarse = CoarseProblem(cell, 4)
    assert coarse.subdomains.size == (3, 4, 4)
    q = torch.tensor(rng.normal(size=(len(coarse.subdomains), 6, 6)))
    product = coarse.subdomains.resultants(cell.operator.apply(coarse.subdomains.extend(q, cell.load.shape)))
    np.testing.assert_allclose(coarse.multiply(q), product, atol=1e-10)


def test_energies_of_bodies_do_not_depend_on_how_they_are_taken(monkeypatch):
    cell = Homogeniser(np.stack([make_frame("grid", 12, 0.2), np.ones((12, 12, 12))]).astype(float) + 1e-3)
    coarse = CoarseProblem(cell, 3)
    _, r, _, balanced = coarse.correct(torch.zeros_like(cell.load), -cell.load)
    assert bool(balanced.all())
    f = coarse.subdomains.restrict(r)
    whole = subdomain_energies(coarse.subdomains, cell.operator.basis, f)
    monkeypatch.setattr("micro.voxel.bounds.lower_bound.ROOM", {"cpu": 1})
    np.testing.assert_allclose(subdomain_energies(coarse.subdomains, cell.operator.basis, f), whole, atol=1e-12)


@pytest.mark.parametrize(("n", "size"), [(1, 4), (4, 4), (5, 4), (8, 4), (9, 4), (13, 4), (40, 4), (41, 3)])
def test_cuts(n, size):
    edges = cut(n, size)
    assert edges[0] == 0 and edges[-1] == n and np.diff(edges).max() <= size
    assert np.ptp(np.diff(edges)) <= 1


@pytest.mark.parametrize("power", [4, 12])
def test_densities_of_all_orders(power):
    """Densities of up to thirty orders in one cell, as penalised samples have them: factors exist, bounds hold."""
    rho = np.random.default_rng(4).uniform(size=(6, 6, 6)) ** power
    cell = Homogeniser(rho, preconditioner="multigrid")
    exact = cell.solve(tolerance=1e-12).tensor[0].numpy()
    result = bounds(cell, cell.solve(tolerance=1e-3).displacement)
    scale = np.linalg.eigvalsh(exact)[-1]
    assert np.linalg.eigvalsh(exact - result.lower[0].numpy())[0] > -1e-11 * scale
    assert np.trace(result.upper[0].numpy() - result.lower[0].numpy()) < 0.02 * np.trace(exact)


def hard_cells(count):
    """Cells of many kinds and orders of density, drawn at random."""
    rng = np.random.default_rng(7)
    for k in range(count):
        n = int(rng.choice([6, 8]))
        noise = rng.uniform(size=(n, n, n))
        frame = make_frame(FRAMES[k % 9], n, rng.uniform(0.08, 0.2))
        solid = noise > rng.uniform(0.3, 0.7)
        yield (solid, np.maximum(solid, 1e-9), noise ** rng.uniform(1, 8), frame, np.maximum(frame, 1e-9))[k % 5]


@pytest.mark.slow
def test_no_bound_is_on_the_wrong_side():
    """Whatever the cell and the field: noise, nothing, and fields of three tolerances."""
    rng = np.random.default_rng(8)
    for rho in hard_cells(100):
        cell = Homogeniser(rho.astype(float), preconditioner="multigrid")
        solved = cell.solve(tolerance=1e-13)
        assert bool(solved.converged.all())
        exact, scale = solved.tensor[0].numpy(), float(cell.voigt.max())
        fields = [cell.solve(tolerance=tolerance).displacement for tolerance in (1e-1, 1e-2, 1e-4)]
        for u in (torch.zeros_like(cell.load), torch.tensor(rng.normal(size=cell.load.shape)), *fields):
            result = bounds(cell, u)
            assert np.linalg.eigvalsh(exact - result.lower[0].numpy())[0] > -1e-12 * scale
            assert np.linalg.eigvalsh(result.upper[0].numpy() - exact)[0] > -1e-12 * scale


def test_bodies_that_hang_together_by_soft_voids():
    """Random voxels meet in edges and corners, with next to nothing between: there are bounds, and narrow ones."""
    rho = np.maximum(np.random.default_rng(0).uniform(size=(7, 7, 7)) > 0.5, 1e-9)
    cell = Homogeniser(rho, preconditioner="multigrid")
    exact = cell.solve(tolerance=1e-11).tensor[0].numpy()
    for tolerance in (1e-1, 1e-3):
        result = bounds(cell, cell.solve(tolerance=tolerance).displacement)
        assert np.linalg.eigvalsh(exact - result.lower[0].numpy())[0] > 0
        assert np.trace((result.upper - result.lower)[0].numpy()) < tolerance * np.trace(exact)


@pytest.mark.parametrize("tolerance", [0.3, 0.03, 1e-4])
def test_a_small_problem_left_early_costs_width_not_truth(tolerance):
    """However early the rigid subdomains' iteration ends, the bound holds: what it lacks is taken off."""
    cell = Homogeniser(make_frame("x", 10, 0.15).astype(float), preconditioner="multigrid")
    exact = cell.solve(tolerance=1e-12).tensor[0].numpy()
    u = cell.solve(tolerance=1e-2).displacement
    coarse = CoarseProblem(cell, 3)
    q, rest = coarse.solve(coarse.subdomains.resultants(cell.residual(u)), tolerance=tolerance)
    best, _ = coarse.solve(coarse.subdomains.resultants(cell.residual(u)), tolerance=1e-9)
    lacking = coarse.dot(best - q, coarse.multiply(best - q))  # its energy
    assert bool((lacking <= rest).all()) and bool((rest <= 1e4 * lacking + 1e-12 * cell.volume).all())
    u = u + coarse.subdomains.extend(q, u.shape)
    r = cell.residual(u)
    energies = subdomain_energies(coarse.subdomains, cell.operator.basis, coarse.subdomains.restrict(r))
    gap = energies.sum(0, keepdim=True) / cell.volume
    lower = cell.tensor(u, r) - gap - cost_of_rest(gap, rest / cell.volume)
    assert np.linalg.eigvalsh(exact - lower[0].numpy())[0] > 0
