"""Parameters of a single crystal, read from small files that name the source of every number.

A material is a TOML file: lattice, elastic moduli, density, one table per slip family and at most one for twins.

    name = "magnesium"
    lattice = "hcp"          # hcp, fcc, bcc or square
    c_over_a = 1.624         # hcp only
    G = 25e9                 # Pa
    lambda_e = 24e9          # Pa; the bulk modulus is 2 lambda_e
    density = 1e4            # kg/m^3
    source = "..."

    [slip.basal]
    direction = [2, -1, -1, 0]   # Miller indices, four of them on the hcp lattice (Miller-Bravais)
    plane = [0, 0, 0, 1]         # one pair stands for all that the symmetry of the lattice makes of it
    tau_0 = 10e6
    ...

`load_material` reads one of the files beside this module by its name, or a file of your own by its path.

References:
    Liu et al. (2022), appendix, doi:10.1016/j.jmps.2021.104668.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("materials")
#: Number of Miller indices on each lattice.
LATTICES = {"hcp": 4, "fcc": 3, "bcc": 3, "square": 3}
Indices = tuple[int, ...]


@dataclass(frozen=True)
class SlipFamily:
    """Parameters of one family of slip systems.

    The resistance of a system that slips at the `rate` is r + tau_0 (rate/rate_0)^m with the hardening
    r = r_0 + sigma_inf (1 - exp(-h e/sigma_inf)) + latent hardening, where e is its accumulated slip.

    Attributes:
        name: Name of the family.
        direction, plane: Miller indices of one system; the symmetry of the lattice gives the others.
        tau_0: Viscous resistance at the reference rate, Pa, the factor of (rate/rate_0)^m in eq. (A.6).
        rate_0: Reference rate, 1/s.
        m: Rate exponent, > 0 (0.5: the stress grows with the square root of the rate).
        h: Self-hardening modulus, Pa.
        sigma_inf: Saturation of the self-hardening, Pa; 0 for none.
        h_latent: Latent hardening modulus h_ij, Pa, off the diagonal only.
        r_0: Initial resistance that does not depend on the rate, Pa.
        source: Where the numbers come from.
    """

    name: str
    direction: Indices
    plane: Indices
    tau_0: float
    rate_0: float
    m: float
    h: float
    sigma_inf: float
    source: str
    h_latent: float = 0.0
    r_0: float = 0.0


@dataclass(frozen=True)
class TwinFamily:
    """Parameters of the family of twins.

    Attributes:
        direction, plane: Miller indices of one twin; the pair fixes the sense of the shear.
        shear: Shear of a fully twinned crystal, dimensionless.
        tau_0: Viscous resistance at the reference rate, Pa, eq. (A.7). It is conjugate to the volume fraction, about
            the twin shear times a shear stress.
        rate_0: Reference rate of the volume fraction, 1/s.
        m: Rate exponent, > 0.
        h: Self-hardening modulus, Pa.
        h_latent: Latent hardening modulus k_ij, Pa, off the diagonal only.
        source: Where the numbers come from.
    """

    direction: Indices
    plane: Indices
    shear: float
    tau_0: float
    rate_0: float
    m: float
    h: float
    h_latent: float
    source: str


@dataclass(frozen=True)
class CrystalParameters:
    """Parameters of the single-crystal law; `load_material` reads them from a file.

    Attributes:
        name: Name of the material.
        lattice: "hcp", "fcc", "bcc" or "square".
        G: Shear modulus, Pa. Elasticity is isotropic.
        lambda_e: Volumetric modulus of eq. (A.3), Pa; the bulk modulus is 2 lambda_e.
        density: Density, kg/m^3.
        slip: Families of slip systems.
        source: Where moduli and density come from.
        twin: The family of twins, or none.
        c_over_a: Axial ratio of an hcp lattice; none for the others.
    """

    name: str
    lattice: str
    G: float
    lambda_e: float
    density: float
    slip: tuple[SlipFamily, ...]
    source: str
    twin: TwinFamily | None = None
    c_over_a: float | None = None

    def family(self, name: str) -> SlipFamily | TwinFamily:
        """Return the slip family `name`, or the twins for the name "twin".

        Raises:
            ValueError: There is no such family.
        """
        found: dict[str, SlipFamily | TwinFamily] = {f.name: f for f in self.slip}
        if self.twin is not None:
            found["twin"] = self.twin
        if name not in found:
            raise ValueError(f"The families of {self.name} are {', '.join(found)}, got '{name}'.")
        return found[name]

    def with_tau_0(self, **factors: float) -> "CrystalParameters":
        """Return a copy whose families' `tau_0` are multiplied by `factors`, e.g. ``with_tau_0(basal=2.0)``.

        Raises:
            ValueError: There is no such family, or a factor is not positive.
        """
        for name, factor in factors.items():
            self.family(name)
            if not 0 < factor < math.inf:
                raise ValueError(f"The factor of tau_0 of '{name}' must be positive, got {factor}.")
        slip = tuple(replace(f, tau_0=f.tau_0 * factors.get(f.name, 1.0)) for f in self.slip)
        twin = None if self.twin is None else replace(self.twin, tau_0=self.twin.tau_0 * factors.get("twin", 1.0))
        return replace(self, slip=slip, twin=twin)


def material_names() -> list[str]:
    """Return the names of the materials that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_material(material: str | Path = "magnesium") -> CrystalParameters:
    """Return the parameters of a material.

    Args:
        material: Name of a material of the package (see `material_names`), or path of a TOML file.

    Raises:
        ValueError: There is no such material, or the file is not one of a material; the sentence names the entry.
    """
    path = FOLDER / f"{material}.toml" if str(material) in material_names() else Path(material)
    if not path.is_file():
        names = ", ".join(material_names())
        raise ValueError(f"material must be one of {names}, or the path of a TOML file, got '{material}'.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not a TOML file: {error}.") from None
    return read_material(content, path.name)


