"""Tensors of the learned laws: Mandel vectors, and the stress and tangent that finite-strain laws have in common.

Index orders and 3x3 kinematics have one home, `micro.tensors`, and are offered here under the names that the laws use.
In this package a vector of a symmetric tensor is a Mandel vector in `PATH_ORDER` (11, 22, 33, 12, 23, 13) or, in two
dimensions, `PLANE_ORDER` (11, 22, 12). All functions are plain batched arithmetic that TorchScript and autograd accept.
"""

import torch
from torch import Tensor

from micro.tensors import (
    ENGINEERING_ORDER,
    ORDERS,
    PATH_ORDER,
    PLANE_ORDER,
    Order,
    cofactor,
    determinant,
    from_components,
    inverse,
    inverse_mandel_factors,
    isochoric,
    mandel_basis,
    mandel_factors,
    quaternion_rotations,
    rational_strain,
    to_components,
)
from micro.tensors import mandel_deviator as deviator
from micro.tensors import mandel_matrix as to_matrix
from micro.tensors import mandel_vector as to_vector
from micro.tensors import polar_rotation as rotation

__all__ = [
    "ENGINEERING_ORDER", "ORDERS", "PATH_ORDER", "PLANE_ORDER", "Order", "PointLaw", "cofactor",
    "component_factors", "determinant", "deviator",
    "first_piola", "from_components", "inverse", "inverse_mandel_factors", "isochoric", "mandel_basis",
    "mandel_factors", "quaternion_rotations", "rational_strain", "rotation", "stress_derivative",
    "to_components", "to_matrix", "to_vector",
]  # fmt: skip


def component_factors(dimension: int) -> Tensor:
    """Factors (c,), float64, from Mandel vectors to tensor components: 1, and 1/sqrt(2) off the diagonal."""
    return torch.tensor(inverse_mandel_factors(ORDERS[dimension]), dtype=torch.float64)


def first_piola(F: Tensor, J: Tensor, R: Tensor, tau_hat: Tensor, bulk: float) -> Tensor:
    """P = (R tau_hat R^T + K (J - 1) J I) F^-T, with K = 2 lambda_e of Eq. (A.3).

    The crystals deform inelastically without change of volume, so the pressure of the polycrystal is that of its
    elastic energy, exactly; only the deviator is learned.

    Args:
        F: (n, 3, 3) deformation gradient.
        J: (n,) its determinant.
        R: (n, 3, 3) its polar rotation.
        tau_hat: (n, 3, 3) Kirchhoff deviator in the unrotated frame, R^T dev(tau) R, Pa.
        bulk: K, Pa; pass a module attribute, since TorchScript writes the literal 48e9 as an integer and cannot read
        it.

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


class PointLaw(torch.nn.Module):
    """Abstract law of finite strain: `forward` for one time step of all points, and its derivative `tangent`.

    A final law adds `initial_state`, `step`, `observe` and `describe`.
    """

    def step(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` with a separate step dt (n,), s, for each point."""
        raise NotImplementedError

    def forward(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        """First Piola-Kirchhoff stress (n, 3, 3), Pa, and new state for F (n, 3, 3) after a step dt, s."""
        return self.step(F, state, torch.full_like(state[:, 0], dt))

    @torch.jit.export
    def tangent(self, F: Tensor, state: Tensor, dt: float) -> tuple[Tensor, Tensor, Tensor]:
        """`forward` and its derivative dP_dF (n, 3, 3, 3, 3)."""
        graded = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        F = F.detach().requires_grad_(True)
        P, new_state = self.forward(F, state, dt)
        dP_dF = stress_derivative(P, F)
        torch.set_grad_enabled(graded)
        return P.detach(), new_state.detach(), dP_dF
