"""Flow: the change of the internal variables of a generalised standard material over one step of strain.

The change g minimises the incremental potential (Miehe 2002, the convex problem that Eq. (9c) of paper 2 belongs to)

    1/2 g.K g + r.g + sum_i c_i |g_i|,

with r the conjugate forces T = dPsi/dZ at the new strain and old variables, K their stiffness and c thresholds. At
its solution -T = c sign(g) wherever g is not zero, so that the dissipation -T.g = sum_i c_i |g_i| cannot be negative.

There are three algorithms, and `make_flow` chooses the one that suits the stiffness:

- `SeparateFlow`: K is diagonal, and every variable has a closed form.
- `HiddenFlow`: internal variables act on one another through displacements that relax elastically, of which there are
  fewer. Their stiffness is then K = diag(D) - W W' with W (N, h), and for given hidden coordinates y the potential
  separates into single variables,

      1/2 g.K g = min over y of 1/2 g.D g - g.W y + 1/2 |y|^2.

  What remains is convex and piecewise quadratic in y. Newton's method with a line search solves it in a few steps of h
  equations instead of N.
- `CoupledFlow`: any K, by proximal gradient and active set.

All of them have
- `forward(r (n, N), c (n, N)) -> (g (n, N), sign (n, N))`, the minimiser;
- `softening(moves (n, N)) -> (n, d^4)`: G_S K_SS^-1 G_S' of the moving variables S (ones in `moves`), Pa, by which flow
  lowers the tangent dP_dF; `coupling` (N, d d) is G' on the Mandel basis.

References:
    Masi and Stefanou (2022), Eq. (9), doi:10.1016/j.cma.2022.115190;
    Beck and Teboulle (2009), doi:10.1137/080716542 (accelerated proximal gradient);
    Hintermueller, Ito and Kunisch (2002), doi:10.1137/S1052623401383558 (active set as semismooth Newton).
"""

from typing import final

import torch
from torch import Tensor


def single(r: Tensor, c: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    """The minimiser where K = diag(D), in closed form: every variable is a separate play operator.

    Args:
        r: forces (n, N).
        c: thresholds (n, N), positive.
        D: diagonal of K (N,), positive.

    Returns:
        g (n, N), and the sign of g (n, N), 0 where the variable does not change.
    """
    excess = torch.clamp(r.abs() - c, min=0.0)
    sign = torch.where(excess > 0.0, -torch.sign(r), torch.zeros_like(r))
    return sign * excess / D, sign


def coupled(r: Tensor, c: Tensor, K: Tensor, scale: Tensor, pace: float, momentum: float) -> tuple[Tensor, Tensor]:
    """The minimiser for any symmetric positive definite K: proximal gradient, then one solve.

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
    """The minimiser where the stiffness is diag(D) - W W'.

    Args:
        r: forces (n, N).
        c: thresholds (n, N), positive.
        D: (N,).
        W: (N, h).
        products: W_ia W_ib / D_i, (N, h h).

    Returns:
        g (n, N), and its sign (n, N), as those of `coupled`; not a number where 60 iterations were not
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
        y = y + step_length(y, step, r, c, D, W, slope) * step
    return g, sign


def step_length(y: Tensor, step: Tensor, r: Tensor, c: Tensor, D: Tensor, W: Tensor, slope: Tensor) -> Tensor:
    """Length of a Newton step (n, h), (n, 1): one, or to the minimum along the step where a full step overshoots."""
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


def make_flow(K: Tensor, coupling: Tensor, shape: Tensor) -> torch.nn.Module:
    """The module that suits a stiffness.

    Args:
        K: stiffness (N, N), symmetric positive definite, Pa.
        coupling: G' on the Mandel basis (N, d d), Pa.
        shape: displacements that the variables cause (m, N), m = 0 where they are not known.
    """
    D = torch.diagonal(K).clone()
    if bool((K - torch.diag(D)).abs().max() <= 1e-14 * D.max()):
        return SeparateFlow(D, coupling)
    parts = split_stiffness(K, shape)
    return CoupledFlow(K, coupling) if parts is None else HiddenFlow(*parts, coupling)


@final
class SeparateFlow(torch.nn.Module):
    """The flow for a diagonal stiffness; D (N,)."""

    D: Tensor
    softenings: Tensor

    def __init__(self, D: Tensor, coupling: Tensor) -> None:
        super().__init__()
        self.register_buffer("D", D)
        self.register_buffer("softenings", pairs(coupling, coupling) / D[:, None])

    def forward(self, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """See the head of this module."""
        return single(r, c, self.D)

    @torch.jit.export
    def softening(self, moves: Tensor) -> Tensor:
        """See the head of this module."""
        return torch.mm(moves, self.softenings)


@final
class HiddenFlow(torch.nn.Module):
    """The flow for variables coupled by hidden coordinates; D (N,), W (N, h)."""

    D: Tensor
    W: Tensor
    products: Tensor
    softenings: Tensor
    crossed: Tensor

    def __init__(self, D: Tensor, W: Tensor, coupling: Tensor) -> None:
        super().__init__()
        self.register_buffer("D", D)
        self.register_buffer("W", W)
        self.register_buffer("products", pairs(W, W) / D[:, None])
        self.register_buffer("softenings", pairs(coupling, coupling) / D[:, None])
        self.register_buffer("crossed", pairs(W, coupling) / D[:, None])

    def forward(self, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """See the head of this module."""
        return relaxed(r, c, self.D, self.W, self.products)

    @torch.jit.export
    def softening(self, moves: Tensor) -> Tensor:
        """See the head of this module; K_SS^-1 by Sherman, Morrison and Woodbury."""
        h = self.W.shape[1]
        taken = torch.mm(moves, self.softenings)
        rows = torch.nonzero(moves.any(dim=1)).flatten()
        some = moves[rows]
        H = torch.eye(h, dtype=moves.dtype, device=moves.device) - torch.mm(some, self.products).reshape(-1, h, h)
        R = torch.mm(some, self.crossed).reshape(-1, h, self.crossed.shape[1] // h)
        X = torch.cholesky_solve(R, torch.linalg.cholesky_ex(H)[0])
        taken[rows] += torch.bmm(R.transpose(1, 2), X).flatten(1)
        return taken


@final
class CoupledFlow(torch.nn.Module):
    """The flow for any stiffness K (N, N)."""

    K: Tensor
    coupling: Tensor
    scale: Tensor

    def __init__(self, K: Tensor, coupling: Tensor) -> None:
        super().__init__()
        scale = 1.0 / torch.diagonal(K).sqrt()
        values = torch.linalg.eigvalsh(K * scale[:, None] * scale)
        root = float(values[-1] / values[0]) ** 0.5
        self.pace, self.momentum = 1.0 / float(values[-1]), (root - 1.0) / (root + 1.0)
        self.register_buffer("K", K)
        self.register_buffer("coupling", coupling)
        self.register_buffer("scale", scale)

    def forward(self, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """See the head of this module."""
        return coupled(r, c, self.K, self.scale, self.pace, self.momentum)

    @torch.jit.export
    def softening(self, moves: Tensor) -> Tensor:
        """See the head of this module."""
        G = moves[:, :, None] * self.coupling
        X = torch.linalg.solve(moving_stiffness(self.K, moves), G)
        return torch.bmm(G.transpose(1, 2), X).flatten(1)


def pairs(a: Tensor, b: Tensor) -> Tensor:
    """Products of all columns of a (N, p) and b (N, q) row by row, (N, p q)."""
    return (a[:, :, None] * b[:, None, :]).flatten(1)
