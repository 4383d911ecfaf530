"""Tangent of point laws in a cell: measured by differences, and applied to fields.

Laws do not depend on the frame. So the change of the stress with L = dF F^-1 follows from that with the symmetric part
of L, which takes six trials (three in the plane), and from the turn of the stress by the other part,

    dP = T : sym L + skw(L) P,    T_mn = dP for dF = E_mn F.

A trial strains the deformed material by `TRIAL` in every direction. Trials of a given size in the components of
C = F^T F are no small strains where C has a small eigenvalue: at 50 % of mean strain some have 2e-3.

The differences enter the preconditioner of an iteration alone: their error changes its speed, not its result.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from micro.spectral.grid import Grid
from micro.tensors import cofactor, determinant, matmul

#: Strain of a trial.
TRIAL = 1e-5


def pairs_of(plane: bool) -> list[tuple[int, int]]:
    """Return the components of a strain: all, or 11, 22 and 12 where everything happens in the `plane`."""
    return [(0, 0), (1, 1), (0, 1), *([] if plane else [(1, 2), (0, 2), (2, 2)])]


def in_plane(F: Tensor, P: Tensor, dimension: int) -> bool:
    """Return whether deformation gradients and stresses (..., 3, 3) keep the first two axes apart from the third."""
    if dimension == 3:
        return False
    largest = max(
        float(F[..., 2, :2].abs().max()), float(F[..., :2, 2].abs().max()),
        float(P[..., 2, :2].abs().max()) / max(float(P.abs().max()), 1e-300),
    )  # fmt: skip
    return largest < 1e-12


def measure(respond: Callable[[Tensor], Tensor], F: Tensor, P: Tensor, dimension: int, plane: bool) -> Tensor:
    """Return the tangents A (a, c, c, N...) at the points, with c = r d: dP_iJ = A_iJkL dF_kL for J, L < d.

    Args:
        respond: The stress (t, a, N..., 3, 3) of deformation gradients of that shape, with t trials.
        F: Deformation gradients (a, N..., 3, 3).
        P: Their stresses, Pa.
        dimension: Number d of columns of F that change.
        plane: Whether only the rows i, k < 2 count (r = 2, else 3).
    """
    pairs, r = pairs_of(plane), 2 if plane else 3
    trials = torch.zeros(len(pairs), 3, 3, dtype=F.dtype, device=F.device)
    for row, (m, n) in enumerate(pairs):
        trials[row, m, n] += TRIAL / 2
        trials[row, n, m] += TRIAL / 2
    dF = matmul(trials.reshape(len(pairs), *[1] * (F.dim() - 2), 3, 3), F)
    dP = (respond(F + dF) - P) / TRIAL  # (t, a, N..., 3, 3), by L_mn with m = n, by L_mn + L_nm otherwise
    # From here on components come first and points last, so that all products are sums over long rows.
    cells, points = F.shape[0], F[0, ..., 0, 0].numel()
    rows = lambda a: a.reshape(cells, points, 3, 3).permute(2, 3, 0, 1)
    p, back = rows(P), rows(cofactor(F) / determinant(F)[..., None, None])  # F^-T: L_kn = dF_kL back_nL
    by = torch.stack([rows(a) for a in dP])
    place = {pair: row for row, pair in enumerate(pairs)} | {(n, m): row for row, (m, n) in enumerate(pairs)}
    A = F.new_zeros((r, dimension, r, dimension, cells, points))
    for k in range(r):
        change = []  # of P, by L_kn
        for n in range(r):
            part = by[place[k, n]][:r, :dimension].clone()
            if k != n:
                part[k] += p[n, :dimension] / 2
                part[n] -= p[k, :dimension] / 2
            change.append(part)
        for L in range(dimension):
            A[:, :, k, L] = sum(part * back[n, L] for n, part in enumerate(change))
    c = r * dimension
    return A.reshape(c, c, cells, *F.shape[1:-2]).movedim(2, 0).contiguous()


def apply(grid: Grid, A: Tensor, y: Tensor) -> Tensor:
    """Return the change of the imbalance (b, r, K...) with the unknowns `y` (b, r, K...), for tangents `A`."""
    rows = y.shape[1]
    return grid.divergence((A * grid.gradient(y).flatten(1, 2)[:, None]).sum(2).unflatten(1, (rows, -1)))


def mean_inverse(grid: Grid, A: Tensor) -> Tensor:
    """Return the inverse (a, r, r, K...), complex, of the homogeneous medium that has the mean of the tangents `A`."""
    d = grid.dimension
    mean = A.flatten(3).mean(3)
    mean = ((mean + mean.mT) / 2).unflatten(1, (-1, d)).unflatten(3, (-1, d)).to(grid.n.dtype)
    acoustic = torch.einsum("aiJkL,J...,L...->a...ik", mean, grid.n.conj(), grid.n)
    zero = (grid.n.abs().sum(0) == 0)[..., None, None]
    one = torch.eye(acoustic.shape[-1], dtype=acoustic.dtype, device=acoustic.device)
    inverse = torch.linalg.inv_ex(torch.where(zero, one, acoustic))[0].nan_to_num(0.0, 0.0, 0.0)
    return torch.where(zero, 0.0, inverse).movedim((-2, -1), (1, 2)).contiguous()
