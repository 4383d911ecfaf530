"""Flow: the change of the internal variables of a generalised standard material over one step of strain.

The change g minimises the incremental potential (Miehe 2002, the convex problem that Eq. (9c) of paper 2 belongs to)

    1/2 g.K g + r.g + sum_i c_i |g_i|,

with r the conjugate forces T = dPsi/dZ at the new strain and old variables, K their stiffness and c thresholds. At
its solution -T = c sign(g) wherever g is not zero, so that the dissipation -T.g = sum_i c_i |g_i| cannot be negative.

References:
    Masi and Stefanou (2022), Eq. (9), doi:10.1016/j.cma.2022.115190;
    Beck and Teboulle (2009), doi:10.1137/080716542 (accelerated proximal gradient);
    Hintermueller, Ito and Kunisch (2002), doi:10.1137/S1052623401383558 (active set as semismooth Newton).
"""

import torch
from torch import Tensor


def single(r: Tensor, c: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """The minimiser where K = diag(D), in closed form: every variable is a play of its own.

    Args:
        r: forces (n, N).
        c: thresholds (n, N), positive.
        D: diagonal of K (N,), positive.

    Returns:
        g (n, N), and the sign of g (n, N), 0 where the variable rests.
    """
    excess = torch.clamp(r.abs() - c, min=0.0)
    sign = torch.where(excess > 0.0, -torch.sign(r), torch.zeros_like(r))
    return sign * excess / D, sign


def coupled(r: Tensor, c: Tensor, K: Tensor, scale: Tensor, pace: float, momentum: float) -> tuple[Tensor, Tensor]:
    """The minimiser for any symmetric positive definite K: proximal gradient finds who moves, one solve finds how far.

    Args:
        r: forces (n, N).
        c: thresholds (n, N), positive.
        K: stiffness (N, N), Pa.
        scale: 1 / sqrt(diagonal of K) (N,).
        pace: 1 / largest eigenvalue of the scaled K.
        momentum: (sqrt(q) - 1) / (sqrt(q) + 1), q the condition number of the scaled K.

    Returns:
        g (n, N), and the sign of g (n, N); not a number where 60 rounds did not find the moving set.
    """
    g, sign = torch.zeros_like(r), torch.zeros_like(r)
    rows = torch.nonzero((r.abs() > c).any(dim=1)).flatten()  # elsewhere g = 0 solves the problem
    if rows.numel() == 0:
        return g, sign
    g[rows] = float("nan")
    K_s = K * scale[:, None] * scale
    r_s, c_s = r[rows] * scale, c[rows] * scale
    x = torch.zeros_like(r_s)
    x_old = x
    for _ in range(60):
        for _ in range(12):
            y = x + momentum * (x - x_old)
            z = y - pace * (torch.mm(y, K_s) + r_s)
            x_old = x
            x = torch.sign(z) * torch.clamp(z.abs() - pace * c_s, min=0.0)
        s = torch.sign(x)
        x_set = moved(r_s, c_s, K_s, s)
        force = (torch.mm(x_set, K_s) + r_s) / c_s
        fits = torch.where(s == 0.0, force.abs() <= 1.0 + 1e-12, x_set * s >= 0.0).all(dim=1)
        g[rows[fits]] = x_set[fits] * scale
        sign[rows[fits]] = s[fits]
        rest = torch.nonzero(torch.logical_not(fits)).flatten()
        if rest.numel() == 0:
            break
        rows, r_s, c_s, x, x_old = rows[rest], r_s[rest], c_s[rest], x[rest], x_old[rest]
    return g, sign


def moved(r: Tensor, c: Tensor, K: Tensor, sign: Tensor) -> Tensor:
    """g (n, N) where the moving set and its signs (n, N) are known; differentiable in r, c and K."""
    moves = sign.abs()
    matrix = moving_stiffness(K, moves)
    return torch.linalg.solve(matrix, (-(r + c * sign) * moves)[:, :, None])[:, :, 0]


def moving_stiffness(K: Tensor, moves: Tensor) -> Tensor:
    """K (N, N) of the moving variables (n, N) of each point, the identity for the resting ones: (n, N, N)."""
    return moves[:, :, None] * K * moves[:, None, :] + torch.diag_embed(1.0 - moves)
