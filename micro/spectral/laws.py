"""Point laws of composites at finite strain: elastic, elastoplastic, void.

Each law follows the protocol of `micro.spectral.point_law.PointLaw`. Frames: F may contain any rotation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from micro.tensors import cofactor, determinant, matmul


def _state_of(state: Tensor, n: int, width: int) -> None:
    if state.shape != (n, width):
        raise ValueError(f"state must have shape {(n, width)}, got {tuple(state.shape)}.")


@dataclass(frozen=True)
class NeoHookean:
    """Compressible neo-Hookean elasticity, P = mu (F - F^-T) + lam log(J) F^-T; a stiff inclusion, for instance.

    Attributes:
        mu: Shear modulus, Pa.
        lam: Lame's modulus at small strain, Pa.
    """

    mu: float
    lam: float

    def initial_state(self, n: int) -> Tensor:
        """Return the empty state (n, 0)."""
        return torch.zeros(n, 0, dtype=torch.float64)

    def update(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first Piola-Kirchhoff stress (n, 3, 3), Pa, not finite where det F <= 0, and the state."""
        J = determinant(F)[:, None, None]
        back = cofactor(F) / J
        return self.mu * (F - back) + self.lam * torch.log(J) * back, state


@dataclass(frozen=True)
class Void:
    """No stress at all."""

    def initial_state(self, n: int) -> Tensor:
        """Return the empty state (n, 0)."""
        return torch.zeros(n, 0, dtype=torch.float64)

    def update(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Return zeros (n, 3, 3), and the state."""
        return torch.zeros_like(F), state


@dataclass(frozen=True)
class VonMises:
    """Elastoplastic metal at finite strain: von Mises yield, linear isotropic hardening, logarithmic elasticity.

    F = F_e F_p. The Kirchhoff stress is tau = bulk tr(eps) 1 + 2 mu dev(eps) with the logarithmic elastic strain
    eps = log(F_e F_e^T)/2. Flow is normal to |dev tau| sqrt(3/2) <= yield_stress + hardening alpha and is integrated by
    the exponential map, so that the return is a radial one in logarithmic strain, exact in det F_p = 1, and the only
    error is that of backward Euler.

    The state (n, 7) is C_p^-1 = F_p^-1 F_p^-T (components 11, 22, 33, 12, 23, 13) less the identity, and the
    equivalent plastic strain alpha.

    Attributes:
        mu: Shear modulus, Pa.
        bulk: Bulk modulus, Pa.
        yield_stress: Initial yield stress in tension, Pa; infinity for Hencky elasticity.
        hardening: Slope of the yield stress over alpha, Pa.

    References:
        Simo (1992), Algorithms for static and dynamic multiplicative plasticity that preserve the classical return
        mapping schemes of the infinitesimal theory, doi:10.1016/0045-7825(92)90123-2.
    """

    mu: float
    bulk: float
    yield_stress: float = float("inf")
    hardening: float = 0.0

    def initial_state(self, n: int) -> Tensor:
        """Return the virgin state (n, 7)."""
        return torch.zeros(n, 7, dtype=torch.float64)

    def update(self, F: Tensor, state: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first Piola-Kirchhoff stress (n, 3, 3), Pa, not finite where det F <= 0, and the new state.

        Raises:
            ValueError: The state has not seven components.
        """
        _state_of(state, len(F), 7)
        b = matmul(matmul(F, _inverse_plastic(state)), F.mT)
        J = determinant(F)
        b = torch.where(((J > 0) & torch.isfinite(b).all(-1).all(-1))[:, None, None], b, torch.eye(3).to(b))
        squares, axes = torch.linalg.eigh((b + b.mT) / 2)
        strain = 0.5 * torch.log(squares)  # elastic trial strain along its principal axes (n, 3)
        volume = strain.sum(-1, keepdim=True)
        deviator = strain - volume / 3
        size = 2 * self.mu * deviator.norm(dim=-1) * 1.5**0.5
        over = size - self.yield_stress - self.hardening * state[:, 6]
        flow = torch.clamp(over, min=0.0) / (3 * self.mu + self.hardening)  # increment of alpha
        keep = 1 - 3 * self.mu * flow / torch.where(size > 0, size, 1.0)  # share of the trial deviator that remains
        deviator = keep[:, None] * deviator
        tau = self.bulk * volume + 2 * self.mu * deviator
        tau = torch.where((J > 0)[:, None], tau, torch.nan)
        back = cofactor(F) / J[:, None, None]  # F^-T
        P = matmul(matmul(axes * tau[:, None, :], axes.mT), back)
        elastic = torch.exp(2 * deviator + 2 * volume / 3)
        Cp = matmul(matmul(back.mT, matmul(axes * elastic[:, None, :], axes.mT)), back)
        new = torch.cat([_components(Cp), (state[:, 6] + flow)[:, None]], dim=1)
        return P, torch.where((flow > 0)[:, None], new, state)  # an elastic step leaves the state as it is, to the bit


def _inverse_plastic(state: Tensor) -> Tensor:
    """Return C_p^-1 (n, 3, 3) of states (n, 7)."""
    return state[:, [0, 3, 5, 3, 1, 4, 5, 4, 2]].reshape(-1, 3, 3) + torch.eye(3).to(state)


def _components(C: Tensor) -> Tensor:
    """Return the six components of C - 1, the inverse of `_inverse_plastic`."""
    rows, columns = [0, 1, 2, 0, 1, 0], [0, 1, 2, 1, 2, 2]
    return (C - torch.eye(3).to(C))[:, rows, columns]
