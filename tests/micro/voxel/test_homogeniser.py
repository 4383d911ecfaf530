"""The homogeniser: closed forms, bounds, symmetries, an independent solver, gradients."""

from pathlib import Path

import numpy as np
import pytest
from loading import load_file

from micro.voxel.cells.frames import make_frame
from micro.voxel.cells.tpms import make_tpms
from micro.voxel.solver.element import from_lame, isotropic
from micro.voxel.solver.homogeniser import PRECONDITIONERS, Homogeniser, homogenise

reference = load_file(Path(__file__).with_name("voxel_reference.py"))


def tpms(name, n):
    """Densities of a surface filled at level 0."""
    return make_tpms(name, n).astype(float)


def random_moduli(rng, size=1.0):
    M = rng.normal(size=(6, 6))
    return size * (M @ M.T + np.eye(6))


def laminate(layers, axis):
    """Effective moduli of layers (fraction, moduli): strain in their plane and stress on it are uniform."""
    shears = {0: (4, 5), 1: (3, 5), 2: (3, 4)}[axis]
    n = [axis, *shears]
    t = [i for i in range(6) if i not in n]
    mean = sum(f * np.linalg.inv(D[np.ix_(n, n)]) for f, D in layers)
    cross = sum(f * np.linalg.inv(D[np.ix_(n, n)]) @ D[np.ix_(n, t)] for f, D in layers)
    plane = sum(
        f * (D[np.ix_(t, t)] - D[np.ix_(t, n)] @ np.linalg.inv(D[np.ix_(n, n)]) @ D[np.ix_(n, t)]) for f, D in layers
    )
    C = np.zeros((6, 6))
    C[np.ix_(n, n)] = np.linalg.inv(mean)
    C[np.ix_(n, t)] = np.linalg.inv(mean) @ cross
    C[np.ix_(t, n)] = C[np.ix_(n, t)].T
    C[np.ix_(t, t)] = plane + cross.T @ np.linalg.inv(mean) @ cross
    return C


