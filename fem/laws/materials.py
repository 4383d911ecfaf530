"""Named parameter sets of the classical laws, with the source of every number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PAPER = "table 1 of 10.1016/j.jmps.2021.104668 (magnesium)"
PAPER_DENSITY = "as printed in 10.1016/j.jmps.2021.104668; the density of magnesium is 1738 kg/m^3"
ASSUMED = "a round number of the order of magnesium alloys at quasi-static rates; an assumption, no fit"
NONE = "not used: no Voce stress"


@dataclass(frozen=True)
class Constant:
    """A material constant in SI units, and where it comes from."""

    value: float
    source: str


@dataclass(frozen=True)
class ParameterSet:
    """A classical law with all its constants.

    Attributes:
        law: Name of the law.
        constants: Argument of the law -> constant.
    """

    law: str
    constants: Mapping[str, Constant]

    def values(self) -> dict[str, float]:
        """Arguments of the law."""
        return {name: constant.value for name, constant in self.constants.items()}


# W_e of Eq. (A.3) there has lambda_e = 24 GPa, half of the bulk modulus.
ELASTIC = {
    "shear_modulus": Constant(25e9, PAPER),
    "bulk_modulus": Constant(48e9, PAPER + ": 2 lambda_e"),
    "density": Constant(1e4, PAPER_DENSITY),
}
J2 = {
    "yield_stress": Constant(150e6, ASSUMED),
    "linear_hardening": Constant(300e6, ASSUMED),
    "saturation": Constant(0.0, NONE),
    "exponent": Constant(1.0, NONE),
}
JOHNSON_COOK = {
    "A": Constant(225e6, ASSUMED),
    "B": Constant(200e6, ASSUMED),
    "n": Constant(0.3, ASSUMED),
    "C": Constant(0.013, ASSUMED),
    "rate_0": Constant(1.0, ASSUMED),
}
SETS = {
    "magnesium-neo-hookean": ParameterSet("neo-hookean", ELASTIC),
    "magnesium-j2": ParameterSet("j2", J2 | ELASTIC),
    "magnesium-johnson-cook": ParameterSet("johnson-cook", JOHNSON_COOK | ELASTIC),
    "magnesium-linear-elastic": ParameterSet("linear-elastic", ELASTIC),
}
# Johnson-Cook fitted to the polycrystals of `micro.crystal`: its constants and their source stand in a file of the
# package `surrogates`.
FITTED = "polycrystal-johnson-cook"
