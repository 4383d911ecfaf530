"""Hourglass stiffness of one-point hexahedra that follows the plastic flow of its cell.

A displacement of a trilinear hexahedron is linear plus four hourglass modes, which the mean gradient does not see.
Their amplitudes are q_k = sum_a gamma_ka u_a, zero for every linear displacement. The stiffness has the energy

    kappa/2 int |grad u - mean|^2 dx = kappa/2 sum_kl M_kl (q_k - F zeta_k) . (q_l - F zeta_l)

where zeta_k is the part of the shape that has become permanent by plastic flow, convected with the mean deformation F;
zeta = 0 for a law without state. The stress of an elastic-plastic cell returns to the flow stress by a factor f in a
step, and so does the hourglass stress, by the same factor:

    f = s : s_trial / |s_trial|^2,      zeta_k <- zeta_k + (1 - f) (F^-1 q_k - zeta_k)

with the deviators s of the Kirchhoff stress at the end of the step, and s_trial as if the step were elastic. So the
hourglass stress stays below the scale of the flow stress, however far the material flows, and in an elastic cell
nothing changes. The forces are the derivative of the energy at fixed zeta: they conserve energy, momentum and angular
momentum.

The stiffness may then be of the order of the shear modulus, as bending needs it: kappa = E/2 gives a rectangular cell
its elastic bending stiffness.

References:
    Flanagan and Belytschko (1981), 10.1002/nme.1620170504, section 3: hourglass modes orthogonal to linear fields.
    Puso (2000), 10.1002/1097-0207(20001120)49:8<1029::AID-NME990>3.0.CO;2-3: elastic-plastic stabilisation stress.
"""

from __future__ import annotations

import basix
import numpy as np

from fem.discretisation.mean_gradient import DEGREE, MeanGradientPoints
from fem.laws.composite import CellConstants
from fem.laws.kernels import compiled, invert, push
from fem.laws.von_mises import isochoric_mean

# Signs of the modes y z, z x, x y, x y z at the vertices of the reference cell.
_SIGNS = 2.0 * basix.geometry(basix.CellType.hexahedron) - 1.0
MODES = np.stack([
    _SIGNS[:, 1] * _SIGNS[:, 2], _SIGNS[:, 2] * _SIGNS[:, 0], _SIGNS[:, 0] * _SIGNS[:, 1], _SIGNS.prod(axis=1)
])  # fmt: skip


class Hourglass:
    """Hourglass stiffness and permanent hourglass shape of the owned cells.

    Args:
        points: Material points, one per cell.
        factor: Stiffness over the shear modulus.
        constants: Of the law of each cell: its shear modulus, and whether it may flow.

    Attributes:
        zeta: Permanent shape, (cells, 4, 3), m.
        dissipated: Energy that relaxed so far on this rank, J.
    """

    def __init__(self, points: MeanGradientPoints, factor: float, constants: CellConstants) -> None:
        self.points, self.shear, self.plastic = points, constants.shear_modulus, constants.plastic
        self.gamma, stiffness = modes(points)
        with np.errstate(over="ignore"):  # a stiffness beyond all numbers leaves no stable step, which is said there
            self.stiffness = float(factor) * self.shear[:, None, None] * stiffness
        self.zeta = np.zeros((points.n, 4, 3))
        self.dissipated = 0.0

    def add_force(self, u: np.ndarray, force: np.ndarray, *, stress: bool) -> None:
        """Add the force of the hourglass stiffness of the owned cells, and with `stress` that of their mean stress.

        Args:
            u: Displacement of the nodes of this rank, (nodes, 3), m.
            force: Internal force on them, (nodes, 3), N; changed in place.
        """
        p = self.points
        volume = p.cell_volume if stress else np.zeros(p.n)
        _add_force(u, p.nodes, p.B, volume, p.total, p.F, self.gamma, self.stiffness, self.zeta, force)

    def relax(self, u: np.ndarray, F_n: np.ndarray, P_n: np.ndarray) -> None:
        """Let the shape follow the plastic flow of a step that has just been made.

        Args:
            u: Displacement of the nodes of this rank at its end, (nodes, 3), m.
            F_n: Deformation gradients at its start, (cells, 3, 3).
            P_n: First Piola-Kirchhoff stress at its start, (cells, 3, 3), Pa.
        """
        p = self.points
        self.dissipated += _relax(
            u, p.nodes, F_n, P_n, p.F, p.P, self.shear, self.plastic, self.gamma, self.stiffness, self.zeta
        )

    def stored(self, u: np.ndarray) -> float:
        """Energy stored in the owned cells, J, for a displacement (nodes, 3), m."""
        p = self.points
        return float(_stored(u, p.nodes, p.F, self.gamma, self.stiffness, self.zeta))


