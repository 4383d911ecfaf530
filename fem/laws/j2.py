"""Rate-independent von Mises plasticity with isotropic hardening, linear and Voce."""

from __future__ import annotations

from typing import final

import numpy as np

from fem.laws import radial_return
from fem.laws.energy import DENSITY, LAME_MODULUS, SHEAR_MODULUS
from fem.laws.shapes import check_positive


@final
class J2:
    """Simo's multiplicative J2 law; Y(e) = yield_stress + linear_hardening e + saturation (1 - exp(-exponent e)).

    The default constants are round numbers of the order of the magnesium polycrystal of paper 1 at quasi-static rates
    (an assumption of ours, no fit).

    Args:
        yield_stress: Y at e = 0, Pa, Kirchhoff.
        linear_hardening: Pa.
        saturation: Voce stress added at large e, Pa.
        exponent: Voce rate.
        shear_modulus: G, Pa.
        lame_modulus: lambda_e, Pa; the bulk modulus is twice this.
        density: Reference density, kg/m^3.

    References:
        Elastic constants: table 1 of 10.1016/j.jmps.2021.104668. Update: see `fem.laws.radial_return`.
    """

    name = "j2"
    state_size = radial_return.STATE_SIZE
    observed: tuple[str, ...] = ("equivalent_plastic_strain",)

    def __init__(
        self,
        yield_stress: float = 150e6,
        linear_hardening: float = 300e6,
        saturation: float = 0.0,
        exponent: float = 1.0,
        *,
        shear_modulus: float = SHEAR_MODULUS,
        lame_modulus: float = LAME_MODULUS,
        density: float = DENSITY,
    ) -> None:
        check_positive(
            yield_stress=yield_stress,
            exponent=exponent,
            shear_modulus=shear_modulus,
            lame_modulus=lame_modulus,
            density=density,
        )
        if not (linear_hardening >= 0.0 and saturation >= 0.0):
            raise ValueError(f"Hardening must not be negative, got {linear_hardening} and {saturation}.")
        self.shear_modulus = float(shear_modulus)
        self.lame_modulus = float(lame_modulus)
        self.bulk_modulus = 2.0 * self.lame_modulus
        self.density = float(density)
        self.parameters = np.array([yield_stress, linear_hardening, 1.0, saturation, exponent, 0.0, 1.0])

    def initial_state(self, n: int) -> np.ndarray:
        """Virgin state of n points, (n, 7)."""
        return radial_return.virgin(n)

    def update(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """First Piola-Kirchhoff stress (n, 3, 3), Pa, and the new state (n, 7), for F (n, 3, 3); dt plays no part."""
        P, new, _ = radial_return.respond(self, F, state, dt, tangent=False)
        return P, new

    def tangent(self, F: np.ndarray, state: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `update`, and dP_dF (n, 3, 3, 3, 3), Pa, with dP_dF[n, i, j, k, l] = dP_ij / dF_kl."""
        return radial_return.respond(self, F, state, dt, tangent=True)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Equivalent plastic strain, (n, 1)."""
        return state[:, 6:7]

    def stored_energy(self, F: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Elastic energy at each point, (n,), J/m^3 (nothing is stored by hardening)."""
        return radial_return.stored_energy(self, F, state)
