"""Hidden coordinates: what relaxes between the internal variables, so that without it every variable flows by itself.

Internal variables act on one another through displacements that relax elastically, of which there are fewer: their
stiffness is K = diag(D) - W W', with W (N, r), and for given hidden coordinates y the potential of
`surrogates.tann.flow`
falls apart into single variables,

    1/2 g.K g = min over y of 1/2 g.D g - g.W y + 1/2 |y|^2.

What is left is convex and piecewise quadratic in y, for which Newton's method with a line search ends in a few steps
of r equations instead of N.
"""

import torch
from torch import Tensor

from surrogates.tann.flow import single


def split_stiffness(K: Tensor, shape: Tensor, *, tolerance: float = 1e-6) -> tuple[Tensor, Tensor] | None:
    """D (N,) and W (N, r) of a stiffness.

    Args:
        K: stiffness (N, N), symmetric positive definite.
        shape: displacements that the variables cause (m, N); their row space is that of W'.
        tolerance: how far K may be from the form, relative to its entries.

    Returns:
        D and W, or None if K is not of the form or there are not fewer hidden coordinates than variables.
    """
    N = len(K)
    scale = 1.0 / torch.diagonal(K).sqrt()
    values, axes = torch.linalg.svd(shape * scale)[1:]
    r = int((values > 1e-7 * values[0]).sum()) if len(values) and float(values[0]) > 0 else 0
    if not 0 < 2 * r <= N:
        return None
    Q = axes[:r].T
    i, j = torch.triu_indices(N, N, offset=1)
    a, b = torch.triu_indices(r, r)
    both = Q[i][:, a] * Q[j][:, b] + torch.where(a == b, 0.0, 1.0) * Q[i][:, b] * Q[j][:, a]
    wanted = -(K * scale[:, None] * scale)[i, j]
    found = torch.linalg.lstsq(both, wanted[:, None]).solution[:, 0]
    if float((both @ found - wanted).abs().max()) > tolerance:
        return None
    S = torch.zeros(r, r, dtype=K.dtype)
    S[a, b] = found
    S[b, a] = found
    values, axes = torch.linalg.eigh(S)
    if float(values[0]) < -tolerance * float(values[-1]):
        return None
    W = (Q @ axes * values.clamp(min=0.0).sqrt()) / scale[:, None]
    return torch.diagonal(K) + (W * W).sum(dim=1), W


def relaxed(r: Tensor, c: Tensor, D: Tensor, W: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """The flow where the stiffness is diag(D) - W W'.

    Args:
        r: forces (n, N).
        c: thresholds (n, N), positive.
        D: (N,).
        W: (N, h).
        products: W_ia W_ib / D_i, (N, h h).

    Returns:
        g (n, N), and its sign (n, N), as `surrogates.tann.flow.coupled`; not a number where 60 iterations were not
        enough.
    """
    g, sign = torch.zeros_like(r), torch.zeros_like(r)
    rows = torch.nonzero((r.abs() > c).any(dim=1)).flatten()
    if rows.numel() == 0:
        return g, sign
    g[rows] = float("nan")
    r, c = r[rows], c[rows]
    h = W.shape[1]
    eye = torch.eye(h, dtype=r.dtype, device=r.device)
    y = torch.zeros([r.shape[0], h], dtype=r.dtype, device=r.device)
    for _ in range(60):
        x, s = single(r - torch.mm(y, W.t()), c, D)
        pull = torch.mm(x, W)
        slope = y - pull
        size = torch.maximum(y.abs().amax(dim=1), pull.abs().amax(dim=1))
        done = slope.abs().amax(dim=1) <= 1e-13 * size
        g[rows[done]] = x[done]
        sign[rows[done]] = s[done]
        rest = torch.nonzero(torch.logical_not(done)).flatten()
        if rest.numel() == 0:
            break
        rows, r, c, y, s, slope = rows[rest], r[rest], c[rest], y[rest], s[rest], slope[rest]
        H = eye - torch.mm(s.abs(), products).reshape(-1, h, h)
        step = -torch.cholesky_solve(slope[:, :, None], torch.linalg.cholesky_ex(H)[0])[:, :, 0]
        y = y + share(y, step, r, c, D, W, slope) * step
    return g, sign


def share(y: Tensor, step: Tensor, r: Tensor, c: Tensor, D: Tensor, W: Tensor, slope: Tensor) -> Tensor:
    """How much of a Newton step (n, h) to take, (n, 1): all, or to the minimum along it where all of it overshoots."""
    t = torch.ones([y.shape[0], 1], dtype=y.dtype, device=y.device)
    first = (slope * step).sum(dim=1)
    last = slope_along(y + step, step, r, c, D, W)
    far = torch.nonzero(last > -0.5 * first).flatten()
    if far.numel() == 0:
        return t
    low = torch.zeros([far.numel(), 1], dtype=y.dtype, device=y.device)
    high = torch.ones_like(low)
    for _ in range(20):
        middle = 0.5 * (low + high)
        at = slope_along(y[far] + middle * step[far], step[far], r[far], c[far], D, W)
        rises = (at > 0.0)[:, None]
        low, high = torch.where(rises, low, middle), torch.where(rises, middle, high)
    t[far] = 0.5 * (low + high)
    return t


def slope_along(y: Tensor, step: Tensor, r: Tensor, c: Tensor, D: Tensor, W: Tensor) -> Tensor:
    """Slope (n,) of the potential at the hidden coordinates y (n, h) along a step (n, h)."""
    x = single(r - torch.mm(y, W.t()), c, D)[0]
    return ((y - torch.mm(x, W)) * step).sum(dim=1)
