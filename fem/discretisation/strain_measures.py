"""Scalar measures of deformation and stress for plots; plain numpy, points first."""

from __future__ import annotations

import numpy as np


def cauchy_stress(F: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Cauchy stress P F^T / det F, (n, 3, 3), Pa, from F and P, both (n, 3, 3)."""
    return np.einsum("nik,njk->nij", P, F) / np.linalg.det(F)[:, None, None]


def von_mises(sigma: np.ndarray) -> np.ndarray:
    """sqrt(3/2) |dev sigma|, (n,), Pa, from sigma (n, 3, 3)."""
    mean = np.trace(sigma, axis1=1, axis2=2) / 3.0
    deviator = sigma - mean[:, None, None] * np.eye(3)
    return np.sqrt(1.5 * np.einsum("nij,nij->n", deviator, deviator))


def deviatoric_strain(F: np.ndarray, exponent: float = 2.0 / 3.0) -> np.ndarray:
    """e_d = |F^T F / (det F)^exponent - I| / 2, (n,).

    Args:
        F: Deformation gradients, (n, 3, 3).
        exponent: 2/3 is isochoric: e_d is then zero for a pure change of volume. 2 is what paper 1 prints.

    References:
        Section 4.1, 10.1016/j.jmps.2021.104668.
    """
    C = np.einsum("nki,nkj->nij", F, F) / np.linalg.det(F)[:, None, None] ** exponent
    return 0.5 * np.linalg.norm(C - np.eye(3), axis=(1, 2))


def volume_strain(F: np.ndarray) -> np.ndarray:
    """e_v = det F - 1, (n,), from F (n, 3, 3)."""
    return np.linalg.det(F) - 1.0