def modes(points: MeanGradientPoints) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude vectors gamma (cells, 4, 8) and stiffness M (cells, 4, 4), m, of the four modes of each cell."""
    mesh = points.V.mesh
    X, w = basix.make_quadrature(basix.CellType.hexahedron, DEGREE)
    element = basix.create_element(basix.ElementFamily.P, basix.CellType.hexahedron, 1)
    table = element.tabulate(1, X)[..., 0]
    x = mesh.geometry.x[mesh.geometry.dofmap[: points.n]]
    J = np.einsum("dqa,cai->cqid", table[1:], x)
    weight = np.abs(np.linalg.det(J)) * w
    deviation = np.einsum("dqa,cqdi->cqai", table[1:], np.linalg.inv(J)) - points.B[:, None]
    K = np.einsum("cq,cqai,cqbi->cab", weight, deviation, deviation)
    gamma = MODES / 8.0 - np.einsum("ka,cai,cbi->ckb", MODES / 8.0, x, points.B)
    S = np.einsum("cka,la->ckl", gamma, MODES)  # amplitudes of the modes themselves
    inverse = np.linalg.inv(S)
    M = np.einsum("cmk,ma,cab,nb,cnl->ckl", inverse, MODES, K, MODES, inverse)
    return np.ascontiguousarray(gamma), np.ascontiguousarray(M)


@compiled
def _amplitudes(u: np.ndarray, nodes: np.ndarray, gamma: np.ndarray, q: np.ndarray) -> None:
    """Write sum_a gamma_ka u_a of one cell to q (4, 3)."""
    for k in range(4):
        for i in range(3):
            q[k, i] = 0.0
    for a in range(8):
        for k in range(4):
            for i in range(3):
                q[k, i] += gamma[k, a] * u[nodes[a], i]


@compiled
def _elastic(q: np.ndarray, F: np.ndarray, zeta: np.ndarray, e: np.ndarray) -> None:
    """Write q - F zeta of one cell to e (4, 3)."""
    for k in range(4):
        for i in range(3):
            e[k, i] = q[k, i] - (F[i, 0] * zeta[k, 0] + F[i, 1] * zeta[k, 1] + F[i, 2] * zeta[k, 2])


@compiled
def _energy(e: np.ndarray, M: np.ndarray) -> float:
    """Energy of one cell, J."""
    total = 0.0
    for k in range(4):
        for m in range(4):
            total += 0.5 * M[k, m] * (e[k, 0] * e[m, 0] + e[k, 1] * e[m, 1] + e[k, 2] * e[m, 2])
    return total


@compiled
def _add_force(
    u: np.ndarray, nodes: np.ndarray, B: np.ndarray, volume: np.ndarray, P: np.ndarray, F: np.ndarray,
    gamma: np.ndarray, M: np.ndarray, zeta: np.ndarray, force: np.ndarray,
) -> None:  # fmt: skip
    q, e, t, total = np.empty((4, 3)), np.empty((4, 3)), np.empty((4, 3)), np.empty((3, 3))
    for c in range(nodes.shape[0]):
        _amplitudes(u, nodes[c], gamma[c], q)
        _elastic(q, F[c], zeta[c], e)
        for k in range(4):
            for i in range(3):
                t[k, i] = 0.0
                for m in range(4):
                    t[k, i] += M[c, k, m] * e[m, i]
        for i in range(3):
            for j in range(3):
                total[i, j] = volume[c] * P[c, i, j]
                for k in range(4):
                    total[i, j] -= t[k, i] * zeta[c, k, j]  # of F in F zeta
        for a in range(8):
            for i in range(3):
                value = total[i, 0] * B[c, a, 0] + total[i, 1] * B[c, a, 1] + total[i, 2] * B[c, a, 2]
                for k in range(4):
                    value += gamma[c, k, a] * t[k, i]
                force[nodes[c, a], i] += value


@compiled
def _stored(
    u: np.ndarray, nodes: np.ndarray, F: np.ndarray, gamma: np.ndarray, M: np.ndarray, zeta: np.ndarray
) -> float:
    q, e = np.empty((4, 3)), np.empty((4, 3))
    total = 0.0
    for c in range(nodes.shape[0]):
        _amplitudes(u, nodes[c], gamma[c], q)
        _elastic(q, F[c], zeta[c], e)
        total += _energy(e, M[c])
    return total


@compiled
def kirchhoff_deviator(F: np.ndarray, P: np.ndarray, s: np.ndarray) -> None:
    """Write dev(P F^T) of one point to s (3, 3), Pa."""
    for i in range(3):
        for j in range(3):
            s[i, j] = P[i, 0] * F[j, 0] + P[i, 1] * F[j, 1] + P[i, 2] * F[j, 2]
    mean = (s[0, 0] + s[1, 1] + s[2, 2]) / 3.0
    for i in range(3):
        s[i, i] -= mean


@compiled
def returned(
    F_n: np.ndarray, P_n: np.ndarray, F: np.ndarray, P: np.ndarray, G: float, A: np.ndarray, b: np.ndarray,
    s: np.ndarray, trial: np.ndarray,
) -> float:  # fmt: skip
    """Factor f in [0, 1] by which the stress of one point returned in a step; the last four are work arrays (3, 3)."""
    kirchhoff_deviator(F_n, P_n, s)
    square = 0.0
    for i in range(3):
        for j in range(3):
            square += s[i, j] * s[i, j]
    x = isochoric_mean(s, G, 1.0 + np.sqrt(square) / G)
    for i in range(3):
        for j in range(3):
            b[i, j] = s[i, j] / G + (x if i == j else 0.0)
    J_n = invert(F_n, A)
    for i in range(3):
        for j in range(3):
            s[i, j] = F[i, 0] * A[0, j] + F[i, 1] * A[1, j] + F[i, 2] * A[2, j]
    J = invert(F, A)
    push(s, b, trial)
    scale = (J / J_n) ** (-2.0 / 3.0) * G
    mean = (trial[0, 0] + trial[1, 1] + trial[2, 2]) / 3.0
    kirchhoff_deviator(F, P, s)
    over, under = 0.0, 0.0
    for i in range(3):
        for j in range(3):
            value = scale * (trial[i, j] - (mean if i == j else 0.0))
            over += s[i, j] * value
            under += value * value
    if not under > (1e-12 * G) ** 2:
        return 1.0
    return min(1.0, max(0.0, over / under))


@compiled
def _relax(
    u: np.ndarray, nodes: np.ndarray, F_n: np.ndarray, P_n: np.ndarray, F: np.ndarray, P: np.ndarray,
    G: np.ndarray, plastic: np.ndarray, gamma: np.ndarray, M: np.ndarray, zeta: np.ndarray,
) -> float:  # fmt: skip
    q, e, inverse, b = np.empty((4, 3)), np.empty((4, 3)), np.empty((3, 3)), np.empty((3, 3))
    s, trial = np.empty((3, 3)), np.empty((3, 3))
    dissipated = 0.0
    for c in range(nodes.shape[0]):
        if not plastic[c]:
            continue
        f = returned(F_n[c], P_n[c], F[c], P[c], G[c], inverse, b, s, trial)
        if f == 1.0:
            continue
        _amplitudes(u, nodes[c], gamma[c], q)
        _elastic(q, F[c], zeta[c], e)
        dissipated += (1.0 - f * f) * _energy(e, M[c])
        invert(F[c], inverse)
        for k in range(4):
            for i in range(3):
                for j in range(3):
                    zeta[c, k, i] += (1.0 - f) * inverse[i, j] * e[k, j]
    return dissipated
