"""Plane strain: a law of three dimensions in a mesh of two."""

from __future__ import annotations

from typing import final

import numpy as np

from fem.laws.law import Law, check


@final
class PlaneStrain:
    """A three-dimensional law with F_33 = 1 and no shear out of the plane; energies and stresses stay per volume.

    Args:
        law: The law.

    Raises:
        ValueError: If it is no law of three dimensions.
    """

    dimension = 2

    def __init__(self, law: Law) -> None:
        if law.dimension != 3:
            raise ValueError(f"Plane strain needs a law of 3 dimensions, {law.name} has {law.dimension}.")
        self.law = law
        self.name = f"{law.name}, plane strain"
        self.strain, self.density = law.strain, law.density
        self.bulk_modulus, self.shear_modulus = law.bulk_modulus, law.shear_modulus
        self.state_size, self.observed = law.state_size, law.observed

    def _embed(self, F: np.ndarray, state: np.ndarray) -> np.ndarray:
        F, _ = check(F, state, self.state_size, 2)
        whole = np.tile(np.eye(3), (len(F), 1, 1))
        whole[:, :2, :2] = F
        return whole

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state of n points, (n, k)."""
        return self.law.initial_state(n)

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """First Piola-Kirchhoff stress (n, 2, 2), Pa, and the new state (n, k), for F (n, 2, 2) reached in dt (s)."""
        P, new = self.law.update(self._embed(F, state), state, dt)
        return P[:, :2, :2], new

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `update`, and dP_dF (n, 2, 2, 2, 2), Pa."""
        P, new, dP_dF = self.law.tangent(self._embed(F, state), state, dt)
        return P[:, :2, :2], new, dP_dF[:, :2, :2, :2, :2]

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Fields to plot, (n, m), in the order of `observed`."""
        return self.law.observe(state)

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray | None:
        """Stored energy (n,), J/m^3, or None."""
        return self.law.stored_energy(self._embed(F, state), state)

    def dissipation(self, state: np.ndarray) -> np.ndarray | None:
        """Energy dissipated so far (n,), J/m^3, or None."""
        return self.law.dissipation(state)
