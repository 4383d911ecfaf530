"""The order of the components of a symmetric tensor: every package agrees with the orders named in `micro.tensors`.

Each function is held to full 3 x 3 tensors whose components all differ, so that any exchange of two of them is seen.
"""

import numpy as np
import pytest
import torch

from micro.crystal.paths import random_walk
from micro.lattice.bars import KinematicBar
from micro.lattice.condensation import mandel_rows
from micro.lattice.geometry import make_cell
from micro.tensors import (
    ENGINEERING_ORDER,
    ORDERS,
    PATH_ORDER,
    PLANE_ORDER,
    Order,
    from_components,
    mandel_basis,
    mandel_factors,
    to_components,
)
from micro.voxel.solver import element
from surrogates import tensors
from surrogates.cells.stiffness import directional_stiffness, engineering_constants
from surrogates.path.data import mandel, matrices
from surrogates.tann.data import FIELDS, paths_of
from surrogates.tann.exact import lattice_law

STRAIN = 1e-3 * np.array([[1.1, 0.4, -0.6], [0.4, -2.3, 0.5], [-0.6, 0.5, 3.7]])  # all six components differ


def factors(order: Order, shear: float) -> np.ndarray:
    """Factors (c,) from components to a vector: 1, and `shear` off the diagonal."""
    return np.array([1.0 if i == j else shear for i, j in order.pairs])


def stiffness() -> tuple[np.ndarray, np.ndarray]:
    """A stiffness (6, 6) with engineering shear, symmetric and positive definite, and the same as (3, 3, 3, 3)."""
    A = np.random.default_rng(5).normal(size=(6, 6))
    C = A @ A.T + 6 * np.eye(6)
    place = np.array(ENGINEERING_ORDER.places).reshape(3, 3)
    return C, C[place[:, :, None, None], place]


def test_the_orders_are_those_of_the_papers() -> None:
    assert PATH_ORDER.names == "11 22 33 12 23 13"
    assert PLANE_ORDER.names == "11 22 12"
    assert ENGINEERING_ORDER.names == "11 22 33 23 13 12"


@pytest.mark.parametrize("order", [PATH_ORDER, PLANE_ORDER, ENGINEERING_ORDER])
def test_components_and_tensors_are_inverse(order: Order) -> None:
    A = STRAIN[: order.dimension, : order.dimension]
    v = to_components(A, order)
    assert list(v) == [A[i, j] for i, j in order.pairs]
    assert np.array_equal(from_components(v, order), A)
    assert torch.equal(from_components(torch.from_numpy(v), order), torch.from_numpy(A))
    M = np.array(mandel_factors(order)) * v
    assert np.allclose(np.einsum("c,cij->ij", M, mandel_basis(order).numpy()), A, rtol=1e-15)
    assert M @ M == pytest.approx((A * A).sum())


def test_paths_of_crystals_and_laws_trained_on_them_share_an_order() -> None:
    U = random_walk(range(2), 1, strain=0.3, steps=5, duration=(1e-6, 1e-6)).U
    full = matrices(U).reshape(-1, 3, 3)
    assert np.array_equal(full.numpy(), from_components(U.reshape(-1, 6), PATH_ORDER))
    assert torch.allclose(mandel(U).reshape(-1, 6), tensors.to_vector(full), rtol=1e-15)
    A = torch.from_numpy(STRAIN)[None]
    expected = torch.from_numpy(factors(PATH_ORDER, 2**0.5) * to_components(STRAIN, PATH_ORDER))
    assert torch.allclose(tensors.to_vector(A)[0], expected, rtol=1e-15)
    assert torch.allclose(tensors.to_matrix(expected[None]), A, rtol=1e-15)
    assert torch.allclose(torch.jit.script(tensors.to_matrix)(expected[None]), A, rtol=1e-15)


