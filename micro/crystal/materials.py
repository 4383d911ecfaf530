"""Parameters of the single-crystal law of magnesium, each with its source.

References:
    Liu et al. (2022), table A.1, doi:10.1016/j.jmps.2021.104668.
"""

from dataclasses import dataclass, field, replace

_PAPER = "Liu et al. (2022), table A.1"
_ASSUMED = "assumption: missing in table A.1; chosen near the critical resolved shear stress of magnesium"


@dataclass(frozen=True)
class Family:
    """Parameters of one family of slip or twin systems.

    Attributes:
        tau_0: Viscous resistance at the reference rate, Pa, the factor of (rate/rate_0)^m in eqs. (A.6), (A.7).
            For the twin family it is conjugate to the volume fraction, about twin shear times a shear stress.
        rate_0: Reference rate, 1/s.
        m: Rate exponent, > 0 (0.5: the stress grows with the square root of the rate).
        h: Self-hardening modulus, Pa.
        sigma_inf: Saturation of the self-hardening, Pa (slip only; 0 for twins).
        h_latent: Latent hardening modulus h_ij (slip) or k_ij (twins), Pa, off the diagonal only.
        source: Where the numbers come from.
    """

    tau_0: float
    rate_0: float
    m: float
    h: float
    sigma_inf: float
    h_latent: float
    source: str


@dataclass(frozen=True)
class CrystalParameters:
    """Parameters of the hcp single-crystal law.

    Attributes:
        basal, prismatic, pyramidal, twin: Families of systems.
        twin_shear: Shear of a fully twinned crystal, dimensionless.
        c_over_a: Axial ratio of the lattice.
        G: Shear modulus, Pa.
        lambda_e: Volumetric modulus of eq. (A.3), Pa; the bulk modulus is 2 lambda_e.
        density: kg/m^3, the paper's (5.8 times the density of magnesium).
    """

    basal: Family = Family(10e6, 1e5, 0.5, 7.1e9, 0.7e6, 0.0, f"{_PAPER}; tau_0 {_ASSUMED}")
    prismatic: Family = Family(55e6, 1e5, 0.5, 40e9, 170e6, 20e6, f"{_PAPER}; tau_0 {_ASSUMED}")
    pyramidal: Family = Family(50.5e6, 1e5, 0.5, 30e9, 200e6, 25e6, _PAPER)
    twin: Family = field(default=Family(5e6, 1e5, 0.5, 7e6, 0.0, 40e9, f"{_PAPER}; tau_0 {_ASSUMED}"))
    twin_shear: float = 0.129
    c_over_a: float = 1.624
    G: float = 25e9
    lambda_e: float = 24e9
    density: float = 1.0e4

    def with_tau_0(self, **factors: float) -> "CrystalParameters":
        """Return a copy whose families' `tau_0` are multiplied by `factors`, e.g. ``with_tau_0(basal=2.0)``."""
        scaled = {
            name: replace(getattr(self, name), tau_0=getattr(self, name).tau_0 * f) for name, f in factors.items()
        }
        return replace(self, **scaled)
