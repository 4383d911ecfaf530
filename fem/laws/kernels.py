"""The elastic energy that all laws share, as compiled pieces for one point.

    W_e(A) = G/2 (tr(A^T A) det(A)^(-2/3) - 3) + lambda_e (det A - 1)^2

The bulk modulus is K = 2 lambda_e, and the pressure part of the Cauchy stress is 2 lambda_e (J - 1) I, whatever the
history. Tensors are (3, 3); nothing is allocated here, the caller owns the work arrays.

Numba's cache looks at the file of a compiled function only, not at the files of those it calls: after an edit here,
delete the caches of the callers (`fem/**/__pycache__/*.nb?`).

References:
    Eq. (A.3), 10.1016/j.jmps.2021.104668 (there with F F_in^-1 for A).
"""

from __future__ import annotations

import numpy as np
from numba import njit

SHEAR_MODULUS = 25e9  # Pa, magnesium, table 1 of 10.1016/j.jmps.2021.104668
LAME_MODULUS = 24e9  # Pa, lambda_e of the same table
DENSITY = 1e4  # kg/m^3, as printed there (magnesium itself: 1738)


@njit(cache=True, error_model="numpy")
def invert(A: np.ndarray, out: np.ndarray) -> float:
    """Write the inverse of A (3, 3) to `out` and return det A; a singular A gives infinities, not an exception."""
    out[0, 0] = A[1, 1] * A[2, 2] - A[1, 2] * A[2, 1]
    out[0, 1] = A[0, 2] * A[2, 1] - A[0, 1] * A[2, 2]
    out[0, 2] = A[0, 1] * A[1, 2] - A[0, 2] * A[1, 1]
    out[1, 0] = A[1, 2] * A[2, 0] - A[1, 0] * A[2, 2]
    out[1, 1] = A[0, 0] * A[2, 2] - A[0, 2] * A[2, 0]
    out[1, 2] = A[0, 2] * A[1, 0] - A[0, 0] * A[1, 2]
    out[2, 0] = A[1, 0] * A[2, 1] - A[1, 1] * A[2, 0]
    out[2, 1] = A[0, 1] * A[2, 0] - A[0, 0] * A[2, 1]
    out[2, 2] = A[0, 0] * A[1, 1] - A[0, 1] * A[1, 0]
    det = A[0, 0] * out[0, 0] + A[0, 1] * out[1, 0] + A[0, 2] * out[2, 0]
    for i in range(3):
        for j in range(3):
            out[i, j] /= det
    return det


@njit(cache=True, error_model="numpy")
def push(F: np.ndarray, A: np.ndarray, out: np.ndarray) -> None:
    """Write F A F^T to `out` for symmetric A; all (3, 3)."""
    for i in range(3):
        for j in range(3):
            total = 0.0
            for k in range(3):
                for m in range(3):
                    total += F[i, k] * A[k, m] * F[j, m]
            out[i, j] = total


@njit(cache=True, error_model="numpy")
def pull_back(tau: np.ndarray, F_inv: np.ndarray, out: np.ndarray) -> None:
    """Write P = tau F^-T to `out`; tau is the Kirchhoff stress (3, 3), Pa."""
    for i in range(3):
        for j in range(3):
            out[i, j] = tau[i, 0] * F_inv[j, 0] + tau[i, 1] * F_inv[j, 1] + tau[i, 2] * F_inv[j, 2]


@njit(cache=True, error_model="numpy")
def stress_rate(tau: np.ndarray, d_tau: np.ndarray, L: np.ndarray, F_inv: np.ndarray, out: np.ndarray) -> None:
    """Write dP = (d tau - tau L^T) F^-T to `out`, with L = dF F^-1; all (3, 3)."""
    for i in range(3):
        for j in range(3):
            total = 0.0
            for k in range(3):
                bracket = d_tau[i, k] - tau[i, 0] * L[k, 0] - tau[i, 1] * L[k, 1] - tau[i, 2] * L[k, 2]
                total += bracket * F_inv[j, k]
            out[i, j] = total


@njit(cache=True, error_model="numpy")
def energy(b: np.ndarray, J: float, G: float, lmbda: float) -> float:
    """W_e from the isochoric elastic left Cauchy-Green tensor b (3, 3, det 1) and J; J/m^3."""
    return 0.5 * G * (b[0, 0] + b[1, 1] + b[2, 2] - 3.0) + lmbda * (J - 1.0) ** 2
