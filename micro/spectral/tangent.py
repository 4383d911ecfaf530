"""Tangent of point laws in a cell: measured by differences, and applied to fields.

Laws do not depend on the frame: P = F S(C) with C = F^T F. So the derivative follows from that of S by the components
of C, which take fewer trials than those of F, and from the stress itself,

    dP = dF S + F dS,    dS = D : dC,    dC = F^T dF + dF^T F.

The differences enter the preconditioner of an iteration alone: their error changes its speed, not its result.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from micro.spectral.grid import Grid
from micro.tensors import cofactor, determinant, matmul

#: Change of a component of C in a trial.
TRIAL = 1e-5


def pairs_of(dimension: int, plane: bool) -> list[tuple[int, int]]:
    """Return the components of C that change with the columns of F that do: all but 33 in two dimensions.

    Where everything happens in the `plane`, they are 11, 22 and 12.
    """
    if plane:
        return [(0, 0), (1, 1), (0, 1)]
    return [(0, 0), (1, 1), (0, 1), (1, 2), (0, 2), *([(2, 2)] if dimension == 3 else [])]


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
    pairs, r = pairs_of(dimension, plane), 2 if plane else 3
    back = cofactor(F) / determinant(F)[..., None, None]  # F^-T
    S = matmul(back.mT, P)
    trials = torch.zeros(len(pairs), 3, 3, dtype=F.dtype, device=F.device)
    for row, (m, n) in enumerate(pairs):
        trials[row, m, n] = trials[row, n, m] = TRIAL
    dF = matmul(back, trials.reshape(len(pairs), *[1] * (F.dim() - 2), 3, 3)) / 2
    dP = respond(F + dF) - P
    dS = matmul(back.mT, dP - matmul(dF, S)) / TRIAL  # (t, a, N..., 3, 3)
    # From here on components come first and points last, so that all products are sums over long rows.
    cells, points = F.shape[0], F[0, ..., 0, 0].numel()
    f = F.reshape(cells, points, 3, 3).permute(2, 3, 0, 1)
    s = S.reshape(cells, points, 3, 3).permute(2, 3, 0, 1)
    d = dS.reshape(len(pairs), cells, points, 3, 3).permute(0, 3, 4, 1, 2)
    A = F.new_zeros((r, dimension, r, dimension, cells, points))
    for k in range(r):
        for L in range(dimension):
            change = torch.zeros_like(s)  # of S, by F_kL
            for row, (m, n) in enumerate(pairs):
                if L == m:
                    change += d[row] * (f[k, n] * (2.0 if m == n else 1.0))
                elif L == n:
                    change += d[row] * f[k, m]
            for i in range(r):
                for J in range(dimension):
                    A[i, J, k, L] = sum(f[i, m] * change[m, J] for m in range(3))
                    if i == k:
                        A[i, J, k, L] += s[L, J]
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
