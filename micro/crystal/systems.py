"""Slip and twin systems of a hexagonal close-packed crystal, the constants of their law, and the sums over systems.

Crystal frame: x along a_1 = [2-1-10], z along the c axis. Lengths of the lattice are in units of its constant a.

Symmetric trace-free tensors such as the Mandel stress M are kept as five components m in an orthonormal basis:
M : S = m . s5, where s5 are the components of the symmetric part of S.

References:
    Liu et al. (2022), appendix, doi:10.1016/j.jmps.2021.104668.
"""

from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micro.crystal.materials import CrystalParameters
from micro.tensors import matmul, matmul_last

N_SLIP, N_TWIN = 12, 6
EXPONENTIAL_TERMS = 4


@dataclass(frozen=True)
class Systems:
    """Slip or twin systems of one crystal, each a unit direction and a unit plane normal at right angles.

    Attributes:
        family: Name of the family of each system, n strings.
        s: Unit slip (or twinning) directions (n, 3).
        m: Unit normals of the slip (or twin) planes (n, 3).
    """

    family: tuple[str, ...]
    s: Tensor
    m: Tensor

    @property
    def schmid(self) -> Tensor:
        """The tensors s (x) m, (n, 3, 3)."""
        return self.s[:, :, None] * self.m[:, None, :]


def direction(uvtw: tuple[int, ...], c_over_a: float) -> np.ndarray:
    """Return the Cartesian vector (3,) of the Miller-Bravais direction [uvtw]."""
    u, v, t, w = uvtw
    return np.array([u - (v + t) / 2, np.sqrt(3) / 2 * (v - t), w * c_over_a])


def normal(hkil: tuple[int, ...], c_over_a: float) -> np.ndarray:
    """Return the Cartesian normal (3,), not normalised, of the Miller-Bravais plane (hkil)."""
    h, k, i, l = hkil
    return np.array([2 / 3 * (h - (k + i) / 2), k / np.sqrt(3) - i / np.sqrt(3), l / c_over_a])


def _equivalents(indices: tuple[int, int, int, int]) -> list[tuple[int, ...]]:
    """Return all equivalent indices: permutations and common sign of the first three, sign of the last."""
    found = set()
    for p, sign, sign_c in product(permutations(indices[:3]), (1, -1), (1, -1)):
        found.add((*(sign * k for k in p), sign_c * indices[3]))
    return sorted(found)


def _family(name: str, d: tuple[int, int, int, int], p: tuple[int, int, int, int], c_over_a: float) -> Systems:
    """Return every pair of an equivalent direction in an equivalent plane, once (not its negative)."""
    s: list[np.ndarray] = []
    m: list[np.ndarray] = []
    for hkil in _equivalents(p):
        n = normal(hkil, c_over_a)
        n /= np.linalg.norm(n)
        for uvtw in _equivalents(d):
            b = direction(uvtw, c_over_a)
            b /= np.linalg.norm(b)
            # (n, b) and (-n, b), (n, -b) are the same slip system: s (x) m up to sign.
            known = any(abs(abs(n @ m_k) - 1) < 1e-9 and abs(abs(b @ s_k) - 1) < 1e-9 for s_k, m_k in zip(s, m))
            if abs(b @ n) < 1e-9 and not known:
                s.append(b)
                m.append(n)
    return Systems((name,) * len(s), torch.tensor(np.array(s)), torch.tensor(np.array(m)))


def slip_systems(c_over_a: float = 1.624) -> Systems:
    """Return the 12 slip systems of magnesium: 3 basal, 3 prismatic, 6 pyramidal-II.

    Basal <2-1-10>{0001}, prismatic <2-1-10>{01-10}, pyramidal-II <-1-123>{11-22}.

    References:
        Liu et al. (2022), table A.1, doi:10.1016/j.jmps.2021.104668; Chang and Kochmann (2015),
        doi:10.1016/j.ijplas.2015.03.008.
    """
    families = [
        _family("basal", (2, -1, -1, 0), (0, 0, 0, 1), c_over_a),
        _family("prismatic", (2, -1, -1, 0), (0, 1, -1, 0), c_over_a),
        _family("pyramidal", (-1, -1, 2, 3), (1, 1, -2, 2), c_over_a),
    ]
    return Systems(
        sum((f.family for f in families), ()), torch.cat([f.s for f in families]), torch.cat([f.m for f in families])
    )


