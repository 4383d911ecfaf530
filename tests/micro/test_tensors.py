"""Orders of components, and closed formulas for 3x3 tensors against LAPACK."""

import numpy as np
import pytest
import torch

from micro import tensors
from micro.tensors import random_rotations, rotation_about

GENERATOR = torch.Generator().manual_seed(1)
A = torch.randn(20, 3, 3, generator=GENERATOR, dtype=torch.float64)
B = torch.randn(20, 3, 3, generator=GENERATOR, dtype=torch.float64)


def test_components_are_inverse_of_each_other() -> None:
    symmetric = A + A.mT
    torch.testing.assert_close(tensors.from_components(tensors.to_components(symmetric)), symmetric)
    assert tensors.to_components(A + A.mT)[0, 4] == (A + A.mT)[0, 1, 2]


def test_products_determinant_and_inverse() -> None:
    torch.testing.assert_close(tensors.matmul(A, B), A @ B)
    last = tensors.matmul_last(A.permute(1, 2, 0), B.permute(1, 2, 0))
    torch.testing.assert_close(last.permute(2, 0, 1), A @ B)
    torch.testing.assert_close(tensors.determinant(A), torch.linalg.det(A))
    torch.testing.assert_close(tensors.inverse(A), torch.linalg.inv(A))


def test_exponential_is_isochoric_and_accurate() -> None:
    small = 0.05 * tensors.deviator(A)
    result = tensors.isochoric_exponential(small, terms=8)
    torch.testing.assert_close(result, torch.linalg.matrix_exp(small), atol=1e-13, rtol=0)
    rough = tensors.isochoric_exponential(tensors.deviator(A), terms=4)
    torch.testing.assert_close(tensors.determinant(rough), torch.ones(20, dtype=torch.float64))


def test_rotations_are_proper_uniform_and_reproducible() -> None:
    q = random_rotations(20000, 5)
    torch.testing.assert_close(q @ q.mT, torch.eye(3, dtype=torch.float64).expand_as(q))
    torch.testing.assert_close(tensors.determinant(q), torch.ones(20000, dtype=torch.float64))
    assert torch.equal(q[:7], random_rotations(7, 5))
    # Haar measure: the mean vanishes and <q_ij q_kl> = delta_ik delta_jl / 3 (standard error 0.003).
    assert q.mean(0).abs().max() < 0.02
    second = torch.einsum("nij,nkl->ijkl", q, q) / len(q)
    expected = torch.einsum("ik,jl->ijkl", torch.eye(3), torch.eye(3)).to(torch.float64) / 3
    assert (second - expected).abs().max() < 0.02


def test_rotation_about_an_axis_is_right_handed() -> None:
    q = rotation_about(torch.tensor([0.0, 0.0, 2.0]), torch.pi / 2)
    torch.testing.assert_close(q @ torch.tensor([1.0, 0, 0], dtype=torch.float64), torch.tensor([0.0, 1, 0]).double())


