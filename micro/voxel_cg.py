"""Preconditioned conjugate gradients of a batch of cells, stopped by the energy that is left to gain.

Each step lowers the energy of a load by delta = alpha r.z exactly, so the sum of the steps to come is the error of that
load's upper bound. It is extrapolated from the latest steps; `micro.voxel_bound` turns an estimate into a bound.

References:
    Strakos and Tichy (2002), On error estimation in the conjugate gradient method and why it works in finite precision
    computations, Electron. Trans. Numer. Anal. 13, 56-80: the gain of a step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: Steps whose convergence the extrapolation looks at.
WINDOW = 3
#: Gains below this part of the goal are rounding.
FLOOR = 1e-12


@dataclass(frozen=True)
class Solution:
    """State of the iteration at its end.

    Attributes:
        u: Displacements (cells, loads, 3, X, Y, Z).
        residual: -f - K u, of the same shape.
        left: Estimated energy still to gain (cells, loads).
        gained: Energy gained (cells, loads).
        iterations: Steps taken (cells,), int.
        converged: Whether `left` came below what was asked (cells,), bool.
    """

    u: Tensor
    residual: Tensor
    left: Tensor
    gained: Tensor
    iterations: Tensor
    converged: Tensor


def wide(scalar: Tensor) -> Tensor:
    """Return one number a cell and load (cells, loads) so that it multiplies fields."""
    return scalar[..., None, None, None, None]


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the products of the fields of each cell and load (cells, loads)."""
    return torch.linalg.vecdot(a.flatten(2), b.flatten(2))


def extrapolate(gains: list[Tensor]) -> Tensor:
    """Return about the sum of the gains to come (cells, loads): a geometric series of the slowest recent ratio."""
    last = gains[-1]
    if len(gains) < 2:
        return torch.full_like(last, torch.inf)
    recent = gains[-WINDOW - 1 :]
    ratios = torch.stack([torch.where(a > 0, b / a, 0.0) for a, b in zip(recent, recent[1:])])
    ratio = ratios.amax(0).clamp(0.1, 0.98)
    return torch.stack(recent[-2:]).amax(0) * ratio / (1 - ratio)


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    u: Tensor,
    residual: Tensor,
    goal: Callable[[Tensor], Tensor],
    iterations: Tensor,
) -> Solution:
    """Lower the energies of all loads until what is left to gain is below a goal.

    The cells do not see each other: one that has converged stays as it is while others go on.

    Args:
        apply: The stiffness, semi-definite; the residual must lie in its range.
        precondition: A positive definite approximation of its inverse.
        u: Displacements to begin with (cells, loads, 3, X, Y, Z).
        residual: Forces out of balance at `u`.
        goal: Energy that may be left (cells, loads), by what was gained so far (cells, loads).
        iterations: Most steps of each cell (cells,).
    """
    u, r = u.clone(), residual.clone()
    z = precondition(r)
    p, rz = z.clone(), dot(r, z)
    steps = torch.zeros(len(u), dtype=torch.long, device=u.device)
    left = torch.full_like(rz, torch.inf)
    # Below this a gain is rounding; it also ends cells without any load, homogeneous ones for instance.
    gained = torch.zeros_like(rz)
    floor = FLOOR * goal(gained)
    resting = ~(rz > floor).any(1)
    left[resting] = 0.0
    active = ~resting & (steps < iterations)
    gains: list[Tensor] = []
    done = resting
    while active.any():
        q = apply(p)
        pq = dot(p, q)
        alpha = torch.where((pq > 0) & active[:, None], rz / pq, 0.0)
        u.addcmul_(wide(alpha), p)
        r.addcmul_(wide(-alpha), q)
        gains.append(alpha * rz)
        gained += gains[-1]
        steps += active
        left = torch.where(active[:, None], extrapolate(gains), left)
        done = done | (active & ((left <= goal(gained)) | (gains[-1] <= floor)).all(1))
        active = active & ~done & (steps < iterations)
        if not active.any():
            break
        z = precondition(r)
        rz_new = dot(r, z)
        beta = torch.where((rz > 0) & active[:, None], rz_new / rz, 0.0)
        p.mul_(wide(beta)).add_(z)
        rz = rz_new
    return Solution(u, r, left, gained, steps, done)