def twin_systems(c_over_a: float = 1.624) -> Systems:
    """Return the 6 tensile twin systems <-1011>{10-12}, each signed so that the twin shear extends the c axis.

    For c/a < sqrt(3) the shear (sqrt(3) a/c) - (c/a) / sqrt(3) of this twin is an extension of c, and the reverse
    shear is no twin at all; the sign s_3 m_3 > 0 therefore matters.
    """
    twins = _family("twin", (-1, 0, 1, 1), (1, 0, -1, 2), c_over_a)
    sign = torch.sign(twins.s[:, 2] * twins.m[:, 2])
    return Systems(twins.family, twins.s * sign[:, None], twins.m)


def twinned(systems: Systems, twins: Systems) -> Tensor:
    """Return the Schmid tensors (n, n_t, 3, 3) of the slip `systems` inside each twin.

    The twinned lattice is the parent turned by 180 degrees about the normal of the twin plane.

    The sign of a slip direction in the twin is a matter of convention, but (A.10) gives slip in parent and twin the
    same rate, so the convention matters there: with the plain turn, the average of parent and twin loses two of its
    five independent shears at a twin fraction of one half, and such a crystal, having no way to flow, would reach tens
    of GPa. The sign is chosen such that the two cooperate: the symmetric parts of the Schmid tensors of parent
    and twin have a positive product. Then all five shears remain (smallest singular value 0.68, against 1.02 in the
    parent, at any twin fraction).
    """
    q = 2 * twins.m[:, :, None] * twins.m[:, None, :] - torch.eye(3, dtype=twins.m.dtype)  # (n_t, 3, 3)
    turned = torch.einsum("bij,ajk,blk->abil", q, systems.schmid, q)
    symmetric, parent = turned + turned.mT, systems.schmid + systems.schmid.mT
    return turned * torch.sign((symmetric * parent[:, None]).sum((-1, -2)))[:, :, None, None]


def twin_shear(c_over_a: float) -> float:
    """Return the magnitude of the tensile twin shear, |3 - (c/a)^2| / (sqrt(3) c/a): 0.1289 at c/a = 1.624."""
    return abs(3 - c_over_a**2) / (np.sqrt(3) * c_over_a)


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
        families: Name of the family of each slip system.
        n_slip, n_twin: Number of slip and twin systems.
        r_0: Slip resistance of the virgin crystal (12,), Pa.
        v: Square roots of the latent hardening moduli (12,), Pa^(1/2).
        twin_tau_0, twin_rate_0, twin_h, twin_k: Parameters of twinning; Pa, 1/s, Pa, Pa.
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
    families: tuple[str, ...]
    n_slip: int
    n_twin: int
    r_0: Tensor
    v: Tensor
    twin_tau_0: float
    twin_rate_0: float
    twin_h: float
    twin_k: float

    def resistance(self, e: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hardening dW_p/de (n, 12) and dW_t/dlambda (n, 6), Pa, of (A.4) and (A.5)."""
        slip = self.sigma_inf * (1 - torch.exp(-self.h / self.sigma_inf * e)) + e @ self.latent
        return slip, lam @ self.twin_hardening

    def mandel(self, A: Tensor) -> Tensor:
        """Return the Mandel stress G dev(A^T A) of isochoric `A` (n, 3, 3), five components (n, 5), Pa."""
        return self.parameters.G * (matmul(A.mT, A).reshape(-1, 9) @ self.basis)

    def mandel_after(self, A: Tensor, L: Tensor) -> Tensor:
        """Return the Mandel stress (n, 5), Pa, of A exp(-L).

        The most expensive part of the law: 3x3 products with the batch axis last, so that operations run over long
        rows.
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
        ValueError: The slip families do not have the same rate exponent m.
    """
    p, on_device = parameters, _options(device)
    slip, twin = slip_systems(p.c_over_a), twin_systems(p.c_over_a)
    families = [getattr(p, name) for name in slip.family]
    if len({f.m for f in families}) > 1:
        raise ValueError(f"m must be the same for all slip families, got {sorted({f.m for f in families})}.")

    basis = _basis().to(**on_device)
    everywhere = torch.cat([slip.schmid[:, None], twinned(slip, twin)], dim=1)
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
        families=slip.family,
        n_slip=N_SLIP,
        n_twin=N_TWIN,
        r_0=torch.zeros(N_SLIP, **on_device),
        v=h_latent,
        twin_tau_0=p.twin.tau_0,
        twin_rate_0=p.twin.rate_0,
        twin_h=p.twin.h,
        twin_k=p.twin.h_latent,
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