def read_material(content: Mapping[str, Any], label: str = "material") -> CrystalParameters:
    """Return the parameters in the parsed `content` of a file; `label` names it in the errors.

    Raises:
        ValueError: An entry is missing, unknown or does not fit; the sentence names it.
    """
    lattice = content.get("lattice")
    if lattice not in LATTICES:
        raise ValueError(f"lattice in {label} must be one of {', '.join(LATTICES)}, got {lattice!r}.")
    families = content.get("slip")
    if not isinstance(families, Mapping) or not families:
        raise ValueError(f"{label} must have at least one slip family, a table [slip.NAME].")
    if "twin" in families:
        raise ValueError(f"A slip family of {label} must not be called 'twin': twins have the table [twin].")
    slip = []
    for name, table in families.items():
        slip.append(SlipFamily(name=name, **_family(table, f"[slip.{name}] in {label}", lattice, SlipFamily)))
    twin = None
    if "twin" in content:
        twin = TwinFamily(**_family(content["twin"], f"[twin] in {label}", lattice, TwinFamily))
    rest = {key: value for key, value in content.items() if key not in ("slip", "twin")}
    if (lattice == "hcp") != ("c_over_a" in rest):
        raise ValueError(f"c_over_a in {label} must be given for the hcp lattice, and for no other.")
    return CrystalParameters(slip=tuple(slip), twin=twin, **_entries(rest, label, CrystalParameters))


#: Numbers that may be zero; all others must be positive.
_MAY_BE_ZERO = {"h", "sigma_inf", "h_latent", "r_0"}


def _family(table: Any, where: str, lattice: str, kind: type) -> dict[str, Any]:
    """Return the checked entries of a family."""
    entries = _entries(table, where, kind)
    for key in ("direction", "plane"):
        entries[key] = _indices(entries[key], f"{key} of {where}", lattice)
    if sum(a * b for a, b in zip(entries["direction"], entries["plane"])) != 0:
        raise ValueError(
            f"direction {list(entries['direction'])} of {where} must lie in its plane {list(entries['plane'])}."
        )
    return entries


def _entries(table: Any, where: str, kind: type) -> dict[str, Any]:
    """Return the entries of a table, checked against the fields of the dataclass `kind`."""
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} must be a table, got {table!r}.")
    found = {f.name: f for f in fields(kind) if f.name not in ("slip", "twin")}
    if kind is SlipFamily:
        del found["name"]
    unknown = sorted(set(table) - set(found))
    if unknown:
        raise ValueError(f"{where} has the unknown entry '{unknown[0]}'; known are {', '.join(found)}.")
    optional = {"h_latent", "r_0", "c_over_a"} if kind is not TwinFamily else set()
    missing = [name for name in found if name not in table and name not in optional]
    if missing:
        raise ValueError(f"{where} must have the entry '{missing[0]}'.")
    result: dict[str, Any] = {}
    for key, value in table.items():
        if key in ("name", "lattice", "source"):
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{key} of {where} must be a text, got {value!r}.")
            result[key] = value
        elif key in ("direction", "plane"):
            result[key] = value
        else:
            result[key] = _number(value, f"{key} of {where}", zero=key in _MAY_BE_ZERO)
    return result


def _number(value: Any, where: str, *, zero: bool) -> float:
    """Return a number that is finite and positive, or zero where that is allowed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where} must be a number, got {value!r}.")
    if not (0 <= value if zero else 0 < value) or not math.isfinite(value):
        raise ValueError(f"{where} must be {'zero or ' if zero else ''}positive and finite, got {value}.")
    return float(value)


def _indices(value: Any, where: str, lattice: str) -> Indices:
    """Return Miller indices that fit the lattice."""
    count = LATTICES[lattice]
    integers = isinstance(value, (list, tuple)) and all(isinstance(k, int) and not isinstance(k, bool) for k in value)
    if not integers or len(value) != count or not any(value):
        raise ValueError(f"{where} must be {count} integers that are not all zero ({lattice} lattice), got {value}.")
    if count == 4 and sum(value[:3]) != 0:
        raise ValueError(f"The first three indices of {where} must sum to zero, got {value}.")
    if lattice == "square" and value[2] != 0:
        raise ValueError(f"{where} must lie in the plane x, y of the square lattice, got {value}.")
    return tuple(value)
