"""What the von Mises laws share: elasticity, state and radial return; they differ in their flow stress alone."""

from __future__ import annotations

import numpy as np

from fem.laws import von_mises


class PlasticLaw:
    """Abstract multiplicative plasticity; a final law adds its constants (see `fem.laws.von_mises`) and its name.

    Args:
        parameters: Constants of the flow stress, (7,), in the order of `radial_return.flow_stress`.
        shear_modulus: G, Pa.
        lame_modulus: lambda_e, Pa; the bulk modulus is twice this.
        density: Reference density, kg/m^3.
    """

    strain, dimension = "finite", 3
    state_size = von_mises.STATE_SIZE
    observed: tuple[str, ...] = ("equivalent_plastic_strain",)

    def __init__(
        self, parameters: list[float], *, shear_modulus: float, lame_modulus: float, density: float
    ) -> None:
        self.shear_modulus = float(shear_modulus)
        self.lame_modulus = float(lame_modulus)
        self.bulk_modulus = 2.0 * self.lame_modulus
        self.density = float(density)
        self.parameters = np.array(parameters, dtype=np.float64)

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state of n points, (n, 7)."""
        return von_mises.virgin(n)

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """First Piola-Kirchhoff stress (n, 3, 3), Pa, and the new state (n, 7), for F (n, 3, 3) reached in dt (s)."""
        P, new, _ = von_mises.respond(self, F, state, dt, tangent=False)
        return P, new

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `update`, and dP_dF (n, 3, 3, 3, 3), Pa, with dP_dF[n, i, j, k, l] = dP_ij / dF_kl."""
        return von_mises.respond(self, F, state, dt, tangent=True)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Equivalent plastic strain, (n, 1)."""
        return state[:, 6:7]

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Elastic energy at each point, (n,), J/m^3 (nothing is stored by hardening)."""
        return von_mises.stored_energy(self, F, state)

    def dissipation(self, state: np.ndarray) -> np.ndarray | None:
        """Plastic work (n,), J/m^3, where the state alone tells it; a law with a rate effect returns None."""
        return None
