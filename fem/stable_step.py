"""The largest stable step of central differences, cell by cell, from the current deformation.

A cell with mean gradient B_a, volume V and lumped node masses m_a = rho N_a has the highest frequency

    omega^2 <= (M / rho) * largest eigenvalue of  V sum_a b_a b_a^T / N_a,      b_a = F^-T B_a

with the current Kirchhoff wave modulus M = K J (2 J - 1) + 4 G / 3 (the volumetric part of the shared energy is exact,
plastic flow and rotation only lower the rest), and dt = 2 / omega. The step of the mesh is the smallest of its cells.

References:
    Flanagan and Belytschko (1981), 10.1002/nme.1620170504, section 4 (there with the trace for the eigenvalue).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fem.laws.energy import invert


def cell_metric(B: np.ndarray, volume: np.ndarray, node_volume: np.ndarray) -> np.ndarray:
    """V sum_a B_a B_a^T / N_a of each cell in the reference configuration.

    Args:
        B: Mean gradients, (cells, 8, 3), 1/m.
        volume: Cell volumes, (cells,), m^3.
        node_volume: Integral of each shape function, (cells, 8), m^3.

    Returns:
        Metric, (cells, 3, 3), 1/m^2.
    """
    return np.einsum("c,cai,caj,ca->cij", volume, B, B, 1.0 / node_volume)


@njit(cache=True, error_model="numpy")
def _largest(A: np.ndarray) -> float:
    """Largest eigenvalue of a symmetric (3, 3) matrix, in closed form."""
    mean = (A[0, 0] + A[1, 1] + A[2, 2]) / 3.0
    a, b, c = A[0, 0] - mean, A[1, 1] - mean, A[2, 2] - mean
    d, e, f = A[0, 1], A[1, 2], A[0, 2]
    p = np.sqrt((a * a + b * b + c * c + 2.0 * (d * d + e * e + f * f)) / 6.0)
    if p == 0.0:
        return mean
    det = (a * (b * c - e * e) - d * (d * c - e * f) + f * (d * e - b * f)) / (2.0 * p**3)
    return mean + 2.0 * p * np.cos(np.arccos(min(1.0, max(-1.0, det))) / 3.0)


@njit(cache=True, error_model="numpy")
def smallest_step(
    F: np.ndarray, per_cell: int, metric: np.ndarray, bulk: float, shear: float, density: float
) -> tuple[float, int]:
    """Smallest stable step of the cells, and the first point with det F <= 0 or not finite (or -1).

    Args:
        F: Deformation gradients at the points, (n, 3, 3).
        per_cell: Points a cell.
        metric: Of `cell_metric`, (n / per_cell, 3, 3), 1/m^2.
        bulk: K, Pa.
        shear: G, Pa.
        density: Reference density, kg/m^3.
    """
    inverse, pushed = np.empty((3, 3)), np.empty((3, 3))
    highest = 0.0
    for n in range(F.shape[0]):
        J = invert(F[n], inverse)
        if not (J > 0.0 and J < np.inf):
            return 0.0, n
        S = metric[n // per_cell]
        for i in range(3):
            for j in range(3):
                total = 0.0
                for k in range(3):
                    for m in range(3):
                        total += inverse[k, i] * S[k, m] * inverse[m, j]
                pushed[i, j] = total
        # Under strong compression J (2 J - 1) vanishes: the shear part and a tenth of K stay.
        modulus = bulk * max(J * (2.0 * J - 1.0), 0.1) + 4.0 / 3.0 * shear
        highest = max(highest, modulus * _largest(pushed))
    return (2.0 * np.sqrt(density / highest) if highest > 0.0 else np.inf), -1
