"""Flow rules: the slip and twin increments that a given stress drives in an implicit step.

The inverse of (A.12), (A.13) with the hardening of the end of the step (backward Euler),

    y_a = max(|M : S_a| - r_a, 0) / tau_0,    x_a = dt rate_0 y_a^(1/m) sign(M : S_a),

solved for each system alone, so that the stress remains the only unknown of the crystal.

References:
    Liu et al. (2022), appendix, doi:10.1016/j.jmps.2021.104668.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from micro.crystal.systems import CrystalSystems


class Step(NamedTuple):
    """What stays fixed in the Newton iteration of a step, for the crystals that still iterate.

    Attributes:
        A: Isochoric trial A (n, 3, 3).
        w: Volume fractions of parent and twins (n, 7).
        squares: S (x) S of the slip systems' five components, upper triangle (n, 12, 15).
        decay: exp(-h e / sigma_inf) at the start (n, 12).
        slip_r: Hardening of slip at the start (n, 12), Pa.
        twin_r: Hardening of twinning at the start (n, 6), Pa.
        dt: Size of the step (n,), s.
        order: Twins by their driving force at the start (n, 6), the largest first.
    """

    A: Tensor
    w: Tensor
    squares: Tensor
    decay: Tensor
    slip_r: Tensor
    twin_r: Tensor
    dt: Tensor
    order: Tensor

    def rows(self, mask: Tensor) -> "Step":
        """Return the rows of `mask` (n,)."""
        return Step(*(field[mask] for field in self))


def slip_response(systems: CrystalSystems, force: Tensor, y: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the slip increments and their derivatives with respect to the `force`, each (n, 12).

    Each system solves |force| = r(e + x) + tau_0 y, x = dt rate_0 y^(1/m), on its own: a bracketed Newton
    iteration on y from its last value, which converges together with that of the stress.

    Args:
        systems: Constants of the crystal.
        force: Forces M : S on the slip systems (n, 12), Pa.
        y: Last values (n, 12) of y = (rate/rate_0)^m; zeros where there are none.
        step: The step.
    """
    over = (force.abs() - step.slip_r).clamp(min=0.0)
    tau_0, h, sigma_inf, p = systems.tau_0, systems.h, systems.sigma_inf, systems.slip_exponent
    c, k = step.dt[:, None] * systems.rate_0, h / sigma_inf
    # Bounds: no further hardening, and (m = 1/2) hardening that does not saturate.
    high = over / tau_0
    low = torch.zeros_like(high)
    if p == 2:
        low = 2 * over / (tau_0 + (tau_0**2 + 4 * (h * step.decay) * c * over).sqrt())
    y = torch.where((y > low) & (y < high), y, low)
    for _ in range(3):
        x = c * y**p
        hardening = sigma_inf * step.decay * torch.expm1(-k * x)  # negative
        f = over + hardening - tau_0 * y
        slope = tau_0 + k * (sigma_inf * step.decay + hardening) * (p * c) * y ** (p - 1)
        up = f > 0
        low, high = torch.where(up, y, low), torch.where(up, high, y)
        y = y + f / slope
        y = torch.where((y >= low) & (y <= high), y, (low + high) / 2)
    x = c * y**p
    dx_dy = (p * c) * y ** (p - 1)
    slope = tau_0 + h * step.decay * torch.exp(-k * x) * dx_dy
    return y, x * torch.sign(force), dx_dy / slope


def twin_response(systems: CrystalSystems, force: Tensor, step: Step, hold_followers: bool) -> tuple[Tensor, Tensor]:
    """Return the twin increments (n, 6) and their derivatives with respect to the `force` (n, 6, 6).

    The most strongly driven variant (at the start of the step) grows first, and its growth hinders the others
    (k_ij), one after another; the last `hold_followers` allows the first only. Twins only grow, and their sum stays
    at most one.

    Args:
        systems: Constants of the crystal.
        force: Forces M : S on the twin systems (n, 6), Pa.
        step: The step.
        hold_followers: Whether only the most strongly driven variant of each crystal may grow.
    """
    n_twin, p = systems.n_twin, systems.twin_exponent
    over = force - step.twin_r
    c, room = step.dt * systems.twin_rate_0, step.w[:, 0].clamp(min=0.0)
    x, slope = torch.zeros_like(over), over.new_zeros(len(over), n_twin, n_twin)
    rows = torch.arange(len(over), device=over.device)
    taken, dtaken = torch.zeros_like(room), torch.zeros_like(over)
    for rank in range(min(n_twin, 1) if hold_followers else n_twin):
        b = step.order[:, rank]
        y_b = (over[rows, b] - 2 * systems.twin_k * taken).clamp(min=0.0) / systems.twin_tau_0
        if not bool((y_b > 0).any()):
            continue
        x_b = c * y_b**p
        dx_b = -2 * systems.twin_k * dtaken
        dx_b[rows, b] += 1.0
        dx_b = dx_b * (c * p * y_b ** (p - 1) / systems.twin_tau_0)[:, None]
        full = x_b > room - taken
        x_b, dx_b = torch.where(full, room - taken, x_b), torch.where(full[:, None], -dtaken, dx_b)
        x[rows, b], slope[rows, b] = x_b, dx_b
        taken, dtaken = taken + x_b, dtaken + dx_b
    return x, slope
