"""Finite-strain kinematics shared by the learned laws: plain batched arithmetic that TorchScript and autograd accept.

No eigendecomposition anywhere: its gradient fails at repeated eigenvalues, and every virgin point has three of them.
All functions take and return (n, 3, 3) or (n, 6) tensors, n = 0 included.
"""

import torch
from torch import Tensor

# TorchScript does not see module constants, so the few numbers stand in the functions.


def cofactor(F: Tensor) -> Tensor:
    """Cofactor matrix of (n, 3, 3): det(F) F^-T, by cross products of the rows."""
    a, b, c = F[:, 0], F[:, 1], F[:, 2]
    return torch.stack(
        [torch.linalg.cross(b, c, dim=1), torch.linalg.cross(c, a, dim=1), torch.linalg.cross(a, b, dim=1)], dim=1
    )


def determinant(F: Tensor) -> Tensor:
    """Determinant (n,) of (n, 3, 3)."""
    return (F[:, 0] * torch.linalg.cross(F[:, 1], F[:, 2], dim=1)).sum(dim=1)


def inverse(F: Tensor) -> Tensor:
    """Inverse of (n, 3, 3) by cofactors."""
    cof = cofactor(F)
    J = (F[:, 0] * cof[:, 0]).sum(dim=1)
    return cof.transpose(1, 2) / J.unsqueeze(1).unsqueeze(2)


def isochoric(F: Tensor, J: Tensor) -> Tensor:
    """F_bar = J^(-1/3) F; not a number where J <= 0, which the host reports as an inverted element."""
    return torch.pow(J, -1.0 / 3.0).unsqueeze(1).unsqueeze(2) * F


def rotation(F_bar: Tensor) -> Tensor:
    """Polar rotation R of F = R U by Newton's iteration R <- (R + R^-T)/2 from the isochoric F.

    The number of iterations is fixed, so that the result is one smooth function of F: eight reach round-off for
    isochoric stretches between 1/10 and 10.

    References:
        N. J. Higham, Computing the polar decomposition with applications, 1986, doi:10.1137/0907079.
    """
    R = F_bar
    for _ in range(8):
        cof = cofactor(R)
        J = (R[:, 0] * cof[:, 0]).sum(dim=1)
        R = 0.5 * (R + cof / J.unsqueeze(1).unsqueeze(2))
    return R


def rational_strain(F_bar: Tensor) -> Tensor:
    """Strain E = (C_bar - I)(C_bar + I)^-1, symmetric, without unit.

    In principal axes tanh(log lambda): the logarithmic strain to third order, bounded by one, and cheap.
    """
    C = torch.matmul(F_bar.transpose(1, 2), F_bar)
    eye = torch.eye(3, dtype=F_bar.dtype, device=F_bar.device)
    E = torch.matmul(C - eye, inverse(C + eye))
    return 0.5 * (E + E.transpose(1, 2))


def to_vector(A: Tensor) -> Tensor:
    """Mandel vector (n, 6) of a symmetric (n, 3, 3): 11, 22, 33, 12, 23, 13, shear times sqrt(2)."""
    s = 1.4142135623730951  # sqrt(2)
    return torch.stack(
        [A[:, 0, 0], A[:, 1, 1], A[:, 2, 2], s * A[:, 0, 1], s * A[:, 1, 2], s * A[:, 0, 2]], dim=1
    )


def to_matrix(v: Tensor) -> Tensor:
    """Symmetric (n, 3, 3) of a Mandel vector (n, 6)."""
    s = 0.7071067811865475  # 1/sqrt(2)
    a, b, c = s * v[:, 3], s * v[:, 4], s * v[:, 5]
    return torch.stack([v[:, 0], a, c, a, v[:, 1], b, c, b, v[:, 2]], dim=1).reshape(-1, 3, 3)


def deviator(v: Tensor) -> Tensor:
    """Deviatoric part of a Mandel vector (..., 6)."""
    mean = v[..., 0:3].mean(dim=-1, keepdim=True)
    return torch.cat([v[..., 0:3] - mean, v[..., 3:6]], dim=-1)


def safe_norm(v: Tensor, eps: float) -> Tensor:
    """sqrt(|v|^2 + eps^2) - eps over the last axis: zero at zero, with a derivative there."""
    return torch.sqrt((v * v).sum(dim=-1) + eps * eps) - eps


def first_piola(F: Tensor, J: Tensor, R: Tensor, tau_hat: Tensor, bulk: float) -> Tensor:
    """P = (R tau_hat R^T + K (J - 1) J I) F^-T, with K = 2 lambda_e of Eq. (A.3).

    The crystals deform inelastically without change of volume, so the pressure of the polycrystal is that of its
    elastic energy, exactly; only the deviator is learned.

    Args:
        F: (n, 3, 3) deformation gradient.
        J: (n,) its determinant.
        R: (n, 3, 3) its polar rotation.
        tau_hat: (n, 3, 3) Kirchhoff deviator in the unrotated frame, R^T dev(tau) R, Pa.
        bulk: K, Pa; pass a module attribute, for TorchScript writes the literal 48e9 as an integer and cannot read it.

    References:
        Eq. (A.3), (A.8) of doi:10.1016/j.jmps.2021.104668.
    """
    tau = torch.matmul(torch.matmul(R, tau_hat), R.transpose(1, 2))
    eye = torch.eye(3, dtype=F.dtype, device=F.device)
    tau = tau + (bulk * (J - 1.0) * J).unsqueeze(1).unsqueeze(2) * eye
    return torch.matmul(tau, cofactor(F)) / J.unsqueeze(1).unsqueeze(2)


def stress_derivative(P: Tensor, F: Tensor) -> Tensor:
    """dP_dF (n, 3, 3, 3, 3) by nine backward passes; every point's P may depend on its own F only.

    P must come from an F that requires a gradient. TorchScript has no `enable_grad`, so a law's `tangent` reads

        graded = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        F = F.detach().requires_grad_(True)
        P, new_state = self.forward(F, state, dt)
        dP_dF = stress_derivative(P, F)
        torch.set_grad_enabled(graded)
        return P.detach(), new_state.detach(), dP_dF
    """
    rows: list[Tensor] = []
    for i in range(3):
        for j in range(3):
            gradient = torch.autograd.grad([P[:, i, j].sum()], [F], retain_graph=True)[0]
            assert gradient is not None
            rows.append(gradient)
    return torch.stack(rows, dim=1).reshape(-1, 3, 3, 3, 3).detach()
