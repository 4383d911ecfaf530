"""Johnson-Cook plasticity: power hardening, logarithm of the strain rate, softening by adiabatic heating."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import final

import numpy as np

from fem.laws import von_mises
from fem.laws.law import check_positive
from fem.laws.von_mises import PlasticLaw

REQUIRED = ("A", "B", "n", "C", "rate_0")
HEATING = ("m", "specific_heat", "taylor_quinney", "reference_temperature", "melting_temperature")
OPTIONAL = ("shear_modulus", "bulk_modulus", "density", *HEATING)


@final
class JohnsonCook(PlasticLaw):
    """Flow stress (A + B e^n) (1 + C ln(max(rate/rate_0, 1))) (1 - theta^m), implicit in strain, rate and temperature.

    With m, the body begins at the reference temperature T_0, and the fraction eta of the plastic work heats each point,
    rho c_p dT = eta Y de, without conduction; theta = (T - T_0)/(T_m - T_0). Without m the law is isothermal.

    `read_parameters` takes the constants from a file: `JohnsonCook(**read_parameters(path))`.

    Args:
        A: Flow stress at e = 0 and slow rates, Pa, Kirchhoff.
        B: Hardening, Pa.
        n: Hardening exponent, in (0, 1].
        C: Rate sensitivity.
        rate_0: Rate below which there is no rate effect, 1/s.
        shear_modulus: G, Pa.
        bulk_modulus: K, Pa.
        density: Reference density, kg/m^3.
        m: Exponent of thermal softening; None for an isothermal law.
        specific_heat: c_p, J/(kg K).
        taylor_quinney: eta, fraction of the plastic work that becomes heat, in [0, 1].
        reference_temperature: T_0, K.
        melting_temperature: T_m, K.

    Raises:
        ValueError: If a constant is out of range.

    References:
        Johnson and Cook (1983), 7th Int. Symp. Ballistics. Update: see `fem.laws.von_mises`.
    """

    name = "johnson-cook"

    def __init__(
        self, *, A: float, B: float, n: float, C: float, rate_0: float,
        shear_modulus: float, bulk_modulus: float, density: float, m: float | None = None,
        specific_heat: float | None = None, taylor_quinney: float = 0.9,
        reference_temperature: float = 293.15, melting_temperature: float | None = None,
    ) -> None:  # fmt: skip
        check_positive(A=A, n=n, rate_0=rate_0, shear_modulus=shear_modulus, bulk_modulus=bulk_modulus, density=density)
        if not (0.0 <= B < np.inf and 0.0 <= C < np.inf and n <= 1.0):
            raise ValueError(f"Johnson-Cook needs B >= 0, C >= 0 and n <= 1, got B = {B}, C = {C}, n = {n}.")
        heating: list[float] = []
        if m is not None:
            if specific_heat is None or melting_temperature is None:
                raise ValueError("A Johnson-Cook law with m needs specific_heat and melting_temperature.")
            span = melting_temperature - reference_temperature
            check_positive(m=m, specific_heat=specific_heat, reference_temperature=reference_temperature)
            check_positive(**{"melting_temperature - reference_temperature": span})
            if not 0.0 <= taylor_quinney <= 1.0:
                raise ValueError(f"taylor_quinney must be in [0, 1], got {taylor_quinney}.")
            heating = [m, taylor_quinney / (density * specific_heat), reference_temperature, span]
        elif specific_heat is not None or melting_temperature is not None:
            raise ValueError("A Johnson-Cook law with specific_heat or melting_temperature needs m.")
        super().__init__(
            [A, B, n, 0.0, 1.0, C, rate_0, *heating],
            shear_modulus=shear_modulus,
            bulk_modulus=bulk_modulus,
            density=density,
        )

    def flow_stress(self, e: float, rate: float, temperature: float | None = None) -> float:
        """Flow stress, Pa, at plastic strain e, plastic strain rate (1/s) and temperature (K; None is T_0)."""
        Y = float(von_mises.flow_stress(float(e), float(rate), 1.0, self.parameters)[0])
        if temperature is None or len(self.parameters) == von_mises.MECHANICAL:
            return Y
        m, _, T_0, span = self.parameters[von_mises.MECHANICAL :]
        return Y * (1.0 - min(max((temperature - T_0) / span, 0.0), 1.0) ** m)


def read_parameters(path: str | PathLike[str]) -> dict[str, float]:
    """Read Johnson-Cook constants from a JSON file.

    Args:
        path: The file: an object with A, B, n, C, rate_0 and optionally shear_modulus, bulk_modulus, density, at the
            top or under the key "parameters". Older files have lame_modulus, half of the bulk modulus.

    Returns:
        Name -> value, SI units.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not such an object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Johnson-Cook parameter file {path} does not exist.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    values = content.get("parameters", content) if isinstance(content, dict) else {}
    if not isinstance(values, dict):
        raise ValueError(f'{path}: "parameters" must be an object, got {values!r}.')
    found = {}
    for key in (*REQUIRED, *OPTIONAL, "lame_modulus"):
        if key in values:
            value = values[key]
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f'{path}: the constant "{key}" must be a number, got {value!r}.')
            found[key] = float(value)
        elif key in REQUIRED:
            raise ValueError(f'{path} lacks the Johnson-Cook constant "{key}".')
    half = found.pop("lame_modulus", None)
    if half is not None:
        found.setdefault("bulk_modulus", 2.0 * half)
    return found
