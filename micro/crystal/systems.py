"""Slip and twin systems of a crystal, the constants of their law, and the sums over systems.

The frame of an hcp crystal: x along a_1 = [2-1-10], z along the c axis; lengths are in units of the lattice constant a.
The frame of the cubic lattices (fcc, bcc): along the edges of the cube.

The lattice "square" is that of the 2-D model of paper 1: two slip systems in the plane x, y. Used with F_13 = F_23 =
F_31 = F_32 = 0 and F_33 = 1 it is a model of plane strain, and nothing else is special about it. The isochoric split
is that of three dimensions: J^(-2/3) C has the component J^(-2/3) across the plane, the deviator of stress has its
component across the plane as well, and 2 lambda_e (J - 1) is a third of the trace of the full stress. The mean of the
two stresses in the plane is therefore not a function of J alone.

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

from micro.crystal.materials import LATTICES, CrystalParameters, Indices, check_indices, load_material
from micro.tensors import matmul, matmul_last

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


def direction(indices: Indices, c_over_a: float | None = None) -> np.ndarray:
    """Return the Cartesian vector (3,) of a direction, not normalised: [uvw], or [uvtw] on the hcp lattice."""
    if len(indices) == 3:
        return np.array(indices, dtype=float)
    u, v, t, w = indices
    return np.array([u - (v + t) / 2, np.sqrt(3) / 2 * (v - t), w * _ratio(c_over_a)])


def normal(indices: Indices, c_over_a: float | None = None) -> np.ndarray:
    """Return the Cartesian normal (3,) of a plane, not normalised: (hkl), or (hkil) on the hcp lattice."""
    if len(indices) == 3:
        return np.array(indices, dtype=float)
    h, k, i, l = indices
    return np.array([2 / 3 * (h - (k + i) / 2), k / np.sqrt(3) - i / np.sqrt(3), l / _ratio(c_over_a)])


def _ratio(c_over_a: float | None) -> float:
    if c_over_a is None:
        raise ValueError("c_over_a must be given for four indices, got none.")
    return c_over_a


def _images(lattice: str, direction: Indices, plane: Indices) -> list[tuple[Indices, Indices]]:
    """Return what the symmetry of the lattice makes of a pair of plane and direction, sorted.

    A symmetry acts on direction and plane together, so that the sense of a twin is kept. In Miller-Bravais indices
    it permutes the first three, and changes the sign of these or of the fourth; in the cubic ones it permutes them and
    changes the sign of each; on the square lattice it leaves the third one in its place.
    """
    orders: list[tuple[int, ...]]
    signs: list[tuple[int, ...]]
    if LATTICES[lattice] == 4:
        orders = [(*p, 3) for p in permutations(range(3))]
        signs = [(s, s, s, t) for s, t in product((1, -1), repeat=2)]
    else:
        orders = [p for p in permutations(range(3)) if lattice != "square" or p[2] == 2]
        signs = list(product((1, -1), repeat=3))
    found = set()
    for order, sign in product(orders, signs):
        found.add(tuple(tuple(f * v[k] for f, k in zip(sign, order)) for v in (plane, direction)))
    return sorted(found)  # type: ignore[arg-type]


def family_systems(lattice: str, name: str, d: Indices, p: Indices, c_over_a: float | None, *, twin: bool) -> Systems:
    """Return all systems of the family of direction `d` and plane `p`.

    A slip system and its negative are one system. A twin has a sense: its shear cannot be reversed.

    Raises:
        ValueError: The symmetry of the lattice makes of a twin its own reverse.
    """
    s: list[np.ndarray] = []
    m: list[np.ndarray] = []
    for hkl, uvw in _images(lattice, d, p):
        n, b = (v / np.linalg.norm(v) for v in (normal(hkl, c_over_a), direction(uvw, c_over_a)))
        alike = [float((b @ s_k) * (n @ m_k)) for s_k, m_k in zip(s, m)]  # S : S_k, one for the same system
        if twin and min(alike, default=0.0) < -1 + 1e-9:
            raise ValueError(f"The twin {list(d)} {list(p)} has no sense on the lattice {lattice}: it is its reverse.")
        if max(map(abs, alike), default=0.0) < 1 - 1e-9:
            s.append(b)
            m.append(n)
    return Systems((name,) * len(s), torch.tensor(np.array(s)), torch.tensor(np.array(m)))


def slip_systems(parameters: CrystalParameters | None = None) -> Systems:
    """Return the slip systems of a crystal, family after family; by default those of magnesium.

    Magnesium has 12: 3 basal <2-1-10>{0001}, 3 prismatic <2-1-10>{01-10} and 6 pyramidal-II <-1-123>{11-22}.

    References:
        Liu et al. (2022), table A.1, doi:10.1016/j.jmps.2021.104668; Chang and Kochmann (2015),
        doi:10.1016/j.ijplas.2015.03.008.
    """
    p = parameters or load_material()
    found = [family_systems(p.lattice, f.name, f.direction, f.plane, p.c_over_a, twin=False) for f in p.slip]
    return Systems(sum((f.family for f in found), ()), torch.cat([f.s for f in found]), torch.cat([f.m for f in found]))


def twin_systems(parameters: CrystalParameters | None = None) -> Systems:
    """Return the twins of a crystal, none of them where it has none; by default those of magnesium.

    The 6 tensile twins <-1011>{10-12} of magnesium extend the c axis: for c/a < sqrt(3) the shear
    (sqrt(3) a/c) - (c/a) / sqrt(3) of this twin is an extension of c, and the reverse shear is no twin at all.

    Raises:
        ValueError: The symmetry of the lattice makes of a twin its own reverse.
    """
    p = parameters or load_material()
    if p.twin is None:
        nothing = torch.zeros(0, 3, dtype=torch.float64)
        return Systems((), nothing, nothing.clone())
    return family_systems(p.lattice, "twin", p.twin.direction, p.twin.plane, p.c_over_a, twin=True)


def plane_normals(parameters: CrystalParameters, plane: Indices) -> Tensor:
    """Return the unit normals (k, 3) of all equivalents of a plane in the crystal's frame, one of each opposite pair.

    Raises:
        ValueError: The indices do not fit the lattice.
    """
    checked = check_indices(plane, "plane", parameters.lattice)
    found: list[np.ndarray] = []
    for hkl, _ in _images(parameters.lattice, checked, checked):
        n = normal(hkl, parameters.c_over_a)
        n = n / np.linalg.norm(n)
        if all(abs(n @ known) < 1 - 1e-9 for known in found):
            found.append(n)
    return torch.tensor(np.array(found))


def twinned(systems: Systems, twins: Systems) -> Tensor:
    """Return the Schmid tensors (n, n_t, 3, 3) of the slip `systems` inside each twin.

    The twinned lattice is the parent turned by 180 degrees about the normal of the twin plane.

    The sign of a slip direction in the twin is a matter of convention, and only the model "common" depends on it (see
    `micro.crystal.flow_rules`), because (A.10) gives slip in parent and twin the same rate. There, with the plain turn,
    the average of parent and twin loses two of its five independent shears at a twin fraction of one half, and such a
    crystal, having no way to flow, would reach tens of GPa. The sign is chosen such that the two cooperate: the
    symmetric parts of the Schmid tensors of parent and twin have a positive product. Then all five shears remain
    (smallest singular value 0.68, against 1.02 in the parent, at any twin fraction).
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
    """Constants of a crystal on one device; see `crystal_systems`. S = n_slip and T = n_twin count the systems.

    Attributes:
        parameters: Material parameters.
        families: Name of the family of each slip system, S strings.
        basis: Orthonormal basis (9, 5) of the symmetric trace-free tensors.
        slip: Schmid tensors of slip in the parent and in the twins (S, 1 + T, 9).
        twin: Twin shear times the Schmid tensors of twinning (T, 9).
        slip5, twin5: Their five components (S, 1 + T, 5), (T, 5).
        unpack: Upper triangle of a symmetric 5x5 matrix to the full matrix (15, 25).
        twin55: Products of the twins' five components (T^2, 25).
        tau_0, rate_0, h, sigma_inf, r_0: Parameters of the slip systems (S,); Pa, 1/s, Pa, Pa, Pa. Where a family does
            not harden, h is 0 and sigma_inf 1 Pa, so that exp(-h e / sigma_inf) is defined.
        v: Square root of the latent hardening modulus (S,), Pa^(1/2).
        latent: Latent hardening of slip (S, S), Pa: v v^T without its diagonal.
        twin_hardening: Matrix (T, T), Pa, that gives dW_t/dlambda from lambda.
        slip_exponent, twin_exponent: 1/m of the rate laws (A.12), (A.13).
        twin_tau_0, twin_rate_0, twin_h, twin_k: Parameters of the twins; Pa, 1/s, Pa, Pa. Without twins h and k are 0,
            the others 1.
    """

    parameters: CrystalParameters
    families: tuple[str, ...]
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
    r_0: Tensor
    v: Tensor
    latent: Tensor
    twin_hardening: Tensor
    slip_exponent: float
    twin_exponent: float
    twin_tau_0: float
    twin_rate_0: float
    twin_h: float
    twin_k: float

    @property
    def n_slip(self) -> int:
        """Number of slip systems."""
        return len(self.slip)

    @property
    def n_twin(self) -> int:
        """Number of twins."""
        return len(self.twin)

    def resistance(self, e: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hardening dW_p/de (n, S) and dW_t/dlambda (n, T), Pa, of (A.4) and (A.5)."""
        slip = self.r_0 + self.sigma_inf * (1 - torch.exp(-self.h / self.sigma_inf * e)) + e @ self.latent
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
        """Return the forces M : S on slip (n, S) and twinning (n, T), Pa, for the volume fractions `w` (n, 1 + T)."""
        slip = (m @ self.slip5.reshape(-1, 5).T).reshape(-1, self.n_slip, 1 + self.n_twin)
        return (slip * w[:, None, :]).sum(-1), m @ self.twin5.T

    def flow(self, gamma: Tensor, lam: Tensor, w: Tensor) -> Tensor:
        """Return L_p + L_t (n, 3, 3) of (A.10), (A.11) for rates, or increments, of slip and twin fractions."""
        slip = (gamma[:, :, None] * w[:, None, :]).reshape(-1, self.n_slip * (1 + self.n_twin))
        return (slip @ self.slip.reshape(-1, 9) + lam @ self.twin).reshape(-1, 3, 3)


def crystal_systems(parameters: CrystalParameters, device: str | torch.device = "cpu") -> CrystalSystems:
    """Return the constants of a crystal.

    Raises:
        ValueError: The slip families do not have the same rate exponent m.
    """
    p, on_device = parameters, _options(device)
    slip, twin = slip_systems(p), twin_systems(p)
    n_slip, n_twin = len(slip.family), len(twin.family)
    if len({f.m for f in p.slip}) > 1:
        raise ValueError(f"m must be the same for all slip families, got {sorted({f.m for f in p.slip})}.")

    def column(name: str) -> Tensor:
        values = {f.name: getattr(f, name) for f in p.slip}
        return torch.tensor([values[family] for family in slip.family], **on_device)

    basis = _basis().to(**on_device)
    everywhere = torch.cat([slip.schmid[:, None], twinned(slip, twin)], dim=1)
    slip9 = everywhere.to(**on_device).reshape(n_slip, 1 + n_twin, 9)
    twin9 = (p.twin.shear if p.twin else 0.0) * twin.schmid.to(**on_device).reshape(n_twin, 9)
    twin5 = twin9 @ basis
    i, j = torch.triu_indices(5, 5)
    unpack = torch.zeros(15, 5, 5, **on_device)
    unpack[torch.arange(15), i, j] = unpack[torch.arange(15), j, i] = 1.0
    # Latent hardening of systems of different families: geometric mean, so that the matrix stays symmetric, as the
    # second derivative of an energy must be, and basal slip of magnesium (h_ij = 0) takes no part.
    v, h, sigma_inf = column("h_latent").sqrt(), column("h"), column("sigma_inf")
    hardens = (h > 0) & (sigma_inf > 0)
    twin_h, twin_k = (p.twin.h, p.twin.h_latent) if p.twin else (0.0, 0.0)
    one = torch.eye(n_twin, **on_device)
    return CrystalSystems(
        parameters=p,
        families=slip.family,
        basis=basis,
        slip=slip9,
        twin=twin9,
        slip5=slip9 @ basis,
        twin5=twin5,
        unpack=unpack.reshape(15, 25),
        twin55=torch.einsum("ai,bj->abij", twin5, twin5).reshape(n_twin**2, 25),
        tau_0=column("tau_0"),
        rate_0=column("rate_0"),
        h=torch.where(hardens, h, 0.0),
        sigma_inf=torch.where(hardens, sigma_inf, 1.0),
        r_0=column("r_0"),
        v=v,
        latent=v[:, None] * v[None, :] * (1 - torch.eye(n_slip, **on_device)),
        # W_t = lambda . K lambda + h lambda^2 / 2 has the derivative (2 K + h I) lambda: no half in the first term.
        twin_hardening=2 * twin_k * (1 - one) + twin_h * one,
        slip_exponent=1 / p.slip[0].m,
        twin_exponent=1 / p.twin.m if p.twin else 1.0,
        twin_tau_0=p.twin.tau_0 if p.twin else 1.0,
        twin_rate_0=p.twin.rate_0 if p.twin else 1.0,
        twin_h=twin_h,
        twin_k=twin_k,
    )


def volume_fractions(lam: Tensor) -> Tensor:
    """Return the volume fractions (n, 1 + T) of the parent and the twins from those of the twins (n, T)."""
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
