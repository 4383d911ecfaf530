"""Isotropic linear elasticity at small strain."""

from __future__ import annotations

from typing import final

import numpy as np

from fem.laws.law import check, check_positive


@final
class LinearElastic:
    """sigma = lambda tr(E) I + 2 G E with E = sym(F - I); no state. In two dimensions: plane strain.

    Args:
        shear_modulus: G, Pa.
        bulk_modulus: K, Pa; lambda = K - 2 G / 3 in two dimensions as well.
        dimension: 2 or 3.
        density: Reference density, kg/m^3.
    """

    name = "linear-elastic"
    strain = "small"
    state_size = 0
    observed: tuple[str, ...] = ()

    def __init__(self, shear_modulus: float, bulk_modulus: float, *, dimension: int = 3, density: float) -> None:
        check_positive(shear_modulus=shear_modulus, bulk_modulus=bulk_modulus, density=density)
        if dimension not in (2, 3):
            raise ValueError(f"dimension must be 2 or 3, got {dimension}.")
        self.shear_modulus = float(shear_modulus)
        self.bulk_modulus = float(bulk_modulus)
        self.density = float(density)
        self.dimension = int(dimension)
        lmbda, G, eye = self.bulk_modulus - 2.0 / 3.0 * self.shear_modulus, self.shear_modulus, np.eye(dimension)
        identities = np.einsum("ik,jl->ijkl", eye, eye) + np.einsum("il,jk->ijkl", eye, eye)
        self._stiffness = lmbda * np.einsum("ij,kl->ijkl", eye, eye) + G * identities

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state of n points, (n, 0)."""
        return np.zeros((n, 0))

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """Stress (n, d, d), Pa, and the new state, for F (n, d, d)."""
        F, state = check(F, state, 0, self.dimension)
        H = F - np.eye(self.dimension)
        trace = np.trace(H, axis1=1, axis2=2)[:, None, None] * np.eye(self.dimension)
        lmbda = self.bulk_modulus - 2.0 / 3.0 * self.shear_modulus
        return lmbda * trace + self.shear_modulus * (H + np.swapaxes(H, 1, 2)), state.copy()

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `update`, and the stiffness (n, d, d, d, d), Pa; a view of one tensor, not to be written to."""
        P, new = self.update(F, state, dt)
        return P, new, np.broadcast_to(self._stiffness, (len(P), *self._stiffness.shape))

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Nothing to plot: (n, 0)."""
        return state

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray:
        """sigma : E / 2 at each point, (n,), J/m^3."""
        sigma, _ = self.update(F, state, 1.0)
        return 0.5 * np.einsum("nij,nij->n", sigma, F - np.eye(self.dimension))

    def dissipation(self, state: np.ndarray) -> np.ndarray:
        """Dissipated energy of an elastic law: zeros (n,)."""
        return np.zeros(len(state))
