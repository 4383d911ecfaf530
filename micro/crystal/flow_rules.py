"""Flow rules: the rates of slip and twinning under a given stress, and how they change with it.

The inverse of (A.12) and (A.13),

    y = max(|f| - r, 0) / tau_0,    rate = rate_0 y^(1/m) sign(f),

where f is the driving force and r the resistance. Twins only grow, so theirs has no absolute value.

A crystal consists of domains: the parent and its twins, each a volume fraction. Three rules say how they slip.

- "domains": each domain has its own slip rates under its own resolved stress. Nothing depends on the sign of a slip
  direction. The accumulated slip of a system, which hardens it, is the mean over the domains.
- "common": one rate per system for parent and twins, by the mean of its Schmid tensors, as (A.10) prints it. The
  sign of a slip direction in the twin is then part of the model; see `micro.crystal.systems`.
- "parent": twinned volume slips like the parent: it does not reorient.

References:
    Liu et al. (2022), appendix, doi:10.1016/j.jmps.2021.104668.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from micro.crystal.constants import SLIPPING_FRACTION, TWIN_DETERMINANT, TWIN_PIVOT
from micro.crystal.systems import CrystalSystems

SLIP_RULES = ("domains", "common", "parent")


class Rates(NamedTuple):
    """Rates at a point, for n crystals, a slip systems in d domains, and b twins.

    Attributes:
        force: Driving forces of slip (n, a, d), Pa.
        y: Overstress of slip divided by tau_0 (n, a, d).
        gamma: Magnitudes of the slip rates (n, a, d), 1/s.
        w: Volume fractions of the domains that slip (n, d).
        schmid5: Five components of the Schmid tensors, (a, d, 5) or, where they depend on the crystal, (n, a, 1, 5).
        e: Rates of the accumulated slip (n, a), 1/s.
        twin_y: Overstress of twinning divided by its tau_0 (n, b).
        lam: Rates of the twin fractions (n, b), 1/s.
        full: Whether the rest of the parent bounds the growth of the twins (n,), bool.
        L: L_p + L_t (n, 3, 3), 1/s.
    """

    force: Tensor
    y: Tensor
    gamma: Tensor
    w: Tensor
    schmid5: Tensor
    e: Tensor
    twin_y: Tensor
    lam: Tensor
    full: Tensor
    L: Tensor


@dataclass(frozen=True)
class FlowRules:
    """Rates of a crystal with one of the rules for slip.

    Attributes:
        systems: Constants of the crystal.
        slip: "domains", "common" or "parent".

    Raises:
        ValueError: There is no such rule for slip.
    """

    systems: CrystalSystems
    slip: str = "domains"

    def __post_init__(self) -> None:
        if self.slip not in SLIP_RULES:
            raise ValueError(f"slip must be one of {', '.join(SLIP_RULES)}, got {self.slip!r}.")

    def resistance(self, e: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """Return the resistances to slip (n, a), r_0 + dW_p/de (A.4), and twinning (n, b), dW_t/dlambda (A.5), Pa."""
        s = self.systems
        slip = s.r_0 + s.sigma_inf * -torch.expm1(-s.h / s.sigma_inf * e)
        slip = slip + s.v * ((e * s.v).sum(-1, keepdim=True) - s.v * e)
        twin = 2 * s.twin_k * lam.sum(-1, keepdim=True) + (s.twin_h - 2 * s.twin_k) * lam
        return slip, twin

    def self_hardening(self, e: Tensor) -> Tensor:
        """Return the derivative of each slip resistance with respect to its own slip (n, a), Pa."""
        s = self.systems
        return s.h * torch.exp(-s.h / s.sigma_inf * e)

    def slipping(self, lam: Tensor) -> Tensor:
        """Return which twins slip (n, b), bool: those above a small fraction."""
        return lam > SLIPPING_FRACTION

    def rates(
        self, m: Tensor, e: Tensor, lam: Tensor, *, slipping: Tensor | None = None, bound: Tensor | None = None
    ) -> Rates:
        """Return the rates at a point.

        Args:
            m: Five components of the Mandel stress (n, 5), Pa.
            e: Accumulated slip (n, a).
            lam: Twin fractions (n, b).
            slipping: Which twins slip (n, b), bool; those of `lam` by default.
            bound: Largest sum of the rates of the twins (n,), 1/s. By default a crystal that has twinned completely
                twins no further.
        """
        s = self.systems
        slip_r, twin_r = self.resistance(e, lam)
        each = (m @ s.slip5.reshape(-1, 5).T).reshape(-1, s.n_slip, 1 + s.n_twin)
        parent = (1 - lam.sum(-1, keepdim=True)).clamp(min=0.0)
        mix = None
        if self.slip == "domains":
            slipping = self.slipping(lam) if slipping is None else slipping
            w, schmid5 = torch.cat([parent, torch.where(slipping, lam, 0.0)], -1), s.slip5
        elif self.slip == "common":
            mix, w = torch.cat([parent, lam], -1), torch.ones_like(parent)
            each = (each * mix[:, None]).sum(-1, keepdim=True)
            schmid5 = torch.einsum("nd,adk->nak", mix, s.slip5)[:, :, None]
        else:
            w, each, schmid5 = torch.ones_like(parent), each[:, :, :1], s.slip5[:, :1]
        y = (each.abs() - slip_r[:, :, None]).clamp(min=0.0) / s.tau_0[:, None]
        gamma = s.rate_0[:, None] * y**s.slip_exponent
        twin_y = (m @ s.twin5.T - twin_r).clamp(min=0.0) / s.twin_tau_0
        lam_rate = s.twin_rate_0 * twin_y**s.twin_exponent
        bound = torch.where(parent[:, 0] > 0, torch.inf, 0.0) if bound is None else bound
        full = lam_rate.sum(-1) > bound
        lam_rate = torch.where(full[:, None], lam_rate * (bound / lam_rate.sum(-1))[:, None], lam_rate)
        flow = gamma * torch.sign(each) * (w if mix is None else mix)[:, None]
        schmid = s.slip[:, : flow.shape[-1]].reshape(-1, 9)
        L = (flow.flatten(1) @ schmid + lam_rate @ s.twin).reshape(-1, 3, 3)
        e_rate = (gamma * w[:, None]).sum(-1)
        return Rates(each, y, gamma, w, schmid5, e_rate, twin_y, lam_rate, full, L)

    def dissipation(self, rates: Rates) -> Tensor:
        """Return the dissipation (n,), W/m^3: the work of the overstress, and of r_0, on slip and twinning."""
        s = self.systems
        slip = rates.gamma * (s.tau_0[:, None] * rates.y + s.r_0[:, None]) * rates.w[:, None]
        return slip.sum((-1, -2)) + (s.twin_tau_0 * rates.twin_y * rates.lam).sum(-1)


class Elimination(NamedTuple):
    """The linearised equations of a stage, in which all unknowns but the Mandel stress have been eliminated.

    Attributes:
        matrix: What is left for the Mandel stress (n, 5, 5).
        slip5: Slip of each system per Mandel stress, its hardening disregarded (n, a, 5).
        pivot: 1 / (1 + hardening of each slip system) (n, a).
        hardening: Derivative of the slip resistance times the pivot (n, a), Pa.
        twin: Growth of each twin per its force (n, b), 1/Pa, with its own hardening.
        twin_pivot: 1 / (1 + hardening of each twin by itself) (n, b).
        mutual: How all twins hinder each other, 2k / (1 + 2k sum twin) (n,), Pa.
        resolved: Whether the step is short enough to resolve the competition of the twins (n,), bool: the determinant
            of their equations is positive, and one variant at most grows against its own pivot.
    """

    matrix: Tensor
    slip5: Tensor
    pivot: Tensor
    hardening: Tensor
    twin: Tensor
    twin_pivot: Tensor
    mutual: Tensor
    resolved: Tensor


def eliminate(rules: FlowRules, rates: Rates, e: Tensor, s: Tensor) -> Elimination:
    """Return the linearised equations of a stage whose implicit rates have the weight `s` (n,), s.

    Latent hardening of slip and the change of the volume fractions are left out: they are slow, and stand in the
    residual.
    """
    c = rules.systems
    p, q = c.slip_exponent, c.twin_exponent
    per_force = (s[:, None, None] * p / c.tau_0[:, None]) * c.rate_0[:, None] * rates.y ** (p - 1) * rates.w[:, None]
    signed = per_force * torch.sign(rates.force)
    if rates.schmid5.dim() == 3:
        slip5 = torch.einsum("nad,adk->nak", signed, rates.schmid5)
        flat = rates.schmid5.reshape(-1, 5)
        squares = (flat[:, :, None] * flat[:, None, :]).reshape(-1, 25)
        matrix = (per_force.flatten(1) @ squares).reshape(-1, 5, 5)
    else:
        one = rates.schmid5[:, :, 0]
        slip5 = signed * one
        matrix = (per_force * one).mT @ one
    own = rules.self_hardening(e)
    pivot = 1 / (1 + per_force.sum(-1) * own)
    hardening = own * pivot
    matrix = matrix - (hardening[:, :, None] * slip5).mT @ slip5
    growth = s[:, None] * c.twin_rate_0 * q * rates.twin_y ** (q - 1) / c.twin_tau_0 * ~rates.full[:, None]
    own = 1 + growth * (c.twin_h - 2 * c.twin_k)
    # The pivot of the variant that wins passes through zero, where its share in the sums would not be finite.
    own = torch.copysign(own.abs().clamp(min=TWIN_PIVOT), own)
    twin = growth / own
    sum_pivot = 1 + 2 * c.twin_k * twin.sum(-1)
    mutual = 2 * c.twin_k / sum_pivot
    resolved = (own.prod(-1) * sum_pivot > TWIN_DETERMINANT) & ((own < 0).sum(-1) < 2)
    along = twin @ c.twin5
    matrix = matrix + (twin[:, :, None] * c.twin5).mT @ c.twin5
    matrix = matrix - mutual[:, None, None] * along[:, :, None] * along[:, None]
    matrix = 2 * c.parameters.G * matrix
    matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
    return Elimination(matrix, slip5, pivot, hardening, twin, 1 / own, mutual, resolved)


def solve(
    rules: FlowRules, linear: Elimination, rho_m: Tensor, rho_e: Tensor, rho_lam: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the changes of m (n, 5), e (n, a) and lambda (n, b) that remove the residuals of the linear equations."""
    c = rules.systems
    rest = rho_lam * linear.twin_pivot
    along = linear.twin @ c.twin5
    slip = ((linear.hardening * rho_e)[:, :, None] * linear.slip5).sum(1)
    twin = (linear.mutual * rest.sum(-1))[:, None] * along + (rho_lam - rest) @ c.twin5
    right = -rho_m - 2 * c.parameters.G * (slip + twin)
    dm = torch.linalg.solve_ex(linear.matrix, right)[0]
    de = ((linear.slip5 @ dm[:, :, None])[:, :, 0] - rho_e) * linear.pivot
    total = linear.mutual * ((along * dm).sum(-1) - rest.sum(-1))
    dlam = linear.twin * (dm @ c.twin5.T - total[:, None]) - rest
    return dm, de, dlam
