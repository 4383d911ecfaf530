"""Rate-independent von Mises plasticity with isotropic hardening, linear and Voce."""

from __future__ import annotations

from typing import final

import numpy as np

from fem.laws.law import check_positive
from fem.laws.von_mises import PlasticLaw


@final
class J2(PlasticLaw):
    """Simo's multiplicative J2 law; Y(e) = yield_stress + linear_hardening e + saturation (1 - exp(-exponent e)).

    Args:
        yield_stress: Y at e = 0, Pa.
        linear_hardening: Pa.
        saturation: Voce stress added at large e, Pa; 0 for none.
        exponent: Voce rate; without saturation it has no effect.
        shear_modulus: G, Pa.
        bulk_modulus: K, Pa.
        density: Reference density, kg/m^3.
        yield_measure: The stress that Y is compared with, "kirchhoff" or "cauchy"; they differ by the factor det F.

    References:
        Update: see `fem.laws.von_mises`.
    """

    name = "j2"

    def __init__(
        self,
        yield_stress: float,
        linear_hardening: float,
        saturation: float = 0.0,
        exponent: float = 1.0,
        *,
        shear_modulus: float,
        bulk_modulus: float,
        density: float,
        yield_measure: str = "kirchhoff",
    ) -> None:
        check_positive(
            yield_stress=yield_stress,
            exponent=exponent,
            shear_modulus=shear_modulus,
            bulk_modulus=bulk_modulus,
            density=density,
        )
        if not (linear_hardening >= 0.0 and saturation >= 0.0):
            raise ValueError(f"Hardening must not be negative, got {linear_hardening} and {saturation}.")
        if yield_measure not in ("kirchhoff", "cauchy"):
            raise ValueError(f'yield_measure must be "kirchhoff" or "cauchy", got "{yield_measure}".')
        self.cauchy = yield_measure == "cauchy"
        super().__init__(
            [yield_stress, linear_hardening, 1.0, saturation, exponent, 0.0, 1.0],
            shear_modulus=shear_modulus,
            bulk_modulus=bulk_modulus,
            density=density,
        )

    def dissipation(self, state: np.ndarray) -> np.ndarray:
        """Plastic work, the integral of Y(e) from 0 to e, (n,), J/m^3; all of it is heat, none is stored.

        To a relative error of the order of the elastic strain, by which Y and the plastic strain e are not conjugate.
        """
        Y0, B, _, Q, d = self.parameters[:5]
        e = state[:, 6]
        return Y0 * e + 0.5 * B * e**2 + Q * (e - (1.0 - np.exp(-d * e)) / d)