@pytest.mark.parametrize("preconditioner", ["fourier", "multigrid"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_laminate(axis, preconditioner):
    """Layers of three anisotropic materials, a thousand times apart, closed form."""
    rng = np.random.default_rng(axis)
    D = np.stack([random_moduli(rng), random_moduli(rng, 30.0), random_moduli(rng, 0.03)])
    order = np.array([0, 0, 1, 2, 1, 1])
    shape = [2, 3, 2]
    shape[axis] = 6
    phase = np.broadcast_to(np.moveaxis(order.reshape(6, 1, 1), 0, axis), shape)
    exact = laminate([(1 / 6, D[p]) for p in order], axis)
    cell = Homogeniser(None, D, phase, spacing=(0.3, 0.2, 0.5), preconditioner=preconditioner)
    result = cell.solve(tolerance=1e-13)
    assert bool(result.converged.all())
    assert abs(result.tensor[0].numpy() - exact).max() < 1e-10 * abs(exact).max()
    stress = cell.stress(result.displacement)[0].mean(dim=(-3, -2, -1))  # load, component
    assert abs(stress.numpy() - exact).max() < 1e-5 * abs(exact).max()


def test_equal_shear_moduli():
    """Hill: with one shear modulus G the cell has C44 = G and C11 - C12 = 2 G whatever the geometry."""
    rng = np.random.default_rng(0)
    G, lmbda = 0.7, (0.0, 1.0, 50.0)
    phase = rng.integers(0, 3, (5, 6, 7))
    D = np.stack([from_lame(value, G) for value in lmbda])
    C = homogenise(None, D, phase=phase, tolerance=1e-13).tensor[0].numpy()
    np.testing.assert_allclose(C, from_lame(C[0, 1], G), rtol=0, atol=1e-10)
    exact = 1 / np.mean([1 / (value + 2 * G) for value in np.take(lmbda, phase)]) - 2 * G  # of the continuum
    assert exact < C[0, 1] < np.take(lmbda, phase).mean()


def test_homogeneous_cell():
    D = random_moduli(np.random.default_rng(1))
    result = homogenise(np.full((3, 4, 5), 0.25), D)
    np.testing.assert_allclose(result.tensor[0], 0.25 * D, rtol=1e-13)
    assert result.iterations.tolist() == [0] and float(abs(result.displacement).max()) == 0.0


def test_voigt_reuss_and_hashin_shtrikman_bounds():
    rho = np.where(tpms("primitive", 12) > 0, 1.0, 0.05)
    D = isotropic(1.0, 0.3)
    C = homogenise(rho, D, tolerance=1e-8).tensor[0].numpy()
    assert np.linalg.eigvalsh(rho.mean() * D - C)[0] > 0
    assert np.linalg.eigvalsh(C - D / np.mean(1 / rho))[0] > 0
    f = (rho == 1).mean()
    K1, G1 = D[0, 0] - 4 / 3 * D[3, 3], D[3, 3]
    K0, G0 = 0.05 * K1, 0.05 * G1
    upper = K1 + (1 - f) / (1 / (K0 - K1) + 3 * f / (3 * K1 + 4 * G1))
    lower = K0 + f / (1 / (K1 - K0) + 3 * (1 - f) / (3 * K0 + 4 * G0))
    assert lower < C[:3, :3].mean() < upper

    def shear(K, G, K_, G_, part):  # of a matrix K, G with a part of K_, G_
        return G + part / (1 / (G_ - G) + 6 * (1 - part) * (K + 2 * G) / (5 * G * (3 * K + 4 * G)))

    # a polycrystal of such cells is isotropic and of the same two materials, its shear modulus between these averages
    S = np.linalg.inv(C)
    voigt = ((C[0, 0] - C[0, 1]) + 3 * C[3, 3]) / 5
    reuss = 5 / (4 * (S[0, 0] - S[0, 1]) + 3 * S[3, 3])
    assert shear(K0, G0, K1, G1, f) < voigt and reuss < shear(K1, G1, K0, G0, 1 - f)
    assert reuss < voigt < 1.1 * reuss


@pytest.mark.parametrize("name", ["gyroid", "primitive"])
@pytest.mark.parametrize("void", [1e-9, 0.0])
def test_independent_assembly(name, void):
    """To six digits and more; a tenth of the voxels are damaged, so that no symmetry hides an error."""
    rng = np.random.default_rng(2)
    rho = np.maximum(tpms(name, 9) * rng.uniform(0.5, 1, (9, 9, 9)), void)
    D = random_moduli(rng)
    exact = reference.effective_tensor(rho, [D])
    for preconditioner in PRECONDITIONERS:
        result = Homogeniser(rho, D, preconditioner=preconditioner).solve(tolerance=1e-8)
        assert abs(result.tensor[0].numpy() - exact).max() < 1e-7 * abs(exact).max()


@pytest.mark.parametrize("name", ["gyroid", "primitive"])
def test_surfaces_to_six_digits(name):
    """Every component of the cells as they are defined, voids empty, zeros included."""
    rho = tpms(name, 12)
    exact = reference.effective_tensor(rho, [isotropic()])
    C = homogenise(rho, tolerance=1e-8).tensor[0].numpy()
    np.testing.assert_allclose(C, exact, rtol=1e-6, atol=1e-7 * exact.max())


def test_phases_and_densities_against_independent_assembly():
    """Three phases of rank three, one of them anisotropic, on oblong voxels; sides odd and even."""
    rng = np.random.default_rng(3)
    D = np.stack([isotropic(1.0, 0.3), isotropic(20.0, 0.1), random_moduli(rng, 0.01)])
    phase, rho = rng.integers(0, 3, (5, 6, 9)), rng.uniform(0.2, 1, (5, 6, 9))
    h = (0.1, 0.2, 0.15)
    exact = reference.effective_tensor(rho, D, phase, h)
    for preconditioner in ("fourier", "multigrid"):
        cell = Homogeniser(rho, D, phase, spacing=h, preconditioner=preconditioner)
        assert cell.operator.rank == 3
        np.testing.assert_allclose(cell.solve(tolerance=1e-9).tensor[0], exact, rtol=0, atol=1e-8 * abs(exact).max())


def test_published_grid_cell():
    """Dong, Tang and Zhao (2019), doi:10.1115/1.4040555: lattice of round bars, four digits."""
    rho = make_frame("grid", 40, 0.1)
    assert rho.mean() == pytest.approx(0.085, abs=1e-3)
    C = homogenise(rho, from_lame(115.4, 79.6), tolerance=1e-5).tensor[0]
    assert [round(float(C[i, j]), 4) for i, j in ((0, 0), (0, 1), (3, 3))] == [7.1876, 0.3875, 0.1489]


def test_gyroid_at_forty():
    C = homogenise(tpms("gyroid", 40), tolerance=1e-5).tensor[0]
    assert [round(float(C[i, j]), 4) for i, j in ((0, 0), (0, 1), (3, 3))] == [0.2620, 0.1027, 0.1029]


def test_cubic_symmetry():
    C = homogenise(tpms("primitive", 10), tolerance=1e-10).tensor[0].numpy()
    cubic = from_lame(C[0, 1], C[3, 3])
    cubic[:3, :3] += (C[0, 0] - cubic[0, 0]) * np.eye(3)
    np.testing.assert_allclose(C, cubic, rtol=0, atol=1e-9)


def test_shift_and_rotation_equivariance():
    """Shifts change nothing; cyclic exchange of the axes and a quarter turn move the components with the cell."""
    rng = np.random.default_rng(4)
    rho = rng.uniform(0.01, 1, (6, 6, 6)) * (rng.uniform(size=(6, 6, 6)) > 0.3)
    C = homogenise(rho, tolerance=1e-11).tensor[0].numpy()
    shifted = homogenise(np.roll(rho, (1, 3, 2), (0, 1, 2)), tolerance=1e-11).tensor[0].numpy()
    np.testing.assert_allclose(shifted, C, rtol=0, atol=1e-9)
    turned = homogenise(np.ascontiguousarray(rho.transpose(2, 0, 1)), tolerance=1e-11).tensor[0].numpy()
    order = [2, 0, 1, 5, 3, 4]
    np.testing.assert_allclose(turned, C[np.ix_(order, order)], rtol=0, atol=1e-9)
    quarter = homogenise(np.rot90(rho, axes=(0, 1)).copy(), tolerance=1e-11).tensor[0].numpy()
    order, sign = [1, 0, 2, 4, 3, 5], np.array([1, 1, 1, 1, -1, -1])  # x to y, y to -x
    np.testing.assert_allclose(quarter, C[np.ix_(order, order)] * np.outer(sign, sign), rtol=0, atol=1e-9)


def test_scale_of_the_voxel_does_not_matter():
    rho = tpms("gyroid", 6) + 0.1
    a, b = (homogenise(rho, tolerance=1e-11, spacing=(s, s, s)).tensor for s in (1e-6, 3.0))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def test_gradient_against_differences():
    rng = np.random.default_rng(8)
    D = np.stack([isotropic(1.0, 0.3), random_moduli(rng)])
    rho, phase = rng.uniform(0.2, 1, (4, 5, 4)), rng.integers(0, 2, (4, 5, 4))
    cell = Homogeniser(rho, D, phase)
    gradient = cell.gradient(cell.solve(tolerance=1e-13).displacement)[0].numpy()
    for voxel in ((0, 0, 0), (3, 2, 1), (1, 4, 3)):
        ends = []
        for step in (-1e-4, 1e-4):
            moved = rho.copy()
            moved[voxel] += step
            ends.append(homogenise(moved, D, phase=phase, tolerance=1e-13).tensor[0].numpy())
        np.testing.assert_allclose(gradient[(..., *voxel)], (ends[1] - ends[0]) / 2e-4, rtol=1e-4, atol=1e-7)
    # homogeneous of degree one in the density
    np.testing.assert_allclose((gradient * rho).sum((-3, -2, -1)), cell.solve(tolerance=1e-13).tensor[0], rtol=1e-6)


def test_fields_average_to_the_load_and_to_the_tensor():
    cell = Homogeniser(np.random.default_rng(9).uniform(0.1, 1, (5, 4, 6)))
    result = cell.solve(tolerance=1e-12)
    strain, stress = cell.strain(result.displacement)[0], cell.stress(result.displacement)[0]
    np.testing.assert_allclose(strain.mean((-3, -2, -1)), np.eye(6), atol=1e-12)
    np.testing.assert_allclose(stress.mean((-3, -2, -1)), result.tensor[0], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"density": np.ones((3, 3))}, "density must have shape (cells, X, Y, Z) or (X, Y, Z), got (3, 3)."),
        ({"density": -np.ones((3, 3, 3))}, "density must be finite and at least 0."),
        ({"density": np.full((3, 3, 3), np.nan)}, "density must be finite and at least 0."),
        ({}, "density or phase must be given."),
        (
            {"density": np.ones((2, 2, 2)), "stiffness": np.eye(5)},
            "stiffness must have shape (6, 6) or (p, 6, 6), got (5, 5).",
        ),
        (
            {"density": np.ones((2, 2, 2)), "stiffness": np.triu(np.ones((6, 6)))},
            "stiffness of phase 0 must be symmetric.",
        ),
        (
            {"density": np.ones((2, 2, 2)), "stiffness": -np.eye(6)},
            "stiffness of phase 0 must be positive semi-definite.",
        ),
        ({"density": np.ones((2, 2, 2)), "stiffness": np.stack([np.eye(6)] * 2)}, "phase must be given for 2 phases."),
        ({"phase": np.ones((2, 2, 2))}, "phase must be integers, got torch.float64."),
        ({"phase": np.ones((2, 2, 2), int)}, "phase must lie between 0 and 0."),
        (
            {"density": np.ones((2, 2, 2)), "spacing": (1, 0, 1)},
            "spacing must be three positive numbers, got (1, 0, 1).",
        ),
        (
            {"density": np.ones((2, 2, 2)), "preconditioner": "magic"},
            "preconditioner must be one of auto, fourier, multigrid, none, got 'magic'.",
        ),
    ],
)
def test_bad_input(arguments, sentence):
    with pytest.raises(ValueError) as caught:
        Homogeniser(**arguments)
    assert str(caught.value) == sentence
