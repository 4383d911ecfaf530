"""Johnson-Cook plasticity: power hardening times a logarithm of the strain rate."""

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
OPTIONAL = ("shear_modulus", "bulk_modulus", "density")


@final
class JohnsonCook(PlasticLaw):
    """Flow stress (A + B e^n) (1 + C ln(max(rate/rate_0, 1))), implicit in plastic strain and rate; isothermal.

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

    Raises:
        ValueError: If a constant is out of range.

    References:
        Johnson and Cook (1983), 7th Int. Symp. Ballistics. Update: see `fem.laws.von_mises`.
    """

    name = "johnson-cook"

    def __init__(
        self, *, A: float, B: float, n: float, C: float, rate_0: float,
        shear_modulus: float, bulk_modulus: float, density: float,
    ) -> None:  # fmt: skip
        check_positive(A=A, n=n, rate_0=rate_0, shear_modulus=shear_modulus, bulk_modulus=bulk_modulus, density=density)
        if not (0.0 <= B < np.inf and 0.0 <= C < np.inf and n <= 1.0):
            raise ValueError(f"Johnson-Cook needs B >= 0, C >= 0 and n <= 1, got B = {B}, C = {C}, n = {n}.")
        super().__init__(
            [A, B, n, 0.0, 1.0, C, rate_0],
            shear_modulus=shear_modulus,
            bulk_modulus=bulk_modulus,
            density=density,
        )

    def flow_stress(self, e: float, rate: float) -> float:
        """Flow stress, Pa, at plastic strain e and plastic strain rate (1/s)."""
        return float(von_mises.flow_stress(float(e), float(rate), 1.0, self.parameters)[0])


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
