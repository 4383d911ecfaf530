"""Preconditioned conjugate gradients of a batch of cells, stopped by the energy that is left to gain.

Each step lowers the energy of a load by delta = alpha r.z exactly, so the sum of the steps to come is the error of that
load's upper bound. It is extrapolated from the latest steps; `micro.voxel.bounds.lower_bound` turns an estimate into
a bound.

References:
    Strakos and Tichy (2002), On error estimation in the conjugate gradient method and why it works in finite precision
    computations, Electron. Trans. Numer. Anal. 13, 56-80: the gain of a step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: Steps whose convergence the extrapolation looks at: this part of them, and no fewer than these. The convergence of
#: thin frames comes in stairs, and the longer these are the more steps there have been.
PART, WINDOW = 3, 3
#: What is extrapolated is multiplied by this: without it loads end too early now and then, by up to a factor of two.
SAFETY = 2.0
#: Gains below this part of the goal are rounding.
FLOOR = 1e-12


@dataclass(frozen=True)
class Solution:
    """State of the iteration at its end.

    Attributes:
        u: Displacements (loads, 3, cells, nodes).
        residual: -f - K u, of the same shape.
        left: Estimated energy still to gain (loads, cells).
        gained: Energy gained (loads, cells).
        iterations: Steps taken (loads, cells), int.
        converged: Whether `left` came below what was asked (loads, cells), bool.
    """

    u: Tensor
    residual: Tensor
    left: Tensor
    gained: Tensor
    iterations: Tensor
    converged: Tensor


def wide(scalar: Tensor) -> Tensor:
    """Return one number a load and cell (loads, cells) so that it multiplies fields (loads, 3, cells, nodes)."""
    return scalar[:, None, :, None]


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the products of the fields (loads, 3, cells, nodes) of each load and cell (loads, cells)."""
    return torch.linalg.vecdot(a, b).sum(1)


def extrapolate(gains: list[Tensor]) -> Tensor:
    """Return about the sum of the gains to come (loads, cells): a geometric series of the slowest recent ratio."""
    last = gains[-1]
    if len(gains) < 2:
        return torch.full_like(last, torch.inf)
    recent = gains[-max(WINDOW, len(gains) // PART) - 1 :]
    ratios = torch.stack([torch.where(a > 0, b / a, 0.0) for a, b in zip(recent, recent[1:])])
    ratio = ratios.amax(0).clamp(0.1, 0.98)
    return SAFETY * torch.stack(recent[-2:]).amax(0) * ratio / (1 - ratio)


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    residual: Tensor,
    goal: Callable[[Tensor], Tensor],
    iterations: Tensor,
    share: Tensor | None = None,
) -> Solution:
    """Lower the energies of all loads, from u = 0, until what is left to gain is below a goal.

    Loads and cells do not see each other: what has converged stays as it is while others go on.

    Args:
        apply: The stiffness, semi-definite; the residual must lie in its range.
        precondition: A positive definite approximation of its inverse.
        residual: Forces out of balance (loads, 3, cells, nodes); they are overwritten.
        goal: Energy that may be left (loads, cells), by what was gained so far (loads, cells).
        iterations: Most steps of each load and cell (loads, cells).
        share: If given, `apply` is the stiffness without this multiple of the inverse of `precondition` (cells,).
    """
    u, r = torch.zeros_like(residual), residual
    p = precondition(r)
    rz = dot(r, p)
    known = None if share is None else share[:, None] * r  # what `apply` leaves out of the product with p
    steps = torch.zeros_like(rz, dtype=torch.long)
    left = torch.full_like(rz, torch.inf)
    # Below this a gain is rounding; it also ends cells without any load, homogeneous ones for instance.
    gained = torch.zeros_like(rz)
    floor = FLOOR * goal(gained)
    done = ~(rz > floor)
    left[done] = 0.0
    active = ~done & (steps < iterations)
    gains: list[Tensor] = []
    while active.any():
        q = apply(p) if known is None else apply(p).add_(known)
        pq = dot(p, q)
        alpha = torch.where((pq > 0) & active, rz / pq, 0.0)
        u.addcmul_(wide(alpha), p)
        r.addcmul_(wide(-alpha), q)
        gains.append(alpha * rz)
        gained += gains[-1]
        steps += active
        left = torch.where(active, extrapolate(gains), left)
        done = done | (active & ((left <= goal(gained)) | (gains[-1] <= floor)))
        active = active & ~done & (steps < iterations)
        if not active.any():
            break
        z = precondition(r)
        rz_new = dot(r, z)
        beta = torch.where((rz > 0) & active, rz_new / rz, 0.0)
        torch.addcmul(z, wide(beta), p, out=p)
        if share is not None and known is not None:
            known.mul_(wide(beta)).addcmul_(share[:, None], r)
        rz = rz_new
    return Solution(u, r, left, gained, steps, done)