def test_rotation_about_a_single_precision_axis_is_orthogonal() -> None:
    q = rotation_about(torch.tensor([1.0, -2.0, 0.5]), 1.1)
    torch.testing.assert_close(q @ q.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("order", [tensors.PATH_ORDER, tensors.PLANE_ORDER, tensors.ENGINEERING_ORDER])
def test_an_order_lists_each_component_of_a_symmetric_tensor_once(order: tensors.Order) -> None:
    d = order.dimension
    assert sorted(order.pairs) == [(i, j) for i in range(d) for j in range(i, d)]
    symmetric = (A + A.mT)[:, :d, :d]
    components = tensors.to_components(symmetric, order)
    for column, name in enumerate(order.names.split()):
        assert torch.equal(components[:, column], symmetric[:, int(name[0]) - 1, int(name[1]) - 1])
    assert torch.equal(tensors.from_components(components, order), symmetric)
    numbers = tensors.from_components(components.numpy(), order)
    assert isinstance(numbers, np.ndarray)
    np.testing.assert_array_equal(tensors.to_components(numbers, order), components.numpy())


@pytest.mark.parametrize("order", [tensors.PATH_ORDER, tensors.PLANE_ORDER, tensors.ENGINEERING_ORDER])
def test_mandel_vectors_keep_the_double_contraction(order: tensors.Order) -> None:
    d = order.dimension
    first, second = (A + A.mT)[:, :d, :d], (B + B.mT)[:, :d, :d]
    factors = torch.tensor(tensors.mandel_factors(order), dtype=torch.float64)
    a, b = factors * tensors.to_components(first, order), factors * tensors.to_components(second, order)
    torch.testing.assert_close((a * b).sum(-1), (first * second).sum((-1, -2)))
    torch.testing.assert_close(torch.einsum("nc,cij->nij", a, tensors.mandel_basis(order)), first)
    torch.testing.assert_close(torch.einsum("nij,cij->nc", first, tensors.mandel_basis(order)), a)
    back = torch.tensor(tensors.inverse_mandel_factors(order), dtype=torch.float64)
    torch.testing.assert_close(back * factors, torch.ones_like(factors))


def test_compiled_mandel_vectors_have_the_order_of_paths() -> None:
    symmetric = A + A.mT
    vector = torch.jit.script(tensors.mandel_vector)(symmetric)
    factors = torch.tensor(tensors.mandel_factors(tensors.PATH_ORDER), dtype=torch.float64)
    assert torch.equal(vector, factors * tensors.to_components(symmetric, tensors.PATH_ORDER))
    torch.testing.assert_close(torch.jit.script(tensors.mandel_matrix)(vector), symmetric)
    trace_free = tensors.mandel_matrix(tensors.mandel_deviator(vector))
    torch.testing.assert_close(trace_free, tensors.deviator(symmetric))


COMPILED = "cofactor determinant inverse deviator rational_strain polar_rotation isochoric_exponential".split()


@pytest.mark.parametrize("name", COMPILED)
def test_kinematics_compile_and_give_the_same_numbers(name: str) -> None:
    function = getattr(tensors, name)
    F = torch.eye(3, dtype=torch.float64) + 0.1 * A
    assert torch.equal(torch.jit.script(function)(F), function(F))
    assert torch.equal(function(F.reshape(4, 5, 3, 3)).flatten(0, 1), function(F))  # batches of any shape
    assert function(F[:0]).shape == function(F)[:0].shape


def test_cofactor_polar_rotation_and_rational_strain() -> None:
    F = torch.eye(3, dtype=torch.float64) + 0.1 * A
    J = tensors.determinant(F)
    torch.testing.assert_close(tensors.cofactor(F), J[:, None, None] * torch.linalg.inv(F).mT)
    F_bar = tensors.isochoric(F, J)
    torch.testing.assert_close(tensors.determinant(F_bar), torch.ones_like(J))
    values, vectors = torch.linalg.eigh(F_bar.mT @ F_bar)
    R = F_bar @ vectors @ torch.diag_embed(values**-0.5) @ vectors.mT
    torch.testing.assert_close(tensors.polar_rotation(F_bar), R)
    strain = vectors @ torch.diag_embed(torch.tanh(values.log() / 2)) @ vectors.mT
    torch.testing.assert_close(tensors.rational_strain(F_bar), strain)


def test_packages_that_may_not_import_each_other_list_components_in_the_same_order() -> None:
    """The macroscale writes its orders down once more: both must be those of this package."""
    von_mises = pytest.importorskip("fem.laws.von_mises")
    assert tuple(map(tuple, von_mises._PAIRS.tolist())) == tensors.PATH_ORDER.pairs
    anisotropic = pytest.importorskip("fem.laws.anisotropic")
    symmetric = (A + A.mT).numpy()
    components = tensors.to_components(symmetric, tensors.ENGINEERING_ORDER)
    factors = [1.0 if i == j else 2.0 for i, j in tensors.ENGINEERING_ORDER.pairs]
    np.testing.assert_allclose(anisotropic.strain(np.eye(3) + symmetric), factors * components, atol=1e-15)
