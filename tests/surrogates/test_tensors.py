"""Kinematics: closed forms, objectivity, derivatives, and the same numbers scripted."""

import pytest
import torch

from surrogates import tensors

EYE = torch.eye(3, dtype=torch.float64)


def gradients(n: int, size: float = 0.2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return EYE + size * torch.randn(n, 3, 3, dtype=torch.float64, generator=generator)


def rotations(n: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(n, 3, 3, dtype=torch.float64, generator=generator))
    return Q * torch.linalg.det(Q)[:, None, None]


def neo_hookean(F: torch.Tensor) -> torch.Tensor:
    """Isochoric neo-Hookean deviator G dev(b_bar) carried through the functions that learned laws use."""
    J = tensors.determinant(F)
    F_bar = tensors.isochoric(F, J)
    R = tensors.rotation(F_bar)
    C_bar = torch.matmul(F_bar.transpose(1, 2), F_bar)
    U_bar = torch.matmul(R.transpose(1, 2), F_bar)
    b_hat = torch.matmul(U_bar, U_bar.transpose(1, 2))
    assert torch.allclose(b_hat, C_bar, atol=1e-12)  # R^T b R = U U = C
    tau_hat = tensors.to_matrix(tensors.deviator(25e9 * tensors.to_vector(b_hat)))
    return tensors.first_piola(F, J, R, tau_hat, 48e9)


def test_inverse_and_determinant_match_lapack():
    F = gradients(40)
    assert torch.allclose(tensors.determinant(F), torch.linalg.det(F), rtol=1e-13, atol=1e-14)
    assert torch.allclose(tensors.inverse(F), torch.linalg.inv(F), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("largest", [1.0, 1.5, 10.0])
def test_polar_rotation_is_exact_over_the_stated_range(largest):
    Q, V = rotations(20, 1), rotations(20, 2)
    stretch = torch.tensor([largest, largest**-0.5, largest**-0.5], dtype=torch.float64)
    U = V @ torch.diag(stretch) @ V.transpose(1, 2)
    assert torch.allclose(tensors.rotation(Q @ U), Q, atol=1e-12)


def test_rational_strain_is_tanh_of_the_logarithm_and_blind_to_rotation():
    V, Q = rotations(10, 3), rotations(10, 4)
    logs = torch.tensor([0.5, -0.2, -0.3], dtype=torch.float64)
    F_bar = Q @ V @ torch.diag(logs.exp()) @ V.transpose(1, 2)
    E = tensors.rational_strain(F_bar)
    assert torch.allclose(E, V @ torch.diag(torch.tanh(logs)) @ V.transpose(1, 2), atol=1e-14)


def test_mandel_vector_keeps_order_and_inner_product():
    A = gradients(5) + gradients(5).transpose(1, 2)
    v = tensors.to_vector(A)
    assert torch.equal(v[:, :3], torch.diagonal(A, dim1=1, dim2=2))
    assert torch.allclose(v[:, 3:], 2**0.5 * torch.stack([A[:, 0, 1], A[:, 1, 2], A[:, 0, 2]], dim=1))
    assert torch.allclose((v * v).sum(1), (A * A).sum((1, 2)))
    assert torch.allclose(tensors.to_matrix(v), A, rtol=1e-15)


def test_stress_is_the_derivative_of_the_energy_and_turns_with_the_body():
    F = gradients(12).requires_grad_(True)
    J = tensors.determinant(F)
    trace = (F * F).sum((1, 2)) / J ** (2 / 3)
    energy = 12.5e9 * (trace - 3) + 24e9 * (J - 1) ** 2  # Eq. (A.3)
    (P,) = torch.autograd.grad(energy.sum(), F)
    F = F.detach()
    assert torch.allclose(neo_hookean(F), P, rtol=1e-11, atol=1e-2)
    Q = rotations(12, 5)
    assert torch.allclose(neo_hookean(Q @ F), Q @ neo_hookean(F), rtol=1e-11, atol=1e-2)


def test_stress_derivative_matches_differences_and_accepts_no_points():
    F = gradients(3).requires_grad_(True)
    dP_dF = tensors.stress_derivative(neo_hookean(F), F)
    F = F.detach()
    for k in range(3):
        for m in range(3):
            step = torch.zeros(3, 3, dtype=torch.float64)
            step[k, m] = 1e-6
            difference = (neo_hookean(F + step) - neo_hookean(F - step)) / 2e-6
            assert torch.allclose(dP_dF[:, :, :, k, m], difference, rtol=1e-7, atol=1e3)
    none = gradients(0).requires_grad_(True)
    assert tensors.stress_derivative(neo_hookean(none), none).shape == (0, 3, 3, 3, 3)


def test_derivative_is_finite_at_the_virgin_point():
    F = EYE.repeat(2, 1, 1).requires_grad_(True)
    dP_dF = tensors.stress_derivative(neo_hookean(F), F)
    uniaxial = dP_dF[0, 0, 0, 0, 0]
    assert torch.allclose(uniaxial, torch.tensor(48e9 + 4 / 3 * 25e9, dtype=torch.float64), rtol=1e-12)


@pytest.mark.parametrize(
    "name", ["cofactor", "determinant", "inverse", "rotation", "rational_strain", "to_vector"]
)
def test_scripted_equals_eager(name):
    function = getattr(tensors, name)
    scripted = torch.jit.script(function)
    for n in (0, 1, 7):
        assert torch.equal(scripted(gradients(n)), function(gradients(n)))
