"""Closed formulas for 3x3 tensors against LAPACK."""

import torch

from micro import tensors
from micro.crystal.rotations import random_rotations, rotation_about

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
