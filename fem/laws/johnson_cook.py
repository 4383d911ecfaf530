"""Johnson-Cook plasticity: power hardening times a logarithm of the strain rate."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import final

import numpy as np

from fem.laws import von_mises
from fem.laws.kernels import DENSITY, LAME_MODULUS, SHEAR_MODULUS
from fem.laws.plastic import PlasticLaw
from fem.laws.shapes import check_positive

REQUIRED = ("A", "B", "n", "C", "rate_0")
OPTIONAL = ("shear_modulus", "lame_modulus", "density")


@final
class JohnsonCook(PlasticLaw):
    """Flow stress (A + B e^n) (1 + C ln(max(rate/rate_0, 1))), implicit in plastic strain and rate; isothermal.

    Args:
        parameters: Path of a JSON file with A, B (Pa), n, C, rate_0 (1/s), at the top or under "parameters"; None takes
            the arguments below.
        A: Flow stress at e = 0 and slow rates, Pa, Kirchhoff.
        B: Hardening, Pa.
        n: Hardening exponent, in (0, 1].
        C: Rate sensitivity.
        rate_0: Rate below which there is no rate effect, 1/s.
        shear_modulus: G, Pa.
        lame_modulus: lambda_e, Pa; the bulk modulus is twice this.
        density: Reference density, kg/m^3.

    Raises:
        ValueError: If the file lacks a constant, or a constant is out of range.
        FileNotFoundError: If the file is not there.

    References:
        Johnson and Cook (1983), 7th Int. Symp. Ballistics. The default constants are of the order of magnesium alloys
        (an assumption of ours, no fit). Elastic constants: table 1 of 10.1016/j.jmps.2021.104668. Update: see
        `fem.laws.von_mises`.
    """

    name = "johnson-cook"

    def __init__(
        self,
        parameters: str | PathLike[str] | None = None,
        *,
        A: float = 225e6,
        B: float = 200e6,
        n: float = 0.3,
        C: float = 0.013,
        rate_0: float = 1.0,
        shear_modulus: float = SHEAR_MODULUS,
        lame_modulus: float = LAME_MODULUS,
        density: float = DENSITY,
    ) -> None:
        if parameters is not None:
            values = read_parameters(parameters)
            A, B, n, C, rate_0 = (values[key] for key in REQUIRED)
            shear_modulus = values.get("shear_modulus", shear_modulus)
            lame_modulus = values.get("lame_modulus", lame_modulus)
            density = values.get("density", density)
        check_positive(A=A, n=n, rate_0=rate_0, shear_modulus=shear_modulus, lame_modulus=lame_modulus, density=density)
        if not (0.0 <= B < np.inf and 0.0 <= C < np.inf and n <= 1.0):
            raise ValueError(f"Johnson-Cook needs B >= 0, C >= 0 and n <= 1, got B = {B}, C = {C}, n = {n}.")
        super().__init__(
            [A, B, n, 0.0, 1.0, C, rate_0],
            shear_modulus=shear_modulus,
            lame_modulus=lame_modulus,
            density=density,
        )

    def flow_stress(self, e: float, rate: float) -> float:
        """Flow stress, Pa, at plastic strain e and plastic strain rate (1/s)."""
        return float(von_mises.flow_stress(float(e), float(rate), 1.0, self.parameters)[0])


def read_parameters(path: str | PathLike[str]) -> dict[str, float]:
    """Read Johnson-Cook constants from a JSON file.

    Args:
        path: The file: an object with A, B, n, C, rate_0 (optionally shear_modulus, lame_modulus, density), at the top
            or under the key "parameters".

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
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    values = content.get("parameters", content) if isinstance(content, dict) else {}
    found: dict[str, float] = {}
    for key in REQUIRED + OPTIONAL:
        if key not in values:
            if key in REQUIRED:
                raise ValueError(f'{path} lacks the Johnson-Cook constant "{key}".')
            continue
        value = values[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f'{path}: the constant "{key}" must be a number, got {value!r}.')
        found[key] = float(value)
    return found
