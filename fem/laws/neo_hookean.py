"""Neo-Hookean elasticity: the energy of `fem.laws.kernels` with F_in = I."""

from __future__ import annotations

from typing import final

import numpy as np

from fem.laws.kernels import compiled, invert, pull_back, stress_rate
from fem.laws.law import check, check_positive


@final
class NeoHookean:
    """tau = G dev(b J^(-2/3)) + K (J - 1) J I; no state.

    Args:
        shear_modulus: G, Pa.
        bulk_modulus: K, Pa.
        density: Reference density, kg/m^3.

    References:
        Eq. (A.3), 10.1016/j.jmps.2021.104668.
    """

    name = "neo-hookean"
    strain, dimension = "finite", 3
    state_size = 0
    observed: tuple[str, ...] = ()

    def __init__(self, shear_modulus: float, bulk_modulus: float, *, density: float) -> None:
        check_positive(shear_modulus=shear_modulus, bulk_modulus=bulk_modulus, density=density)
        self.shear_modulus = float(shear_modulus)
        self.bulk_modulus = float(bulk_modulus)
        self.density = float(density)

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state of n points, (n, 0)."""
        return np.zeros((n, 0))

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """First Piola-Kirchhoff stress (n, 3, 3), Pa, and the new state, for F (n, 3, 3)."""
        F, state = check(F, state, 0)
        P = np.empty_like(F)
        _evaluate(F, self.shear_modulus, self.bulk_modulus, P, np.empty((0, 3, 3, 3, 3)))
        return P, state.copy()

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `update`, and dP_dF (n, 3, 3, 3, 3), Pa, with dP_dF[n, i, j, k, l] = dP_ij / dF_kl."""
        F, state = check(F, state, 0)
        P = np.empty_like(F)
        dP_dF = np.empty((len(F), 3, 3, 3, 3))
        _evaluate(F, self.shear_modulus, self.bulk_modulus, P, dP_dF)
        return P, state.copy(), dP_dF

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Nothing to plot: (n, 0)."""
        return state

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray:
        """W_e at each point, (n,), J/m^3."""
        F, _ = check(F, state, 0)
        J = np.linalg.det(F)
        trace = np.einsum("nij,nij->n", F, F) * J ** (-2.0 / 3.0)
        return 0.5 * self.shear_modulus * (trace - 3.0) + 0.5 * self.bulk_modulus * (J - 1.0) ** 2

    def dissipation(self, state: np.ndarray) -> np.ndarray:
        """Dissipated energy of an elastic law: zeros (n,)."""
        return np.zeros(len(state))


@compiled
def _evaluate(F: np.ndarray, G: float, K: float, P: np.ndarray, dP_dF: np.ndarray) -> None:
    """Fill P, and dP_dF unless it is empty."""
    F_inv, b, tau = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    d_tau, L, dP = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    with_tangent = dP_dF.shape[0] > 0
    for n in range(F.shape[0]):
        J = invert(F[n], F_inv)
        scale = J ** (-2.0 / 3.0)
        for i in range(3):
            for j in range(3):
                b[i, j] = scale * (F[n, i, 0] * F[n, j, 0] + F[n, i, 1] * F[n, j, 1] + F[n, i, 2] * F[n, j, 2])
        mean = (b[0, 0] + b[1, 1] + b[2, 2]) / 3.0
        pressure = K * (J - 1.0) * J
        for i in range(3):
            for j in range(3):
                tau[i, j] = G * b[i, j]
            tau[i, i] += pressure - G * mean
        pull_back(tau, F_inv, P[n])
        if not with_tangent:
            continue
        for k in range(3):
            for m in range(3):
                # dF = e_k e_m^T, so L = dF F^-1 has one row.
                for i in range(3):
                    for j in range(3):
                        L[i, j] = F_inv[m, j] if i == k else 0.0
                volume = F_inv[m, k]
                for i in range(3):
                    for j in range(3):
                        d_tau[i, j] = G * (
                            L[i, 0] * b[0, j] + L[i, 1] * b[1, j] + L[i, 2] * b[2, j]
                            + b[i, 0] * L[j, 0] + b[i, 1] * L[j, 1] + b[i, 2] * L[j, 2]
                            - 2.0 / 3.0 * volume * b[i, j]
                        )
                trace = (d_tau[0, 0] + d_tau[1, 1] + d_tau[2, 2]) / 3.0
                for i in range(3):
                    d_tau[i, i] += K * (2.0 * J - 1.0) * J * volume - trace
                stress_rate(tau, d_tau, L, F_inv, dP)
                for i in range(3):
                    for j in range(3):
                        dP_dF[n, i, j, k, m] = dP[i, j]