@pytest.mark.parametrize("d", [2, 3])
def test_lattice_cells_and_their_laws_share_an_order(d: int) -> None:
    E, order = STRAIN[:d, :d], ORDERS[d]
    vector = factors(order, 2**0.5) * to_components(E, order)
    a, b = np.random.default_rng(1).normal(size=(2, 4, d))
    assert np.allclose(mandel_rows(a, b) @ vector, np.einsum("ni,ij,nj->n", a, E, b), rtol=1e-12)
    law = lattice_law(make_cell("square-1" if d == 2 else "cube-1"), KinematicBar())
    assert np.allclose(law.strain(torch.eye(d) + torch.from_numpy(E)[None])[0].numpy(), vector, rtol=1e-9)
    arrays = {name: np.zeros((1, 1, 1)) for name in FIELDS} | {"psi": np.zeros((1, 1)), "dissipation": np.zeros((1, 1))}
    arrays |= {"strain": to_components(E, order)[None, None], "stress": to_components(E, order)[None, None]}
    path = paths_of(arrays, np.arange(1), {"parameters": {}})
    assert np.allclose(path.strain[0, 0].numpy(), vector, rtol=1e-15) and path.dimension == d
    # The law answers in tensors: the stress of the strain vector times the stiffness that its cell has.
    P, _ = law.forward(torch.eye(d) + torch.from_numpy(E)[None], law.initial_state(1), 1.0)
    sigma = np.einsum("c,cij->ij", law.C.detach().numpy() @ vector, mandel_basis(order).numpy())
    assert np.allclose(P[0].numpy(), sigma, rtol=1e-9, atol=1e-9 * abs(sigma).max())


def test_strains_of_voxels_have_engineering_order() -> None:
    spacing = np.array([1.0, 0.5, 2.0])
    u = (element.CORNERS * spacing) @ STRAIN.T
    strain = element.strain_operator(np.array([0.3, 0.6, 0.2]), spacing) @ u.reshape(-1)
    engineering = factors(ENGINEERING_ORDER, 2.0) * to_components(STRAIN, ENGINEERING_ORDER)
    assert np.allclose(strain, engineering, rtol=1e-12)
    shifted = element.affine(spacing) @ engineering  # up to a translation and a rotation: none of both in it
    assert np.allclose(shifted, (u - u[0]).reshape(-1), rtol=1e-12, atol=1e-15)


def test_a_stiffness_goes_from_voxels_through_surrogates_to_the_macro_solver() -> None:
    C, full = stiffness()
    engineering = factors(ENGINEERING_ORDER, 2.0) * to_components(STRAIN, ENGINEERING_ORDER)
    sigma = np.einsum("ijkl,kl->ij", full, STRAIN)
    assert np.allclose(from_components(C @ engineering, ENGINEERING_ORDER), sigma, rtol=1e-12)
    # The same material on Mandel vectors in the other order: Young's moduli along directions and axes.
    basis = mandel_basis(PATH_ORDER).numpy()
    compliance = np.linalg.inv(np.einsum("aij,ijkl,bkl->ab", basis, full, basis))
    n = np.array([0.48, -0.6, 0.64])
    nn = np.einsum("aij,i,j->a", basis, n, n)
    assert directional_stiffness(C, n) == pytest.approx(1 / (nn @ compliance @ nn))
    constants = engineering_constants(C)
    for name, (i, j) in (("12", (0, 1)), ("23", (1, 2)), ("13", (0, 2))):
        row = PATH_ORDER.pairs.index((i, j))
        assert constants[f"G_{name}"] == pytest.approx(1 / (2 * compliance[row, row]))
        assert constants[f"nu_{name}"] == pytest.approx(-compliance[j, i] / compliance[i, i])
    anisotropic = pytest.importorskip("fem.laws.anisotropic")
    law = anisotropic.PointStiffness(C[None], density=1.0)
    P, _, dP_dF = law.tangent((np.eye(3) + STRAIN)[None], law.initial_state(1), 1.0)
    assert np.allclose(P[0], sigma, rtol=1e-9)
    assert np.allclose(dP_dF[0], full, rtol=1e-12)
