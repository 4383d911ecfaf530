"""The slip and twin systems of a crystal with all constants of their law, and the sums over systems.

Symmetric trace-free tensors such as the Mandel stress M are kept as five components m in an orthonormal basis:
M : S = m . s5, where s5 are the components of the symmetric part of S.

References:
    Liu et al. (2022), appendix, doi:10.1016/j.jmps.2021.104668.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from micro.crystal import hcp
from micro.crystal.materials import CrystalParameters
from micro.tensors import matmul, matmul_last

N_SLIP, N_TWIN = 12, 6
EXPONENTIAL_TERMS = 4


@dataclass(frozen=True)
class CrystalSystems:
    """Constants of a crystal on one device; see `crystal_systems`.

    Attributes:
        parameters: Material parameters.
        basis: Orthonormal basis (9, 5) of the symmetric trace-free tensors.
        slip: Schmid tensors of slip in the parent and in the six twins (12, 7, 9).
        twin: Twin shear times the Schmid tensors of twinning (6, 9).
        slip5, twin5: Their five components (12, 7, 5), (6, 5).
        unpack: Upper triangle of a symmetric 5x5 matrix to the full matrix (15, 25).
        twin55: Products of the twins' five components (36, 25).
        tau_0, rate_0, h, sigma_inf: Parameters of the slip systems (12,); Pa, 1/s, Pa, Pa.
        latent: Latent hardening of slip (12, 12), Pa.
        twin_hardening: Matrix (6, 6), Pa, that gives dW_t/dlambda from lambda.
        slip_exponent, twin_exponent: 1/m of the rate laws (A.12), (A.13).
    """

    parameters: CrystalParameters
    basis: Tensor
    slip: Tensor
    twin: Tensor
    slip5: Tensor
    twin5: Tensor
    unpack: Tensor
    twin55: Tensor
    tau_0: Tensor
    rate_0: Tensor
    h: Tensor
    sigma_inf: Tensor
    latent: Tensor
    twin_hardening: Tensor
    slip_exponent: float
    twin_exponent: float

    def resistance(self, e: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hardening dW_p/de (n, 12) and dW_t/dlambda (n, 6), Pa, of (A.4) and (A.5)."""
        slip = self.sigma_inf * (1 - torch.exp(-self.h / self.sigma_inf * e)) + e @ self.latent
        return slip, lam @ self.twin_hardening

    def mandel(self, A: Tensor) -> Tensor:
        """Return the Mandel stress G dev(A^T A) of isochoric `A` (n, 3, 3), five components (n, 5), Pa."""
        return self.parameters.G * (matmul(A.mT, A).reshape(-1, 9) @ self.basis)

    def mandel_after(self, A: Tensor, L: Tensor) -> Tensor:
        """Return the Mandel stress (n, 5), Pa, of A exp(-L).

        The hot spot of the law: 3x3 products with the batch last, where every operation runs over long rows.
        """
        a, minus = (t.reshape(-1, 9).T.contiguous().reshape(3, 3, -1) for t in (A, -L))
        power = result = matmul_last(a, minus)
        result = a + result
        for k in range(2, EXPONENTIAL_TERMS + 1):
            power = matmul_last(power, minus) / k
            result = result + power
        C = matmul_last(result.transpose(0, 1), result)
        return self.parameters.G * (C.reshape(9, -1).T @ self.basis)

    def forces(self, m: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return the forces M : S on slip (n, 12) and twinning (n, 6), Pa, for the volume fractions `w` (n, 7)."""
        slip = (m @ self.slip5.reshape(-1, 5).T).reshape(-1, N_SLIP, 1 + N_TWIN)
        return (slip * w[:, None, :]).sum(-1), m @ self.twin5.T

    def flow(self, gamma: Tensor, lam: Tensor, w: Tensor) -> Tensor:
        """Return L_p + L_t (n, 3, 3) of (A.10), (A.11) for rates, or increments, of slip and twin fractions."""
        slip = (gamma[:, :, None] * w[:, None, :]).reshape(-1, N_SLIP * (1 + N_TWIN))
        return (slip @ self.slip.reshape(-1, 9) + lam @ self.twin).reshape(-1, 3, 3)


def crystal_systems(parameters: CrystalParameters, device: str | torch.device = "cpu") -> CrystalSystems:
    """Return the constants of a crystal.

    Raises:
        ValueError: The slip families do not share one rate exponent m.
    """
    p, on_device = parameters, _options(device)
    slip, twin = hcp.slip_systems(p.c_over_a), hcp.twin_systems(p.c_over_a)
    families = [getattr(p, name) for name in slip.family]
    if len({f.m for f in families}) > 1:
        raise ValueError(f"m must be the same for all slip families, got {sorted({f.m for f in families})}.")

    basis = _basis().to(**on_device)
    everywhere = torch.cat([slip.schmid[:, None], hcp.twinned(slip, twin)], dim=1)
    slip9 = everywhere.to(**on_device).reshape(N_SLIP, 1 + N_TWIN, 9)
    twin9 = p.twin_shear * twin.schmid.to(**on_device).reshape(N_TWIN, 9)
    twin5 = twin9 @ basis
    i, j = torch.triu_indices(5, 5)
    unpack = torch.zeros(15, 5, 5, **on_device)
    unpack[torch.arange(15), i, j] = unpack[torch.arange(15), j, i] = 1.0

    # Latent hardening of systems of different families: geometric mean, so that the matrix stays symmetric, as the
    # second derivative of an energy must be, and basal slip (h_ij = 0) takes no part.
    h_latent = torch.tensor([f.h_latent for f in families], **on_device).sqrt()
    latent = h_latent[:, None] * h_latent[None, :] * (1 - torch.eye(N_SLIP, **on_device))
    # W_t = lambda . K lambda + h lambda^2 / 2 has the derivative (2 K + h I) lambda: no half in the first term.
    one = torch.eye(N_TWIN, **on_device)
    return CrystalSystems(
        parameters=p,
        basis=basis,
        slip=slip9,
        twin=twin9,
        slip5=slip9 @ basis,
        twin5=twin5,
        unpack=unpack.reshape(15, 25),
        twin55=torch.einsum("ai,bj->abij", twin5, twin5).reshape(36, 25),
        tau_0=torch.tensor([f.tau_0 for f in families], **on_device),
        rate_0=torch.tensor([f.rate_0 for f in families], **on_device),
        h=torch.tensor([f.h for f in families], **on_device),
        sigma_inf=torch.tensor([f.sigma_inf for f in families], **on_device),
        latent=latent,
        twin_hardening=2 * p.twin.h_latent * (1 - one) + p.twin.h * one,
        slip_exponent=1 / families[0].m,
        twin_exponent=1 / p.twin.m,
    )


def volume_fractions(lam: Tensor) -> Tensor:
    """Return the volume fractions of the parent and the twins (n, 7)."""
    return torch.cat([1 - lam.sum(-1, keepdim=True), lam], dim=-1)


def _options(device: str | torch.device) -> dict[str, Any]:
    return {"dtype": torch.float64, "device": device}


def _basis() -> Tensor:
    r2, r6 = 2**-0.5, 6**-0.5
    tensors = [
        [[r2, 0, 0], [0, -r2, 0], [0, 0, 0]],
        [[-r6, 0, 0], [0, -r6, 0], [0, 0, 2 * r6]],
        [[0, r2, 0], [r2, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, r2], [0, r2, 0]],
        [[0, 0, r2], [0, 0, 0], [r2, 0, 0]],
    ]
    return torch.tensor(tensors, dtype=torch.float64).reshape(5, 9).T.contiguous()
